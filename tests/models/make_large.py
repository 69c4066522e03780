"""VGG-19 with weights of its own, 575 MB: what loading a large model costs in time and memory.

Usage: make_large.py FOLDER

The graph is that of the `onnx` package's light model, whose weights are filled in when it is loaded; here each is a tensor of
small random numbers. Writes FOLDER/vgg19.onnx with the weights in the file, and FOLDER/external/vgg19.onnx with them beside it.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

RANDOM = np.random.default_rng(7)


def with_weights(model):
    """Replaces each node that fills a tensor with one number by random numbers of that shape."""
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept, filled, used = [], [], set()
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = shapes[node.input[0]]
            used.add(node.input[0])
            values = RANDOM.normal(0, 0.02, shape).astype(np.float32)
            filled.append(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    rest = [tensor for tensor in graph.initializer if tensor.name not in used]
    inputs = [value for value in graph.input if value.name not in used and value.name not in shapes]
    for field, values in (("node", kept), ("initializer", rest + filled), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    return model


def main():
    folder = Path(sys.argv[1])
    (folder / "external").mkdir(parents=True, exist_ok=True)
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_vgg19.onnx"
    model = with_weights(onnx.load(light))
    onnx.save(model, folder / "vgg19.onnx")
    external = folder / "external" / "vgg19.onnx"
    onnx.save(model, external, save_as_external_data=True, all_tensors_to_one_file=True, location="weights.bin")


if __name__ == "__main__":
    main()
