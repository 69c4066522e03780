#!/usr/bin/env python3
"""How much memory does a prediction cost, beyond the same scan and write without it?

Usage: memory.py BINARY BENCH_FOLDER     (BENCH_FOLDER holds what tests/models/make_bench.py writes)

Prints the peak resident memory of whole processes, in MB: 20 million rows from Parquet to Parquet, and 20,000 with a
model of 101 MB, each with 1 and with 8 partitions, with and without the model.

Where BENCH_FOLDER/large has the model of tests/models/make_large.py (575 MB, in one file and with its weights beside it), it
also prints what CREATE MODEL costs: the time without and with trial runs, beside the time in which Python's onnxruntime loads the
file and that of hashing it; the peak of memory, and what is left of it; and the same for a second name of the same file.
"""

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FEATURES = [f"f{i}" for i in range(28)]
COPIES = 20


def peak(binary, statements):
    """Peak memory in MB of one run of the shell, as the system accounts for it."""
    command = [binary, "--quiet", *(part for statement in statements for part in ("-c", statement))]
    child = os.fork()
    if child == 0:
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        Path(sys.argv[2], "peak").write_text(str(used))
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("the shell failed")
    return int(Path(sys.argv[2], "peak").read_text()) / 1024


def job(model, data, out, partitions):
    score = f"predict('m', {', '.join(FEATURES)})" if model else " + ".join(FEATURES)
    yield f"SET datafusion.execution.target_partitions = {partitions}"
    yield f"CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{data}'"
    if model:
        options = "OPTIONS (output 'probabilities', class '1')" if "trees" in model.name else ""
        yield f"CREATE MODEL m FROM '{model}' {options}"
    yield f"COPY (SELECT id, {score} AS score FROM t) TO '{out}' STORED AS PARQUET"


def resident(process):
    """Resident memory now and at its peak, in MB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return [int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM")]


def create(binary, statements):
    """Seconds of the last of the statements, and the memory after it and at the peak; the process is ended then."""
    endless = "SELECT count(*) FROM generate_series(1, 1000000000000)"
    command = [binary, "--format", "csv", *(part for sql in [*statements, endless] for part in ("-c", sql))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        rows, start = 0, time.monotonic()
        for line in process.stdout:
            if line.startswith("m"):  # the answer of a CREATE MODEL
                rows, taken, start = rows + 1, time.monotonic() - start, time.monotonic()
            if rows == len(statements):
                break
        time.sleep(0.5)  # what is not needed goes back
        now, most = resident(process)
        process.kill()
    return taken, now, most


def python_load(model):
    """Seconds in which Python's onnxruntime makes a session, in a process of its own."""
    code = "import sys,time,onnxruntime as o; t=time.time(); o.InferenceSession(sys.argv[1]); print(time.time()-t)"
    return float(subprocess.run([sys.executable, "-c", code, model], capture_output=True, check=True).stdout)


def hash_time(files):
    start = time.monotonic()
    for file in files:
        with open(file, "rb") as content:
            hashlib.file_digest(content, "sha256")
    return time.monotonic() - start


def large(binary, folder):
    print("| model | Python's load, s | hash, s | CREATE without trial, s | CREATE, s | after, MB | peak, MB | of the weights |")
    print("|---|---|---|---|---|---|---|---|")
    for model in (folder / "vgg19.onnx", folder / "external" / "vgg19.onnx"):
        files = [model] if model.parent == folder else [model, model.parent / "weights.bin"]
        size = sum(file.stat().st_size for file in files) / 1e6
        sql = f"CREATE MODEL m1 FROM '{model}'"
        python, digest = min(python_load(model) for _ in range(3)), min(hash_time(files) for _ in range(3))
        untried = min(create(binary, [f"{sql} OPTIONS (validate false)"])[0] for _ in range(3))
        taken, now, most = min(create(binary, [sql]) for _ in range(3))
        name = f"{model.parent.name}/{model.name}, {size:.0f} MB"
        print(f"| {name} | {python:.2f} | {digest:.2f} | {untried:.2f} | {taken:.2f} | {now:.0f} | {most:.0f} | {most * 1.048576 / size:.2f} |")
        taken, now, most = create(binary, [sql, f"CREATE MODEL m2 FROM '{model}'"])
        print(f"| a second name for it | | | | {taken:.2f} | {now:.0f} | {most:.0f} | {most * 1.048576 / size:.2f} |", flush=True)


def main():
    binary, bench = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=bench) as folder:
        many, few, out = Path(folder, "many"), Path(folder, "few.parquet"), Path(folder, "out.parquet")
        many.mkdir()
        for i in range(COPIES):
            os.link(bench / "data.parquet", many / f"{i}.parquet")
        peak(binary, [f"COPY (SELECT * FROM '{bench / 'data.parquet'}' LIMIT 20000) TO '{few}'"])
        print("| job | partitions | without, MB | with, MB | difference, MB |")
        print("|---|---|---|---|---|")
        for name, model, data in (
            ("20 million rows, dense network", "mlp.onnx", f"{many}/"),
            ("20 million rows, trees", "trees.onnx", f"{many}/"),
            ("20,000 rows, a model of 101 MB", "mlp100mb.onnx", few),
        ):
            for partitions in (1, 8):
                without = peak(binary, job(None, data, out, partitions))
                used = peak(binary, job(bench / model, data, out, partitions))
                print(f"| {name} | {partitions} | {without:.0f} | {used:.0f} | {used - without:.0f} |", flush=True)
    if (bench / "large").is_dir():
        large(binary, bench / "large")


if __name__ == "__main__":
    main()
