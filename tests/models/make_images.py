#!/usr/bin/env python3
"""Makes small models of images, pictures in the formats and kinds that there are, and what Python makes of them.

The pictures are waves and edges that are computed here. What a model is to be given of them comes from Pillow and NumPy, and what
it says from `onnxruntime`.

    pixels      gives its input as it is: floats, channels first, 8 x 12
    free        the same with any size and any number of channels
    last        the same for bytes, channels last, 8 x 12
    classifier  scores of three labels; files say how pictures are prepared, as Transformers lays them out
    embedder    a vector, from float16
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from PIL import Image, ImageOps

HERE = Path(__file__).parent / "images"
SIZE = (8, 12)  # height and width of the model's input
MEAN, STD = [0.48, 0.45, 0.40], [0.22, 0.25, 0.27]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def picture(width, height, channels=3):
    """Waves of several lengths, and a bright corner with hard edges."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [np.sin(x / (3 + c)) * np.cos(y / (5 + 2 * c)) + np.sin((x + 2 * y) / (11 + c)) for c in range(channels)]
    values = np.clip(127 + 60 * np.stack(planes, -1), 0, 255)
    values[: height // 3, : width // 4] = [250, 30, 90, 200][:channels]
    return values.astype(np.uint8)


def save_pictures(folder):
    folder.mkdir(parents=True)
    rgb = Image.fromarray(picture(61, 45))
    rgb.save(folder / "photo.jpg", quality=92)
    rgb.save(folder / "photo.png")
    rgb.save(folder / "lossy.webp", quality=90)
    rgb.save(folder / "lossless.webp", lossless=True)
    rgb.save(folder / "progressive.jpg", quality=90, progressive=True, subsampling=0)
    rgb.convert("L").save(folder / "grey.jpg", quality=92)
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    rgb.quantize(64).save(folder / "palette.png")
    Image.fromarray(picture(40, 61, 4), "RGBA").save(folder / "transparent.png")
    deep = picture(61, 45, 1)[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "sixteen.png")
    Image.fromarray(picture(45, 61)).save(folder / "tall.jpg", quality=92)
    Image.fromarray(picture(5, 3)).save(folder / "small.png")
    Image.fromarray(picture(24, 13)).save(folder / "half.png")  # half of its height is no whole number
    second = Image.fromarray(255 - picture(61, 45))
    rgb.save(folder / "animated.webp", lossless=True, save_all=True, append_images=[second], duration=100)
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        rgb.save(folder / f"turned_{turn}.jpg", quality=92, exif=exif)


def save_digits(folder):
    """Some of scikit-learn's handwritten digits, which make_neural.py has put beside the network that knows them."""
    folder.mkdir(parents=True)
    rows = pq.read_table(HERE.parent / "neural" / "digits_cnn.parquet").slice(0, 12).to_pylist()
    for number, row in enumerate(rows):
        pixels = np.array(row["pixels"]).reshape(8, 8) * 255 / 16
        image = Image.fromarray(pixels.round().astype(np.uint8))
        image.resize((32, 32), FILTERS["nearest"]).save(folder / f"scan_{number:02}.png")


def opened(path):
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):  # Pillow cuts 16 bits off at 255
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def middle(image, height, width, fill):
    """The middle of a picture, filled up around it where it is too small."""
    values = np.full((height, width, 3), fill, np.uint8)
    array = np.asarray(image)
    top, left = max(array.shape[0] - height, 0) // 2, max(array.shape[1] - width, 0) // 2
    cut = array[top : top + height, left : left + width]
    down, right = (height - cut.shape[0]) // 2, (width - cut.shape[1]) // 2
    values[down : down + cut.shape[0], right : right + cut.shape[1]] = cut
    return values


def prepared(image, resize="shortest", resample="bilinear", size=SIZE, crop=None, fill=0):
    """The pixels that a model is given, height by width by channels."""
    height, width = size
    if resize == "exact":
        image = image.resize((width, height), FILTERS[resample])
    elif resize == "shortest":
        # All of the size is covered: one side is as long, and the other no shorter.
        by_width = width * image.height >= height * image.width
        scaled = (width, width * image.height // image.width) if by_width else (height * image.width // image.height, height)
        image = image.resize(scaled, FILTERS[resample])
    elif resize in ("letterbox", "pad"):
        scale = min(width / image.width, height / image.height)
        inner = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(inner, FILTERS[resample])
        if resize == "pad":
            values = np.full((height, width, 3), fill, np.uint8)
            values[: inner[1], : inner[0]] = np.asarray(image)
            return values
    return middle(image, *(crop or size), fill)


def write(path, nodes, inputs, outputs, weights=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = h.make_graph(nodes, "images", inputs, outputs, [nh.from_array(value, name) for name, value in weights])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="datafusion-predict-tests")
    onnx.checker.check_model(model)
    onnx.save(model, path)


def network(rng, name, inner):
    """Two convolutions and what is in the mean of them, as three numbers called `name`."""
    weights = [
        ("w1", rng.normal(0, 0.4, (6, 3, 3, 3)).astype(np.float32)),
        ("w2", rng.normal(0, 0.4, (6, 6, 3, 3)).astype(np.float32)),
        ("w3", rng.normal(0, 2, (6, 3)).astype(np.float32)),
        ("b3", rng.normal(0, 0.5, 3).astype(np.float32)),
    ]
    nodes = [
        h.make_node("Conv", [inner, "w1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        h.make_node("Relu", ["c1"], ["r1"]),
        h.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        h.make_node("GlobalAveragePool", ["c2"], ["p"]),
        h.make_node("Flatten", ["p"], ["f"]),
        h.make_node("Gemm", ["f", "w3", "b3"], [name]),
    ]
    return nodes, weights


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    save_pictures(HERE / "pictures")
    save_digits(HERE / "digits")
    files = sorted((HERE / "pictures").iterdir())

    value = h.make_tensor_value_info
    flat = [h.make_node("Flatten", ["image"], ["pixels"])]
    out = [value("pixels", T.FLOAT, ["n", None])]
    write(HERE / "pixels.onnx", flat, [value("image", T.FLOAT, ["n", 3, *SIZE])], out)
    write(HERE / "free.onnx", flat, [value("image", T.FLOAT, ["n", "c", "h", "w"])], out)
    bytes_last = [h.make_node("Cast", ["image"], ["floats"], to=T.FLOAT), h.make_node("Flatten", ["floats"], ["pixels"])]
    write(HERE / "last.onnx", bytes_last, [value("image", T.UINT8, ["n", *SIZE, 3])], out)

    rng = np.random.default_rng(7)
    nodes, weights = network(rng, "logits", "pixel_values")
    write(
        HERE / "classifier" / "model.onnx",
        nodes,
        [value("pixel_values", T.FLOAT, ["batch", 3, "height", "width"])],
        [value("logits", T.FLOAT, ["batch", 3])],
        weights,
    )
    labels = {"0": "lake", "1": "street", "2": "garden"}
    config = {"architectures": ["ResNetForImageClassification"], "id2label": labels}
    (HERE / "classifier" / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    processor = {
        "image_processor_type": "ConvNextFeatureExtractor",
        "do_resize": True,
        "size": {"shortest_edge": 28},
        "crop_pct": 0.875,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }
    (HERE / "classifier" / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n")
    nodes, weights = network(rng, "image_embeds", "image")
    write(
        HERE / "embedder.onnx",
        [h.make_node("Cast", ["halves"], ["image"], to=T.FLOAT), *nodes],
        [value("halves", T.FLOAT16, ["n", 3, 16, 16])],
        [value("image_embeds", T.FLOAT, ["n", 3])],
        weights,
    )

    # What `pixels` is given: the file, the options, and the pixels, channel by channel.
    cases = []

    def case(file, options, values):
        planes = values.transpose(2, 0, 1) if values.ndim == 3 else values
        cases.append({"file": file, "options": options, "pixels": planes.ravel().tolist()})

    for file in files:
        case(file.name, "resize exact", prepared(opened(file), "exact"))
    for resample in FILTERS:
        for name in ("photo.jpg", "tall.jpg", "small.png"):
            options = f"resize exact, resample {resample}"
            case(name, options, prepared(opened(HERE / "pictures" / name), "exact", resample))
    for name in ("photo.jpg", "tall.jpg", "small.png", "turned_6.jpg", "half.png"):
        image = opened(HERE / "pictures" / name)
        case(name, "image_size '8x12'", prepared(image))
        case(name, "resize letterbox, fill 114", prepared(image, "letterbox", fill=114))
        case(name, "resize pad, fill 7", prepared(image, "pad", fill=7))
        case(name, "resize none", prepared(image, "none"))
        case(name, "image_size '16x20', crop '8x12'", prepared(image, size=(16, 20), crop=SIZE))
    photo = opened(HERE / "pictures" / "photo.jpg")
    exact = prepared(photo, "exact")
    case("photo.jpg", "resize exact, channels BGR", exact[..., ::-1])
    grey = np.asarray(Image.fromarray(exact).convert("L"))
    luma = {"file": "photo.jpg", "options": "image_size '8x12', resize exact, channels L, layout NCHW", "pixels": grey.ravel().tolist()}
    last = {"file": "photo.jpg", "options": "resize exact", "pixels": exact.ravel().tolist()}

    # What the networks say.
    session = onnxruntime.InferenceSession(HERE / "classifier" / "model.onnx")
    logits = []
    for file in files:
        pixels = prepared(opened(file), "shortest", "bicubic", size=(32, 32), crop=(28, 28))
        values = ((pixels / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]
        logits.append(session.run(None, {"pixel_values": values})[0][0])
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    session = onnxruntime.InferenceSession(HERE / "embedder.onnx")
    vectors = []
    for file in files:
        values = (prepared(opened(file), size=(16, 16)) / 255).astype(np.float16).transpose(2, 0, 1)[None]
        vector = session.run(None, {"halves": values})[0][0]
        vectors.append((vector / np.linalg.norm(vector)).tolist())
    expected = {
        "pixels": cases,
        "free": [luma],
        "last": [last],
        "files": [file.name for file in files],
        "classifier": [[float(score) for score in row] for row in scores],
        "embedder": vectors,
    }
    text = json.dumps(expected, separators=(",", ":"))
    (HERE / "expected.json").write_text(text.replace('{"file"', '\n{"file"').replace('"classifier"', '\n"classifier"') + "\n")


if __name__ == "__main__":
    main()
