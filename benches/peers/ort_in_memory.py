"""ONNX Runtime alone: the rows already lie in memory as one matrix, and only the runs of the model are timed.

What an engine that calls ONNX Runtime can reach at best: the bar for all that happens around the model. It uses two
threads in both ways there are, since neither wins everywhere: both on one batch, or each on a batch of its own.

With --one-thread as its first argument it takes MODEL.onnx DATA.parquet [--rows N] [--rounds N] (see one_thread.py),
and any model of make_bench.py: one of several inputs gets the column of the same name for each. Each run of a model
with text converts Python's strings, which the binding does not allow to do beforehand.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

import one_thread
from common import COMPRESSION, FEATURES, THREADS, Scorer, find_score, main, open_session
from one_thread import BATCHES


def read(data: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Read the ids, and the features as a row-major matrix."""
    table = pq.read_table(data, columns=["id", *FEATURES])
    rows = np.empty((table.num_rows, len(FEATURES)), np.float32)
    for i, feature in enumerate(FEATURES):
        rows[:, i] = table[feature].to_numpy()
    return table["id"], rows


def job(model: str, data: str, out: str) -> dict:
    """Score `data` with each setting; `seconds` is the best of them, `settings` has them all."""
    ids, rows = read(data)
    together, apart = Scorer(model, THREADS), Scorer(model, threads=1)
    settings = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in BATCHES:
            batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
            for way, scorer, run in (
                (f"{THREADS} threads on a batch", together, map),
                (f"{THREADS} batches at once", apart, pool.map),
            ):
                scorer.matrix(batches[0])  # the first run of a size allocates
                start = time.perf_counter()
                scores = list(run(scorer.matrix, batches))
                settings[f"{batch:,} rows, {way}"] = time.perf_counter() - start
    pq.write_table(pa.table({"id": ids, "score": np.concatenate(scores)}), out, compression=COMPRESSION)
    return {"seconds": min(settings.values()), "settings": settings}


def read_inputs(session: ort.InferenceSession, data: Path) -> dict[str, np.ndarray]:
    """Read the matrix for a model's one input, or a column [N, 1] for each of several."""
    names = [node.name for node in session.get_inputs()]
    if len(names) == 1:
        return {names[0]: read(str(data))[1]}
    table = pq.read_table(data, columns=names)
    return {name: table[name].to_numpy().reshape(-1, 1) for name in names}


def prepare(model: Path, data: Path, limit: int | None) -> tuple[int, Iterator[one_thread.Setting]]:
    """Load the model and its rows."""
    session = open_session(str(model), threads=1)
    inputs = {name: rows[:limit] for name, rows in read_inputs(session, data).items()}
    output, _ = find_score(session, {name: rows[:2] for name, rows in inputs.items()})
    total = len(next(iter(inputs.values())))
    split = lambda size: [{name: rows[i : i + size] for name, rows in inputs.items()} for i in range(0, total, size)]
    return total, iter([("", split, lambda batch: session.run([output], batch))])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-thread"]:
        one_thread.main(f"ONNX Runtime {ort.__version__}", prepare, sys.argv[2:])
    else:
        main(job)
