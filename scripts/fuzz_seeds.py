#!/usr/bin/env python3
"""Makes fuzz/corpus: small, valid files of every format that senet reads, from which fuzzing starts.

    python scripts/fuzz_seeds.py        (with scripts/requirements.txt, as in the environment that scripts/golden.sh makes)

Pictures are drawn, values counted: nothing is taken from elsewhere.
"""

import argparse
import gzip
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"


def put(target, name, contents):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(contents)


# ------------------------------------------------------------------------------------------------------------- weights

def state_dict():
    return OrderedDict([
        ("conv.weight", torch.arange(8.0).reshape(2, 1, 2, 2)),
        ("bn.running_var", torch.tensor([0.5, 1.5])),
        ("bn.num_batches_tracked", torch.tensor(3)),
        ("fc.weight", torch.arange(6.0).reshape(3, 2).t()),
    ])


def safetensors():
    plain = {name: tensor.contiguous() for name, tensor in state_dict().items()}
    put("safetensors", "plain.safetensors", safetensors_bytes(plain))
    about = {"senet": json.dumps({"model": "se-resnet-18", "classes": ["a", "b"], "preprocessing": None})}
    put("safetensors", "about.safetensors", safetensors_bytes({"a": torch.ones(2)}, about))
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool, torch.int8,
             torch.float8_e4m3fn]
    put("safetensors", "kinds.safetensors", safetensors_bytes({str(kind): torch.ones(2).to(kind) for kind in kinds}))
    put("safetensors", "empty.safetensors", safetensors_bytes({"a": torch.zeros(0, 3), "b": torch.tensor(1.0)}))


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def repacked(contents):
    """The same archive without padding and version numbers: fewer bytes in which mutations change nothing."""
    old, file = zipfile.ZipFile(io.BytesIO(contents)), io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            if name.endswith("data.pkl") or "/data/" in name or name.endswith("byteorder"):
                new.writestr(zipfile.ZipInfo("w/" + name.split("/", 1)[1]), old.read(name))
    return file.getvalue()


def pickles():
    weights = state_dict()
    checkpoint = {"epoch": 3, "state_dict": {"module." + name: tensor for name, tensor in weights.items()},
                  "state_dict_ema": weights, "args": argparse.Namespace(lr=0.1),
                  "optimizer": {"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]}}
    kinds = {str(kind): torch.ones(2).to(kind) for kind in
             [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8,
              torch.bool]}
    parameters = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(3)[1:], "c": torch.ones(1).expand(4)}
    cases = {
        "plain": saved(weights), "checkpoint": saved(checkpoint), "kinds": saved(kinds), "parameters": saved(parameters),
        "protocol4": saved(weights, pickle_protocol=4), "protocol5": saved({"a": torch.ones(2)}, pickle_protocol=5),
    }
    for name, contents in cases.items():
        archive = zipfile.ZipFile(io.BytesIO(contents))
        pickle = next(member for member in archive.namelist() if member.endswith("data.pkl"))
        put("pickle", name + ".pkl", archive.read(pickle))
        if name in ("plain", "checkpoint", "kinds", "protocol4"):
            put("torch_zip", name + ".pth", repacked(contents))
    put("torch_zip", "saved.pth", saved({"a": torch.ones(2)}))
    legacy = dict(_use_new_zipfile_serialization=False)
    put("torch_legacy", "plain.pth", saved(weights, **legacy))
    put("torch_legacy", "checkpoint.pth", saved(checkpoint, **legacy))
    put("torch_legacy", "small.pth", saved({"a": torch.ones(2)}, **legacy))


def forms():
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    put("weights_form", "model.safetensors.index.json", json.dumps(index, indent=2).encode())
    put("weights_form", "pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 450\n")
    put("weights_form", "page.html", b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>\n")
    put("weights_form", "gzip", gzip.compress(b"weights", mtime=0))


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, contents):
    return varint(number << 3 | 2) + varint(len(contents)) + contents


def caffemodel():
    def floats(values):
        return field(5, struct.pack(f"<{len(values)}f", *values))

    def blob(shape, values):
        return field(7, field(7, field(1, b"".join(varint(side) for side in shape))) + floats(values))

    def legacy(sides, values):
        head = b"".join(varint(number << 3) + varint(side) for number, side in enumerate(sides, 1))
        return field(7, head + floats(values))

    def layer(name, kind, *blobs):
        return field(100, field(1, name) + field(2, kind) + varint(10 << 3) + b"\1" + b"".join(blobs))

    doubles = field(7, field(7, field(1, varint(2))) + field(8, struct.pack("<2d", 2, 4)))
    put("caffemodel", "net.caffemodel", b"".join([
        field(1, b"a network"),
        layer(b"data", b"Input"),
        layer(b"conv", b"Convolution", blob([2, 1, 1, 1], [1, 2]), legacy([1, 1, 1, 2], [3, 4])),
        layer(b"bn", b"BatchNorm", blob([2], [1, 2]), doubles, blob([1], [4])),
        layer(b"bn/scale", b"Scale", blob([2], [5, 6]), blob([2], [7, 8])),
        layer(b"fc", b"InnerProduct", legacy([1, 1, 1, 2], [9, 10])),
    ]))
    put("caffemodel", "old.caffemodel", field(1, b"n") + field(2, field(4, b"conv")))


# ---------------------------------------------------------------------------------------------------------------- data

def archive(members, form=tarfile.USTAR_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            if contents is None:
                info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
            else:
                info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents or b""))
    # Two blocks of zeros end an archive; Python fills it up to 10 KiB.
    contents = file.getvalue().rstrip(b"\0")
    return contents + bytes(-len(contents) % 512 + 1024)


def tar():
    members = [("a.jpg", b"image"), ("a.cls", b"1"), ("d/b.png", b"image"), ("d/b.json", b'{"label": 2}')]
    put("tar", "ustar.tar", archive(members))
    put("tar", "gnu.tar", archive([("n" * 120 + ".jpg", b"image"), ("n" * 120 + ".cls", b"0")], tarfile.GNU_FORMAT))
    put("tar", "pax.tar", archive([("é" * 60 + ".jpg", b"image"), ("é" * 60 + ".json", b'{"cls": 3}')], tarfile.PAX_FORMAT))
    put("tar", "others.tar", archive([("./._a.jpg", b"mac"), ("a.jpg", b"image"), ("a.txt", b"caption"), ("link.jpg", None),
                                      ("a.cls", b"7\n")]))


def fnv1a(contents):
    value = 0xCBF29CE484222325
    for byte in contents:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def index():
    """The layout of src/data/index.rs."""
    def file(kind, classes, units, samples):
        strings = [b"/data/train", *classes, *(path for path, _, _ in units), *(name for name, *_ in samples)]
        ends = [sum(map(len, strings[:number])) for number in range(1, len(strings) + 1)]
        text = b"".join(strings)
        body = struct.pack("<4I", len(classes), len(units), len(samples), len(text)) + struct.pack("<4I", 1, 0, 0, 0)
        for _, first, size in units:
            body += struct.pack("<qQQII", 1000, size, 0, first, 0)
        body += struct.pack(f"<{len(ends)}I", *ends) + b"".join(struct.pack("<I", label) for _, label, *_ in samples)
        if kind == 2:
            body += b"".join(struct.pack("<I", length) for *_, length in samples)
            body += b"".join(struct.pack("<Q", offset) for _, _, offset, _ in samples)
        body += text
        return b"senetidx" + struct.pack("<IIQ", 1, kind, fnv1a(body)) + body

    put("index", "folders.idx", file(1, [b"a", b"b"], [(b"a", 0, 1), (b"b", 2, 1)], [(b"1.jpg", 0), (b"2.jpg", 0), (b"3.jpg", 1)]))
    put("index", "shards.idx", file(2, [], [(b"0.tar", 0, 9000), (b"1.tar", 1, 9000)], [(b"x", 0, 512, 100), (b"y", 4, 512, 90)]))


def idx():
    images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + bytes(range(24))
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 5) + bytes(range(5))
    put("idx", "images", images)
    put("idx", "labels", labels)
    put("idx", "images.gz", gzip.compress(images, mtime=0))
    put("idx", "members.gz", gzip.compress(images[:20], mtime=0) + gzip.compress(images[20:], mtime=0))


def cifar():
    pixels = bytes(value * 7 % 256 for value in range(3072))
    put("cifar", "ten.bin", b"\3" + pixels)
    put("cifar", "hundred.bin", b"\1\x63" + pixels)


def meta():
    golden = (ROOT / "tests" / "golden" / "meta.mat").read_bytes()
    put("meta_mat", "golden.mat", golden)
    # The same without compression, under which mutations would only damage the stream.
    header, rest, plain = golden[:128], golden[128:], b""
    while rest:
        kind, size = struct.unpack("<II", rest[:8])
        plain += zlib.decompress(rest[8:8 + size]) if kind == 15 else rest[:8 + size]
        rest = rest[8 + size:]
    put("meta_mat", "plain.mat", header + plain)
    ids = [f"n{10_000_000 + 7919 * number % 1000}" for number in (2, 12, 1)]
    put("val_labels", "ids.txt", ("\n".join(ids) + "\n").encode())
    put("val_labels", "numbers.txt", b"2\n12\n1\n")


def config():
    for name in ["fashion-mnist.json", "synthetic.json"]:
        put("config", name, (ROOT / "configs" / name).read_bytes())
    put("config", "rich.json", json.dumps({
        "name": "rich", "seed": 7, "model": {"name": "se-resnet-18", "se": {"reduction": 8}},
        "data": {"source": "folder", "augment": [{"kind": "erase", "p": 0.25}], "crop_area": [0.2, 1.0]},
        "optim": {"kind": "adamw", "betas": [0.9, 0.95], "lr": 0.001},
        "schedule": {"kind": "sequence", "parts": [{"length": "1ep", "schedule": {"kind": "linear"}},
                                                   {"schedule": {"kind": "cosine", "warmup": "5st"}}]},
        "train": {"duration": "4ep", "clip": {"norm": 1}, "ema": {"decay": 0.99}, "loss": {"kind": "bce"}},
    }).encode())
    put("config", "sweep.json", json.dumps({
        "base": {"model": {"name": "se-resnet-18"}}, "axes": {"ratios": [2, 16], "gates": ["sigmoid"]}, "seeds": 2,
    }).encode())
    put("config", "settings.txt", b"optim.lr=0.1\ntrain.duration=90ep\nmodel.se={\"reduction\": 4}\n"
                                  b"schedule={\"kind\":\"step\",\"every\":\"30ep\"}\ndata.crop=pad\ntrain.clip=null\n")


# -------------------------------------------------------------------------------------------------------------- images

def picture(width, height):
    y, x = np.mgrid[0:height, 0:width]
    channels = [128 + 100 * np.sin(x / 3), 128 + 90 * np.cos(y / 4), (x * 9 + y * 5) % 256]
    return Image.fromarray(np.stack(channels, -1).clip(0, 255).astype(np.uint8))


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pictures():
    image = picture(40, 36)
    jpegs = {
        "444": dict(subsampling=0), "422": dict(subsampling=1), "420": dict(subsampling=2), "progressive": dict(progressive=True),
        "restart": dict(restart_marker_blocks=2), "rgb": dict(keep_rgb=True), "optimized": dict(optimize=True),
    }
    for name, options in jpegs.items():
        put("jpeg", name + ".jpg", encoded(image, "JPEG", quality=60, **options))
    put("jpeg", "gray.jpg", encoded(image.convert("L"), "JPEG", quality=60))
    put("jpeg", "cmyk.jpg", encoded(image.convert("CMYK"), "JPEG", quality=60))
    small = picture(13, 11)
    exif = Image.Exif()
    exif[0x0112] = 6
    put("jpeg", "exif.jpg", encoded(small, "JPEG", exif=exif))
    sixteen = Image.fromarray((np.asarray(small.convert("L")).astype(np.uint16) * 257))
    others = {
        "rgb.png": encoded(small, "PNG"), "gray16.png": encoded(sixteen, "PNG"), "palette.png": encoded(small.quantize(8), "PNG"),
        "transparent.png": encoded(small.quantize(8), "PNG", transparency=3), "alpha.png": encoded(small.convert("RGBA"), "PNG"),
        "bilevel.png": encoded(small.convert("1"), "PNG"), "a.gif": encoded(small, "GIF"),
        "frames.gif": encoded(small, "GIF", save_all=True, append_images=[picture(13, 11).rotate(90)]),
        "lossy.webp": encoded(small, "WEBP"), "lossless.webp": encoded(small.convert("RGBA"), "WEBP", lossless=True),
        "a.bmp": encoded(small, "BMP"), "palette.bmp": encoded(small.quantize(8), "BMP"), "a.ppm": encoded(small, "PPM"),
        "a.pgm": encoded(small.convert("L"), "PPM"), "a.tga": encoded(small, "TGA"), "rle.tga": encoded(small, "TGA", compression="tga_rle"),
        "raw.tif": encoded(small, "TIFF"), "lzw.tif": encoded(small, "TIFF", compression="tiff_lzw"),
        "packbits.tif": encoded(small, "TIFF", compression="packbits"), "deflate.tif": encoded(small, "TIFF", compression="tiff_deflate"),
        "jpeg.tif": encoded(small, "TIFF", compression="jpeg"), "gray16.tif": encoded(sixteen, "TIFF"),
        "a.jpg": encoded(small, "JPEG"),
    }
    for name, contents in others.items():
        put("image", name, contents)


if __name__ == "__main__":
    shutil.rmtree(CORPUS, ignore_errors=True)
    for make in [safetensors, pickles, forms, caffemodel, tar, index, idx, cifar, meta, config, pictures]:
        make()
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files)} bytes")
