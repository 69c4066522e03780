"""A matrix of models, each with many rows and what onnxruntime gives on them; not kept in the repository.

Usage: python make_matrix.py OUT_DIR [--only SUBSTRING] [--rows N]
Writes NAME.onnx and NAME.parquet for each case of matrix_cases.py (or for those with SUBSTRING in their names),
manifest.json (an entry has a "family", too), and left_out.txt: the cases of this run that are not there, since their
converter fails or its model gives something else than the original.
"""

import argparse
import json
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from onnx import helper, numpy_helper
from sklearn.base import is_clusterer
from threadpoolctl import threadpool_limits

from common import SEED, flat_rows, model_inputs, open_session, save_case, write_manifest
from matrix_cases import CASES

ROWS = 10_000
WRONG_SHARE = 0.001  # of the rows may differ: those that happen to be on a threshold
TOLERANCE = 1e-3  # relative to the value, or to 1 for smaller ones
CLASSES = {"binary": 2, "three": 3, "ten": 10, "hundred": 100}
WORDS = np.array("no yes maybe later often seldom never always here there".split(), dtype=object)
SPECIAL = [np.nan, np.nan, np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 3.4e38, 1e-40, 16777217.0]


class Wrong(Exception):
    """A converted model's outputs are no good as a reference."""


# Data


def draw_features(case, random, rows):
    """A matrix, or a data frame of people."""
    if case.kind == "people":
        return with_missing(case, draw_people(random, rows), random)
    shape = (rows, case.features)
    x = random.standard_normal(shape)
    if case.kind == "mixed":
        x[:, 1::3] = np.round(3 * x[:, 1::3])
        x[:, 2::3] *= 1000
    elif case.kind == "counts":
        x = random.poisson(2, shape)
    elif case.kind == "bits":
        x = random.integers(0, 2, shape)
    elif case.kind == "categories":
        x[:, ::2] = random.integers(0, 12, x[:, ::2].shape)
    return with_missing(case, x.astype(case.dtype), random)


def draw_people(random, rows):
    """'' is a missing word."""
    pick = lambda words: random.choice(np.array(words, dtype=object), rows)
    return pd.DataFrame(
        {
            "age": random.uniform(18, 90, rows).astype(np.float32),
            "income": random.lognormal(10, 0.7, rows).astype(np.float32),
            "balance": random.normal(0, 500, rows).astype(np.float32),
            "city": pick(["Oslo", "Rome", "Wien", "Zürich", "東京", "New York", ""]),
            "plan": pick(["free", "free", "basic", "pro"]),
            "region": random.integers(1, 13, rows),
            "visits": random.poisson(4, rows),
        }
    )


def with_missing(case, x, random):
    if not case.nan:
        return x
    if isinstance(x, pd.DataFrame):
        for column in ("age", "income", "balance"):
            x.loc[random.random(len(x)) < case.nan, column] = np.nan
    else:
        x[random.random(x.shape) < case.nan] = np.nan
    return x


def draw_target(case, x, random):
    """Numbers are away from zero, where a sum's error is large for its size."""
    z = signal(x, random)
    if case.task in CLASSES:
        count = CLASSES[case.task]
        codes = np.searchsorted(np.quantile(z, np.arange(1, count) / count), z)
        return {"numbers": codes, "words": WORDS[codes % len(WORDS)], "sparse": codes * 10 - 10}[case.labels]
    return {
        "regression": 10 * z + 100,
        "positive": np.round(np.exp(z / 2), 2) + 0.01,
        "two": np.column_stack([10 * z + 100, 3 * z - z**2 - 50]),
        "none": None,
    }[case.task]


def signal(x, random):
    """What there is to learn: neither linear nor free of noise."""
    if isinstance(x, pd.DataFrame):
        z = np.log(x["income"].fillna(9000)) + x["age"].fillna(0) / 60 + x["balance"].fillna(0) / 500
        z += 0.7 * (x["city"] == "Rome") + 0.5 * (x["plan"] == "pro") + 0.2 * (x["region"] % 3) + 0.1 * x["visits"]
        return (z - z.mean()).to_numpy(np.float64)
    x = np.nan_to_num(x.astype(np.float64))
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    weights = random.normal(size=x.shape[1])
    z = x @ weights / np.linalg.norm(weights) + x[:, 0] * x[:, -1] + np.sin(2 * x[:, x.shape[1] // 2])
    return z + 0.3 * random.normal(size=len(z))


def with_traps(model, x, random):
    """Puts the model's thresholds into a sixth of the rows, the numbers next to them into a sixth, special numbers into
    a tenth; returns where it did nothing."""
    splits = list(branches(model))
    features, thresholds = (np.concatenate(values) for values in zip(*splits))
    part = random.choice(4, len(x), p=[1 - 1 / 6 - 1 / 6 - 1 / 10, 1 / 6, 1 / 6, 1 / 10])
    on, beside, special = (np.flatnonzero(part == kind) for kind in (1, 2, 3))
    if len(features):
        for _ in range(5):
            nodes = random.integers(0, len(features), len(on))
            x[on, features[nodes]] = thresholds[nodes]
            nodes = random.integers(0, len(features), len(beside))
            directions = random.choice([-np.inf, np.inf], len(beside)).astype(x.dtype)
            x[beside, features[nodes]] = np.nextafter(thresholds[nodes].astype(x.dtype), directions)
    for _ in range(2):
        x[special, random.integers(0, x.shape[1], len(special))] = random.choice(SPECIAL, len(special))
    return part == 0


def branches(model):
    """The features and the thresholds of each ensemble of trees."""
    for node in model.graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            thresholds = values.get("nodes_values")
            if thresholds is None:
                thresholds = numpy_helper.to_array(values["nodes_values_as_tensor"])
            splits = np.array(values["nodes_modes"]) != b"LEAF"
            yield np.array(values["nodes_featureids"], dtype=int)[splits], np.array(thresholds)[splits]


def columns_of(x):
    if isinstance(x, pd.DataFrame):
        return {name: x[name].to_numpy() for name in x.columns}
    return {f"f{feature}": np.ascontiguousarray(x[:, feature]) for feature in range(x.shape[1])}


# The original


def original_outputs(case, model, x):
    """[label, scores] or [values]."""
    if hasattr(model, "predict_proba") and not case.options.get("raw_scores"):
        return [model.predict(x), model.predict_proba(x)]
    if hasattr(model, "decision_function"):
        return [model.predict(x), model.decision_function(x)]
    if is_clusterer(model):
        return [model.predict(x), model.transform(x)]
    return [model.predict(x) if hasattr(model, "predict") else model.transform(x)]


def check_outputs(outputs, expected, plain):
    """Compares the plain rows: on the others, a threshold's rounding decides."""
    found = list(outputs.values())
    if any(len(value) != len(plain) for value in found):
        raise Wrong(f"not one value a row but {[np.shape(value) for value in found]}")
    found = [flat_rows(value)[plain] for value in found]
    if len(found) > 2:  # a column for each class
        found = [found[0], np.column_stack(found[1:])]
    if len(expected) == 2:
        label, scores = expected
        check_label(found[0], flat_rows(label), undecided(scores))
        check_scores(found[1], scores)
    elif found[0].dtype.kind == "f":
        check_scores(found[0], expected[0])
    else:
        check_label(found[0], flat_rows(expected[0]), np.full(len(found[0]), False))


def undecided(scores):
    """Where rounding decides the label."""
    if scores.ndim == 1:
        return np.abs(scores) < 1e-5
    best = np.sort(scores, axis=1)[:, -2:]
    return best[:, -1] - best[:, 0] < 1e-5


def check_label(found, expected, undecided):
    wrong = np.mean((found != expected) & ~undecided)
    if wrong > WRONG_SHARE:
        raise Wrong(f"another label than the original's in {wrong:.1%} of the rows")


def check_scores(found, expected):
    expected = flat_rows(np.asarray(expected))
    if expected.ndim == 1 and found.ndim == 2 and found.shape[1] == 2:
        # The scores of two classes; those of an SVM are the other way round.
        found = found[:, 1 if np.sign(found[0, 1]) == np.sign(expected[0]) else 0]
    if found.shape != expected.shape:
        raise Wrong(f"the shape {found.shape}, the original's is {expected.shape}")
    difference = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    wrong = np.mean(~(difference <= TOLERANCE).reshape(len(found), -1).all(axis=1))
    if wrong > WRONG_SHARE:
        raise Wrong(f"other scores than the original in {wrong:.1%} of the rows, by up to {np.nanmax(difference):.2g}")


def check_single_rows(path, columns, input_form, outputs):
    """The tests score in batches of any size, so the size must not matter beyond their tolerance."""
    session = open_session(path)
    for row in range(200):
        inputs = model_inputs(session, {name: values[row : row + 1] for name, values in columns.items()}, input_form)
        for single, all_rows in zip(session.run(None, inputs), outputs.values()):
            found, expected = flat_rows(single)[0], flat_rows(all_rows[row : row + 1])[0]
            numbers = flat_rows(single).dtype.kind == "f"
            same = np.allclose(found, expected, 1e-5, 1e-6, equal_nan=True) if numbers else found == expected
            if not same:
                raise Wrong(f"onnxruntime gives {expected} in a batch, {found} for the same row alone")


# The run


def make(case, folder, rows):
    random = np.random.default_rng([SEED, zlib.crc32(case.name.encode())])
    train = draw_features(case, random, case.train_rows)
    target = draw_target(case, train, random)
    case.model.fit(train, **case.fit) if target is None else case.model.fit(train, target, **case.fit)
    model = case.convert(case, case.model, train)

    x = draw_features(case, random, rows)
    if isinstance(x, pd.DataFrame):
        x.loc[random.random(rows) < 0.02, "plan"] = "unknown"
    plain = with_traps(model, x, random) if case.trees else np.full(rows, True)
    expected = original_outputs(case, case.model, x[plain])
    columns, input_form = columns_of(x), "columns" if isinstance(x, pd.DataFrame) else "matrix"
    kinds = {output.name: "label" for output in model.graph.output if "label" in output.name}

    def check(outputs):
        check_outputs(outputs, expected, plain)
        check_single_rows(folder / f"{case.name}.onnx", columns, input_form, outputs)

    save_case(case.name, model, columns, input_form, kinds, folder, check, family=case.family)


def forget(folder, only):
    """Removes what an earlier run made of the cases that this one makes."""
    path = folder / "manifest.json"
    if path.exists():
        manifest = json.loads(path.read_text())
        for name in [name for name in manifest if only in name]:
            entry = manifest.pop(name)
            for file in ("onnx", "parquet"):
                (folder / entry[file]).unlink(missing_ok=True)
        write_manifest(manifest, path)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out_dir", type=Path)
    arguments.add_argument("--only", default="", metavar="SUBSTRING")
    arguments.add_argument("--rows", type=int, default=ROWS)
    arguments = arguments.parse_args()
    folder = arguments.out_dir
    folder.mkdir(parents=True, exist_ok=True)
    forget(folder, arguments.only)
    warnings.simplefilter("ignore")
    threadpool_limits(1)

    start, made, left_out = time.time(), Counter(), []
    left_out_path = folder / "left_out.txt"
    left_out_path.write_text("")
    for case in CASES:
        if arguments.only not in case.name:
            continue
        try:
            make(case, folder, arguments.rows)
            made[case.family] += 1
        except Exception as error:  # whatever a converter raises
            (folder / f"{case.name}.onnx").unlink(missing_ok=True)
            kind = "" if isinstance(error, Wrong) else f"{type(error).__name__}: "
            left_out.append(f"{case.name}: {kind}{' '.join(str(error).split())[:200]}")
            print(left_out[-1], flush=True)
            left_out_path.write_text("".join(f"{line}\n" for line in left_out))

    for family, count in sorted(made.items()):
        print(f"{family}: {count}")
    print(f"{sum(made.values())} cases in {time.time() - start:.0f} s, {len(left_out)} left out")


if __name__ == "__main__":
    main()
