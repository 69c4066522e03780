"""How fast images are scored from their files: the shell beside the model alone, on tensors that are ready.

    python benches/images.py SHELL MODEL [PICTURES]

SHELL is a release build of datafusion-predict, MODEL a network for pictures of 224 x 224 such as the light ResNet-50 in the package
`onnx` (onnx/backend/test/data/light/light_resnet50.onnx), whose weights are constants: enough for times. The pictures are crops of
scikit-learn's two photographs as JPEGs of 640 x 427 pixels. Needs numpy, onnxruntime, pillow, pyarrow and scikit-learn.
"""

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_sample_images

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CORES = 2


def pictures(count):
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(1)
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = rng.integers(0, 60), rng.integers(0, 40)
        crop = photo.crop((left, top, photo.width - 60 + left, photo.height - 40 + top)).resize((640, 427))
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=90)
        yield file.getvalue()


def prepared(jpeg):
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    short, width, height = 256, *image.size
    size = (int(short * width / height), short) if height <= width else (short, int(short * height / width))
    array = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    top, left = (array.shape[0] - 224) // 2, (array.shape[1] - 224) // 2
    pixels = array[top : top + 224, left : left + 224].astype(np.float32) / 255
    return ((pixels - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)


def seconds(shell, statements):
    """Of the last statement, beside those before it: processes with and without it, of each the best of three."""
    times = []
    for some in (statements[:-1], statements):
        arguments = [argument for statement in some for argument in ("-c", statement)]
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([shell, "-q", *arguments], check=True, stdout=subprocess.DEVNULL)
            runs.append(time.perf_counter() - start)
        times.append(min(runs))
    return times[1] - times[0]


def main():
    shell, path = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    jpegs = list(pictures(count))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    tensors = [prepared(jpeg)[None] for jpeg in jpegs]
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        outputs = [session.run(None, {name: tensor})[0] for tensor in tensors]
        best = min(best, time.perf_counter() - start)
    print(f"model alone, ready tensors, {CORES} threads: {count / best:.1f} pictures/s")
    start = time.perf_counter()
    for jpeg in jpegs:
        session.run(None, {name: prepared(jpeg)[None]})
    print(f"Pillow, NumPy and the model in a loop: {count / (time.perf_counter() - start):.1f} pictures/s")
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"id": range(count), "picture": pa.array(jpegs, pa.binary())}), f"{folder}/pictures.parquet", row_group_size=50)
        create = (
            f"CREATE MODEL resnet FROM '{path}' OPTIONS (image_size 256, crop 224, mean [{', '.join(map(str, MEAN))}], "
            f"std [{', '.join(map(str, STD))}])"
        )
        query = f"SELECT sum(p[1]) FROM (SELECT predict('resnet', picture) AS p FROM '{folder}/pictures.parquet')"
        took = seconds(shell, [create, query])
        print(f"the shell, from JPEGs: {count / took:.1f} pictures/s, {best / took:.2f} of the model alone")
        out = Path(folder) / "out.parquet"
        subprocess.run([shell, "-q", "-c", create, "-c", f"COPY (SELECT id, predict('resnet', picture) AS p FROM '{folder}/pictures.parquet' ORDER BY id) TO '{out}'"], check=True, stdout=subprocess.DEVNULL)
        found = np.array(pq.read_table(out)["p"].to_pylist())
        expected = np.concatenate(outputs).reshape(count, -1)
        print(f"largest difference of a score: {abs(found - expected).max():.2g}, of scores up to {abs(expected).max():.2g}")


if __name__ == "__main__":
    main()
