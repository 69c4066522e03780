"""lleaves, which compiles a LightGBM model: the bar for tree models on one thread.

Usage: lleaves_in_memory.py MODEL.txt DATA.parquet [--rows N] [--rounds N]
MODEL.onnx, the same model, lies beside MODEL.txt: the scores of both are compared. What a compilation gives is kept
beside it too, since it takes minutes for a large model: remove MODEL.*.lleaves when MODEL.txt changes.
"""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import lleaves
import numpy as np

import one_thread
from common import Scorer
from ort_in_memory import read

# Trees in a block that is run on all rows before the next: lleaves' default, and what suited our trees better.
BLOCKS = (34, 10)
TOLERANCE = 1e-5
CHECKED = 10_000


def compiled(path: Path, block: int) -> lleaves.Model:
    """Compile for 32-bit floats, which is what the rows are, or take what is there already."""
    model = lleaves.Model(str(path))
    cache = path.with_suffix(f".{block}.lleaves")
    # The small code model is faster; lleaves' default is the one for forests whose code is too large for it.
    model.compile(cache=cache, fblocksize=block, fcodemodel="small", use_fp64=False)
    return model


def prepare(path: Path, data: Path, limit: int | None) -> tuple[int, Iterator[one_thread.Setting]]:
    """Load the rows, and compile with each size of block."""
    rows = read(str(data))[1][:limit]
    expected = Scorer(str(path.with_suffix(".onnx")), threads=1).matrix(rows[:CHECKED])

    def settings() -> Iterator[one_thread.Setting]:
        for block in BLOCKS:
            model = compiled(path, block)
            difference = np.abs(model.predict(rows[:CHECKED], n_jobs=1) - expected).max()
            if difference > TOLERANCE:
                raise SystemExit(f"a score differs by {difference:.3g} from ONNX Runtime's")
            split = lambda size: [rows[i : i + size] for i in range(0, len(rows), size)]
            yield f", blocks of {block} trees", split, lambda batch, model=model: model.predict(batch, n_jobs=1)

    return len(rows), settings()


if __name__ == "__main__":
    one_thread.main(f"lleaves {metadata.version('lleaves')}", prepare)
