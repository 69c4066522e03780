"""Models with weights that are large enough to be taken out of the graph, in every form in which ONNX can hold them.

Usage: python make_weights.py     (writes weights/)
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from common import SEED, build_graph, save_case

WIDTH = 96  # 96 x 96 float32: 36 kB


def matrix(dtype=np.float32):
    return (np.random.default_rng(SEED).standard_normal((WIDTH, WIDTH)) / WIDTH).astype(dtype)


def product(weight, nodes=(), inputs=(), ir_version=8):
    """y = x W, where `nodes` make W from `weight` if it is not W itself."""
    nodes = [*nodes, helper.make_node("MatMul", ["x", "W"], ["y"])]
    signature = {"x": (TensorProto.FLOAT, ["N", WIDTH])}
    signature |= {name: (TensorProto.FLOAT, [WIDTH, WIDTH]) for name in inputs}
    model = build_graph(nodes, signature, {"y": (TensorProto.FLOAT, ["N", WIDTH])}, [weight])
    model.ir_version = ir_version
    return model


def main():
    x = {"x": np.random.default_rng(SEED + 1).standard_normal((40, WIDTH)).astype(np.float32)}
    plain = numpy_helper.from_array(matrix(), "W")
    save_case("weights/raw", product(plain), x, "list")

    floats = helper.make_tensor("W", TensorProto.FLOAT, [WIDTH, WIDTH], matrix().ravel().tolist())
    save_case("weights/float_data", product(floats), x, "list")

    # An initializer that is an input too: the default of one, and in the old format always so.
    save_case("weights/default_input", product(plain, inputs=["W"]), x, "list")
    save_case("weights/ir3", product(plain, inputs=["W"], ir_version=3), x, "list")

    cast = [helper.make_node("Cast", ["w"], ["W"], to=TensorProto.FLOAT)]
    for dtype in (np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64):
        values = matrix(dtype) if np.issubdtype(dtype, np.floating) else (matrix() * 2000).clip(0, 99).astype(dtype)
        # Twice for one byte an element, so that it is large.
        values = np.concatenate([values, values], axis=1) if values.nbytes < 16384 else values
        nodes = cast if values.shape[1] == WIDTH else [
            helper.make_node("Split", ["w"], ["half", "rest"], axis=1, num_outputs=2),
            helper.make_node("Cast", ["half"], ["W"], to=TensorProto.FLOAT),
        ]
        model = product(numpy_helper.from_array(values, "w"), nodes)
        model.opset_import[0].version = 18
        save_case(f"weights/{np.dtype(dtype).name}", model, x, "list")


if __name__ == "__main__":
    main()
