"""Scrapes the shell with a real Prometheus, and asks for all that the dashboard and the alerts ask for.

    watching.py SHELL

`prometheus` and `promtool` (Debian's package `prometheus`) are found by PATH. Each expression of deploy/ must return data,
`promtool` must take the metrics, the rules and their tests, and each line of the log in ECS must be of the right types.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def fetch(url, **query):
    url = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def until(what, check, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = check()
            if found:
                return found
        except OSError:
            pass
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def run(*command, **options):
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran


# Fields of the Elastic Common Schema 8.11 by their types.
ECS = {
    "@timestamp": re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"), "log.level": str, "message": str,
    "ecs.version": re.compile(r"^8\.11\.\d+$"), "service.name": str, "service.version": str, "service.node.name": str,
    "host.hostname": str, "process.pid": int, "log.logger": str, "labels": dict,
}


def check_ecs(text):
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any("has ended" in line["message"] for line in lines), text
    assert any({"job", "run"} <= set(line["labels"]) for line in lines), text
    for line in lines:
        assert set(line) == set(ECS), line
        for field, kind in ECS.items():
            value = line[field]
            good = kind.match(value) if isinstance(kind, re.Pattern) else type(value) is kind
            assert good, f"{field}: {value!r}"
        assert all(type(value) is str for value in line["labels"].values()), line
    return len(lines)


def expressions():
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = re.findall(r"^ +expr: (?!>)(.+)$", (DEPLOY / "prometheus" / "rules.yml").read_text(), re.M)
    # An alert that is not firing returns nothing: what it compares must be there.
    compared = [re.split(r" (?:==|>|<) ", rule)[0] for rule in rules]
    return shown + compared


def main(shell):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        catalog = ["--catalog", str(folder / "catalog")]
        sql = f"""
            CREATE MODEL linear FROM 'tests/models/queries/linear.onnx';
            CREATE MODEL strict FROM 'tests/models/queries/linear.onnx' OPTIONS (on_null 'error');
            COPY (SELECT value AS id, CASE WHEN value % 100 = 0 THEN NULL ELSE value * 0.5 END AS a, 1.0 AS b
                  FROM generate_series(1, 1000) AS g(value)) TO '{folder}/in/a.parquet';
            CREATE JOB nightly AS COPY (SELECT id, predict('strict', t.a, t.b) AS p FROM '{folder}/in/' t)
            TO '{folder}/out' OPTIONS (on_row_error set_aside);
        """
        run(shell, *catalog, "-q", "-c", sql, cwd=ROOT)
        ran = subprocess.run([shell, *catalog, "run", "nightly", "--log-format", "ecs"], capture_output=True, text=True, timeout=120)
        assert ran.returncode == 3, ran
        print(check_ecs(ran.stderr), "lines in ECS")

        port, own = free_port(), free_port()
        # A shell that scores while it is scraped; the jobs are the catalog's.
        script = "SELECT count(predict('linear', value * 1.0, 2.0)) FROM generate_series(1, 1000000) AS g(value);" * 200
        watched = subprocess.Popen([shell, *catalog, "-q", "--metrics", f"127.0.0.1:{port}", "-c", script],
                                   stdout=subprocess.DEVNULL, cwd=ROOT)
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:9464", f"127.0.0.1:{port}").replace("30s", "1s")
        config = config.replace("rules.yml", str(DEPLOY / "prometheus" / "rules.yml"))
        (folder / "prometheus.yml").write_text(config)
        server = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"], start_new_session=True)
        try:
            text = until("metrics", lambda: fetch(f"http://127.0.0.1:{port}/metrics"))
            run("promtool", "check", "metrics", input=text)
            run("promtool", "check", "rules", str(DEPLOY / "prometheus" / "rules.yml"))
            run("promtool", "test", "rules", str(DEPLOY / "prometheus" / "rules_test.yml"))
            query = f"http://127.0.0.1:{own}/api/v1/query"
            for expression in expressions():
                def ask():
                    answer = json.loads(fetch(query, query=expression))
                    assert answer["status"] == "success", answer
                    return answer["data"]["result"]
                result = until(expression, ask)
                print(f"{len(result)} series, such as {result[0]['value'][1]}: {expression}")
            failing = json.loads(fetch(query, query='ALERTS{alertname="JobErrorShare"}'))
            print(len(failing["data"]["result"]), "alerts on the share of errors")
        finally:
            watched.kill()
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
            watched.wait(timeout=30)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
