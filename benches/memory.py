#!/usr/bin/env python3
"""How much memory does a prediction cost, beyond the same scan and write without it?

Usage: memory.py BINARY BENCH_FOLDER     (BENCH_FOLDER holds what tests/models/make_bench.py writes)

Prints the peak resident memory of whole processes, in MB: 20 million rows from Parquet to Parquet, and 20,000 with a
model of 101 MB, each with 1 and with 8 partitions, with and without the model.
"""

import os
import resource
import subprocess
import sys
import tempfile
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


if __name__ == "__main__":
    main()
