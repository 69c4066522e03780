#!/usr/bin/env python3
"""How fast are texts embedded, beside what people write in Python?

Usage: texts.py BINARY FOLDER     (FOLDER holds all-MiniLM-L6-v2, as tests/texts/minilm.py makes it)

2,000 real texts (TEXTS has another number), short and long ones mixed, to vectors, with all cores, in turn: by SQL (`embed`, as a whole process), by onnxruntime and tokenizers in
batches of 32 in the order of arrival, by the same in the order of their lengths, and by fastembed with the same files. Then
all of them in int8. Prints medians of three rounds (ROUNDS), and the padding that EXPLAIN ANALYZE counts.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "texts"))
from corpus import texts  # noqa: E402

COUNT, ROUNDS, BATCH, MAX_TOKENS = int(os.environ.get("TEXTS", 2000)), int(os.environ.get("ROUNDS", 3)), 32, 256


def timed(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


class Loop:
    """onnxruntime and tokenizers, as a program of ten lines has them."""

    def __init__(self, folder):
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        self.names = [given.name for given in self.session.get_inputs()]

    def embed(self, rows):
        vectors = []
        for start in range(0, len(rows), BATCH):
            encoded = self.tokenizer.encode_batch(rows[start:start + BATCH])
            mask = np.array([it.attention_mask for it in encoded], np.int64)
            given = {"input_ids": [it.ids for it in encoded], "attention_mask": mask, "token_type_ids": [it.type_ids for it in encoded]}
            output = self.session.run(None, {name: np.array(given[name], np.int64) for name in self.names})[0]
            vectors.append((output * mask[..., None]).sum(1) / mask.sum(1, keepdims=True))
        return np.concatenate(vectors)

    def by_length(self, rows):
        lengths = [len(it.ids) for it in self.tokenizer.encode_batch(rows)]
        order = np.argsort([-sum(it.attention_mask) for it in self.tokenizer.encode_batch(rows)]) if lengths else []
        vectors = self.embed([rows[i] for i in order])
        back = np.empty_like(vectors)
        back[order] = vectors
        return back


def fastembed(folder, rows):
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local/minilm"
    if name not in {it["model"] for it in TextEmbedding.list_supported_models()}:
        TextEmbedding.add_custom_model(model=name, pooling=PoolingType.MEAN, normalization=False, sources=ModelSource(hf=name), dim=384, model_file="model.onnx")
    place = Path(tempfile.mkdtemp())
    for file in ("model.onnx", "tokenizer.json", "config.json"):
        os.link(folder / file, place / file)
    (place / "tokenizer_config.json").write_text('{"model_max_length": %d, "pad_token": "[PAD]"}' % MAX_TOKENS)
    (place / "special_tokens_map.json").write_text('{"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}')
    model = TextEmbedding(name, specific_model_path=str(place))
    took = timed(lambda: list(model.embed(rows, batch_size=BATCH)))
    shutil.rmtree(place)
    return took


def main(binary, folder):
    rows = texts(COUNT)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        pq.write_table(pa.table({"i": range(len(rows)), "text": rows}), place / "texts.parquet")

        def ours(model, sql):
            create = f"CREATE MODEL m FROM '{model}' OPTIONS (max_tokens {MAX_TOKENS}); "
            ran = subprocess.run([binary, "-q", "-c", create + sql.format(place=place)], capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        copy = "COPY (SELECT i, embed('m', text) AS v FROM '{place}/texts.parquet') TO '{place}/vectors.parquet'"
        loop = Loop(folder)
        found = {"embed": [], "loop, as they come": [], "loop, by length": [], "fastembed": []}
        for _ in range(ROUNDS):
            found["embed"].append(timed(lambda: ours(folder, copy)))
            found["loop, as they come"].append(timed(lambda: loop.embed(rows)))
            found["loop, by length"].append(timed(lambda: loop.by_length(rows)))
            try:
                found["fastembed"].append(fastembed(folder, rows))
            except Exception as cause:  # noqa: BLE001
                print(f"fastembed: {cause}")
        medians = {name: sorted(times)[len(times) // 2] for name, times in found.items() if times}
        for name, took in medians.items():
            print(f"{name}: {took:.1f} s, {len(rows) / took:.0f} texts/s, {took / medians['embed']:.2f} times the time of embed", flush=True)
        plan = ours(folder, "EXPLAIN ANALYZE SELECT embed('m', text) FROM '{place}/texts.parquet'")
        plan = re.sub(r"[│\s]+", "", plan)
        tokens, padding = (int(float(re.search(rf"{name}=([\d.]+)", plan).group(1)) * (1000 if re.search(rf"{name}=[\d.]+K", plan) else 1)) for name in ("tokens", "padding"))
        print(f"padding: {padding} for {tokens} tokens, {100 * padding / tokens:.1f} %")
        int8 = folder.parent / "minilm_int8"
        if (int8 / "model.onnx").exists():
            print(f"int8: {timed(lambda: ours(int8, copy)):.1f} s")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), Path(sys.argv[2]))
