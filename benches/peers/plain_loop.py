"""ONNX Runtime and pyarrow in a plain loop: a batch is read, scored with two threads, written."""

import pyarrow as pa
import pyarrow.parquet as pq

from common import COMPRESSION, FEATURES, THREADS, Scorer, main

READ_ROWS = 65_536


def job(model: str, data: str, out: str) -> None:
    """Score `data` batch by batch."""
    pa.set_cpu_count(THREADS)
    scorer = Scorer(model, THREADS)
    schema = pa.schema({"id": pa.int64(), "score": pa.float32()})
    with (
        pq.ParquetFile(data) as source,
        pq.ParquetWriter(out, schema, compression=COMPRESSION, use_dictionary=False) as sink,
    ):
        for batch in source.iter_batches(READ_ROWS, columns=["id", *FEATURES], use_threads=True):
            scores = scorer.columns([batch[f].to_numpy() for f in FEATURES])
            sink.write_batch(pa.record_batch([batch["id"], pa.array(scores)], schema=schema))


if __name__ == "__main__":
    main(job)
