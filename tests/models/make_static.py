#!/usr/bin/env python3
"""Makes a small static embedding model in the layout of model2vec, and what the package `model2vec` says of some texts.

The vectors come from latent semantic analysis of short texts about software: the descriptions of Debian's packages, as
`apt-cache dumpavail` prints them. Words that occur in like descriptions are near to each other.

    words     `embeddings` alone, normalized
    weighted  the same vectors in float16, with `mapping` and `weights`, not normalized

Run it where apt knows Debian's packages, with the packages of tests/texts/requirements.txt.
"""

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from model2vec import StaticModel
from safetensors.numpy import save_file
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "texts"))
from corpus import descriptions  # noqa: E402

WORDS, WIDTH = 4000, 64

TEXTS = [
    "plays songs and radio stations",
    "a text editor for programmers",
    "Draw diagrams, and export them as PNG!",
    "naïve café — 東京 🙂",
    "",
    " ",
    "qwertyuiopasdf zxcvbnmlkj",
    "The mail server rejects messages with large attachments.",
    "mail " * 700,
    "UPPER lower MiXeD",
]


def words_of(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def write(folder, tokenizer, tensors, normalize):
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": WIDTH, "normalize": normalize}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def main():
    # Only what is said of a package, not the tags behind it.
    texts = sorted({text.split("\n")[0] for text in descriptions()})
    counts = Counter(word for text in texts for word in set(words_of(text)))
    common = [word for word, count in counts.most_common(WORDS) if len(word) > 1 and not word.isdigit()]
    common = [word for word in common if word not in ENGLISH_STOP_WORDS]
    tfidf = TfidfVectorizer(vocabulary=common, tokenizer=words_of, token_pattern=None, sublinear_tf=True).fit_transform(texts)
    svd = TruncatedSVD(WIDTH, random_state=1).fit(tfidf)
    vectors = svd.components_.T * svd.singular_values_
    # Rare words say more of a text than common ones.
    rarity = np.log(len(texts) / np.array([counts[word] for word in common]))[:, None]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * rarity
    vectors = np.concatenate([np.zeros((1, WIDTH)), vectors]).astype(np.float32)

    vocabulary = {word: number for number, word in enumerate(["[UNK]", *common])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    folder = HERE / "static"
    shutil.rmtree(folder, ignore_errors=True)
    write(folder / "words", tokenizer, {"embeddings": vectors.astype(np.float16).astype(np.float32)}, True)
    rng = np.random.default_rng(3)
    small = Tokenizer(models.WordLevel({word: number for word, number in vocabulary.items() if number < 500}, unk_token="[UNK]"))
    small.normalizer, small.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    order = rng.permutation(500)
    tensors = {
        "embeddings": vectors[np.argsort(order)].astype(np.float16),
        "mapping": order.astype(np.int64),
        "weights": rng.uniform(0.5, 2, 500),
    }
    write(folder / "weighted", small, tensors, False)
    expected = {}
    for name in ("words", "weighted"):
        model = StaticModel.from_pretrained(folder / name)
        vectors_of = model.encode(TEXTS, max_length=512)
        expected[name] = [{"text": text, "vector": vector.astype(float).tolist()} for text, vector in zip(TEXTS, vectors_of)]
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=0) + "\n")
    if len(sys.argv) > 1:  # what is near to some words
        model = StaticModel.from_pretrained(folder / "words")
        matrix = model.encode(texts)
        for query in sys.argv[1:]:
            best = np.argsort(-matrix @ model.encode([query])[0])[:4]
            print(query, "->", *(f"\n    {texts[i]}" for i in best))


if __name__ == "__main__":
    main()
