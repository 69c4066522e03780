"""An S3 server on a free port of loopback, with a bucket `models` and a model in it: prints the port, and ends with its standard input.

moto looks for an object before it creates it, in threads: a lock around each request makes `If-None-Match: *` what it is
on S3, where of two writers one wins.
"""

import sys
import threading
from pathlib import Path

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

lock = threading.Lock()
moto = DomainDispatcherApplication(create_backend_app)


def application(environ, start_response):
    with lock:
        return [b"".join(moto(environ, start_response))]


server = make_server("127.0.0.1", 0, application, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.server_port}", region_name="us-east-1",
                      aws_access_key_id="key", aws_secret_access_key="secret")
client.create_bucket(Bucket="models")
model = Path(__file__).parent.parent / "models" / "types" / "scalar_double.onnx"
client.upload_file(str(model), "models", "logged/model/model.onnx")
print(server.server_port, flush=True)
sys.stdin.read()
