"""DuckDB: a scalar Python function over Arrow arrays, called with a vector of 2,048 rows from both threads."""

import duckdb
import pyarrow as pa
from duckdb.sqltypes import FLOAT

from common import COMPRESSION, FEATURES, THREADS, Scorer, main


def job(model: str, data: str, out: str) -> None:
    """Copy from Parquet to Parquet in one statement."""
    scorer = Scorer(model, threads=1)

    def score(*columns: pa.ChunkedArray) -> pa.Array:
        return pa.array(scorer.columns([c.to_numpy() for c in columns]))

    with duckdb.connect(config={"threads": THREADS, "preserve_insertion_order": False}) as connection:
        connection.create_function("score", score, None, FLOAT, type="arrow")
        connection.execute(
            f"COPY (SELECT id, score({', '.join(FEATURES)}) AS score FROM read_parquet($data))"
            f" TO '{out}' (FORMAT parquet, COMPRESSION {COMPRESSION})",
            {"data": data},
        )


if __name__ == "__main__":
    main(job)
