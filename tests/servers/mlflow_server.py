"""A tracking server of MLflow on a free port of loopback, with registered models: prints one line of JSON, and ends with
its standard input.

    python mlflow_server.py FOLDER

Models of scikit-learn are logged as ONNX, once with a signature of columns and once of a tensor; what scikit-learn itself
predicts is written beside them. The line says where: the server's URL, the folders, rows and predictions.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"

import mlflow
import mlflow.onnx
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

answer, sys.stdout = sys.stdout, sys.stderr  # MLflow prints, too
folder = Path(sys.argv[1]).resolve()
folder.mkdir(parents=True, exist_ok=True)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
url = f"http://127.0.0.1:{port}"
server = subprocess.Popen(
    [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
     "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")],
    stdout=open(folder / "server.log", "w"), stderr=subprocess.STDOUT, start_new_session=True)


def stop(*_):
    try:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=10)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGKILL)


def ready():
    for _ in range(600):
        if server.poll() is not None:
            sys.exit((folder / "server.log").read_text())
        try:
            return urllib.request.urlopen(f"{url}/health", timeout=5).read()
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start")


try:
    ready()
    mlflow.set_tracking_uri(url)
    client = mlflow.MlflowClient()
    data = load_diabetes(as_frame=True).data
    target = load_diabetes().target
    rows = data.head(50)
    result = {"url": url, "columns": list(data.columns), "rows": rows.to_numpy().tolist(), "versions": [], "folders": []}
    estimators = [GradientBoostingRegressor(random_state=0, n_estimators=20), RandomForestRegressor(20, random_state=1)]
    for i, estimator in enumerate(estimators):
        floats = data.to_numpy(np.float32)
        estimator.fit(floats, target)
        onnx = to_onnx(estimator, floats[:1])
        signature = infer_signature(data.head() if i == 0 else floats[:5], estimator.predict(floats[:5]))
        with mlflow.start_run():
            info = mlflow.onnx.log_model(onnx, name="model", signature=signature, registered_model_name="progression")
        local = folder / f"local{i}"
        mlflow.onnx.save_model(onnx, str(local), signature=signature)
        result["folders"].append(str(local))
        result["versions"].append(estimator.predict(rows.to_numpy(np.float32)).tolist())
    client.set_registered_model_alias("progression", "champion", 1)
    # One whose files the server does not hold.
    client.create_registered_model("elsewhere")
    client.create_model_version("elsewhere", source="s3://models/logged/model")
    client.set_registered_model_alias("progression", "challenger", 2)
    print(json.dumps(result), file=answer, flush=True)
    sys.stdin.read()
finally:
    stop()
