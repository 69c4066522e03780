"""Polars: `map_batches` as an element-wise expression in the streaming engine, which calls it from both threads."""

import os

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

os.environ["POLARS_MAX_THREADS"] = str(THREADS)  # read when Polars is imported

import polars as pl  # noqa: E402

# Left alone, Polars hands out whole row groups, too few for two threads to end together.
CHUNK_ROWS = 32_768


def job(model: str, data: str, out: str) -> None:
    """Scan, score and sink in one streaming query."""
    scorer = Scorer(model, threads=1)
    pl.Config.set_streaming_chunk_size(CHUNK_ROWS)

    def score(series: list[pl.Series]) -> pl.Series:
        return pl.Series("score", scorer.columns([s.to_numpy() for s in series]))

    scores = pl.map_batches(FEATURES, score, return_dtype=pl.Float32, is_elementwise=True)
    query = pl.scan_parquet(data).select("id", scores.alias("score"))
    query.sink_parquet(out, compression=COMPRESSION, maintain_order=False, engine="streaming")


if __name__ == "__main__":
    main(job)
