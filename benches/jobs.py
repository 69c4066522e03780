#!/usr/bin/env python3
"""What does a job cost, beyond the plain COPY of the same query?

Usage: jobs.py BINARY BENCH_FOLDER     (BENCH_FOLDER holds what tests/models/make_bench.py writes)

Prints, as whole processes: the time and the peak memory of COPY and of RUN JOB over the same lake, in turn, where the query takes
at least 20 s; the cost of a split, from a job of small files beside the COPY of the same; how long a run takes to plan
10,000 files of which none is new; and how long it takes to find one new file among them.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
FEATURES = ", ".join(f"f{i}" for i in range(28))


def run(binary, *arguments):
    """Time in s and peak memory in MB of one run of the shell."""
    reader, writer = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = subprocess.run([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        os.write(writer, str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss).encode())
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"the shell failed: {arguments}")
    took = time.monotonic() - start
    peak = int(os.read(reader, 100)) / 1024
    os.close(reader)
    os.close(writer)
    return took, peak


def median(values):
    return sorted(values)[len(values) // 2]


def compare(binary, folder, name, model, query):
    """Medians of COPY and of RUN JOB … FULL, and the number of splits."""
    catalog = folder / f"catalog-{name}"
    sql = ["--catalog", str(catalog), "-q", "-c"]
    run(binary, *sql, f"CREATE MODEL m FROM '{model}'")
    run(binary, *sql, f"CREATE JOB j AS COPY ({query}) TO '{folder}/job-{name}/' STORED AS PARQUET")
    copies, jobs = [], []
    for _ in range(ROUNDS):
        shutil.rmtree(folder / f"copy-{name}", ignore_errors=True)
        copies.append(run(binary, *sql, f"COPY ({query}) TO '{folder}/copy-{name}/' STORED AS PARQUET"))
        jobs.append(run(binary, "run", "j", "--full", "-q", "--catalog", str(catalog)))
    out = subprocess.run([binary, *sql, "SELECT max(splits) FROM predict.job_runs", "--format", "csv"],
                         capture_output=True, text=True, check=True).stdout
    splits = int(out.split()[-1])
    times = [median([time for time, _ in runs]) for runs in (copies, jobs)]
    memory = [median([peak for _, peak in runs]) for runs in (copies, jobs)]
    print(f"{name}: COPY {times[0]:.2f} s, {memory[0]:.0f} MB; RUN JOB {times[1]:.2f} s, {memory[1]:.0f} MB; "
          f"ratio {times[1] / times[0]:.3f}, {splits} splits, {(times[1] - times[0]) / max(splits, 1) * 1000:.2f} ms a split",
          flush=True)


def main(binary, bench):
    with tempfile.TemporaryDirectory(dir=bench) as folder:
        folder = Path(folder)
        data = bench / "data.parquet"
        lake = folder / "lake"
        lake.mkdir()
        for i in range(22):
            os.link(data, lake / f"f{i:02}.parquet")
        compare(binary, folder, "large", bench / "forest_100x16.onnx", f"SELECT id, predict('m', {FEATURES}) AS p FROM '{lake}/'")
        shutil.rmtree(lake)

        small = folder / "small"
        small.mkdir()
        part = folder / "part.parquet"
        run(binary, "-q", "-c", f"COPY (SELECT * FROM '{data}' LIMIT 2000) TO '{part}'")
        for i in range(1000):
            os.link(part, small / f"f{i:04}.parquet")
        size = part.stat().st_size
        query = f"SELECT id, predict('m', {FEATURES}) AS p FROM '{small}/'"
        compare(binary, folder, "small", bench / "trees.onnx", query)
        catalog = folder / "catalog-small"
        each = ["--catalog", str(catalog), "-q", "-c"]
        run(binary, *each, f"CREATE JOB each AS COPY ({query}) TO '{folder}/each/' OPTIONS (split_size 1)")
        took, _ = run(binary, "run", "each", "-q", "--catalog", str(catalog))
        copy = median([run(binary, *each, f"COPY ({query}) TO '{folder}/copy-each-{i}/' STORED AS PARQUET")[0] for i in range(3)])
        print(f"a split for each file of {size} bytes: {took:.2f} s, COPY {copy:.2f} s, {(took - copy):.3f} ms a split of 1,000")

        for i in range(1000, 10_000):
            os.link(part, small / f"f{i:04}.parquet")
        run(binary, *each, f"CREATE JOB many AS COPY ({query}) TO '{folder}/many/'")
        run(binary, "run", "many", "-q", "--catalog", str(catalog))
        took = median([run(binary, "run", "many", "-q", "--catalog", str(catalog))[0] for _ in range(3)])
        print(f"10,000 files, none of them new: {took:.2f} s, the whole process")
        shutil.copy(part, small / "g.parquet")
        took, _ = run(binary, "run", "many", "-q", "--catalog", str(catalog))
        print(f"10,000 files and a new one: {took:.2f} s, the whole process")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), Path(sys.argv[2]))
