"""Keras on TensorFlow: each kind of model by tf2onnx and by Keras' own export.

Usage: python keras_models.py OUT [--only SUBSTRING]
"""

import os

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

from cases import ROWS, SEED, Suite, codes, numbers, random, register_in

KINDS = []
kind = register_in(KINDS)
CUSTOMER = ["age", "income", "balance", "visits", "tenure"]


def table():
    return keras.Input((5,), name="customer")


def series():
    return keras.Input((12, 3), name="series")


def picture():
    return keras.Input((8, 8, 1), name="picture")


def of_table(*chain):
    return of(table(), *chain), {"customer": numbers(5)}


def of_series(*chain):
    return of(series(), *chain), {"series": numbers(12, 3)}


def of_picture(*chain):
    return of(picture(), *chain), {"picture": numbers(8, 8, 1)}


def of(start, *chain):
    value = start
    for layer in chain:
        value = layer(value)
    return keras.Model(start, value)


# Tables


@kind(features={"customer": CUSTOMER})
def sequential_regressor():
    return keras.Sequential([table(), layers.Dense(16, "relu"), layers.Dense(1)]), {"customer": numbers(5)}


@kind(features={"customer": CUSTOMER})
def sequential_as_model():
    model = keras.Sequential([table(), layers.Dense(16, "relu"), layers.Dense(1)])
    return keras.Model(model.inputs, model.outputs), {"customer": numbers(5)}


@kind(features={"customer": CUSTOMER})
def batch_norm_classifier():
    chain = [
        layers.Dense(16),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Dense(3, "softmax"),
    ]
    return of_table(*chain)


@kind(features={"customer": CUSTOMER})
def normalized():
    normalization = layers.Normalization()
    normalization.adapt(numbers(5) * 3 + 1)
    return of_table(normalization, layers.Dense(8, "swish"), layers.LayerNormalization(), layers.Dense(1, "sigmoid"))


@kind(features={"customer": CUSTOMER})
def gelu():
    return of_table(layers.Dense(8, "gelu"), layers.Dense(1))


@kind(features={"customer": CUSTOMER})
def gelu_by_tanh():
    approximately = lambda x: keras.activations.gelu(x, approximate=True)
    return of_table(layers.Dense(8, approximately), layers.Dense(1))


@kind(features={"numeric": ["price", "qty", "discount"]})
def embeddings():
    """Codes as inputs of their own, each a plain column."""
    store, product = (keras.Input((1,), dtype="int32", name=name) for name in ("store", "product"))
    numeric = keras.Input((3,), name="numeric")
    embedded = [layers.Flatten()(layers.Embedding(count, 4)(value)) for count, value in ((10, store), (20, product))]
    hidden = layers.Dense(16, "relu")(layers.Concatenate()([*embedded, layers.BatchNormalization()(numeric)]))
    model = keras.Model([store, product, numeric], layers.Dense(1)(hidden))
    return model, {"store": codes(10, 1), "product": codes(20, 1), "numeric": numbers(3)}


@kind()
def columns():
    """An input for each column."""
    names = ["age", "income", "visits"]
    inputs = [keras.Input((1,), name=name) for name in names]
    model = keras.Model(inputs, of_values(layers.Concatenate()(inputs), layers.Dense(8, "swish"), layers.Dense(1)))
    return model, {name: numbers(3)[:, [place]] for place, name in enumerate(names)}


def of_values(value, *chain):
    for layer in chain:
        value = layer(value)
    return value


@kind(features={"customer": CUSTOMER})
def several_outputs():
    start = table()
    hidden = layers.Dense(16, "tanh")(start)
    outputs = [layers.Dense(1, name="price")(hidden), layers.Dense(3, "softmax", name="plan")(hidden)]
    return keras.Model(start, outputs), {"customer": numbers(5)}


@kind(features={"customer": CUSTOMER})
def named_outputs():
    start = table()
    hidden = layers.Dense(16, "tanh")(start)
    outputs = {"price": layers.Dense(1)(hidden), "churn": layers.Dense(1, "sigmoid")(hidden)}
    return keras.Model(start, outputs), {"customer": numbers(5)}


@kind(features={"customer": CUSTOMER})
def autoencoder():
    return of_table(layers.Dense(3, "elu"), layers.Dense(2), layers.Dense(3, "selu"), layers.Dense(5))


@kind(features={"customer": CUSTOMER})
def residual():
    start = table()
    hidden = layers.Dense(8)(start)
    for _ in range(2):
        hidden = layers.Add()(
            [hidden, of_values(hidden, layers.Dense(8, "relu"), layers.UnitNormalization(), layers.Dense(8))]
        )
    return keras.Model(start, layers.Dense(1)(hidden)), {"customer": numbers(5)}


@kind(features={"customer": CUSTOMER})
def discretized():
    buckets = layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])
    return of_table(buckets, layers.Embedding(4, 3), layers.Flatten(), layers.Dense(1))


@kind(features={"customer": CUSTOMER})
def discretized_by_sums():
    """The same by comparisons."""
    buckets = layers.Lambda(lambda x: sum(keras.ops.cast(x >= border, "int32") for border in (-1.0, 0.0, 1.0)))
    return of_table(buckets, layers.Embedding(4, 3), layers.Flatten(), layers.Dense(1))


@kind()
def one_hot():
    plan = keras.Input((1,), dtype="int32", name="plan")
    encoded = layers.CategoryEncoding(num_tokens=6, output_mode="one_hot")(plan)
    return keras.Model(plan, layers.Dense(1)(encoded)), {"plan": codes(6, 1)}


@kind()
def words_looked_up():
    city = keras.Input((1,), dtype="string", name="city")
    lookup = layers.StringLookup(vocabulary=["Oslo", "Rome", "Wien"])
    model = keras.Model(city, of_values(lookup(city), layers.Embedding(5, 4), layers.Flatten(), layers.Dense(1)))
    return model, {"city": random().choice(np.array(["Oslo", "Rome", "Wien", "Bern"], dtype=object), (ROWS, 1))}


@kind()
def recommender():
    user, item = keras.Input((1,), dtype="int32", name="user"), keras.Input((1,), dtype="int32", name="item")
    dot = layers.Dot(axes=2)([layers.Embedding(30, 8)(user), layers.Embedding(40, 8)(item)])
    return keras.Model([user, item], layers.Flatten()(dot)), {"user": codes(30, 1), "item": codes(40, 1)}


@kind()
def two_towers():
    left, right = keras.Input((6,), name="customer"), keras.Input((3,), name="product")
    similar = layers.Dot(axes=1, normalize=True)([layers.Dense(4)(left), layers.Dense(4)(right)])
    return keras.Model([left, right], similar), {"customer": numbers(6), "product": numbers(3)}


@kind(features={"customer": CUSTOMER})
def subclassed():
    """A model that is a class with a call of its own."""

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(8, "relu"), layers.Dense(2)

        def call(self, customer):
            return keras.ops.softmax(self.last(self.first(keras.ops.clip(customer, -2, 2))))

    model = Subclassed()
    model(numbers(5))
    return model, {"customer": numbers(5)}


# Sequences


@kind()
def lstm():
    return of_series(layers.LSTM(8), layers.Dense(2))


@kind()
def gru():
    return of_series(layers.GRU(8), layers.Dense(2))


@kind()
def gru_reset_before():
    return of_series(layers.GRU(8, reset_after=False), layers.Dense(2))


@kind()
def simple_rnn():
    return of_series(layers.SimpleRNN(8), layers.Dense(1))


@kind()
def bidirectional_lstm():
    chain = [layers.Bidirectional(layers.LSTM(8, return_sequences=True)), layers.LSTM(4), layers.Dense(1)]
    return of_series(*chain)


@kind()
def lstm_of_every_step():
    return of_series(layers.LSTM(8, return_sequences=True), layers.TimeDistributed(layers.Dense(1, "sigmoid")))


@kind()
def lstm_of_any_length():
    return of(keras.Input((None, 3), name="series"), layers.LSTM(8), layers.Dense(1)), {"series": numbers(9, 3)}


@kind()
def encoder_decoder():
    chain = [layers.LSTM(8), layers.RepeatVector(7), layers.GRU(8, return_sequences=True)]
    return of_series(*chain, layers.TimeDistributed(layers.Dense(1)), layers.Reshape((7,)))


@kind()
def lstm_unrolled():
    return of_series(layers.LSTM(6, unroll=True), layers.Dense(1))


@kind()
def attention():
    start = series()
    hidden = layers.Dense(8)(start)
    seen = layers.LayerNormalization()(layers.Add()([hidden, layers.MultiHeadAttention(2, 4)(hidden, hidden)]))
    return keras.Model(start, layers.Dense(2)(layers.GlobalAveragePooling1D()(seen))), {"series": numbers(12, 3)}


def tokens(length):
    words = codes(49, length) + 1
    for row, size in zip(words, random().integers(1, length + 1, ROWS)):
        row[size:] = 0
    return words


@kind()
def text_average():
    words = keras.Input((10,), dtype="int32", name="words")
    return of(words, layers.Embedding(50, 8), layers.GlobalAveragePooling1D(), layers.Dense(2, "softmax")), {
        "words": codes(50, 10)
    }


@kind()
def text_masked_average():
    words = keras.Input((10,), dtype="int32", name="words")
    chain = [layers.Embedding(50, 8, mask_zero=True), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    return of(words, *chain), {"words": tokens(10)}


@kind()
def text_masked_lstm():
    words = keras.Input((10,), dtype="int32", name="words")
    return of(words, layers.Embedding(50, 8, mask_zero=True), layers.LSTM(8), layers.Dense(1)), {"words": tokens(10)}


@kind()
def text_masked_gru():
    words = keras.Input((10,), dtype="int32", name="words")
    return of(words, layers.Embedding(50, 8, mask_zero=True), layers.GRU(8), layers.Dense(1)), {"words": tokens(10)}


@kind()
def masked_series():
    """Steps of zeros are left out."""
    values = numbers(12, 3)
    for row, size in zip(values, random().integers(1, 13, ROWS)):
        row[size:] = 0
    return of(series(), layers.Masking(0.0), layers.LSTM(6), layers.Dense(1)), {"series": values}


# Signals and pictures


@kind()
def conv1d():
    chain = [
        layers.Conv1D(8, 3, padding="causal", activation="relu"),
        layers.MaxPooling1D(2),
        layers.Conv1D(8, 3, dilation_rate=2),
    ]
    return of_series(*chain, layers.Flatten(), layers.Dense(1))


@kind()
def conv2d():
    block = lambda width: [
        layers.Conv2D(width, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ]
    return of_picture(*block(4), *block(8), layers.Flatten(), layers.Dense(10, "softmax"))


@kind()
def separable():
    chain = [layers.SeparableConv2D(4, 3, activation="relu"), layers.DepthwiseConv2D(3), layers.GroupNormalization(2)]
    return of_picture(*chain, layers.GlobalAveragePooling2D(), layers.Dense(2))


@kind()
def upsampled():
    down = [layers.Conv2D(4, 3, 2, padding="same"), layers.PReLU(shared_axes=[1, 2])]
    return of_picture(
        *down, layers.Conv2DTranspose(4, 3, 2, padding="same"), layers.UpSampling2D(), layers.Conv2D(1, 1, 2)
    )


@kind()
def bytes_of_pictures():
    pixels = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    chain = [layers.Rescaling(1 / 255), layers.Resizing(4, 4), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)]
    return of(pixels, *chain), {"pixels": random().integers(0, 256, (ROWS, 8, 8, 3)).astype(np.uint8)}


@kind()
def conv_lstm():
    frames = keras.Input((4, 6, 6, 1), name="frames")
    return of(frames, layers.ConvLSTM2D(3, 3, padding="same"), layers.Flatten(), layers.Dense(1)), {
        "frames": numbers(4, 6, 6, 1)
    }


# Training, and both exporters


def fit(model, feeds, steps=5):
    """A few steps towards made-up targets."""
    inputs = arguments(model, feeds)
    flat = keras.tree.flatten(model(inputs))
    targets = [np.sin(np.arange(np.prod(output.shape))).reshape(output.shape).astype(np.float32) for output in flat]
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(model(inputs, training=True))
            loss = sum(tf.reduce_mean((output - target) ** 2) for output, target in zip(outputs, targets))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))


def arguments(model, feeds):
    tensors = [tf.constant(array.astype(str) if array.dtype == object else array) for array in feeds.values()]
    return tensors[0] if len(tensors) == 1 else tensors


def signature(feeds):
    kinds = {name: tf.string if array.dtype == object else array.dtype for name, array in feeds.items()}
    return [tf.TensorSpec([None, *array.shape[1:]], kinds[name], name=name) for name, array in feeds.items()]


def by_tf2onnx(model, feeds):
    return lambda path: tf2onnx.convert.from_keras(model, signature(feeds), output_path=str(path))


def by_tf2onnx_of_function(model, feeds):
    """What to do where from_keras fails."""
    call = lambda *inputs: model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
    function = tf.function(call, input_signature=signature(feeds))
    return lambda path: tf2onnx.convert.from_function(function, signature(feeds), output_path=str(path))


def by_keras(model, feeds):
    return lambda path: model.export(str(path), format="onnx", verbose=False)


EXPORTERS = {"tf2onnx": by_tf2onnx, "function": by_tf2onnx_of_function, "keras": by_keras}


def main():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    suite = Suite("keras")
    for name, function, about in KINDS:
        names = {exporter: f"{name}_{exporter}" for exporter in EXPORTERS}
        if not any(map(suite.wants, names.values())):
            continue
        keras.backend.clear_session()
        keras.utils.set_random_seed(SEED)
        model, feeds = function()
        fit(model, feeds)
        outputs = model(arguments(model, feeds), training=False)
        expected = [np.asarray(output) for output in keras.tree.flatten(outputs)]
        for exporter, export in EXPORTERS.items():
            suite.add(names[exporter], export(model, feeds), feeds, expected, **about)
    suite.close()


if __name__ == "__main__":
    main()
