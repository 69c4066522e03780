"""Ray Data: `map_batches` over Arrow tables with two actors, each with its own copy of the model."""

import os
from pathlib import Path

import pyarrow as pa
import ray

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

BATCH_ROWS = 65_536


class Score:
    """An actor that scores a table."""

    def __init__(self, model: str) -> None:
        """Load the model."""
        self.scorer = Scorer(model, threads=1)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace the features by the score."""
        scores = self.scorer.columns([table[f].to_numpy() for f in FEATURES])
        return pa.table({"id": table["id"], "score": scores})


def job(model: str, data: str, out: str) -> None:
    """Read, score and write; `out` is a folder."""
    rows = ray.data.read_parquet(data, columns=["id", *FEATURES])
    scored = rows.map_batches(
        Score,
        fn_constructor_args=(str(Path(model).resolve()),),
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        num_cpus=0.5,  # leaves one core's worth for the read and write tasks
        compute=ray.data.ActorPoolStrategy(size=THREADS),
    )
    scored.write_parquet(str(Path(out).resolve()), arrow_parquet_args_fn=lambda: {"compression": COMPRESSION})


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Started before the clock, like every peer's imports.
    ray.init(num_cpus=THREADS, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    main(job)
