"""DataFusion's Python package: a scalar Python function over Arrow arrays, two partitions, one thread a run."""

import pyarrow as pa
from datafusion import SessionConfig, SessionContext, col, udf

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

# Larger than DataFusion's own 8,192: a call converts 28 arrays while it holds the interpreter's lock.
BATCH_ROWS = 65_536


def job(model: str, data: str, out: str) -> None:
    """Read, score and write in one plan."""
    scorer = Scorer(model, threads=1)

    def score(*columns: pa.Array) -> pa.Array:
        return pa.array(scorer.columns([c.to_numpy() for c in columns]))

    function = udf(score, [pa.float32()] * len(FEATURES), pa.float32(), "immutable", "score")
    config = SessionConfig().with_target_partitions(THREADS).with_batch_size(BATCH_ROWS)
    scores = function(*map(col, FEATURES)).alias("score")
    SessionContext(config).read_parquet(data).select(col("id"), scores).write_parquet(out, COMPRESSION)


if __name__ == "__main__":
    main(job)
