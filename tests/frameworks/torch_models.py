"""PyTorch: each kind of network by both exporters of torch.onnx.

Usage: python torch_models.py OUT [--only SUBSTRING]
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cases import ROWS, SEED, Suite, numbers, random

KINDS = []


def kind(time_first=(), open_time=(), fixed=0, quantized=False, **about):
    """A function that gives a network and its inputs, rows first. `time_first` are the names of inputs and the positions of
    outputs whose rows are second, `open_time` the inputs whose other size is free, `fixed` is the number of rows of a model
    that is exported for that many; `about` is for Suite.add."""

    def register(function):
        KINDS.append((function.__name__, function, time_first, open_time, fixed, quantized, about))
        return function

    return register


def codes(count, *shape):
    return random().integers(0, count, (ROWS, *shape))


CUSTOMER = ["age", "income", "balance", "visits", "tenure"]
SHOP = {"x_cat": ["store", "product"], "x_num": ["price", "qty", "discount"]}


def dense(*sizes, last=None):
    """Linear layers with ReLU between them."""
    layers = []
    for before, after in zip(sizes, sizes[1:]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([last] if last else []))


# Tables


class OfX(nn.Module):
    """Gives a chain of layers an input that is called x."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


@kind(features={"x": CUSTOMER})
def batch_norm_regressor():
    layers = [nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1)]
    return OfX(*layers), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def softmax_classifier():
    """The label and the probabilities."""

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(5, 16, 3)

        def forward(self, x):
            probabilities = torch.softmax(self.body(x), dim=1)
            return torch.argmax(probabilities, dim=1), probabilities

    return Classifier(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def squeezed_sigmoid():
    """One number for each row, as losses want it."""

    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(5, 8, 1)

        def forward(self, x):
            return torch.sigmoid(self.body(x)).squeeze()

    return Squeezed(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def scaled_inside():
    """Means and deviations as buffers, missing values filled in, outliers clamped."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
            self.register_buffer("deviation", torch.tensor([2.0, 2.0, 0.5, 1.0, 3.0]))
            self.body = dense(5, 8, 1)

        def forward(self, x):
            x = torch.where(torch.isnan(x), self.mean, x)
            return self.body(torch.clamp((x - self.mean) / self.deviation, -3, 3))

    x = numbers(5) * 10
    x[random().random(x.shape) < 0.1] = np.nan
    return Scaled(), {"x": x}


@kind(features=SHOP)
def embeddings():
    class Tabular(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList([nn.Embedding(10, 4), nn.Embedding(20, 6)])
            self.norm = nn.BatchNorm1d(3)
            self.body = dense(13, 16, 1)

        def forward(self, x_cat, x_num):
            embedded = [table(x_cat[:, place]) for place, table in enumerate(self.tables)]
            return self.body(torch.cat([*embedded, self.norm(x_num)], dim=1))

    return Tabular(), {"x_cat": codes(10, 2), "x_num": numbers(3)}


@kind()
def recommender():
    """A user and an item, one number each."""

    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            self.users, self.items = nn.Embedding(30, 8), nn.Embedding(40, 8)
            self.bias = nn.Embedding(40, 1)

        def forward(self, user, item):
            return (self.users(user) * self.items(item)).sum(dim=1) + self.bias(item).squeeze(1)

    return Factors(), {"user": codes(30), "item": codes(40)}


@kind(features=SHOP)
def wide_and_deep():
    class WideAndDeep(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Linear(13, 1)
            self.table = nn.Embedding(10, 4)
            self.deep = dense(11, 16, 8, 1)

        def forward(self, x_cat, x_num):
            hot = F.one_hot(x_cat[:, 0], 10).float()
            deep = torch.cat([self.table(x_cat).flatten(1), x_num], dim=1)
            return torch.sigmoid(self.wide(torch.cat([hot, x_num], dim=1)) + self.deep(deep))

    return WideAndDeep(), {"x_cat": codes(10, 2), "x_num": numbers(3)}


@kind(features={"fields": ["site", "ad", "device", "hour"]})
def deep_fm():
    class DeepFactorization(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.factors = nn.Embedding(40, 1), nn.Embedding(40, 6)
            self.register_buffer("offsets", torch.tensor([0, 10, 20, 30]))
            self.deep = dense(24, 16, 1)

        def forward(self, fields):
            place = fields + self.offsets
            v = self.factors(place)
            pairs = 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(1, keepdim=True)
            return torch.sigmoid(self.linear(place).sum(1) + pairs + self.deep(v.flatten(1)))

    return DeepFactorization(), {"fields": codes(10, 4)}


@kind(features={"x": CUSTOMER})
def deep_and_cross():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.cross = nn.ModuleList([nn.Linear(5, 5) for _ in range(2)])
            self.deep = dense(5, 16, 8)
            self.head = nn.Linear(13, 1)

        def forward(self, x):
            crossed = x
            for layer in self.cross:
                crossed = x * layer(crossed) + crossed
            return self.head(torch.cat([crossed, self.deep(x)], dim=1))

    return Cross(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def residual_table():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.body = nn.LayerNorm(16), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

        def forward(self, x):
            return x + self.body(self.norm(x))

    return OfX(nn.Linear(5, 16), Block(), Block(), nn.SiLU(), nn.Linear(16, 2)), {"x": numbers(5)}


@kind(features=SHOP)
def feature_tokens():
    """A transformer whose tokens are the features of a row, and one more for the whole row."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 8)
            self.weight, self.bias = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.randn(3, 8))
            self.whole = nn.Parameter(torch.randn(1, 1, 8))
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(8, 1)

        def forward(self, x_cat, x_num):
            tokens = [
                self.whole.expand(x_cat.shape[0], -1, -1),
                self.table(x_cat),
                x_num.unsqueeze(-1) * self.weight + self.bias,
            ]
            return self.head(self.encoder(torch.cat(tokens, dim=1))[:, 0])

    return Tokens(), {"x_cat": codes(20, 2), "x_num": numbers(3)}


@kind(features={"x": CUSTOMER})
def autoencoder():
    """What is rebuilt, and how far off it is."""

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = dense(5, 8, 2), dense(2, 8, 5)

        def forward(self, x):
            rebuilt = self.decoder(self.encoder(x))
            return rebuilt, ((rebuilt - x) ** 2).mean(dim=1)

    return Autoencoder(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def variational():
    class Variational(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.mean, self.spread = dense(5, 8, 8), nn.Linear(8, 2), nn.Linear(8, 2)
            self.decoder = dense(2, 8, 5)

        def forward(self, x):
            hidden = torch.tanh(self.body(x))
            mean, spread = self.mean(hidden), self.spread(hidden)
            loss = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)
            return self.decoder(mean), mean, loss

    return Variational(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def dictionary_of_outputs():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.price, self.plan = dense(5, 8, 8), nn.Linear(8, 1), nn.Linear(8, 3)

        def forward(self, x):
            hidden = self.body(x)
            return {"price": self.price(hidden).squeeze(-1), "plan": torch.softmax(self.plan(hidden), -1)}

    return Named(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def quantiles():
    """Three numbers that grow."""

    class Quantiles(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(5, 16, 3)

        def forward(self, x):
            first, *steps = self.body(x).split(1, dim=1)
            return torch.cat([first, *steps], dim=1).sort(dim=1).values

    return Quantiles(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def mixture_density():
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(5, 16, 9)

        def forward(self, x):
            weights, means, spreads = self.body(x).chunk(3, dim=1)
            return torch.softmax(weights, 1), means, F.softplus(spreads) + 1e-3

    return Mixture(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def survival_curve():
    class Survival(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense(5, 16, 12)

        def forward(self, x):
            return torch.exp(torch.cumsum(F.logsigmoid(self.body(x)), dim=1))

    return Survival(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def normalizing_flow():
    """How likely a row is."""

    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.shifts = nn.ModuleList([dense(2, 8, 6), dense(3, 8, 4)])

        def forward(self, x):
            total = torch.zeros_like(x[:, 0])
            left, right = x[:, :2], x[:, 2:]
            for layer in self.shifts:
                shift, scale = layer(left).chunk(2, dim=1)
                right = right * torch.exp(torch.tanh(scale)) + shift
                total = total + torch.tanh(scale).sum(1)
                left, right = right, left
            z = torch.cat([left, right], dim=1)
            return total - 0.5 * (z.square() + np.log(2 * np.pi)).sum(1)

    return Flow(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def experts():
    """The two best of four small networks."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(5, 4)
            self.experts = nn.ModuleList([dense(5, 8, 2) for _ in range(4)])

        def forward(self, x):
            best = torch.topk(self.gate(x), 2, dim=1)
            weights = torch.zeros_like(self.gate(x)).scatter(1, best.indices, torch.softmax(best.values, 1))
            answers = torch.stack([expert(x) for expert in self.experts], dim=1)
            return (weights.unsqueeze(-1) * answers).sum(1)

    return Experts(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def nearest_centres():
    """The three nearest of ten centres, and how far they are."""

    class Nearest(nn.Module):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.randn(10, 5))

        def forward(self, x):
            nearest = torch.topk(torch.cdist(x, self.centres), 3, largest=False)
            return nearest.indices, nearest.values

    return Nearest(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def nearest_centres_by_squares():
    """The same without cdist."""

    class Nearest(nn.Module):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.randn(10, 5))

        def forward(self, x):
            distances = (x.unsqueeze(1) - self.centres).square().sum(-1).sqrt()
            nearest = torch.topk(distances, 3, largest=False)
            return nearest.indices, nearest.values

    return Nearest(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def buckets():
    """Numbers become codes by their place between borders."""

    class Buckets(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("borders", torch.tensor([-1.0, -0.3, 0.0, 0.4, 1.2]))
            self.table = nn.Embedding(6, 4)
            self.head = nn.Linear(20, 1)

        def forward(self, x):
            return self.head(self.table(torch.bucketize(x, self.borders)).flatten(1))

    return Buckets(), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def activations():
    names = [nn.PReLU(), nn.ELU(), nn.SELU(), nn.Mish(), nn.Hardswish(), nn.Softsign(), nn.LeakyReLU(0.1), nn.GLU()]
    layers = [part for activation in names for part in (nn.Linear(8, 8), activation)]
    return OfX(nn.Linear(5, 8), *layers, nn.Linear(4, 1)), {"x": numbers(5)}


@kind(features={"x": CUSTOMER})
def doubles():
    return OfX(dense(5, 16, 1)).double(), {"x": numbers(5).astype(np.float64)}


@kind()
def two_towers():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = dense(6, 8, 4), dense(3, 8, 4)

        def forward(self, customer, product):
            return F.cosine_similarity(self.left(customer), self.right(product))

    return Towers(), {"customer": numbers(6), "product": numbers(3)}


# Sequences


class Recurrent(nn.Module):
    """The last step of a recurrent layer, in a linear one."""

    def __init__(self, layer, width, batch_first):
        super().__init__()
        self.layer, self.head, self.batch_first = layer, nn.Linear(width, 2), batch_first

    def forward(self, series):
        steps, _ = self.layer(series)
        return self.head(steps[:, -1] if self.batch_first else steps[-1])


@kind()
def lstm_batch_first():
    return Recurrent(nn.LSTM(3, 8, batch_first=True), 8, True), {"series": numbers(12, 3)}


@kind(time_first={"series"})
def lstm_time_first():
    return Recurrent(nn.LSTM(3, 8), 8, False), {"series": numbers(12, 3)}


@kind()
def gru_batch_first():
    return Recurrent(nn.GRU(3, 8, batch_first=True), 8, True), {"series": numbers(12, 3)}


@kind(time_first={"series"})
def gru_time_first():
    return Recurrent(nn.GRU(3, 8), 8, False), {"series": numbers(12, 3)}


@kind()
def lstm_of_two_layers_and_directions():
    layer = nn.LSTM(3, 8, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
    return Recurrent(layer, 16, True), {"series": numbers(12, 3)}


@kind(open_time={"series"})
def lstm_of_any_length():
    return Recurrent(nn.LSTM(3, 8, batch_first=True), 8, True), {"series": numbers(12, 3)}


@kind(time_first={"series", 0}, open_time={"series"})
def lstm_of_every_step():
    """A score for each step, time first."""

    class Every(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.LSTM(3, 8), nn.Linear(8, 1)

        def forward(self, series):
            return torch.sigmoid(self.head(self.layer(series)[0]))

    return Every(), {"series": numbers(12, 3)}


@kind(time_first={"h", "c", 1, 2})
def lstm_with_states():
    """The states go in and come out, with their rows second."""

    class States(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.LSTM(3, 8, num_layers=2, batch_first=True), nn.Linear(8, 1)

        def forward(self, series, h, c):
            steps, (h, c) = self.layer(series, (h, c))
            return self.head(steps[:, -1]), h, c

    return States(), {"series": numbers(6, 3), "h": numbers(2, 8), "c": numbers(2, 8)}


@kind()
def packed_lengths():
    """Series of several lengths, filled up to the longest."""

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, series, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(series, lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.layer(packed)[1][-1])

    return Packed(), {"series": numbers(12, 3), "lengths": random().integers(1, 13, ROWS)}


@kind()
def last_of_lengths():
    """The same without packing: the step at which each series ends."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, series, lengths):
            steps, _ = self.layer(series)
            return self.head(steps[torch.arange(lengths.shape[0], device=lengths.device), lengths - 1])

    return Last(), {"series": numbers(12, 3), "lengths": random().integers(1, 13, ROWS)}


@kind()
def recurrent_cell():
    """A loop in Python, which an export unrolls."""

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(3, 8), nn.Linear(8, 1)

        def forward(self, series):
            h = c = torch.zeros(series.shape[0], 8)
            for step in range(5):
                h, c = self.cell(series[:, step], (h, c))
            return self.head(h)

    return Cell(), {"series": numbers(5, 3)}


@kind()
def encoder_decoder():
    """Seven days ahead."""

    class Forecast(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.LSTM(1, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)
            self.head = nn.Linear(8, 1)

        def forward(self, sales):
            _, (h, c) = self.encoder(sales.unsqueeze(-1))
            steps, _ = self.decoder(h[-1].unsqueeze(1).repeat(1, 7, 1), (h, c))
            return self.head(steps).squeeze(-1)

    return Forecast(), {"sales": numbers(28)}


@kind()
def n_beats():
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([dense(28, 16, 35) for _ in range(3)])

        def forward(self, sales):
            forecast = 0
            for block in self.blocks:
                back, ahead = block(sales).split([28, 7], dim=1)
                sales, forecast = sales - back, forecast + ahead
            return forecast

    return Blocks(), {"sales": numbers(28)}


def encoder(batch_first, **options):
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, **options), 2, enable_nested_tensor=False
    )


class Encoded(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.into, self.encoder, self.head = nn.Linear(3, 8), encoder(batch_first), nn.Linear(8, 2)
        self.time = 1 if batch_first else 0

    def forward(self, series):
        return self.head(self.encoder(self.into(series)).mean(dim=self.time))


@kind()
def transformer_batch_first():
    return Encoded(True), {"series": numbers(10, 3)}


@kind(time_first={"series"})
def transformer_time_first():
    return Encoded(False), {"series": numbers(10, 3)}


@kind(open_time={"tokens"})
def text_transformer():
    """Tokens of a text, filled up with zeros, which are masked; positions are learned."""

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(50, 8, padding_idx=0), nn.Embedding(64, 8)
            self.encoder, self.head = encoder(True), nn.Linear(8, 3)

        def forward(self, tokens):
            mask = tokens == 0
            places = torch.arange(tokens.shape[1], device=tokens.device)
            hidden = self.encoder(self.words(tokens) + self.places(places), src_key_padding_mask=mask)
            kept = (~mask).unsqueeze(-1).float()
            return torch.log_softmax(self.head((hidden * kept).sum(1) / kept.sum(1)), -1)

    tokens = codes(50, 16)
    tokens[:, 0] = 1
    for row, length in zip(tokens, random().integers(1, 17, ROWS)):
        row[length:] = 0
    return Text(), {"tokens": tokens}


@kind()
def causal_transformer():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.encoder, self.head = nn.Linear(3, 8), encoder(True, activation="gelu"), nn.Linear(8, 1)

        def forward(self, series):
            mask = nn.Transformer.generate_square_subsequent_mask(10)
            return self.head(self.encoder(self.into(series), mask=mask, is_causal=True)[:, -1])

    return Causal(), {"series": numbers(10, 3)}


@kind()
def attention_pooling():
    """The answer and where it looked."""

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.query, self.head = nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 1)

        def forward(self, items):
            query = self.query.expand(items.shape[0], 1, 8)
            pooled, weights = self.attention(query, items, items)
            return self.head(pooled[:, 0]), weights[:, 0]

    return Pooling(), {"items": numbers(6, 8)}


@kind()
def masked_items():
    """A basket of items, and which of them are there."""

    class Basket(nn.Module):
        def __init__(self):
            super().__init__()
            self.items, self.score, self.head = nn.Embedding(30, 8), nn.Linear(8, 1), nn.Linear(8, 1)

        def forward(self, basket, there):
            items = self.items(basket)
            weights = torch.softmax(self.score(items).squeeze(-1).masked_fill(~there, -1e9), dim=1)
            return self.head((weights.unsqueeze(-1) * items).sum(1))

    there = random().random((ROWS, 5)) < 0.6
    there[:, 0] = True
    return Basket(), {"basket": codes(30, 5), "there": there}


@kind(open_time={"words"})
def embedding_bag():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(50, 8, mode="mean"), nn.Linear(8, 3)

        def forward(self, words):
            return self.head(self.bag(words))

    return Bag(), {"words": codes(50, 9)}


@kind()
def convolution_of_text():
    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 8)
            self.widths = nn.ModuleList([nn.Conv1d(8, 4, width) for width in (2, 3, 4)])
            self.head = nn.Linear(12, 2)

        def forward(self, words):
            hidden = self.words(words).transpose(1, 2)
            pooled = [F.relu(layer(hidden)).amax(dim=2) for layer in self.widths]
            return torch.softmax(self.head(torch.cat(pooled, dim=1)), 1)

    return Convolution(), {"words": codes(50, 12)}


# Signals and pictures


@kind()
def conv1d():
    layers = [
        nn.Conv1d(2, 8, 3, padding=1),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3),
        nn.ReLU(),
    ]
    return OfX(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 1)), {"x": numbers(2, 20)}


@kind()
def temporal_convolution():
    """Causal and dilated."""

    class Temporal(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv1d(3, 3, 2, dilation=2**level) for level in range(3)])

        def forward(self, signal):
            for level, layer in enumerate(self.layers):
                signal = signal + torch.relu(layer(F.pad(signal, (2**level, 0))))
            return signal[:, :, -1]

    return Temporal(), {"signal": numbers(3, 16)}


@kind()
def convolutional_autoencoder():
    down = [nn.Conv1d(1, 4, 4, stride=2, padding=1), nn.Tanh()]
    return OfX(*down, nn.ConvTranspose1d(4, 1, 4, stride=2, padding=1)), {"x": numbers(1, 16)}


@kind()
def conv2d():
    block = lambda before, after: [
        nn.Conv2d(before, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    return OfX(*block(1, 4), *block(4, 8), nn.Flatten(), nn.Linear(32, 10), nn.Softmax(1)), {"x": numbers(1, 8, 8)}


@kind()
def depthwise():
    layers = [nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.ReLU6(), nn.AvgPool2d(2)]
    return OfX(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(8, 2)), {"x": numbers(3, 8, 8)}


@kind()
def residual_pictures():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
            )

        def forward(self, x):
            return torch.relu(x + self.body(x))

    return OfX(nn.Conv2d(1, 4, 3, 2), Block(), Block(), nn.Flatten(), nn.Linear(36, 3)), {"x": numbers(1, 8, 8)}


@kind()
def segmentation():
    """A number for each pixel."""

    class Segments(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Conv2d(5, 1, 1)

        def forward(self, x):
            small = self.up(torch.relu(self.down(x)))
            large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
            return torch.sigmoid(self.head(torch.cat([x, large], dim=1)))

    return Segments(), {"x": numbers(1, 8, 8)}


@kind()
def bytes_of_pictures():
    """Pixels from 0 to 255, the colours last."""

    class Bytes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))

        def forward(self, picture):
            return self.body(picture.permute(0, 3, 1, 2).float() / 255)

    return Bytes(), {"picture": random().integers(0, 256, (ROWS, 8, 8, 3)).astype(np.uint8)}


@kind()
def small_graphs():
    """A graph of six nodes in each row, by its matrix of edges."""

    class Graphs(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, nodes, edges):
            edges = edges / edges.sum(-1, keepdim=True)
            hidden = torch.relu(self.first(edges @ nodes))
            return self.head(torch.einsum("bij,bjk->bik", edges, self.second(hidden)).amax(1))

    edges = (random().random((ROWS, 6, 6)) < 0.4).astype(np.float32) + np.eye(6, dtype=np.float32)
    return Graphs(), {"nodes": numbers(6, 3), "edges": edges}


@kind(features={"x": CUSTOMER}, quantized=True)
def dynamic_quantization():
    return OfX(dense(5, 16, 1)), {"x": numbers(5)}


# Exported as they are: no size is left open


@kind(features={"x": CUSTOMER}, fixed=1)
def one_row():
    return batch_norm_regressor()


@kind(features=SHOP, fixed=1)
def one_row_of_embeddings():
    return embeddings()


@kind(fixed=1)
def one_row_of_lstm():
    return lstm_batch_first()


@kind(fixed=1, time_first={"series"})
def one_row_of_time_first():
    return lstm_time_first()


@kind(fixed=1)
def one_picture():
    return conv2d()


@kind(features={"x": CUSTOMER}, fixed=5)
def five_rows():
    return softmax_classifier()


@kind(fixed=5)
def five_rows_of_transformer():
    return transformer_batch_first()


# Training, and both exporters


def fit(model, inputs, steps=15):
    """A few steps towards made-up targets, so that neither weights nor running means are the initial ones."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = [output for output in all_of(model(*inputs)) if output.is_floating_point() and output.requires_grad]
        loss = sum(
            (output - torch.sin(torch.arange(output.numel()).reshape(output.shape))).square().mean()
            for output in outputs
        )
        loss.backward()
        optimizer.step()
    return model.eval()


def all_of(outputs):
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def export_new(model, inputs, axes):
    """As README.md does. Sizes of the same name are one `Dim`."""
    torch._dynamo.reset()  # Without it an LSTM gets the open sizes of the LSTM before it.
    named = {name: torch.export.Dim(name) for of_input in axes.values() for name in of_input.values()}
    shapes = tuple({axis: named[name] for axis, name in of_input.items()} for of_input in axes.values())
    return lambda path: torch.onnx.export(
        model, inputs, str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
    )


def export_old(model, inputs, axes):
    return lambda path: torch.onnx.export(
        model, inputs, str(path), dynamo=False, input_names=list(axes), dynamic_axes=axes
    )


EXPORTERS = {"new": export_new, "old": export_old}


def main():
    torch.set_num_threads(1)
    suite = Suite("torch")
    for name, function, time_first, open_time, fixed, quantized, about in KINDS:
        names = {exporter: f"{name}_{exporter}" for exporter in EXPORTERS}
        if not any(map(suite.wants, names.values())):
            continue
        torch.manual_seed(SEED)
        model, feeds = function()
        place_of_rows = {key: 1 if key in time_first else 0 for key in [*feeds, 0, 1, 2]}
        move = lambda key, array: np.ascontiguousarray(np.moveaxis(array, 0, place_of_rows[key]))
        inputs = tuple(torch.from_numpy(move(key, array)) for key, array in feeds.items())
        model = fit(model, inputs)
        if quantized:
            model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        with torch.no_grad():
            outputs = all_of(model(*inputs))
        expected = [np.moveaxis(output.numpy(), place_of_rows[place], 0) for place, output in enumerate(outputs)]
        axes = {key: {place_of_rows[key]: "rows"} for key in feeds}
        for key in open_time:
            axes[key][1 - place_of_rows[key]] = "steps"
        if fixed:
            inputs = tuple(value.narrow(place_of_rows[key], 0, fixed) for key, value in zip(feeds, inputs))
            axes = {key: {} for key in feeds}
        for exporter, export in EXPORTERS.items():
            suite.add(
                names[exporter],
                export(model, inputs, axes),
                feeds,
                expected,
                axes=dict.fromkeys(time_first, 1),
                **about,
            )
    suite.close()


if __name__ == "__main__":
    main()
