"""The backend tests of the installed package `onnx` by SQL, against Python's onnxruntime (`make onnx-backend`).

    onnx_backend.py FOLDER [PART_OF_A_NAME]    FOLDER keeps what was run: models, tables, SQL

Each test has a model and its inputs. Their first dimension becomes the rows where Python gives the same for each row alone as for
all rows together; an input that has other rows, such as the axes of a sum, becomes a constant of the model. It fails if a score
is wrong, or a model refused.
"""

import copy
import re
import shutil
import sys
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from shell import Job, differences, lists, score_all

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
# Models for each process: enough for the start not to matter.
AT_ONCE = 200


class LeftOut(Exception):
    """Why a test says nothing about rows."""


@dataclass
class Test:
    name: str
    model: onnx.ModelProto
    # {input: its values, rows first}
    inputs: dict
    # A value for each row, by Python.
    expected: list


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def read(case):
    """(the model, {input: values}) of a test and its first set of data, which are in memory or in files"""
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    tensors = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in tensors]
    if any(value.type.WhichOneof("value") != "tensor_type" for value in [*values, *model.graph.output]):
        raise LeftOut("an input or an output is no tensor")
    types = {value.type.tensor_type.elem_type for value in [*values, *model.graph.output]}
    # bfloat16, float8, int4: Python's onnxruntime neither takes nor gives them as arrays.
    if any(helper.tensor_dtype_to_np_dtype(kind).kind not in "biufO" for kind in types):
        raise LeftOut("an element type that numpy does not have")
    if case.data_sets:
        arrays = case.data_sets[0][0]
    else:
        files = [Path(case.model_dir) / "test_data_set_0" / f"input_{i}.pb" for i in range(len(values))]
        arrays = [onnx.load_tensor(file) for file in files if file.exists()]
    if len(arrays) != len(values):
        raise LeftOut("an input has no data")
    return model, {value.name: as_array(array) for value, array in zip(values, arrays)}


def as_array(value):
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    if array.dtype.kind in "OSU":
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in array.ravel()]
        array = np.array(texts, object).reshape(array.shape)
    return array


def with_rows(model, inputs, rows):
    """The model whose other inputs are constants, and whose inputs and outputs have a first dimension of any size."""
    model = copy.deepcopy(model)
    graph = model.graph
    for name in inputs.keys() - rows:
        graph.initializer.append(numpy_helper.from_array(inputs[name], name))
    kept = [value for value in graph.input if value.name in rows]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(kept)
    for value in [*graph.input, *graph.output]:
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and shape.dim:
            shape.dim[0].dim_param = "N"
    return model


def candidates(inputs):
    """Sets of inputs that may have the rows, their first dimension: those of one size, most inputs first."""
    by_size = defaultdict(list)
    for name, array in inputs.items():
        if array.ndim and len(array):
            by_size[len(array)].append(name)
    sets = [some for names in by_size.values() for size in range(len(names)) for some in combinations(names, size + 1)]
    return sorted(sets, key=len, reverse=True)


def more_rows(array):
    """A single row, and two more of the same values in another order, which are as valid as indices."""
    flat = array.ravel()
    return np.concatenate([np.roll(flat, -i).reshape(array.shape) for i in range(3)])


def same(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    return np.allclose(a, b, rtol=1e-3 if a.dtype == np.float16 else 1e-5, atol=1e-6, equal_nan=True)


def by_rows(name, model, inputs):
    """The test by rows; raises LeftOut if there are none that are independent."""
    try:
        session_of(model).run(None, inputs)
    except Exception as error:
        raise LeftOut("Python's onnxruntime does not run it") from error
    if not model.graph.output or not inputs:
        raise LeftOut("no inputs")
    for rows in candidates(inputs):
        try:
            freed = with_rows(model, inputs, set(rows))
            session = session_of(freed)
            values = {key: inputs[key] for key in rows}
            if len(values[rows[0]]) == 1:
                values = {key: more_rows(array) for key, array in values.items()}
            count = len(values[rows[0]])
            together = session.run(None, values)
            alone = [session.run(None, {key: array[i : i + 1] for key, array in values.items()}) for i in range(count)]
        except Exception:
            continue
        if all(
            whole.ndim and len(whole) == count and all(same(whole[i : i + 1], alone[i][j]) for i in range(count))
            for j, whole in enumerate(together)
        ):
            names = [output.name for output in freed.graph.output]
            expected = [dict(zip(names, map(value_of, outputs))) for outputs in alone]
            # The inputs in the model's order, which is that of the call.
            ordered = {value.name: values[value.name] for value in freed.graph.input}
            return Test(name, freed, ordered, [row if len(row) > 1 else next(iter(row.values())) for row in expected])
    raise LeftOut("no rows, or rows that depend on each other")


def value_of(output):
    """The value of the only row. One number for each row is a number, however it is written."""
    value = output[0]
    return value.item() if isinstance(value, np.ndarray) and value.shape == (1,) else value


def column(array):
    """One number for each row is a number, for a call as for its value."""
    return lists(list(array.reshape(len(array)) if array.size == len(array) else array))


def job(test, folder):
    path = folder / "models" / f"{test.name}.onnx"
    onnx.save(test.model, path)
    columns = {f"input_{i}": column(array) for i, array in enumerate(test.inputs.values())}
    call = f"predict('m', {', '.join(f't.{column}' for column in columns)})"
    return Job(path, pa.table(columns), call)


def reason(error):
    """The kind of an error: its text without names and numbers."""
    text = re.sub(r"'[^']*'", "'…'", error.splitlines()[0])
    return re.sub(r"\d+", "#", text)[:200]


def main():
    folder, part = Path(sys.argv[1]).resolve(), (sys.argv[2:] or [""])[0]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "models").mkdir(parents=True)
    started = time.monotonic()
    # The package makes its tests as they are asked for, overflows and divisions by zero among them.
    warnings.simplefilter("ignore", RuntimeWarning)
    tests, left_out = [], Counter()
    for case in [case for kind in KINDS for case in load_model_tests(kind=kind) if part in case.name]:
        try:
            tests.append(by_rows(case.name, *read(case)))
        except LeftOut as why:
            left_out[str(why)] += 1
    print(f"{len(tests)} tests by rows after {time.monotonic() - started:.0f} s; left out:", flush=True)
    for why, count in left_out.most_common():
        print(f"  {count} {why}")

    engines, wrong, refused, memory = Counter(), [], defaultdict(list), 0
    for start in range(0, len(tests), AT_ONCE):
        some = tests[start : start + AT_ONCE]
        answers = score_all([job(test, folder) for test in some], folder=folder / f"from_{start}")
        for test, answer in zip(some, answers):
            memory = max(memory, answer.memory)
            if answer.error:
                refused[reason(answer.error)].append((test.name, answer))
            elif text := differences(answer.column, test.expected):
                wrong.append((test.name, text, answer))
            else:
                engines[answer.created["engine"]] += 1
        print(f"  {start + len(some)} after {time.monotonic() - started:.0f} s", flush=True)

    for why, refusals in sorted(refused.items(), key=lambda item: -len(item[1])):
        print(f"refused, {len(refusals)}: {why}")
        for name, answer in refusals:
            print(f"  {name}: {answer.error}\n{answer.sql}")
    for name, text, answer in wrong:
        print(f"WRONG {name}: {text}\n{answer.sql}")
    equal = engines.total()
    share = equal / max(len(tests), 1)
    by_engine = ", ".join(f"{count} by {engine}" for engine, count in engines.items())
    print(
        f"{len(tests)} tests: {equal} equal ({share:.2%}; {by_engine}), {sum(map(len, refused.values()))} refused, "
        f"{len(wrong)} wrong; at most {memory / 1e6:.0f} MB, {time.monotonic() - started:.0f} s"
    )
    sys.exit(bool(wrong or refused))


if __name__ == "__main__":
    main()
