"""Models and data for `make bench`; not kept in the repository.

Usage: python make_bench.py OUT_DIR [--rows N]
Writes for data.parquet (id, f0 to f27): mlp.onnx, mlp100mb.onnx, logistic.onnx, forest_100x16.onnx, and trees.onnx,
trees_500x255.onnx and trees_1000x31.onnx, each with its LightGBM model file (.txt); for categories.parquet (id, n0 to
n23, the codes c0 to c3 and their names s0 to s3), one input for each column: onehot.onnx (of n and c) and
onehot_text.onnx (of n and s).
"""

import argparse
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from skl2onnx.common.data_types import guess_data_type
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from common import SEED, build_graph, open_session, write_model

FEATURES = 28
NUMBERS = [f"n{i}" for i in range(24)]
CATEGORIES = {"c0": 10, "c1": 20, "c2": 35, "c3": 50}  # how many each column has
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


def learnable(rows):
    """Features, and a noisy, not linear label of them."""
    random = np.random.default_rng(SEED)
    x = random.standard_normal((rows, FEATURES), dtype=np.float32)
    signal = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + x[:, 3:8].sum(axis=1) + 0.3 * x[:, 8:] @ random.normal(size=20)
    return x, (signal + random.normal(size=rows) > 0).astype(np.int64)


def write_trees(path, trees=100, leaves=31, rows=50_000):
    """A boosted classifier, and LightGBM's own file of it; its outputs are label [N] and probabilities [N,2]."""
    x, label = learnable(rows)
    model = lightgbm.LGBMClassifier(
        n_estimators=trees, num_leaves=leaves, random_state=SEED, deterministic=True, n_jobs=1, verbose=-1
    )
    model.fit(x, label)
    model.booster_.save_model(path.with_suffix(".txt"))
    inputs = [("features", FloatTensorType([None, FEATURES]))]
    write_model(convert_lightgbm(model, name="trees", initial_types=inputs, target_opset=15, zipmap=False), path)
    check(path, {"features": x}, model.predict_proba(x))


def write_sklearn(path, model, x, label):
    """A classifier with the same outputs; a data frame gives it one input [N,1] for each column."""
    model.fit(x, label)
    feeds = {name: x[[name]].to_numpy() for name in x} if isinstance(x, pd.DataFrame) else {"features": x}
    types = [(name, type(guess_data_type(feed)[0][1])([None, feed.shape[1]])) for name, feed in feeds.items()]
    opsets = {"": 17, "ai.onnx.ml": 3}
    options = {id(model): {"zipmap": False}}
    write_model(to_onnx(model, initial_types=types, target_opset=opsets, name=path.stem, options=options), path)
    check(path, feeds, model.predict_proba(x))


def check(path, feeds, expected):
    _, found = open_session(path).run(None, feeds)
    assert np.abs(found - expected).max() < 1e-4, path


def write_onehot(path, categories):
    """Numbers scaled and categories one-hot, then a logistic regression."""
    x, label = learnable_mixed(50_000)
    onehot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    preprocess = ColumnTransformer([("numbers", StandardScaler(), NUMBERS), ("categories", onehot, categories)])
    model = make_pipeline(preprocess, LogisticRegression(max_iter=1000))
    write_sklearn(path, model, x[NUMBERS + categories], label)


def learnable_mixed(rows):
    """Columns as in categories.parquet, and a noisy label of them."""
    random = np.random.default_rng(SEED)
    columns = mixed_columns(random, rows)
    signal = sum(random.normal(size=count)[columns[name]] for name, count in CATEGORIES.items())
    for place, name in enumerate(NUMBERS):
        signal += random.normal() * (columns[name] - place) / (1 + place)
    x = pd.DataFrame(columns | category_names(columns))
    return x, (signal + random.normal(size=rows) > 0).astype(np.int64)


def mixed_columns(random, rows):
    """Numbers of different scales, and category codes."""
    columns = {name: random.normal(place, 1 + place, rows).astype(np.float32) for place, name in enumerate(NUMBERS)}
    return columns | {name: random.integers(count, size=rows) for name, count in CATEGORIES.items()}


def category_names(columns):
    """The codes' names, in columns of their own: s0 for c0."""
    names = lambda column: np.array([f"{column} is {code}" for code in range(CATEGORIES[column])], dtype=object)
    return {column.replace("c", "s"): names(column)[columns[column]] for column in CATEGORIES}


def write_data(path, rows):
    """Standard normal floats, stored as they are: reading them costs as little as can be."""
    random = np.random.default_rng(SEED)
    columns = {"id": np.arange(rows, dtype=np.int64)}
    for feature in range(FEATURES):
        columns[f"f{feature}"] = random.standard_normal(rows, dtype=np.float32)
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="none", use_dictionary=False)


def write_categories(path, rows):
    """Stored as they are too, but the names as dictionaries."""
    columns = mixed_columns(np.random.default_rng(SEED + 1), rows)
    names = {name: pa.array(value).dictionary_encode() for name, value in category_names(columns).items()}
    table = pa.table({"id": np.arange(rows, dtype=np.int64), **columns, **names})
    pq.write_table(table, path, row_group_size=ROW_GROUP, compression="none", use_dictionary=list(names))


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
    write_trees(folder / "trees_500x255.onnx", trees=500, leaves=255)
    write_trees(folder / "trees_1000x31.onnx", trees=1000)
    forest = RandomForestClassifier(100, max_depth=16, random_state=SEED, n_jobs=1)
    write_sklearn(folder / "forest_100x16.onnx", forest, *learnable(20_000))
    write_sklearn(folder / "logistic.onnx", LogisticRegression(), *learnable(50_000))
    write_onehot(folder / "onehot.onnx", ["c0", "c1", "c2", "c3"])
    write_onehot(folder / "onehot_text.onnx", ["s0", "s1", "s2", "s3"])
    write_data(folder / "data.parquet", arguments.rows)
    write_categories(folder / "categories.parquet", arguments.rows)


if __name__ == "__main__":
    main()
