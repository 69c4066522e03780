"""Spark: `mapInPandas` on a local session with two cores; each Python worker loads the model."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

BATCH_ROWS = 65_536


def job(model: str, data: str, out: str) -> None:
    """Read, score and write; `out` is a folder."""

    def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        scorer = Scorer(model, threads=1)
        for batch in batches:
            scores = scorer.columns([batch[f].to_numpy() for f in FEATURES])
            yield pd.DataFrame({"id": batch["id"], "score": scores})

    frame = spark.read.parquet(data).select("id", *FEATURES)
    frame.mapInPandas(score, "id long, score float").write.parquet(out, "overwrite", compression=COMPRESSION)


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else the first python3 on the PATH
    # Started before the clock, like every peer's imports.
    spark = (
        SparkSession.builder.master(f"local[{THREADS}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH_ROWS)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    spark.sparkContext.addPyFile(str(Path(__file__).with_name("common.py")))
    main(job)
    spark.stop()
