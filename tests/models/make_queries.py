"""Models for the tests of queries: exact ones, whose scores SQL can compute itself, and ones that refuse rows or files.

Usage: python make_queries.py     (writes queries/)
"""

import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import ROOT, build_graph, save_case, write_model

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
FOLDER = ROOT / "queries"
ML = [("ai.onnx.ml", 3)]


def constant(name, values, dtype):
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def node(operator, inputs, output, domain="", **attributes):
    return helper.make_node(operator, inputs.split(), output.split(), domain=domain, **attributes)


def save_linear():
    """2a + 3b: exact for whole numbers, so that arithmetic in SQL gives the same."""
    graph = build_graph(
        [node("Mul", "a two", "a2"), node("Mul", "b three", "b3"), node("Add", "a2 b3", "y")],
        {"a": (DOUBLE, ["N", 1]), "b": (DOUBLE, ["N", 1])},
        {"y": (DOUBLE, ["N", 1])},
        [constant("two", 2, np.float64), constant("three", 3, np.float64)],
    )
    columns = {"a": np.array([1.0, -2, 0, 40]), "b": np.array([5.0, 7, -1, 0.5])}
    save_case("queries/linear", graph, columns, "columns")


def save_lookup():
    """Twice the index; an index from 10 on is refused."""
    graph = build_graph(
        [node("Gather", "table k", "y")],
        {"k": (INT64, ["N"])},
        {"y": (DOUBLE, ["N"])},
        [constant("table", [2 * k for k in range(10)], np.float64)],
    )
    save_case("queries/lookup", graph, {"k": np.arange(10, dtype=np.int64)}, "columns")


def save_ratio():
    """Ten divided by a whole number; 0 is refused."""
    graph = build_graph(
        [node("Cast", "x", "whole", to=INT64), node("Div", "ten whole", "tenth"), node("Cast", "tenth", "y", to=DOUBLE)],
        {"x": (DOUBLE, ["N"])}, {"y": (DOUBLE, ["N"])}, [constant("ten", 10, np.int64)])
    save_case("queries/ratio", graph, {"x": np.array([1.0, 2, 3, -4, 11])}, "columns")


def classifier(labels, zipmap):
    """Three classes from three features, or two from two."""
    count = len(labels)
    coefficients = [float((3 * i) % 5 - 1) for i in range(count * count)]
    outputs = {"probabilities": (FLOAT, ["N", count])}
    nodes = [
        node("LinearClassifier", "x", "label probabilities", "ai.onnx.ml", classlabels_strings=labels,
             coefficients=coefficients, intercepts=[0.5] + [0.0] * (count - 1), post_transform="SOFTMAX"),
    ]
    graph = build_graph(nodes, {"x": (FLOAT, ["N", count])}, {"label": (STRING, ["N"]), **outputs}, domains=ML)
    if zipmap:
        nodes.append(node("ZipMap", "probabilities", "output_probability", "ai.onnx.ml", classlabels_strings=labels))
        element = helper.make_map_type_proto(STRING, helper.make_tensor_type_proto(FLOAT, None))
        sequence = helper.make_sequence_type_proto(element)
        values = [helper.make_tensor_value_info("label", STRING, ["N"]),
                  helper.make_value_info("output_probability", sequence)]
        graph = helper.make_model(
            helper.make_graph(nodes, "graph", [helper.make_tensor_value_info("x", FLOAT, ["N", count])], values),
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(*ML[0])], ir_version=8,
            producer_name="datafusion-predict-tests")
    return graph


def save_classifiers():
    grid = np.array([[i % 3 - 1, i % 5 / 2, i % 7 / 4] for i in range(21)], np.float32)
    names = {f"x{i}": grid[:, i] for i in range(3)}
    save_case("queries/classes", classifier(["hot", "warm", "cold"], False), names, "matrix")
    save_case("queries/zipmap", classifier(["it's yes", "no"], True), {"x0": grid[:, 0], "x1": grid[:, 1]}, "matrix")


def save_texts():
    """A category that is not known counts as 4.25; a missing one was the text 'None' when the model was trained."""
    graph = build_graph(
        [node("LabelEncoder", "color", "y", "ai.onnx.ml", keys_strings=["red", "green", "None"],
              values_floats=[1.0, 2.0, 5.0], default_float=4.25)],
        {"color": (STRING, ["N", 1])}, {"y": (FLOAT, ["N", 1])}, domains=ML)
    save_case("queries/color", graph, {"color": np.array(["red", "green", "blue", "None"], dtype=object)}, "columns")
    graph = build_graph(
        [node("OneHotEncoder", "city", "hot", "ai.onnx.ml", cats_strings=["a", "b"], zeros=0),
         node("ReduceMax", "hot", "y", axes=[1, 2], keepdims=0)],
        {"city": (STRING, ["N", 1])}, {"y": (FLOAT, ["N"])}, domains=ML)
    save_case("queries/city", graph, {"city": np.array(["a", "b", "a", "b"], dtype=object)}, "columns")


def save_loops():
    """A loop of 2^40 rounds, and one of as many rounds as the largest value, which is none for the zeros of a trial."""
    body = helper.make_graph(
        [node("Identity", "go", "go_on"), node("Add", "state one", "next")], "body",
        [helper.make_tensor_value_info("round", INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("state", FLOAT, None)],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("next", FLOAT, None)],
        [constant("one", 1, np.float32)])
    graph = build_graph(
        [helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=body)],
        {"x": (FLOAT, ["N", 1])}, {"y": (FLOAT, ["N", 1])}, [constant("rounds", 1 << 40, np.int64)])
    write_model(graph, FOLDER / "forever.onnx")
    graph = build_graph(
        [node("ReduceMax", "x", "largest", keepdims=0), node("Cast", "largest", "rounds", to=INT64),
         helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=body)],
        {"x": (FLOAT, ["N", 1])}, {"y": (FLOAT, ["N", 1])})
    write_model(graph, FOLDER / "rounds.onnx")


def save_greedy():
    """As many zeros in memory as the largest value says, in a file of a few hundred bytes."""
    graph = build_graph(
        [node("ReduceMax", "x", "largest", axes=[0], keepdims=0), node("Cast", "largest", "size", to=INT64),
         node("ConstantOfShape", "size", "zeros"), node("ReduceSum", "zeros", "zero", keepdims=0), node("Add", "x zero", "y")],
        {"x": (FLOAT, ["N", 1])}, {"y": (FLOAT, ["N", 1])})
    write_model(graph, FOLDER / "greedy.onnx")


def save_refused():
    """Sizes that no machine has, and versions that nobody knows yet."""
    graph = build_graph(
        [node("Add", "x w", "y")], {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])},
        [constant("w", [1, 2, 3], np.float32)])
    huge = onnx.ModelProto.FromString(graph.SerializeToString())
    huge.graph.initializer[0].dims[:] = [1 << 62, 1 << 62, 4]
    write_model(huge, FOLDER / "huge_weight.onnx")
    wide = build_graph(
        [node("Identity", "x", "y")], {"x": (FLOAT, ["N", 1 << 62, 4])}, {"y": (FLOAT, ["N", 1 << 62, 4])})
    write_model(wide, FOLDER / "huge_input.onnx")
    for name, change in {
        "opset99": lambda model: setattr(model.opset_import[0], "version", 99),
        "ir99": lambda model: setattr(model, "ir_version", 99),
    }.items():
        later = onnx.ModelProto.FromString(graph.SerializeToString())
        change(later)
        write_model(later, FOLDER / f"{name}.onnx")
    later = classifier(["hot", "warm", "cold"], False)
    next(opset for opset in later.opset_import if opset.domain == "ai.onnx.ml").version = 77
    write_model(later, FOLDER / "ml77.onnx")


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    save_linear()
    save_lookup()
    save_ratio()
    save_classifiers()
    save_texts()
    save_loops()
    save_greedy()
    save_refused()
