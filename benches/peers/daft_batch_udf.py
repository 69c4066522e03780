"""Daft: a batch function on the native runner, called from both threads."""

import os

import daft
from daft import DataType, Series, col

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

# Left alone, Daft hands out whole row groups, too few for two threads to end together.
BATCH_ROWS = 32_768


def job(model: str, data: str, out: str) -> None:
    """Read, score and write in one plan."""
    daft.set_runner_native(num_threads=THREADS)
    scorer = Scorer(model, threads=1)

    @daft.func.batch(return_dtype=DataType.float32(), batch_size=BATCH_ROWS)
    def score(*columns: Series):
        return scorer.columns([c.to_arrow().to_numpy() for c in columns])

    scores = score(*map(col, FEATURES)).alias("score")
    daft.read_parquet(data).select(col("id"), scores).write_parquet(out, compression=COMPRESSION, single_file=True)


if __name__ == "__main__":
    main(job)
    os._exit(0)  # Daft's threads sometimes crash while the interpreter shuts down
