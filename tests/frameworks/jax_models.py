"""JAX and Flax by jax2onnx.

Usage: python jax_models.py OUT [--only SUBSTRING]
"""

import os

os.environ |= {"JAX_PLATFORMS": "cpu"}

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax2onnx import to_onnx

from cases import SEED, Suite, codes, numbers, random, register_in

KINDS = []
kind = register_in(KINDS)
CUSTOMER = ["age", "income", "balance", "visits", "tenure"]


def rngs():
    return nnx.Rngs(SEED)


class Chain(nnx.Module):
    """Layers and functions, one after the other."""

    def __init__(self, *parts):
        self.parts = nnx.List(parts)

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x


def dense(before, after):
    return nnx.Linear(before, after, rngs=rngs())


@kind(features={"x": CUSTOMER})
def plain_function():
    """No layers: a logistic regression in three lines."""
    weights = jnp.array(random().normal(size=(5, 3)), jnp.float32)
    return lambda x: jax.nn.softmax((x - 1.0) / 2.0 @ weights), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def batch_norm():
    return Chain(dense(5, 16), nnx.BatchNorm(16, rngs=rngs()), nnx.relu, dense(16, 1)), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def layer_norm():
    return Chain(dense(5, 16), nnx.LayerNorm(16, rngs=rngs()), nnx.gelu, nnx.Dropout(0.2, rngs=rngs()), dense(16, 2)), {
        "x": numbers(5)
    }


@kind(features={"x": CUSTOMER})
def several_outputs():
    class Outputs(nnx.Module):
        def __init__(self):
            self.encoder, self.decoder = dense(5, 2), dense(2, 5)

        def __call__(self, x):
            rebuilt = self.decoder(nnx.tanh(self.encoder(x)))
            return rebuilt, jnp.mean((rebuilt - x) ** 2, axis=1), jnp.argmax(rebuilt, axis=1)

    return Outputs(), {"x": numbers(5)}


@kind(features={"x_cat": ["store", "product"], "x_num": ["price", "qty", "discount"]})
def embeddings():
    class Tabular(nnx.Module):
        def __init__(self):
            self.table, self.head = nnx.Embed(20, 4, rngs=rngs()), Chain(dense(11, 8), nnx.relu, dense(8, 1))

        def __call__(self, x_cat, x_num):
            embedded = self.table(x_cat).reshape(x_num.shape[0], 8)
            return self.head(jnp.concatenate([embedded, x_num], axis=1))

    return Tabular(), {"x_cat": codes(20, 2), "x_num": numbers(3)}


@kind()
def two_towers():
    class Towers(nnx.Module):
        def __init__(self):
            self.left, self.right = dense(6, 4), dense(3, 4)

        def __call__(self, customer, product):
            left, right = self.left(customer), self.right(product)
            return jnp.sum(left * right, axis=-1) / (jnp.linalg.norm(left, axis=-1) * jnp.linalg.norm(right, axis=-1))

    return Towers(), {"customer": numbers(6), "product": numbers(3)}


@kind()
def lstm_of_flax():
    return Chain(nnx.RNN(nnx.LSTMCell(3, 8, rngs=rngs())), lambda x: x[:, -1], dense(8, 1)), {"series": numbers(12, 3)}


class StepByStep(nnx.Module):
    """The last output of a cell in a loop of Python, in place of nnx.RNN."""

    def __init__(self, cell, is_lstm):
        self.cell, self.is_lstm = cell, is_lstm

    def __call__(self, series):
        zeros = jnp.zeros((series.shape[0], 8))
        carry = (zeros, zeros) if self.is_lstm else zeros
        for step in range(12):
            carry, output = self.cell(carry, series[:, step])
        return output


@kind()
def lstm():
    return Chain(StepByStep(nnx.LSTMCell(3, 8, rngs=rngs()), True), dense(8, 1)), {"series": numbers(12, 3)}


@kind()
def gru():
    return Chain(StepByStep(nnx.GRUCell(3, 8, rngs=rngs()), False), dense(8, 1)), {"series": numbers(12, 3)}


@kind()
def scanned():
    """A moving average by lax.scan, time first within."""

    def smooth(series):
        step = lambda carry, value: (0.8 * carry + 0.2 * value,) * 2
        return jax.lax.scan(step, jnp.zeros_like(series[:, 0]), series.T)[1].T

    return smooth, {"series": numbers(10)}


@kind()
def attention():
    class Block(nnx.Module):
        def __init__(self):
            self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs())
            self.norm, self.head = nnx.LayerNorm(8, rngs=rngs()), dense(8, 2)

        def __call__(self, items):
            return self.head(self.norm(items + self.attention(items)).mean(axis=1))

    return Block(), {"items": numbers(6, 8)}


@kind()
def conv1d():
    return Chain(nnx.Conv(3, 8, (3,), rngs=rngs()), nnx.relu, lambda x: x.max(axis=1), dense(8, 1)), {
        "series": numbers(12, 3)
    }


def pooled(pool):
    flatten = lambda x: x.reshape(x.shape[0], 128)
    return Chain(nnx.Conv(1, 8, (3, 3), rngs=rngs()), nnx.relu, pool, flatten, dense(128, 10)), {
        "picture": numbers(8, 8, 1)
    }


@kind()
def conv2d():
    return pooled(lambda x: nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)))


@kind()
def conv2d_by_position():
    """The arguments of max_pool without their names."""
    return pooled(lambda x: nnx.max_pool(x, (2, 2), (2, 2)))


@kind()
def text_average():
    return Chain(nnx.Embed(50, 8, rngs=rngs()), lambda x: x.mean(axis=1), dense(8, 2), nnx.softmax), {
        "words": codes(50, 9)
    }


@kind(features={"x": CUSTOMER})
def buckets():
    borders = jnp.array([-1.0, 0.0, 1.0])
    weights = jnp.array(random().normal(size=4), jnp.float32)
    return lambda x: weights[jnp.searchsorted(borders, x)].sum(axis=1), {"x": numbers(5)}


def fit(model, inputs, steps=10):
    """A few steps towards made-up targets; of running means they are not the first."""
    if not isinstance(model, nnx.Module):
        return

    @nnx.jit
    @nnx.grad
    def gradient(model):
        outputs = jax.tree.leaves(model(*inputs))
        return sum(
            jnp.mean((out - jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)) ** 2)
            for out in outputs
            if out.dtype == jnp.float32
        )

    for _ in range(steps):
        moved = jax.tree.map(lambda value, step: value - 0.05 * step, nnx.state(model, nnx.Param), gradient(model))
        nnx.update(model, moved)
    model.eval()


def export(model, feeds):
    """The rows are B, whose size is free."""
    (rows,) = jax.export.symbolic_shape("B")
    shapes = [jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for array in feeds.values()]
    return lambda path: to_onnx(model, shapes, input_names=list(feeds), return_mode="file", output_path=str(path))


def main():
    suite = Suite("jax")
    for name, function, about in KINDS:
        if suite.wants(name):
            model, feeds = function()
            fit(model, list(map(jnp.asarray, feeds.values())))
            expected = [np.asarray(output) for output in jax.tree.leaves(model(*feeds.values()))]
            suite.add(name, export(model, feeds), feeds, expected, **about)
    suite.close()


if __name__ == "__main__":
    main()
