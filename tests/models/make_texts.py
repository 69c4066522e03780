#!/usr/bin/env python3
"""Makes small models of texts, as Transformers and Sentence Transformers lay them out, and what Python says of some texts.

Each folder holds a BERT of two layers with random weights and a tokenizer that was trained on the sentences below. The expected
outputs come from `tokenizers` and `onnxruntime`, one text at a time, and from NumPy for what is done after the graph.

    encoder     a vector for each token; files say: mean, normalized, at most 24 tokens
    plain       the same without token types, in int32; only the tokenizer says what it cuts and pads
    positions   the same, told the places of tokens, which begin at 2 as RoBERTa counts them
    classifier  scores of three labels
    pair        one score for two texts
    decoder     takes the state of a generator of text, and is refused
    misfit      its tokenizer knows more tokens than the graph
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent / "texts"
HIDDEN, HEADS, LAYERS, POSITIONS = 16, 2, 2, 48

SENTENCES = [
    "The parcel has not arrived yet, and nobody answers the phone.",
    "I was charged twice for the same order.",
    "Where can I download my invoice for March?",
    "The app crashes when I open the settings page.",
    "Thank you, the new lamp is beautiful!",
    "Please cancel my subscription before the end of the month.",
    "The driver left the box in the rain; everything inside is wet.",
    "How do I change the address of my account?",
    "My card was declined, although there is enough money on it.",
    "It arrived a day early and works like a charm.",
    "A quick brown fox jumps over a lazy dog while the band plays on.",
    "Does the warranty cover a broken screen?",
]

TEXTS = [
    *SENTENCES,
    "",
    " ",
    "invoice",
    "INVOICE",
    "naïve café — Straße, 東京, 🙂",
    "the\tparcel\nhas  not   arrived",
    "supercalifragilisticexpialidocious" * 8,
    " ".join(SENTENCES),
    "wet " * 300,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    SENTENCES[0],
]

PAIRS = [(SENTENCES[7], text) for text in TEXTS] + [(text, SENTENCES[1]) for text in TEXTS[12:]]


def trained():
    it = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    it.normalizer = normalizers.BertNormalizer(lowercase=True)
    it.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    it.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=320, special_tokens=special, show_progress=False))
    cls, sep = it.token_to_id("[CLS]"), it.token_to_id("[SEP]")
    it.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)])
    return it.to_str()


# Training is not the same twice.
TRAINED = trained()


def tokenizer(max_tokens=None, pad=False):
    it = Tokenizer.from_str(TRAINED)
    if max_tokens:
        it.enable_truncation(max_tokens)
    if pad:
        it.enable_padding(length=40)
    return it


def bert(random, vocabulary, kind, integers=T.INT64):
    nodes, weights = [], {}

    def const(name, value):
        weights.setdefault(name, nh.from_array(np.array(value, order="C"), name))
        return name

    def weight(name, *shape):
        return const(name, random.normal(0, 0.35, shape).astype(np.float32))

    def op(kind, *inputs, out=None, **attributes):
        out = out or f"{kind}{len(nodes)}"
        nodes.append(h.make_node(kind, list(inputs), [out], **attributes))
        return out

    def linear(x, name, rows, columns):
        return op("Add", op("MatMul", x, weight(f"{name}.w", rows, columns)), weight(f"{name}.b", columns))

    def norm(x, name, **options):
        scale = const(f"{name}.scale", np.ones(HIDDEN, np.float32))
        return op("LayerNormalization", x, scale, const(f"{name}.bias", np.zeros(HIDDEN, np.float32)), axis=-1, **options)

    integer = np.array([0, 0, HEADS, HIDDEN // HEADS], np.int64)
    names = ["input_ids", "attention_mask"] + ([] if kind == "plain" else ["token_type_ids"])
    table = weight("positions", POSITIONS, HIDDEN)
    if kind == "positions":
        names.append("position_ids")
    positions = op("Gather", table, "position_ids") if kind == "positions" else op("Slice", table, const("zero", np.array([0], np.int64)),
                   op("Shape", "input_ids", start=1, end=2), const("axis", np.array([0], np.int64)))
    x = op("Add", op("Gather", weight("words", vocabulary, HIDDEN), "input_ids"), positions)
    if kind != "plain":
        x = op("Add", x, op("Gather", weight("types", 2, HIDDEN), "token_type_ids"))
    x = norm(x, "first")
    mask = op("Cast", op("Unsqueeze", "attention_mask", const("places", np.array([1, 2], np.int64))), to=T.FLOAT)
    bias = op("Mul", op("Sub", const("one", np.float32(1)), mask), const("never", np.float32(-1e9)))
    for layer in range(LAYERS):
        heads = [op("Transpose", op("Reshape", linear(x, f"{layer}.{part}", HIDDEN, HIDDEN), const("split", integer)), perm=perm)
                 for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))]
        scores = op("Mul", op("MatMul", heads[0], heads[1]), const("scale", np.float32((HIDDEN // HEADS) ** -0.5)))
        mixed = op("Transpose", op("MatMul", op("Softmax", op("Add", scores, bias), axis=-1), heads[2]), perm=[0, 2, 1, 3])
        mixed = op("Reshape", mixed, const("merge", np.array([0, 0, HIDDEN], np.int64)))
        x = norm(op("Add", linear(mixed, f"{layer}.o", HIDDEN, HIDDEN), x), f"{layer}.mid")
        inner = op("Tanh", linear(x, f"{layer}.in", HIDDEN, 2 * HIDDEN))
        last = layer == LAYERS - 1 and kind in ("encoder", "plain", "positions", "decoder", "misfit")
        x = norm(op("Add", linear(inner, f"{layer}.out", 2 * HIDDEN, HIDDEN), x), f"{layer}.end",
                 **({"out": "last_hidden_state"} if last else {}))
    sequence = ["batch", "sequence"]
    output = h.make_tensor_value_info("last_hidden_state", T.FLOAT, [*sequence, HIDDEN])
    if kind in ("classifier", "pair"):
        labels = 3 if kind == "classifier" else 1
        first = op("Gather", x, const("cls", np.array(0, np.int64)), axis=1)
        op("Add", op("MatMul", first, weight("head.w", HIDDEN, labels)), weight("head.b", labels), out="logits")
        output = h.make_tensor_value_info("logits", T.FLOAT, ["batch", labels])
    inputs = [h.make_tensor_value_info(name, integers, sequence) for name in names]
    if kind == "decoder":
        inputs.append(h.make_tensor_value_info("past_key_values.0.key", T.FLOAT, ["batch", HEADS, "past", 8]))
    graph = h.make_graph(nodes, kind, inputs, [output], list(weights.values()))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="make_texts.py")
    onnx.checker.check_model(model)
    return model


def tokens_of(tokenizer, text, pair=None):
    it = tokenizer.encode(text, pair)
    keep = [i for i, kept in enumerate(it.attention_mask) if kept]
    return {"input_ids": [it.ids[i] for i in keep], "attention_mask": [1] * len(keep),
            "token_type_ids": [it.type_ids[i] for i in keep], "position_ids": list(range(2, 2 + len(keep)))}


def run(session, tokenizer, text, pair=None):
    tokens = tokens_of(tokenizer, text, pair)
    kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feed = {given.name: np.array([tokens[given.name]], kinds[given.type]) for given in session.get_inputs()}
    return session.run(None, feed)[0][0]


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    expected = {}
    for seed, kind in enumerate(["encoder", "plain", "positions", "classifier", "pair", "decoder", "misfit"]):
        folder = HERE / kind
        folder.mkdir(parents=True)
        max_tokens = {"encoder": 24, "plain": 20, "positions": POSITIONS - 2}.get(kind, POSITIONS)
        ours = tokenizer(max_tokens, pad=kind == "plain")
        vocabulary = ours.get_vocab_size()
        model = bert(np.random.default_rng(seed), vocabulary, kind, T.INT32 if kind == "plain" else T.INT64)
        onnx.save(model, folder / "model.onnx")
        # What cuts a text stands in other files, but for one of them.
        stored = ours if kind == "plain" else tokenizer()
        stored.save(str(folder / "tokenizer.json"))
        config = {"model_type": "bert", "max_position_embeddings": POSITIONS, "vocab_size": vocabulary, "hidden_size": HIDDEN}
        if kind == "classifier":
            config |= {"architectures": ["BertForSequenceClassification"],
                       "id2label": {"0": "billing", "1": "delivery", "2": "other"}}
        if kind == "pair":
            config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
        if kind == "positions":
            config |= {"model_type": "roberta", "pad_token_id": 1}
        if kind == "misfit":
            config["vocab_size"] = 100
        if kind != "plain":
            (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        if kind == "encoder":
            modules = ["Transformer", "Pooling", "Normalize"]
            modules = [{"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{it}"} for i, it in enumerate(modules)]
            (folder / "modules.json").write_text(json.dumps(modules, indent=1) + "\n")
            (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}) + "\n")
            (folder / "1_Pooling").mkdir()
            pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=1) + "\n")
        if kind in ("decoder", "misfit"):
            continue
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        rows = []
        for text, pair in PAIRS if kind == "pair" else [(text, None) for text in TEXTS]:
            output = run(session, ours, text, pair)
            if kind == "encoder":
                output = output.mean(0)
                output = output / np.linalg.norm(output)
            elif kind in ("plain", "positions"):
                output = output.mean(0)
            elif kind == "classifier":
                output = np.exp(output) / np.exp(output).sum()
            else:
                output = 1 / (1 + np.exp(-output))
            count = len(tokens_of(ours, text, pair)["input_ids"])
            cut = bool(ours.encode(text, pair).overflowing)
            rows.append({"text": text, "pair": pair, "tokens": count, "cut": cut, "output": [float(value) for value in output]})
        expected[kind] = rows
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
