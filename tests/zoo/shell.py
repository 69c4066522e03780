"""Scores tables by SQL: writes them as Parquet, runs the shell, reads back what each row got.

The shell's binary is the one that DATAFUSION_PREDICT names, else the debug build of this checkout. It finds ONNX Runtime where
`make runtime` puts it, or where ORT_DYLIB_PATH says.

    answer = score("churn.onnx", table, "predict('m', t.*)", features=["age", "plan"], options={"output": "label"})
    print(answer.error or differences(answer.column, expected))
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parents[2]
RELATIVE, ABSOLUTE = 1e-4, 1e-5
# The column that tells the rows apart, since a query may give them in any order.
ROW = "row_of_table"


def binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    path = Path(os.environ.get("DATAFUSION_PREDICT") or target / "debug" / "datafusion-predict")
    if not path.is_file():
        raise SystemExit(f"there is no {path}: `cargo build --workspace` makes the shell")
    return str(path)


@dataclass
class Job:
    """A model `m`, and a table `t` whose rows `select` scores: `predict('m', t.*)`, `predict('m', {a: a, b: b})`, …"""

    model: Path | str
    table: object
    select: str = "predict('m', t.*)"
    features: list = field(default_factory=list)
    options: dict = field(default_factory=dict)


@dataclass
class Answer:
    """What a job gave: a `column` of values, one for each row and in the table's order, or the `error` in words."""

    column: pa.ChunkedArray | None = None
    error: str | None = None
    # "create" or "query": which statement has failed.
    failed: str | None = None
    # The row that CREATE MODEL answered with.
    created: dict | None = None
    # Of the process and for all of its jobs: peak of the resident memory in bytes, and seconds.
    memory: int = 0
    seconds: float = 0
    # What was run, to run it again.
    sql: str = ""

    @cached_property
    def values(self):
        """The column as Python's values, which takes long for many numbers."""
        return None if self.column is None else self.column.to_pylist()


def score(model, table, select="predict('m', t.*)", features=(), options=None, **others):
    """Scores one table in a process of its own. `others` are those of score_all()."""
    (answer,) = score_all([Job(model, table, select, list(features), dict(options or {}))], **others)
    return answer


def score_all(jobs, folder=None, timeout=600, arguments=(), settings=()):
    """Scores tables in as few processes as there are errors, since the shell ends at its first.

    `folder` keeps the tables and the SQL; without it they are removed. `timeout` in seconds is for each process, `arguments` are
    more of the shell's command line, and `settings` are statements that each process begins with.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        blocks = [_statements(job, folder / str(i)) for i, job in enumerate(jobs)]
        answers = []
        while len(answers) < len(jobs):
            answers += _process(blocks[len(answers) :], len(answers), folder, timeout, arguments, settings)
        return answers


def _process(blocks, first, folder, timeout, arguments, settings):
    """The answers of the jobs up to the first that fails; `first` is the number of the first of these."""
    file = folder / f"{first}.sql"
    file.write_text("\n".join([f"{statement};" for statement in settings] + [line for block in blocks for line in block]))
    command = [binary(), *arguments, "--format", "ndjson", "--file", str(file)]
    status, output, error, memory, seconds = _run(command, timeout)

    # Each model has a line when it is created, and one when its rows are written.
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    created = [line for line in lines if "result_type" in line]
    done = sum("count" in line for line in lines)
    answers = []
    for i, block in enumerate(blocks[: done + 1]):
        answer = Answer(memory=memory, seconds=seconds, sql="\n".join(block[:2]))
        answer.created = created[i] if i < len(created) else None
        if i < done:
            path = folder / f"{first + i}.scores.parquet"
            scores = pq.read_table(path)
            path.unlink()
            answer.column = scores.sort_by(ROW).column("score")
        elif status == 0:
            raise RuntimeError(f"no rows and no error of {file}: {output}")
        else:
            # A signal has ended the process, or the shell says why.
            answer.error = error if error and status > 0 else f"ended by signal {-status} after {seconds:.0f} s: {error}"
            answer.failed = "query" if answer.created else "create"
        answers.append(answer)
    return answers


def _statements(job, path):
    """The lines of SQL for a job, whose table is written beside them."""
    data = f"{path}.parquet"
    if not isinstance(job.table, (str, Path)):
        table = job.table.append_column(ROW, [np.arange(job.table.num_rows)])
        pq.write_table(table, data)
    features = f" FEATURES ({', '.join(map(identifier, job.features))})" if job.features else ""
    options = ", ".join(f"{_key(key)} {literal(value)}" for key, value in job.options.items())
    options = f" OPTIONS ({options})" if options else ""
    return [
        f"CREATE MODEL m{features} FROM {literal(str(Path(job.model).resolve()))}{options};",
        f"COPY (SELECT t.{ROW}, {job.select} AS score FROM '{data}' AS t) TO '{path}.scores.parquet' STORED AS PARQUET;",
        "DROP MODEL m;",
    ]


# Runs a command in a small process of its own: what a process counts as its peak includes the memory of the one that started it.
LAUNCHER = """
import json, os, signal, sys
report, timeout, *command = sys.argv[1:]
child = os.posix_spawn(command[0], command, os.environ)
signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
signal.alarm(int(timeout))
_, status, usage = os.wait4(child, 0)
with open(report, "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024], file)
"""


def _run(command, timeout):
    """(exit status or minus the signal, standard output, the error, peak resident bytes, seconds)"""
    with tempfile.NamedTemporaryFile("r") as report:
        start = time.monotonic()
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, report.name, str(timeout), *command]
        process = subprocess.run(launcher, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        seconds = time.monotonic() - start
        if process.returncode:
            raise RuntimeError(process.stderr)
        status, memory = json.load(report)
    # Above it there may be what ONNX Runtime logs.
    found = re.search(r"^error: (?:.*?, line \d+: )?(.*)", process.stderr, re.MULTILINE | re.DOTALL)
    error = (found[1] if found else process.stderr[-2000:]).strip()
    return status, process.stdout, error, memory, seconds


def lists(arrays):
    """A column whose rows are these arrays, of one number of dimensions and of any sizes, as nested lists."""
    arrays = [np.asarray(array, getattr(array, "dtype", object)) for array in arrays]
    if arrays[0].dtype == object:
        values = pa.array([text for array in arrays for text in array.ravel()], pa.string())
    else:
        values = pa.array(np.concatenate([array.ravel() for array in arrays]))
    for axis in reversed(range(arrays[0].ndim)):
        sizes = np.concatenate([np.full(int(np.prod(array.shape[:axis])), array.shape[axis]) for array in arrays])
        values = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32()), values)
    return values


def identifier(name):
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def literal(value):
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"


def _key(key):
    return key if re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", key) else literal(key)


def differences(found, expected, relative=RELATIVE, absolute=ABSOLUTE):
    """What is wrong with the values of all rows: 'row 3: …', or None if all are right. `found` is an Arrow column or a list."""
    if len(found) != len(expected):
        return f"{len(found)} rows, expected {len(expected)}"
    wrong = [(row, difference(*pair, relative, absolute)) for row, pair in enumerate(zip(found, expected))]
    wrong = [(row, text) for row, text in wrong if text]
    return f"{len(wrong)} of {len(found)} rows, row {wrong[0][0]}: {wrong[0][1]}" if wrong else None


def difference(found, expected, relative=RELATIVE, absolute=ABSOLUTE):
    """What is wrong with a value, in words, or None if it is right.

    `expected` is a number, a text, an array or nested lists of them, or a dict for a struct or a map. Floats are right within
    `relative` and `absolute`, a NaN is right for a NaN, all else is right if it is the same.
    """
    if isinstance(found, pa.StructScalar):
        found = dict(found) if found.is_valid else None
    elif isinstance(found, pa.Scalar) and (not isinstance(found, pa.ListScalar) or isinstance(found, pa.MapScalar)):
        found = found.as_py()
    if isinstance(expected, dict):
        # A map comes back as its pairs.
        found = dict(found) if isinstance(found, list) else found
        if not isinstance(found, dict) or set(found) != set(expected):
            return f"{_brief(found)}, expected {_brief(expected)}"
        parts = ((key, difference(found[key], expected[key], relative, absolute)) for key in expected)
        return next((f"{key}: {text}" for key, text in parts if text), None)
    if isinstance(expected, (list, tuple)):
        found = found.as_py() if isinstance(found, pa.Scalar) else found
        if not isinstance(found, list) or len(found) != len(expected):
            return f"{_brief(found)}, expected {_brief(expected)}"
        if not _is_array(expected):
            parts = ((i, difference(*pair, relative, absolute)) for i, pair in enumerate(zip(found, expected)))
            return next((f"[{i}]{text if text[0] == '[' else ': ' + text}" for i, text in parts if text), None)
        expected = np.asarray(expected)
    if expected is None or found is None:
        return None if expected is found else f"{_brief(found)}, expected {_brief(expected)}"
    return _of_arrays(found, np.asarray(expected), relative, absolute)


def _is_array(values):
    """Whether nested lists are one array of numbers: those are compared at once."""
    try:
        return np.asarray(values).dtype.kind in "fiub"
    except ValueError:
        return False


def _of_arrays(found, expected, relative, absolute):
    shape, values = _flat(found)
    if shape is None:
        return f"ragged lists, expected the shape {expected.shape}"
    # Of a size of 0 the sizes within it cannot be seen.
    if shape != expected.shape[: len(shape)] or (len(shape) != expected.ndim and 0 not in shape):
        return f"the shape {shape}, expected {expected.shape}: {_brief(found)}, expected {_brief(expected.tolist())}"
    if expected.size == 0:
        return None
    if expected.dtype.kind == "f":
        if not isinstance(values, np.ndarray) and any(not isinstance(value, (int, float)) for value in values):
            return f"{_brief(found)}, expected {_brief(expected.tolist())}"
        numbers, wanted = np.asarray(values, np.float64), expected.ravel().astype(np.float64)
        right = np.isclose(numbers, wanted, rtol=relative, atol=absolute, equal_nan=True)
    else:
        values = values.tolist() if isinstance(values, np.ndarray) else values
        right = np.array([a == b for a, b in zip(values, expected.ravel().tolist())])
    if right.all():
        return None
    at = int(np.argmin(right))
    wanted = expected.ravel().tolist()
    place = list(map(int, np.unravel_index(at, expected.shape)))
    return f"{place if place else ''} {values[at]!r}, expected {wanted[at]!r}".strip()


def _flat(value):
    """The shape of nested lists and their values in a row; (None, []) if they are ragged."""
    if isinstance(value, pa.Scalar):
        return _flat_scalar(value)
    if not isinstance(value, list):
        return (), [value]
    shape, level = (len(value),), value
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(part, list) or len(part) != size for part in level):
            return None, []
        shape, level = (*shape, size), [inner for part in level for inner in part]
    return shape, level


def _flat_scalar(value):
    if not value.is_valid:
        return (), [None]
    level = value.values
    shape = (len(level),)
    while pa.types.is_list(level.type):
        sizes = np.diff(level.offsets.to_numpy())
        if level.null_count or len(set(sizes.tolist())) > 1:
            return None, []
        # Of no lists the sizes cannot be seen.
        if len(level) == 0:
            return shape, []
        shape, level = (*shape, int(sizes[0])), level.flatten()
    plain = level.null_count == 0 and (pa.types.is_integer(level.type) or pa.types.is_floating(level.type))
    return shape, level.to_numpy() if plain else level.to_pylist()


def _brief(value):
    value = value.as_py() if isinstance(value, pa.Scalar) else value
    text = repr(value)
    return text if len(text) < 100 else text[:97] + "…"

