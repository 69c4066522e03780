"""Models and data for `make bench`; not kept in the repository.

Usage: python make_bench.py OUT_DIR [--rows N]
Writes mlp.onnx, trees.onnx, mlp100mb.onnx and data.parquet (id, f0 to f27).
"""

import argparse
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from common import SEED, build_graph, open_session, write_model

FEATURES = 28
ROW_GROUP = 131072


def write_mlp(path, widths, output="score"):
    """Dense layers of random weights: Relu between them, Sigmoid at the end."""
    random = np.random.default_rng(SEED)
    nodes, initializers, value = [], [], "features"
    last = len(widths) - 2
    for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        weight = random.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
        bias = random.normal(0, 0.1, outputs).astype(np.float32)
        initializers.append(numpy_helper.from_array(weight, f"weight{layer}"))
        initializers.append(numpy_helper.from_array(bias, f"bias{layer}"))
        activation, result = ("Sigmoid", output) if layer == last else ("Relu", f"hidden{layer}")
        nodes.append(helper.make_node("Gemm", [value, f"weight{layer}", f"bias{layer}"], [f"sum{layer}"]))
        nodes.append(helper.make_node(activation, [f"sum{layer}"], [result]))
        value = result
    model = build_graph(
        nodes,
        {"features": (TensorProto.FLOAT, ["N", widths[0]])},
        {output: (TensorProto.FLOAT, ["N", widths[-1]])},
        initializers,
    )
    write_model(model, path)


def write_trees(path, trees=100, leaves=31, rows=50_000):
    """A boosted classifier of a noisy, not linear label; its outputs are label [N] and probabilities [N,2]."""
    random = np.random.default_rng(SEED)
    x = random.standard_normal((rows, FEATURES), dtype=np.float32)
    signal = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + x[:, 3:8].sum(axis=1) + 0.3 * x[:, 8:] @ random.normal(size=20)
    label = (signal + random.normal(size=rows) > 0).astype(np.int64)
    model = lightgbm.LGBMClassifier(
        n_estimators=trees, num_leaves=leaves, random_state=SEED, deterministic=True, n_jobs=1, verbose=-1
    )
    model.fit(x, label)
    inputs = [("features", FloatTensorType([None, FEATURES]))]
    write_model(convert_lightgbm(model, name="trees", initial_types=inputs, target_opset=15, zipmap=False), path)

    _, found = open_session(path).run(None, {"features": x})
    assert np.abs(found - model.predict_proba(x)).max() < 1e-4


def write_data(path, rows):
    """Standard normal floats, stored as they are: reading them costs as little as can be."""
    random = np.random.default_rng(SEED)
    columns = {"id": np.arange(rows, dtype=np.int64)}
    for feature in range(FEATURES):
        columns[f"f{feature}"] = random.standard_normal(rows, dtype=np.float32)
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="none", use_dictionary=False)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out_dir", type=Path)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments = arguments.parse_args()
    folder = arguments.out_dir
    folder.mkdir(parents=True, exist_ok=True)

    write_mlp(folder / "mlp.onnx", [FEATURES, 256, 128, 1])
    write_mlp(folder / "mlp100mb.onnx", [FEATURES, 3545, 3545, 3545, 1])
    write_trees(folder / "trees.onnx")
    write_data(folder / "data.parquet", arguments.rows)


if __name__ == "__main__":
    main()
