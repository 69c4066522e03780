"""What the scripts of each framework share: a model, its rows, what the framework says about them, and what onnxruntime says.

Below OUT/FRAMEWORK a case is NAME.onnx, and NAME.parquet, the columns that a query sees; cases.pickle says how SQL calls each, and
the values of each output for each row, as the framework itself gives them and as Python's onnxruntime does.
"""

import argparse
import logging
import pickle
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

SEED = 7
ROWS = 50
FEW = 10


@dataclass
class Case:
    framework: str
    name: str
    # Of each input the names of its columns, or None where it is one column of its name.
    features: dict
    options: dict
    # Of each output, in the model's order: a value for each row, or None where the framework has no such output.
    expected: list = field(default_factory=list)
    # The same by onnxruntime, and the outputs' names.
    runtime: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    # And on the first FEW rows alone, since an exporter may have frozen the number of rows.
    few: list = field(default_factory=list)
    # Why there is no file, or why onnxruntime does not run it.
    not_exported: str = ""
    not_run: str = ""


def register_in(kinds):
    """A decorator for functions that give a model and its inputs: adds each to `kinds`, with what Suite.add needs to know."""

    def kind(**about):
        def register(function):
            kinds.append((function.__name__, function, about))
            return function

        return register

    return kind


def numbers(*shape):
    return random().normal(size=(ROWS, *shape)).astype(np.float32)


def codes(count, *shape):
    return random().integers(0, count, (ROWS, *shape)).astype(np.int32)



class Suite:
    """The cases of one framework, which `close` writes."""

    def __init__(self, framework):
        parser = argparse.ArgumentParser()
        parser.add_argument("out", type=Path)
        parser.add_argument("--only", default="", help="the cases with this in their names")
        arguments = parser.parse_args()
        self.only = arguments.only
        self.framework = framework
        self.folder = arguments.out / framework
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cases = []
        self.started = time.time()
        # The exporters say a lot.
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)

    def wants(self, name):
        return self.only in name

    def add(self, name, export, feeds, expected, *, features=None, table=None, axes=None, options=None):
        """`export` writes the file of the path that it is given. `feeds` are the inputs for onnxruntime, rows first, and
        `expected` what the framework gives on them: a list in the order of the model's outputs, where None is not compared, or
        by the outputs' names.

        `axes` says where the model has its rows, by the name of an input or the position of an output; else they are first.
        `table` is what predict('m', t.*) sees, or it is made of the feeds: a column for each, or where `features` names the
        columns of a matrix, one for each of these. `options` are those of CREATE MODEL."""
        if not self.wants(name):
            return
        axes, features = axes or {}, {input_name: features.get(input_name) for input_name in feeds} if features else {}
        case = Case(self.framework, name, features, options or {})
        self.cases.append(case)
        path = self.folder / f"{name}.onnx"
        path.unlink(missing_ok=True)
        try:
            export(path)
        except Exception as error:
            case.not_exported = in_short(error)
            return
        pq.write_table(table_of(feeds, features) if table is None else table, path.with_suffix(".parquet"))
        try:
            case.outputs, case.runtime = run(path, feeds, axes)
            _, case.few = run(path, {name: array[:FEW] for name, array in feeds.items()}, axes)
        except Exception as error:
            case.not_run = in_short(error)
        if isinstance(expected, dict):
            expected = [expected.get(output) for output in case.outputs]
        case.expected = [None if values is None else rows_of(values) for values in expected]

    def close(self):
        (self.folder / "cases.pickle").write_bytes(pickle.dumps(self.cases))
        print(f"{self.framework}: {len(self.cases)} exports in {time.time() - self.started:.0f} s", flush=True)


def in_short(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def table_of(feeds, features):
    columns = {}
    for name, array in feeds.items():
        if features.get(name):
            columns.update({feature: column_of(array[:, place]) for place, feature in enumerate(features[name])})
        else:
            columns[name] = column_of(array)
    return pa.table(columns)


def column_of(array):
    """[N] and [N, 1] are plain columns, all else is one of nested lists."""
    array = np.asarray(array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    kind = pa.string() if array.dtype.kind in "OU" else pa.from_numpy_dtype(array.dtype)
    for _ in array.shape[1:]:
        kind = pa.list_(kind)
    return pa.array(array.tolist(), kind)


def run(path, feeds, axes):
    """The outputs' names and what onnxruntime gives, on all rows at once unless the model takes a fixed number of them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(without_locale(path), options, providers=["CPUExecutionProvider"])
    wanted = [node.name for node in session.get_inputs()]
    if len(wanted) == len(feeds) == 1:
        # Some exporters name it themselves.
        ((name, array),) = feeds.items()
        feeds, axes = {wanted[0]: array}, {**axes, wanted[0]: axes.get(name, 0)}
    if set(feeds) != set(wanted):
        raise ValueError(f"the model has the inputs {wanted}, and not {sorted(feeds)}")
    first = session.get_inputs()[0]
    count, size = len(feeds[first.name]), first.shape[axes.get(first.name, 0)]
    parts = []
    for start in range(0, count, size if isinstance(size, int) else count):
        rows = slice(start, start + size if isinstance(size, int) else None)
        inputs = {name: np.moveaxis(np.asarray(feeds[name])[rows], 0, axes.get(name, 0)) for name in wanted}
        values = session.run(None, inputs)
        moved = [np.moveaxis(value, axes[place], 0) if place in axes else value for place, value in enumerate(values)]
        parts.append([rows_of(value) for value in moved])
    return [node.name for node in session.get_outputs()], [sum(values, []) for values in zip(*parts)]


def without_locale(path):
    """The model with C's locale: Python's onnxruntime wants the one that is named, or en_US, to be on the machine."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("locale", "C.UTF-8")])
    return model.SerializeToString()


def rows_of(value):
    """A value for each row of an array, of a ZipMap's dictionaries, or of a sequence of arrays."""
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [list(parts) for parts in zip(*(part.tolist() for part in value), strict=True)]
    if isinstance(value, list):
        return value
    value = np.asarray(value)
    # A column of one number each is a number each.
    return (value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value).tolist()


def random():
    return np.random.default_rng(SEED)
