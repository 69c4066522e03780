"""Models for the tests of floats of 16 bits: what can be computed so stands beside what can't.

Usage: python make_precision.py     (writes precision/)
"""

import shutil

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from common import ROOT, SEED, build_graph, save_case

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
FOLDER = ROOT / "precision"


def constant(name, values):
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


def save_layers():
    """Two dense layers with a GELU, a normalization whose epsilon is no half float, scores with a mask that is none either, a branch that
    reads a value from outside (and is the same for all rows), a large weight, and an output from within."""
    random = np.random.default_rng(SEED)
    weights = lambda name, *shape: constant(name, random.normal(0, shape[0] ** -0.5, shape))
    value = lambda name, *shape: helper.make_tensor_value_info(name, FLOAT, shape)
    branch = lambda name, nodes: helper.make_graph(nodes, name, [], [value(f"{name}_y", "N", 256)])
    nodes = [
        node("MatMul", "x w1", "a"),
        node("Add", "a b1", "hidden"),
        node("Div", "hidden root", "scaled"),
        node("Erf", "scaled", "erf"),
        node("Add", "erf one", "above"),
        node("Mul", "hidden above", "twice"),
        node("Mul", "twice half", "gelu"),
        node("MatMul", "gelu w2", "wide"),
        node("Abs", "x", "sizes"),
        node("ReduceSum", "sizes", "sum", keepdims=0),
        node("Less", "sum zero", "is_negative"),
        node("If", "is_negative", "chosen",
             then_branch=branch("then", [node("Neg", "wide", "then_y")]),
             else_branch=branch("else", [node("Identity", "wide", "else_y")])),
        node("ReduceMean", "chosen", "mean", axes=[1]),
        node("Sub", "chosen mean", "centred"),
        node("Pow", "centred two", "squares"),
        node("ReduceMean", "squares", "variance", axes=[1]),
        node("Add", "variance epsilon", "positive"),
        node("Sqrt", "positive", "deviation"),
        node("Div", "centred deviation", "normal"),
        node("MatMul", "normal w3", "scores"),
        node("Add", "scores mask", "masked"),
        node("Softmax", "masked", "y", axis=1),
    ]
    initializers = [
        weights("w1", 8, 64), weights("b1", 64), weights("w2", 64, 256), weights("w3", 256, 4),
        constant("root", 2**0.5), constant("one", 1), constant("half", 0.5), constant("zero", 0), constant("two", 2),
        constant("epsilon", 1e-12), constant("mask", [0, 0, 0, np.finfo(np.float32).min]),
    ]
    graph = build_graph(nodes, {"x": (FLOAT, ["N", 8])}, {"y": (FLOAT, ["N", 4]), "wide": (FLOAT, ["N", 256])},
                        initializers)
    x = np.abs(random.normal(size=(50, 8))).astype(np.float32)
    save_case("precision/layers", graph, {"x": x}, "list")


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    save_layers()
