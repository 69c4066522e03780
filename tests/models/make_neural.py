"""Two small neural networks, trained with JAX and written out node by node.

Usage: python make_neural.py     (writes neural/)
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import TensorProto, helper, numpy_helper

from common import MAX_ROWS, SEED, build_graph, check, save_case
from data import diabetes, digits

FLOAT = TensorProto.FLOAT


def train(loss, weights, steps, rate=0.01):
    """Adam on the whole data set at every step."""

    @jax.jit
    def update(weights, mean, square, step):
        gradient = jax.grad(loss)(weights)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradient)
        scale = rate * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weights = jax.tree.map(lambda w, m, s: w - scale * m / (jnp.sqrt(s) + 1e-8), weights, mean, square)
        return weights, mean, square

    mean = square = jax.tree.map(jnp.zeros_like, weights)
    for step in range(1, steps + 1):
        weights, mean, square = update(weights, mean, square, step)
    return weights


def initial_weights(**shapes):
    """Of a layer's shape the first dimension is its outputs."""
    random = np.random.default_rng(SEED)
    weights = {}
    for layer, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{layer}_weight"] = jnp.array(random.normal(0, scale, shape), jnp.float32)
        weights[f"{layer}_bias"] = jnp.zeros(shape[0], jnp.float32)
    return weights


def initializers(weights):
    return [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in weights.items()]


def layer(operator, value, output, **attributes):
    """A node that has weights: they are named after its output."""
    return helper.make_node(operator, [value, f"{output}_weight", f"{output}_bias"], [output], **attributes)


def step(operator, value, output, **attributes):
    return helper.make_node(operator, [value], [output], **attributes)


def dense(weights, name, x):
    return x @ weights[f"{name}_weight"].T + weights[f"{name}_bias"]


# Digits: two convolutions.


def convolve(weights, name, x):
    y = lax.conv(x, weights[f"{name}_weight"], window_strides=(1, 1), padding="SAME")
    return y + weights[f"{name}_bias"][:, None, None]


def digits_logits(weights, images):
    x = jax.nn.relu(convolve(weights, "conv1", images))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jax.nn.relu(convolve(weights, "conv2", x))
    return dense(weights, "logits", x.reshape(len(x), -1))


def save_digits_cnn():
    columns, target = digits()
    images = columns["pixels"].reshape(-1, 1, 8, 8)
    scaled = images / 16

    def loss(weights):
        return -jax.nn.log_softmax(digits_logits(weights, scaled))[np.arange(len(target)), target].mean()

    weights = initial_weights(conv1=(8, 1, 3, 3), conv2=(16, 8, 3, 3), logits=(10, 256))
    weights = train(loss, weights, steps=60)
    weights["conv1_weight"] = weights["conv1_weight"] / 16  # takes pixels as they are, from 0 to 16

    model = build_graph(
        [
            layer("Conv", "image", "conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            step("Relu", "conv1", "relu1"),
            step("MaxPool", "relu1", "pool", kernel_shape=[2, 2], strides=[2, 2]),
            layer("Conv", "pool", "conv2", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            step("Relu", "conv2", "relu2"),
            step("Flatten", "relu2", "flat"),
            layer("Gemm", "flat", "logits", transB=1),
            step("Softmax", "logits", "probabilities", axis=1),
        ],
        {"image": (FLOAT, ["N", 1, 8, 8])},
        {"probabilities": (FLOAT, ["N", 10])},
        initializers(weights),
    )
    images = images[:MAX_ROWS]
    outputs = save_case("neural/digits_cnn", model, {"pixels": images}, "list")
    check("digits_cnn", outputs["probabilities"], np.array(jax.nn.softmax(digits_logits(weights, images))))
    accuracy = (outputs["probabilities"].argmax(axis=1) == target[:MAX_ROWS]).mean()
    assert accuracy > 0.9, accuracy


# Diabetes: a dense network for a number.


def diabetes_value(weights, x):
    x = jax.nn.relu(dense(weights, "dense1", x))
    x = jax.nn.relu(dense(weights, "dense2", x))
    return dense(weights, "value", x)


def save_diabetes_mlp():
    columns, target = diabetes()
    features = np.column_stack(list(columns.values()))
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    target_mean, target_deviation = target.mean(), target.std()
    standard = (features - mean) / deviation
    standard_target = (target - target_mean) / target_deviation

    def loss(weights):
        return jnp.square(diabetes_value(weights, standard)[:, 0] - standard_target).mean()

    weights = initial_weights(dense1=(32, 10), dense2=(16, 32), value=(1, 16))
    weights = train(loss, weights, steps=60)
    expected = np.array(diabetes_value(weights, standard))[:, 0] * target_deviation + target_mean

    # The standardisation of features and target is folded into the first and the last layer.
    weights["dense1_weight"] = weights["dense1_weight"] / deviation
    weights["dense1_bias"] = weights["dense1_bias"] - weights["dense1_weight"] @ mean
    weights["value_weight"] = weights["value_weight"] * target_deviation
    weights["value_bias"] = weights["value_bias"] * target_deviation + target_mean

    model = build_graph(
        [
            layer("Gemm", "features", "dense1", transB=1),
            step("Relu", "dense1", "relu1"),
            layer("Gemm", "relu1", "dense2", transB=1),
            step("Relu", "dense2", "relu2"),
            layer("Gemm", "relu2", "value", transB=1),
        ],
        {"features": (FLOAT, ["N", 10])},
        {"value": (FLOAT, ["N", 1])},
        initializers(weights),
    )
    outputs = save_case("neural/diabetes_mlp", model, columns, "matrix")
    check("diabetes_mlp", outputs["value"][:, 0], expected)
    assert np.square(expected - target).mean() < 0.6 * np.var(target)


if __name__ == "__main__":
    save_digits_cnn()
    save_diabetes_mlp()
