"""What every peer shares: its command line, the model, the clock and the Parquet writer's options.

The job, the same for all: read a Parquet file with `id` (int64) and `f0` … `f27` (float32), score each row with an
ONNX model, write `id` and `score` (float32) as Parquet. Two threads in total.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime as ort

THREADS = 2
FEATURES = [f"f{i}" for i in range(28)]
COMPRESSION = "snappy"

# The rows of one run of the model: what fits the cache for a dense network, and what keeps ONNX Runtime's tree
# kernel busy. PEERS_BATCH overrides both.
DENSE_BATCH = 1024
TREE_BATCH = 8192


def open_session(model: str, threads: int) -> ort.InferenceSession:
    """Load `model`; each of its runs uses `threads` threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; converters declare shapes that warn at each run
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def find_score(session: ort.InferenceSession, two_rows: dict[str, np.ndarray]) -> tuple[str, int]:
    """Find the output that holds the score, and the score's column in it.

    A classifier's probabilities have two columns, of which the second counts; else it is the [N, 1] output. Two rows
    are run to see, since declared shapes are not to be trusted.
    """
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, two_rows)
    shapes = {
        name: value.shape
        for name, value in zip(names, values, strict=True)
        if isinstance(value, np.ndarray) and value.dtype == np.float32
    }
    for columns in (2, 1):
        for name, shape in shapes.items():
            if shape == (2, columns):
                return name, columns - 1
    raise SystemExit(f"expected a float output of shape [N, 2] or [N, 1], found {shapes or names}")


class Scorer:
    """An ONNX model that turns feature columns into one score a row.

    Safe to call from several threads at once. Pickled as its arguments, so that a worker process loads the model
    itself.
    """

    def __init__(self, model: str, threads: int) -> None:
        """Load `model`; each of its runs uses `threads` threads."""
        self._arguments = (model, threads)
        self.session = open_session(model, threads)
        self.input = self.session.get_inputs()[0].name
        zeros = np.zeros((2, len(FEATURES)), np.float32)
        self.output, self.column = find_score(self.session, {self.input: zeros})
        self.batch = int(os.environ.get("PEERS_BATCH", TREE_BATCH if self.column else DENSE_BATCH))

    def __reduce__(self) -> tuple:
        return Scorer, self._arguments

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """Score a contiguous [N, 28] matrix in one run."""
        return self.session.run([self.output], {self.input: rows})[0][:, self.column]

    def columns(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Score columns of one length: a block of rows at a time is transposed, while it is in the cache, and run."""
        total = len(columns[0])
        scores = np.empty(total, np.float32)
        block = np.empty((min(self.batch, total), len(columns)), np.float32)
        for start in range(0, total, self.batch):
            stop = min(start + self.batch, total)
            rows = block[: stop - start]
            for i, column in enumerate(columns):
                rows[:, i] = column[start:stop]
            scores[start:stop] = self.matrix(rows)
        return scores


def main(job: Callable[[str, str, str], dict | None]) -> None:
    """Run `job(model, data, out)` with the script's arguments and print one JSON line.

    `seconds` is the time from the call to its end, so imports are not in it and loading the model is. A job that
    times itself returns a dict whose entries replace or extend the line's.
    """
    peer = Path(sys.argv[0]).stem
    if len(sys.argv) != 4:
        raise SystemExit(f"usage: {peer}.py MODEL.onnx DATA.parquet OUT.parquet")
    with suppress(ImportError):
        import pandas  # noqa: F401 — where it is installed, pyarrow, DuckDB and Daft import it at their first array
    start = time.perf_counter()
    extra = job(*sys.argv[1:])
    line = {"peer": peer, "seconds": time.perf_counter() - start} | (extra or {})
    print(json.dumps(line), flush=True)
