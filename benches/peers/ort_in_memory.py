"""ONNX Runtime alone: the rows already lie in memory as one matrix, and only the runs of the model are timed.

What an engine that calls ONNX Runtime can reach at best: the bar for all that happens around the model. It uses two
threads in both ways there are, since neither wins everywhere: both on one batch, or each on a batch of its own.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

BATCHES = (1024, 8192, 65_536)


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


if __name__ == "__main__":
    main(job)
