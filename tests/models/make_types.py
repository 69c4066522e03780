"""Tiny graphs for the tests of tensors and of broken models.

Usage: python make_types.py     (writes types/)
"""

import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import ROOT, build_graph, open_session, save_case, write_model

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
FOLDER = ROOT / "types"


def constant(name, values, dtype):
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def ramp(*shape, dtype=np.float32):
    return (np.arange(np.prod(shape)).reshape(shape) / 4).astype(dtype)


# One operator that gives back its input, for each element type.


def save_identities():
    special = [0.0, -0.0, 1.5, np.nan, np.inf, -np.inf]
    for dtype in (np.float32, np.float64, np.float16):
        limits = np.finfo(dtype)
        values = [*special, limits.min, limits.max, limits.tiny, limits.smallest_subnormal, -1, limits.eps]
        save_identity(np.array(values, dtype))
    for bits in (8, 16, 32, 64):
        for dtype in (np.dtype(f"int{bits}"), np.dtype(f"uint{bits}")):
            limits = np.iinfo(dtype)
            save_identity(np.array([limits.min, limits.max, 0, *range(1, 10)], dtype))
    save_identity(np.array([True, False, True, True, False, False] * 2))
    strings = ["a", "", "Zürich", "東京", "🦀", " space ", "quote'", 'double"', "new\nline", "x" * 300]
    strings += ["NaN", "null"]
    save_identity(np.array(strings, dtype=object))
    save_case("types/identity8", identity(FLOAT, 8), {"x": ramp(4, 8)}, "list")
    # onnxruntime's Python API takes no bfloat16 arrays, so this one has no expected outputs.
    write_model(identity(TensorProto.BFLOAT16, 3), FOLDER / "identity_bfloat16.onnx")


def save_identity(values):
    element_type = STRING if values.dtype == object else helper.np_dtype_to_tensor_dtype(values.dtype)
    name = TensorProto.DataType.Name(element_type).lower()
    save_case(f"types/identity_{name}", identity(element_type, 3), {"x": values.reshape(-1, 3)}, "list")


def identity(element_type, width):
    signature = element_type, ["N", width]
    return build_graph([node("Identity", "x", "y")], {"x": signature}, {"y": signature})


# Shapes of inputs and outputs.


def save_scalar_double():
    model = build_graph(
        [node("Mul", "x two", "y")],
        {"x": (DOUBLE, ["N", 1])},
        {"y": (DOUBLE, ["N", 1])},
        [constant("two", 2, np.float64)],
    )
    save_case("types/scalar_double", model, {"x": np.array([0.1, -1e300, 123456789.123456789, 1e-310])}, "columns")


def save_columns_mixed():
    """`income` is not used, `count` has rank 1."""
    model = build_graph(
        [
            node("Cast", "count", "count_float", to=FLOAT),
            node("Unsqueeze", "count_float last_axis", "count_column"),
            node("Add", "age count_column", "total"),
            node("Identity", "city", "city_out"),
        ],
        {
            "age": (FLOAT, ["N", 1]),
            "income": (DOUBLE, ["N", 1]),
            "city": (STRING, ["N", 1]),
            "count": (INT64, ["N"]),
        },
        {"total": (FLOAT, ["N", 1]), "city_out": (STRING, ["N", 1])},
        [constant("last_axis", [1], np.int64)],
    )
    columns = {
        "age": np.array([21.5, 42, 63, 84], np.float32),
        "income": np.array([1e3, 2e4, 3e5, 4e6]),
        "city": np.array(["Bern", "", "Zürich", "東京"], dtype=object),
        "count": np.array([0, 1, -2, 3_000_000], np.int64),
    }
    save_case("types/columns_mixed", model, columns, "columns")


def save_image():
    """Mean over the last three dimensions, so that a pixel in the wrong row shows."""
    model = build_graph(
        [node("ReduceMean", "image", "mean", axes=[1, 2, 3], keepdims=0)],
        {"image": (FLOAT, ["N", 1, 2, 3])},
        {"mean": (FLOAT, ["N"])},
    )
    save_case("types/image", model, {"image": ramp(4, 1, 2, 3)}, "list")


def save_sequence():
    model = build_graph(
        [node("ReduceSum", "values axis", "sum", keepdims=0)],
        {"values": (FLOAT, ["N", "L"])},
        {"sum": (FLOAT, ["N"])},
        [constant("axis", [1], np.int64)],
    )
    save_case("types/sequence", model, {"values": ramp(4, 5)}, "list")


def save_tokens():
    model = build_graph(
        [node("Add", "tokens tokens", "doubled")],
        {"tokens": (FLOAT, ["N", "L"])},
        {"doubled": (FLOAT, ["N", "L"])},
    )
    save_case("types/tokens", model, {"tokens": ramp(4, 5)}, "list")


def save_fixed_batch():
    model = build_graph(
        [node("ReduceSum", "x axis", "y", keepdims=1)],
        {"x": (FLOAT, [4, 3])},
        {"y": (FLOAT, [4, 1])},
        [constant("axis", [1], np.int64)],
    )
    save_case("types/fixed_batch", model, {"x": ramp(4, 3)}, "list")


def save_struct3():
    model = build_graph(
        [
            node("ReduceSum", "x axis", "sum", keepdims=1),
            node("Gather", "x zero", "left", axis=1),
            node("Gather", "x one", "right", axis=1),
            node("Sub", "left right", "diff"),
            node("Identity", "x", "both"),
        ],
        {"x": (FLOAT, ["N", 2])},
        {"sum": (FLOAT, ["N", 1]), "diff": (FLOAT, ["N"]), "both": (FLOAT, ["N", 2])},
        [constant("axis", [1], np.int64), constant("zero", 0, np.int64), constant("one", 1, np.int64)],
    )
    save_case("types/struct3", model, {"x": ramp(4, 2) ** 2}, "list")


def save_two_matrices():
    model = build_graph(
        [
            node("Concat", "a b", "all", axis=1),
            node("ReduceSum", "all axis", "y", keepdims=0),
        ],
        {"a": (FLOAT, ["N", 2]), "b": (FLOAT, ["N", 3])},
        {"y": (FLOAT, ["N"])},
        [constant("axis", [1], np.int64)],
    )
    save_case("types/two_matrices", model, {"a": ramp(4, 2), "b": 100 * ramp(4, 3)}, "columns")


def save_cast_int():
    signature = TensorProto.INT32, ["N", 1]
    model = build_graph(
        [node("Cast", "x", "wide", to=INT64), node("Cast", "wide", "y", to=TensorProto.INT32)],
        {"x": signature},
        {"y": signature},
    )
    save_case("types/cast_int", model, {"x": np.array([0, -1, 2**31 - 1, -(2**31)], np.int32)}, "columns")


def save_missing_nan():
    """Replaces NaN by 10 in the first feature, by 20 in the second."""
    values = {"imputed_value_floats": [10.0, 20.0], "replaced_value_float": np.nan}
    imputer = node("Imputer", "x", "y", domain="ai.onnx.ml", **values)
    signature = FLOAT, ["N", 2]
    model = build_graph([imputer], {"x": signature}, {"y": signature}, domains=[("ai.onnx.ml", 3)])
    rows = np.array([[1, 2], [np.nan, 2], [1, np.nan], [np.nan, np.nan]], np.float32)
    save_case("types/missing_nan", model, {"x": rows}, "list")


# Models that lie, fail or take long.


def save_lying_shape():
    """The output is declared [1] and has N values."""
    model = build_graph(
        [node("ReduceSum", "x axis", "y", keepdims=0)],
        {"x": (FLOAT, ["N", 3])},
        {"y": (FLOAT, [1])},
        [constant("axis", [1], np.int64)],
    )
    save_case("types/lying_shape", model, {"x": ramp(4, 3)}, "list")


def save_wrong_length():
    """One row more than it was given."""
    model = build_graph(
        [node("Concat", "x row", "y", axis=0)],
        {"x": (FLOAT, ["N", 1])},
        {"y": (FLOAT, ["M", 1])},
        [constant("row", [[99]], np.float32)],
    )
    write_model(model, FOLDER / "wrong_length.onnx")


def save_breaks_on_negative():
    """A negative value looks up index 1 in a table of one, which fails the run; other values come back unchanged."""
    model = build_graph(
        [
            node("Less", "x zero", "negative"),
            node("Cast", "negative", "index", to=INT64),
            node("Gather", "table index", "zeros"),
            node("Add", "x zeros", "y"),
        ],
        {"x": (FLOAT, ["N", 1])},
        {"y": (FLOAT, ["N", 1])},
        [constant("zero", 0, np.float32), constant("table", [0], np.float32)],
    )
    save_case("types/breaks_on_negative", model, {"x": np.array([0, 1, np.nan, 3.5], np.float32)}, "columns")


def save_slow(width=512, layers=800):
    """Hundreds of MatMul and Tanh, seconds for 1024 rows.

    The square weights are made from the input (times zero), so that they are no constant, of which the runtime would
    pack a copy for each MatMul.
    """
    nodes = [
        node("ReduceSum", "x", "total", keepdims=0),
        node("Mul", "total zero", "nothing"),
        node("Add", "nothing weight", "weight_now"),
        node("Expand", "weight_now square_shape", "square"),
        node("ConstantOfShape", "wide_shape", "widen", value=constant("fill", [0.25], np.float32)),
        node("MatMul", "x widen", "hidden0"),
    ]
    for layer in range(layers):
        nodes.append(node("MatMul", f"hidden{layer} square", f"sum{layer}"))
        nodes.append(node("Tanh", f"sum{layer}", f"hidden{layer + 1}"))
    nodes.append(node("ReduceMean", f"hidden{layers}", "y", axes=[1], keepdims=1))
    model = build_graph(
        nodes,
        {"x": (FLOAT, ["N", 4])},
        {"y": (FLOAT, ["N", 1])},
        [
            constant("zero", 0, np.float32),
            constant("weight", 1.5 / width, np.float32),
            constant("square_shape", [width, width], np.int64),
            constant("wide_shape", [4, width], np.int64),
        ],
    )
    write_model(model, FOLDER / "slow.onnx")


# Models whose weights lie in another file.


def save_external():
    """y = x @ weights + bias. external_escape names a file outside its folder, which is there and would load."""
    weights = constant("weights", [[1, 2], [3, 4], [5, 6]], np.float32)
    data = weights.raw_data
    model = build_graph(
        [node("MatMul", "x weights", "product"), node("Add", "product bias", "y")],
        {"x": (FLOAT, ["N", 3])},
        {"y": (FLOAT, ["N", 2])},
        [weights, constant("bias", [0.5, -0.5], np.float32)],
    )
    for folder, location in (("external", "weights.bin"), ("external_escape", "../weights.bin")):
        file = FOLDER / folder / location
        file.parent.mkdir(parents=True, exist_ok=True)
        file.resolve().write_bytes(data)
        tensor = model.graph.initializer[0]
        tensor.raw_data = data
        onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(data))
        tensor.ClearField("raw_data")
        if folder == "external":
            save_case("types/external/model", model, {"x": ramp(4, 3)}, "list")
        else:
            write_model(model, FOLDER / folder / "model.onnx")


# Files that are no model that can run.


def save_refused():
    """Files that are valid ONNX, or nearly so, and that must be refused with a reason."""
    same = [node("Identity", "x", "y")]
    write_model(build_graph(same, {"x": (FLOAT, ["N", 2**40])}, {"y": (FLOAT, ["N", 2**40])}), FOLDER / "huge.onnx")
    two = {"x": (FLOAT, [2, 3]), "z": (FLOAT, [3, 3])}
    write_model(build_graph(same, two, {"y": (FLOAT, [2, 3])}), FOLDER / "two_batches.onnx")
    twice = build_graph(same, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])})
    twice.graph.output.append(twice.graph.output[0])
    write_model(twice, FOLDER / "twice_named.onnx")
    none = [node("Slice", "x zero zero one", "y")]
    bounds = [constant("zero", [0], np.int64), constant("one", [1], np.int64)]
    write_model(build_graph(none, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", "k"])}, bounds), FOLDER / "no_values.onnx")
    complex_type = {"x": (TensorProto.COMPLEX64, ["N", 3])}
    write_model(build_graph(same, complex_type, {"y": (TensorProto.COMPLEX64, ["N", 3])}), FOLDER / "complex.onnx")
    # External data of a node within a function, outside the model's folder.
    escaping = build_graph([helper.make_node("F", ["x"], ["y"], domain="local")], {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])})
    outside = TensorProto(name="c", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../manifest.json")
    value = helper.make_node("Constant", [], ["c"], value=outside)
    body = [value, helper.make_node("Add", ["x", "c"], ["y"])]
    function = helper.make_function("local", "F", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    escaping.functions.append(function)
    escaping.opset_import.append(helper.make_opsetid("local", 1))
    write_model(escaping, FOLDER / "function_escape.onnx")


def save_broken_files():
    signature = FLOAT, ["N", 3]
    unknown = node("Frobnicate", "x", "y", domain="com.example")
    model = build_graph([unknown], {"x": signature}, {"y": signature}, domains=[("com.example", 1)])
    write_model(model, FOLDER / "unknown_operator.onnx")
    whole = (FOLDER / "struct3.onnx").read_bytes()
    (FOLDER / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (FOLDER / "not_onnx.onnx").write_text("This is a text file, not a model.\n")
    (FOLDER / "empty.onnx").write_bytes(b"")


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    save_identities()
    save_scalar_double()
    save_columns_mixed()
    save_image()
    save_sequence()
    save_tokens()
    save_fixed_batch()
    save_struct3()
    save_two_matrices()
    save_cast_int()
    save_missing_nan()
    save_lying_shape()
    save_wrong_length()
    save_breaks_on_negative()
    save_slow()
    save_external()
    save_refused()
    save_broken_files()
    open_session(FOLDER / "identity_bfloat16.onnx")


if __name__ == "__main__":
    main()
