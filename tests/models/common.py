"""What the scripts here share: build a graph, run it, save it with what it gives, list it in the manifest."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import helper

ROOT = Path(__file__).resolve().parent
SEED = 7
MAX_ROWS = 600


def build_graph(nodes, inputs, outputs, initializers=(), opset=17, domains=()):
    """A model from nodes and from {name: (element type, shape)} of its inputs and outputs."""
    values = lambda signature: [helper.make_tensor_value_info(name, *value) for name, value in signature.items()]
    graph = helper.make_graph(list(nodes), "graph", values(inputs), values(outputs), list(initializers))
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(*domain) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="datafusion-predict-tests")


def write_model(model, path):
    """The converters list the operator sets in an order that changes from run to run, so they are sorted here."""
    model.opset_import.sort(key=lambda opset: (opset.domain, opset.version))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sql_name(text):
    """'mean radius (cm)' becomes 'mean_radius_cm'."""
    return re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")


def save_case(name, model, columns, input_form, kinds=None, root=ROOT, check=None, **fields):
    """Saves NAME.onnx and NAME.parquet (the columns, then expected_* as onnxruntime gives them); returns the outputs.

    input_form is "matrix" (the columns side by side are the one input), "list" (one list column is the one input) or
    "columns" (one column for each input, of its name). `kinds` maps an output's name to its kind in the manifest.
    `check` gets the outputs and raises if they must not be saved; `fields` are more fields of the manifest's entry.
    """
    path = root / f"{name}.onnx"
    write_model(model, path)
    session = open_session(path)
    values = session.run(None, model_inputs(session, columns, input_form))
    outputs = {node.name: value for node, value in zip(session.get_outputs(), values)}
    if check:
        check(outputs)

    expected = {f"expected_{output}": list_column(value) for output, value in outputs.items()}
    table = pa.table({**{column: fixed_list_column(value) for column, value in columns.items()}, **expected})
    pq.write_table(table, path.with_suffix(".parquet"), compression="zstd")

    entry = describe_case(name, table, session, list(columns), input_form, outputs, kinds or {})
    record(name, {**entry, **fields}, root / "manifest.json")
    return outputs


def model_inputs(session, columns, input_form):
    nodes = session.get_inputs()
    if input_form == "matrix":
        return {nodes[0].name: np.column_stack(list(columns.values()))}
    return {node.name: to_rank(array, node.shape) for node, array in zip(nodes, columns.values(), strict=True)}


def to_rank(array, shape):
    return array.reshape(-1, 1) if array.ndim == 1 and len(shape) == 2 else array


def is_zipmap(value):
    return isinstance(value, list)


def flat_rows(value):
    """[N] and [N,1] become [N], anything else [N,k]; a ZipMap becomes its probabilities in the order of the labels."""
    if is_zipmap(value):
        return np.array([list(row.values()) for row in value], dtype=np.float32)
    rows = value.reshape(len(value), -1)
    return rows[:, 0] if rows.shape[1] == 1 else rows


def fixed_list_column(value):
    rows = flat_rows(value)
    flat = pa.array(rows.ravel())
    return flat if rows.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def list_column(value):
    rows = flat_rows(value)
    flat = pa.array(rows.ravel())
    if rows.ndim == 1:
        return flat
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, flat)


def describe_case(name, table, session, features, input_form, outputs, kinds):
    return {
        "onnx": f"{name}.onnx",
        "parquet": f"{name}.parquet",
        "rows": table.num_rows,
        "input": input_form,
        "features": features,
        "inputs": [describe(node) for node in session.get_inputs()],
        "outputs": [
            {**describe(node), **describe_value(outputs[node.name], kinds.get(node.name))}
            for node in session.get_outputs()
        ],
    }


def record(name, entry, manifest_path):
    """Adds the model to the manifest, under its name without the first folder."""
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    manifest[name.split("/", 1)[-1]] = entry
    write_manifest(manifest, manifest_path)


def write_manifest(manifest, manifest_path):
    lines = [f"{json.dumps(key)}: {json.dumps(manifest[key])}" for key in sorted(manifest)]
    manifest_path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def describe(node):
    return {"name": node.name, "type": node.type, "declared_shape": node.shape}


def describe_value(value, kind):
    if is_zipmap(value):
        return {"kind": "zipmap", "labels": list(value[0])}
    default = "value" if flat_rows(value).ndim == 1 else "scores"
    return {"kind": kind or default, "shape": ["N", *value.shape[1:]]}


def check_classifier(name, outputs, label, probabilities):
    """The first output is the label, the second the probabilities; the original model gave the arguments."""
    found_label, found_probabilities = outputs.values()
    check(name, flat_rows(found_probabilities), probabilities)
    assert (found_label == label).all(), f"{name}: other labels"


def check_regressor(name, outputs, expected):
    (found,) = outputs.values()
    check(name, flat_rows(found), expected)


def check(name, found, expected):
    """Within 1e-4, relative for large numbers."""
    difference = np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected)))
    print(f"{name}: differs from the original by {difference:.1e}")
    assert difference < 1e-4, name
