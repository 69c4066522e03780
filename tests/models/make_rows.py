"""Models whose rows are not simply the first dimension, and what each row gives alone.

For each model NAME.onnx a table NAME.parquet: the inputs as columns of nested lists, and `expected`, a row's output as Python's
onnxruntime gives it for this row alone, its dimension of rows left out. Models in REFUSED or DEPENDENT have no `expected`: one
row's score depends on the others, or there are no rows.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from common import ROOT, SEED, build_graph, open_session, write_model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
RANDOM = np.random.default_rng(SEED)
FOLDER = ROOT / "rows"


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, **attributes)


def nested(array):
    return array.tolist()


def save(name, model, rows, axes=None, output_axis=0, for_one_row=None):
    """`rows` maps each input to its values, rows first; `axes` says where the model wants them. None of them: no table.

    `for_one_row` is the same model for a single row, where `model` takes a fixed number of them.
    """
    path = FOLDER / f"{name}.onnx"
    write_model(model, path)
    if rows is None:
        return
    count = len(next(iter(rows.values())))
    columns = {"id": pa.array(range(count)), **{key: pa.array(nested_rows(values)) for key, values in rows.items()}}
    if axes is not None:
        if for_one_row is not None:
            write_model(for_one_row, path)
        session = open_session(path)
        expected = []
        for row in range(count):
            inputs = {key: np.expand_dims(np.asarray(values[row], np.float32), axes[key]) for key, values in rows.items()}
            (output,) = session.run(None, inputs)
            # squeeze() may have dropped the dimension of the only row.
            has_rows = output_axis is not None and output.ndim > output_axis and output.shape[output_axis] == 1
            value = np.take(output, 0, output_axis) if has_rows else output
            # One value for each row is a number, however it is written.
            expected.append(value.item() if value.shape == (1,) else value.tolist())
        columns["expected"] = pa.array(expected)
        write_model(model, path)
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"), compression="zstd")


def nested_rows(values):
    return [np.asarray(value, np.float32).tolist() for value in values]


def sums_over_time(dims):
    """y = x + the sum of x over its first dimension: rows mix unless they are the second."""
    nodes = [node("ReduceSum", ["x", "axes"], ["s"], keepdims=1), node("Add", ["x", "s"], ["y"])]
    return build_graph(nodes, {"x": (FLOAT, dims)}, {"y": (FLOAT, dims)}, [constant("axes", np.array([0]))])


def with_state(x, state):
    nodes = [
        node("Mul", ["state", "w"], ["a"]),
        node("ReduceSum", ["a", "axes"], ["b"], keepdims=0),
        node("Add", ["x", "b"], ["y"]),
    ]
    weights = [constant("w", np.array([[[1]], [[10]]], np.float32)), constant("axes", np.array([0]))]
    return build_graph(nodes, {"x": (FLOAT, x), "state": (FLOAT, state)}, {"y": (FLOAT, x)}, weights)


def recurrent(operator, gates, dims, out, hidden=4, width=3):
    """As PyTorch exports its LSTM and GRU by default: time first, then the batch."""
    weights = [
        constant("W", RANDOM.normal(0, 0.5, (1, gates * hidden, width)).astype(np.float32)),
        constant("R", RANDOM.normal(0, 0.5, (1, gates * hidden, hidden)).astype(np.float32)),
        constant("axes", np.array([1])),
    ]
    nodes = [
        node(operator, ["x", "W", "R"], ["all"], hidden_size=hidden),
        node("Squeeze", ["all", "axes"], ["y"]),
    ]
    return build_graph(nodes, {"x": (FLOAT, dims)}, {"y": (FLOAT, out)}, weights)


def scores_by_column(weights, rows):
    """y = w · xᵀ: the rows are the second dimension of the scores."""
    count, width = weights.shape
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("MatMul", ["w", "t"], ["y"])]
    return build_graph(nodes, {"x": (FLOAT, [rows, width])}, {"y": (FLOAT, [count, rows])}, [constant("w", weights)])


def main():
    time = 6
    sequences = RANDOM.normal(size=(20, time, 2)).astype(np.float32)
    for name, dims in {
        "second_named": ["time", "batch", 2],
        "second_fixed": [time, "batch", 2],
        "second_unnamed": [None, None, 2],
    }.items():
        save(name, sums_over_time(dims), {"x": sequences}, {"x": 1}, 1)

    states = RANDOM.normal(size=(20, 2, 3)).astype(np.float32)
    x = RANDOM.normal(size=(20, 3)).astype(np.float32)
    for name, dims in {
        "state_named": (["batch", 3], [2, "batch", 3]),
        "state_same_name": (["m", 3], [2, "m", 3]),
        "state_unnamed": ([None, 3], [2, None, 3]),
    }.items():
        save(name, with_state(*dims), {"x": x, "state": states}, {"x": 0, "state": 1})

    steps = RANDOM.normal(size=(20, time, 3)).astype(np.float32)
    for operator, gates in {"LSTM": 4, "GRU": 3}.items():
        for kind, dims, out in [
            ("named", ["time", "batch", 3], ["time", "batch", 4]),
            ("unnamed", [None, None, 3], [None, None, 4]),
        ]:
            save(f"{operator.lower()}_{kind}", recurrent(operator, gates, dims, out), {"x": steps}, {"x": 1}, 1)

    # Sizes that small inputs do not show: 5 and 7 give the same behind a stride of 8.
    nodes = [
        node("MaxPool", ["x"], ["p"], kernel_shape=[8], strides=[8], ceil_mode=1),
        node("ReduceMax", ["p"], ["y"], axes=[1], keepdims=0),
    ]
    waves = [RANDOM.random((3, width)).astype(np.float32) for width in (16, 24, 16, 40)]
    save("coarse", build_graph(nodes, {"x": (FLOAT, ["N", 3, "W"])}, {"y": (FLOAT, ["N", "T"])}), {"x": waves}, {"x": 0})

    # squeeze() without axes drops the dimension of a single row, too.
    many = RANDOM.normal(size=(1025, 4)).astype(np.float32)
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1), node("Squeeze", ["m"], ["y"])]
    save("squeezed", build_graph(nodes, {"x": (FLOAT, ["N", 4])}, {"y": (FLOAT, ["N"])}), {"x": many}, {"x": 0})
    weights = [constant("w", np.arange(12, dtype=np.float32).reshape(4, 3))]
    nodes = [node("Gemm", ["x", "w"], ["m"]), node("Squeeze", ["m"], ["y"])]
    save("squeezed_list", build_graph(nodes, {"x": (FLOAT, ["N", 4])}, {"y": (FLOAT, ["N", 3])}, weights), {"x": many}, {"x": 0})

    # The same where the batch is second: [time, batch, 1, 2] becomes [time, batch, 2], and [time, 2] for a single row.
    nodes = [
        node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        node("Add", ["x", "s"], ["a"]),
        node("Squeeze", ["a"], ["y"]),
    ]
    dims = {"x": (FLOAT, ["time", "batch", 1, 2])}, {"y": (FLOAT, ["time", "batch", 2])}
    model = build_graph(nodes, *dims, [constant("axes", np.array([0]))])
    save("squeezed_second", model, {"x": RANDOM.normal(size=(9, 2, 1, 2)).astype(np.float32)}, {"x": 1}, 1)

    # Of a batch of one the whole output is the row's value.
    nodes = [node("Transpose", ["x"], ["y"], perm=[2, 0, 1])]
    spoken = [RANDOM.random((4, width)).astype(np.float32) for width in (5, 7, 5)]
    model = build_graph(nodes, {"x": (FLOAT, [1, 4, "W"])}, {"y": (FLOAT, ["W", 1, 4])})
    save("whole_output", model, {"x": spoken}, {"x": 0}, None)

    # Rows that depend on each other: no value is the right one.
    numbers = np.arange(10, dtype=np.float32).reshape(10, 1)
    column = {"x": (FLOAT, ["N", 1])}, {"y": (FLOAT, ["N", 1])}
    save("cumulative", build_graph([node("CumSum", ["x", "z"], ["y"])], *column, [constant("z", np.array(0))]), {"x": numbers}, {"x": 0})
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), node("Sub", ["x", "m"], ["y"])]
    save("centred", build_graph(nodes, *column), {"x": numbers}, {"x": 0})
    save("lstm_time_first", recurrent("LSTM", 4, ["seq", 1, 3], ["seq", 1, 4]), {"x": steps[:, :1]}, {"x": 0})
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    quantized = build_graph(nodes, {"x": (FLOAT, ["N", 4])}, {"y": (FLOAT, ["N", 4])})
    save("quantized", quantized, {"x": many[:50]}, {"x": 0})

    # An output of another kind than a tensor, which nobody need ask for.
    nodes = [node("Identity", ["x"], ["label"]), node("SequenceConstruct", ["x"], ["all"])]
    model = build_graph(nodes, {"x": (FLOAT, ["N", 1])}, {"label": (FLOAT, ["N", 1])})
    sequence = helper.make_tensor_sequence_value_info("all", FLOAT, ["N", 1])
    model.graph.output.append(sequence)
    save("sequence_beside", model, {"x": numbers})

    # A graph of nodes and edges has no rows.
    nodes = [node("Gather", ["x", "e"], ["g"], axis=0), node("ReduceMean", ["g"], ["y"], axes=[1], keepdims=0)]
    inputs = {"x": (FLOAT, ["num_nodes", 4]), "e": (INT64, ["num_edges"])}
    save("graph", build_graph(nodes, inputs, {"y": (FLOAT, ["num_edges"])}), None)

    # Scores in columns, of which there are as many as a trial has rows: five, two of large rows, two of a fixed number.
    few = RANDOM.normal(size=(7, 4)).astype(np.float32)
    weights = RANDOM.integers(-2, 3, (5, 4)).astype(np.float32)
    save("scores_in_columns", scores_by_column(weights, "N"), {"x": few}, {"x": 0}, 1)
    fixed, one = scores_by_column(weights[:2], 2), scores_by_column(weights[:2], 1)
    save("scores_in_columns_fixed", fixed, {"x": few}, {"x": 0}, 1, one)
    wide = np.repeat(np.arange(3, dtype=np.float32), 40_000).reshape(3, 40_000)
    weights = np.tile(np.array([[1, 0], [0, -1]], np.float32), (1, 20_000))
    save("scores_in_columns_large", scores_by_column(weights, "N"), {"x": wide}, {"x": 0}, 1)

    # A batch of one behind the time, whose score is the sum of its steps.
    nodes = [node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    model = build_graph(nodes, {"x": (FLOAT, [time, 1, 3])}, {"y": (FLOAT, [1, 3])}, [constant("axes", np.array([0]))])
    save("one_behind_time", model, {"x": steps}, {"x": 1})


if __name__ == "__main__":
    main()
