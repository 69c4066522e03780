"""Models whose inputs are more than columns of numbers, and what each row gives.

For each model NAME.onnx a table NAME.parquet: the values that calls are given, and `expected`, a row's output as Python's
onnxruntime gives it for this row alone. Constants, sizes and names come from the options of CREATE MODEL in tests/inputs.rs.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import KNNImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common import ROOT, SEED, build_graph, open_session, write_model

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
RANDOM = np.random.default_rng(SEED)
FOLDER = ROOT / "inputs"
ROWS = 40


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, **attributes)


def save(name, model, columns, feeds, output=None, value=None):
    """`feeds` are the inputs of each row, as Python's onnxruntime takes them; `value` makes a row's value of the output."""
    path = FOLDER / f"{name}.onnx"
    write_model(model, path)
    session = open_session(path)
    value = value or (lambda result: np.asarray(result)[0].tolist())
    arrays = lambda feed: {key: np.asarray(array) for key, array in feed.items()}
    expected = [value(session.run(output and [output], arrays(feed))[0]) for feed in feeds]
    expected = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in expected]
    save_table(path, columns, expected)


def save_table(path, columns, expected):
    table = pa.table({"id": pa.array(range(len(expected))), **columns, "expected": pa.array(expected)})
    pq.write_table(table, path.with_suffix(".parquet"), compression="zstd")


def columns_of(matrix, names):
    return {name: pa.array(matrix[:, i]) for i, name in enumerate(names)}


def without_rows():
    """Inputs that have no dimension for the rows: what one run has in common."""
    x = RANDOM.normal(size=(ROWS, 4)).astype(np.float32)
    k = RANDOM.integers(1, 4, ROWS).astype(np.float32)
    columns = {**columns_of(x, "abcd"), "x": pa.array(x.tolist()), "k": pa.array(k)}
    for name, shape in [("scalar", []), ("one", [1])]:
        model = build_graph([node("Mul", ["x", "k"], ["y"])], {"x": (FLOAT, ["N", 4]), "k": (FLOAT, shape)}, {"y": (FLOAT, ["N", 4])})
        feeds = [{"x": x[i : i + 1], "k": k[i].reshape(shape)} for i in range(ROWS)]
        save(name, model, columns, feeds)
    # Several values, of which a row's list is one.
    weights = RANDOM.integers(0, 2, (ROWS, 4)).astype(np.float32)
    model = build_graph([node("Mul", ["x", "w"], ["y"])], {"x": (FLOAT, ["N", 4]), "w": (FLOAT, [4])}, {"y": (FLOAT, ["N", 4])})
    feeds = [{"x": x[i : i + 1], "w": weights[i]} for i in range(ROWS)]
    save("weights", model, {"x": pa.array(x.tolist()), "w": pa.array(weights.tolist())}, feeds)
    # No input has rows: each row is a run.
    model = build_graph([node("Mul", ["k", "k"], ["y"])], {"k": (FLOAT, [])}, {"y": (FLOAT, [])})
    save("square", model, {"k": pa.array(k)}, [{"k": k[i]} for i in range(ROWS)], value=lambda result: float(result))
    # A default, which an option may replace.
    model = build_graph(
        [node("Mul", ["x", "scale"], ["y"])],
        {"x": (FLOAT, ["N", 4]), "scale": (FLOAT, [])},
        {"y": (FLOAT, ["N", 4])},
        [constant("scale", np.float32(2))],
    )
    save("default", model, columns, [{"x": x[i : i + 1], "scale": np.float32(5)} for i in range(ROWS)])


def speech():
    """As voice detectors are: a rate without dimensions, and a state whose second dimension is the rows."""
    x = RANDOM.normal(size=(ROWS, 6)).astype(np.float32)
    nodes = [
        node("Cast", ["sr"], ["rate"], to=FLOAT),
        node("ReduceSum", ["x", "last"], ["sum"], keepdims=1),
        node("ReduceSum", ["state", "ends"], ["kept"], keepdims=0),
        node("Unsqueeze", ["kept", "last"], ["column"]),
        node("Div", ["sum", "rate"], ["scaled"]),
        node("Add", ["scaled", "column"], ["output"]),
        node("Add", ["state", "one"], ["stateN"]),
    ]
    model = build_graph(
        nodes,
        {"x": (FLOAT, ["batch", "samples"]), "state": (FLOAT, [2, "batch", 3]), "sr": (INT64, [])},
        {"output": (FLOAT, ["batch", 1]), "stateN": (FLOAT, [2, "batch", 3])},
        [constant("last", np.array([1])), constant("ends", np.array([0, 2])), constant("one", np.float32(1))],
    )
    feeds = [{"x": x[i : i + 1], "state": np.ones((2, 1, 3), np.float32), "sr": np.int64(16)} for i in range(ROWS)]
    save("speech", model, {"x": pa.array(x.tolist())}, feeds, "output")


def images():
    """Free sizes, for which flat lists need to be told."""
    x = RANDOM.random((ROWS, 3, 4, 5)).astype(np.float32)
    nodes = [node("MaxPool", ["images"], ["p"], kernel_shape=[1, 5]), node("ReduceMean", ["p"], ["y"], axes=[2, 3], keepdims=0)]
    model = build_graph(nodes, {"images": (FLOAT, ["N", 3, "height", "width"])}, {"y": (FLOAT, ["N", 3])})
    columns = {"flat": pa.array(x.reshape(ROWS, -1).tolist()), "images": pa.array(x.tolist())}
    save("images", model, columns, [{"images": x[i : i + 1]} for i in range(ROWS)])


def matrices():
    """Two matrices, as models of tables with categories have them, and one that a list column fills."""
    categories = RANDOM.integers(0, 5, (ROWS, 2))
    numbers = RANDOM.normal(size=(ROWS, 2)).astype(np.float32)
    embeddings = [constant(f"e{i}", RANDOM.normal(size=(5, 3)).astype(np.float32)) for i in range(2)]
    nodes = [
        node("Split", ["x_cat"], ["c0", "c1"], axis=1),
        *(node("Gather", [f"e{i}", f"c{i}"], [f"g{i}"], axis=0) for i in range(2)),
        *(node("Flatten", [f"g{i}"], [f"f{i}"], axis=1) for i in range(2)),
        node("BatchNormalization", ["x_num", "scale", "bias", "mean", "variance"], ["n"]),
        node("Concat", ["f0", "f1", "n"], ["all"], axis=1),
        node("Gemm", ["all", "w"], ["y"]),
    ]
    weights = [
        *embeddings,
        constant("scale", np.array([1.5, 0.5], np.float32)),
        constant("bias", np.array([0.25, -1], np.float32)),
        constant("mean", np.array([0.1, -0.2], np.float32)),
        constant("variance", np.array([1.1, 0.7], np.float32)),
        constant("w", RANDOM.normal(size=(8, 1)).astype(np.float32)),
    ]
    model = build_graph(nodes, {"x_cat": (INT64, ["N", 2]), "x_num": (FLOAT, ["N", 2])}, {"y": (FLOAT, ["N", 1])}, weights)
    columns = {**columns_of(categories, ["store", "product"]), **columns_of(numbers, ["price", "qty"])}
    columns |= {"x_cat": pa.array(categories.tolist()), "x_num": pa.array(numbers.tolist())}
    feeds = [{"x_cat": categories[i : i + 1], "x_num": numbers[i : i + 1]} for i in range(ROWS)]
    save("matrices", model, columns, feeds)

    vectors = RANDOM.normal(size=(ROWS, 6)).astype(np.float32)
    model = build_graph(
        [node("ReduceSum", ["embedding", "axes"], ["y"], keepdims=0)],
        {"embedding": (FLOAT, ["N", 6])},
        {"y": (FLOAT, ["N"])},
        [constant("axes", np.array([1]))],
    )
    save("embedding", model, {"embedding": pa.array(vectors.tolist())}, [{"embedding": vectors[i : i + 1]} for i in range(ROWS)])

    # A list of structs is a tensor of steps.
    steps = RANDOM.normal(size=(ROWS, 5, 2)).astype(np.float32)
    nodes = [node("CumSum", ["x", "axis"], ["s"]), node("ReduceMax", ["s"], ["y"], axes=[1], keepdims=0)]
    model = build_graph(nodes, {"x": (FLOAT, ["N", "T", 2])}, {"y": (FLOAT, ["N", 2])}, [constant("axis", np.array(1))])
    structs = [[{"price": float(a), "qty": float(b)} for a, b in row] for row in steps]
    kind = pa.list_(pa.struct([("price", pa.float32()), ("qty", pa.float32())]))
    save("steps", model, {"x": pa.array(structs, kind)}, [{"x": steps[i : i + 1]} for i in range(ROWS)])


def contents():
    """Bytes, of which the model takes the first four and the last four."""
    files = [RANDOM.integers(0, 256, int(size)).astype(np.uint8).tobytes() for size in RANDOM.integers(0, 20, ROWS)]

    def tokens(content):
        first, last = list(content[:4]), list(content[-4:])
        return first + [256] * (4 - len(first)) + [256] * (4 - len(last)) + last

    model = build_graph(
        [node("Cast", ["bytes"], ["x"], to=FLOAT), node("MatMul", ["x", "w"], ["y"])],
        {"bytes": (INT32, ["N", 8])},
        {"y": (FLOAT, ["N", 1])},
        [constant("w", RANDOM.normal(size=(8, 1)).astype(np.float32))],
    )
    feeds = [{"bytes": np.array([tokens(content)], np.int32)} for content in files]
    save("bytes", model, {"content": pa.array(files, pa.binary())}, feeds)


def classifiers():
    """What converters write: sequences of probabilities, texts, imputers that look at neighbours."""
    x = RANDOM.normal(size=(300, 4)).astype(np.float32)
    y = np.stack([(x[:, 0] > 0), np.digitize(x[:, 1], [-1, 0, 1])], axis=1).astype(np.int64)
    forest = MultiOutputClassifier(RandomForestClassifier(5, max_depth=3, random_state=SEED)).fit(x, y)
    model = to_onnx(forest, x[:1], options={"zipmap": False})
    feeds = [{"X": x[i : i + 1]} for i in range(ROWS)]
    lists = lambda result: [part[0].tolist() for part in result]
    save("several_outputs", model, columns_of(x[:ROWS], "abcd"), feeds, "probabilities", lists)

    # The number of the class, and a score for each.
    model = to_onnx(LogisticRegression().fit(x, y[:, 1]), x[:1], options={"zipmap": False})
    save("classes", model, columns_of(x[:ROWS], "abcd"), feeds, "probabilities")

    texts = ["Good morning", "GOOD EVENING", "bad night", "GUTE Nacht", "a bad, bad day", "good", "", "What A Day"]
    target = np.arange(len(texts), dtype=np.float32)
    pipeline = make_pipeline(TfidfVectorizer(), LinearRegression()).fit(texts, target)
    model = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))])
    # Python's onnxruntime needs a locale that many machines lack, so scikit-learn says what is right.
    path = FOLDER / "texts.onnx"
    write_model(model, path)
    save_table(path, {"text": pa.array(texts)}, pipeline.predict(texts).tolist())

    holes = x[:120].copy()
    holes[RANDOM.random(holes.shape) < 0.2] = np.nan
    imputer = make_pipeline(StandardScaler(), KNNImputer(n_neighbors=3), LinearRegression()).fit(holes, x[:120, 0])
    model = to_onnx(imputer, initial_types=[("X", FloatTensorType([None, 4]))])
    columns = {name: pa.array([None if np.isnan(v) else v for v in holes[:ROWS, i]]) for i, name in enumerate("abcd")}
    save("neighbours", model, columns, [{"X": holes[i : i + 1]} for i in range(ROWS)])

    # The names of columns as skl2onnx writes them.
    names = ["Sepal Length (cm)", "Sepal Width (cm)"]
    scaler = ColumnTransformer([("scale", StandardScaler(), names)])
    pipeline = make_pipeline(scaler, LinearRegression()).fit(pd.DataFrame(x[:, :2], columns=names), x[:, 2])
    model = to_onnx(pipeline, initial_types=[(name, FloatTensorType([None, 1])) for name in names])
    inputs = [given.name for given in model.graph.input]
    feeds = [{name: x[i : i + 1, k : k + 1] for k, name in enumerate(inputs)} for i in range(ROWS)]
    save("spelling", model, columns_of(x[:ROWS, :2], names), feeds)


def what_looks_like_something_else():
    """A guard against NaN within a net, classes that are not counted from 0, sequences that the graph itself uses, doubles."""
    # NaN that a net computes is no missing value that it was given.
    nodes = [
        node("Softmax", ["x"], ["p"], axis=1),
        node("IsNaN", ["p"], ["bad"]),
        node("Where", ["bad", "zero", "p"], ["y"]),
    ]
    model = build_graph(nodes, {"x": (FLOAT, ["N", 2])}, {"y": (FLOAT, ["N", 2])}, [constant("zero", np.float32(0))])
    x = RANDOM.normal(size=(ROWS, 2)).astype(np.float32)
    save("guarded", model, columns_of(x, "ab"), [{"x": x[i : i + 1]} for i in range(ROWS)])

    # Classes 1, 2 and 5.
    x = RANDOM.normal(size=(120, 2)).astype(np.float32)
    y = np.array([1, 2, 5])[np.digitize(x[:, 0], [-0.5, 0.5])]
    classifier = LogisticRegression().fit(x, y)
    path = FOLDER / "numbered_classes.onnx"
    write_model(to_onnx(classifier, x[:1], options={"zipmap": False}), path)
    names = {1: "one", 2: "two", 5: "five"}
    save_table(path, columns_of(x, "ab"), [names[label] for label in classifier.predict(x)])

    # The number of a class as it comes: 7 is none.
    numbers = np.array([0, 1, 7, 1])
    number = (INT64, ["N", 1])
    write_model(build_graph([node("Identity", ["x"], ["y"])], {"x": number}, {"y": number}), FOLDER / "class_number.onnx")
    save_table(FOLDER / "class_number.onnx", {"x": pa.array(numbers)}, ["zero", "one", None, "one"])

    # A sequence that is an output, whose first part is one too, and that another output is made of.
    nodes = [
        node("Neg", ["x"], ["q"]),
        node("Abs", ["x"], ["p"]),
        node("SequenceConstruct", ["p", "q"], ["s"]),
        node("ConcatFromSequence", ["s"], ["c"], axis=1),
    ]
    matrix = (FLOAT, ["N", 2])
    model = build_graph(nodes, {"x": matrix}, {"p": matrix, "c": (FLOAT, ["N", 4])})
    model.graph.output.append(helper.make_tensor_sequence_value_info("s", FLOAT, ["N", 2]))
    feeds = [{"x": x[i : i + 1]} for i in range(ROWS)]
    save("sequence_in_use", model, columns_of(x[:ROWS], "ab"), feeds, "c")

    # A frame of doubles: the file declares probabilities of doubles, which Python's onnxruntime does not run.
    frame = pd.DataFrame(x.astype(np.float64), columns=["a", "b"])
    columns = ColumnTransformer([("all", "passthrough", ["a", "b"])])
    classifier = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5, random_state=SEED)).fit(frame, y)
    path = FOLDER / "doubles.onnx"
    write_model(to_onnx(classifier, frame[:1], options={"zipmap": False}), path)
    save_table(path, columns_of(frame.to_numpy(), "ab"), classifier.predict_proba(frame).tolist())


def main():
    FOLDER.mkdir(exist_ok=True)
    without_rows()
    speech()
    images()
    matrices()
    contents()
    classifiers()
    what_looks_like_something_else()


if __name__ == "__main__":
    main()
