#!/usr/bin/env python3
"""Odd and damaged JPEGs, and what Pillow makes of them: `tests/golden/jpegs/*.jpg` and `expected.json`.

Needs numpy and Pillow. The pictures are drawn here. A file that Pillow refuses (as torchvision opens it: `Image.open(f).convert("RGB")`)
has `null` in `expected.json`, another its width, height and the FNV-1a hash of its pixels. Prints what Pillow says.
"""

import io
import json
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).resolve().parent.parent / "tests/golden/jpegs"
SIZE = (41, 35)


def picture(seed=0):
    w, h = SIZE
    y, x = np.mgrid[0:h, 0:w]
    a, b, c = np.random.default_rng(seed).uniform(0.5, 1.5, 3)
    channels = [140 + 100 * np.sin(a * x / 7), 130 + 90 * np.cos(b * y / 5), 100 + 80 * np.sin(c * (x + y) / 9)]
    pixels = np.stack(channels, -1).clip(0, 255).astype(np.uint8)
    pixels[h // 4 : h // 2, w // 4 : w // 2] = [250, 30, 20]
    return Image.fromarray(pixels)


def jpeg(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 92, **options})
    return out.getvalue()


def inks(image):
    cmy = 255 - np.asarray(image).astype(int)
    k = (cmy.min(-1) * 0.8).astype(int)
    cmy = ((cmy - k[..., None]) * 255 // np.maximum(255 - k, 1)[..., None]).clip(0, 255)
    return np.concatenate([cmy, k[..., None]], -1).astype(np.uint8)


def segments(data):
    """Offset, code and length of each segment, up to and with the start of the first scan."""
    at = 2
    while True:
        code, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0] + 2
        yield at, code, length
        if code == 0xDA:
            return
        at += length


def without(data, *codes):
    for at, code, length in reversed(list(segments(data))):
        if code in codes:
            data = data[:at] + data[at + length :]
    return data


def ycck(image, **options):
    """Adobe's transform 2: inks inverted, C, M and Y as YCbCr."""
    inverted = 255 - inks(image)
    ycc = np.asarray(Image.fromarray(255 - inverted[..., :3]).convert("YCbCr"))
    stored = np.concatenate([ycc, inverted[..., 3:]], -1)
    data = bytearray(jpeg(Image.fromarray(255 - stored, "CMYK"), **options))
    for at, code, _ in segments(data):
        if code == 0xEE:
            data[at + 15] = 2
    return bytes(data)


def cases():
    image = picture()
    plain, wide = jpeg(image, subsampling=0), jpeg(image, subsampling=2)
    progressive, restarts = jpeg(image, progressive=True), jpeg(image, restart_marker_rows=1)
    cmyk = Image.fromarray(inks(image), "CMYK")
    yield "plain", plain
    yield "chroma-420", wide
    yield "chroma-422", jpeg(image, subsampling=1)
    yield "progressive", progressive
    yield "restarts", restarts
    yield "progressive-restarts", jpeg(image, progressive=True, restart_marker_rows=1)
    yield "gray", jpeg(image.convert("L"))
    yield "rgb-adobe", jpeg(image, keep_rgb=True)
    yield "cmyk", jpeg(cmyk)
    yield "cmyk-without-adobe", without(jpeg(cmyk), 0xEE)
    yield "cmyk-progressive", jpeg(cmyk, progressive=True)
    yield "ycck", ycck(image)
    yield "ycck-420", ycck(image, subsampling=2)
    yield "ycck-truncated", ycck(image)[:-40]
    orientation = Image.Exif()
    orientation[0x0112] = 6
    yield "exif-orientation", jpeg(image, exif=orientation)
    out = io.BytesIO()
    image.save(out, "MPO", save_all=True, append_images=[picture(5)], quality=92)
    yield "mpo", out.getvalue()
    yield "mpo-second-truncated", out.getvalue()[:-60]
    for name, data in [("", plain), ("420-", wide), ("progressive-", progressive), ("restarts-", restarts)]:
        rows = data[:-2]
        cut = data[: len(data) * 2 // 3]
        yield f"{name}extraneous", rows + bytes(3) + data[-2:]
        yield f"{name}trailing-zeros", data + bytes(100)
        yield f"{name}trailing-bytes", data + bytes(range(1, 251))
        yield f"{name}one-byte-missing", data[:-1]
        yield f"{name}end-missing", rows
        yield f"{name}end-missing-then-zeros", rows + bytes(40)
        yield f"{name}end-missing-then-bytes", rows + bytes([0xAA] * 40)
        yield f"{name}end-twice", data + data[-2:]
        yield f"{name}truncated", cut
        yield f"{name}truncated-in-header", data[:100]
        yield f"{name}zero-filled", cut + bytes(len(data) - len(cut))
        yield f"{name}zero-filled-far", cut + bytes(4000)
        yield f"{name}ff-filled-far", cut + b"\xff" * 1000
        yield f"{name}cut-with-end", cut.rstrip(b"\xff") + data[-2:]
        spoilt = bytearray(data)
        spoilt[len(data) * 3 // 4] ^= 0x55
        yield f"{name}flipped-bits", bytes(spoilt)
        spoilt[len(data) // 2 : len(data) // 2 + 30] = bytes(30)
        yield f"{name}zeros-inside", bytes(spoilt)
        yield f"{name}marker-inside", data[: len(data) * 3 // 4].rstrip(b"\xff") + b"\xff\xd3" + data[len(data) * 3 // 4 :]
        yield f"{name}leading-ff", data[:2] + b"\xff\xff\xff" + data[2:]
        yield f"{name}junk-in-header", data[:20] + b"\x00\x07" + data[20:]
        yield f"{name}junk-after-start", data[:2] + b"\x00\x01" + data[2:]
        yield f"{name}leading-byte", b"\x00" + data
        yield f"{name}without-tables", without(data, 0xDB)
        yield f"{name}without-codes", without(data, 0xC4)
        yield f"{name}without-jfif", without(data, 0xE0)
        yield f"{name}without-frame", without(data, 0xC0, 0xC2)
        yield f"{name}without-scan", data[: [at for at, code, _ in segments(data) if code == 0xDA][0]] + data[-2:]
    two = bytearray(jpeg(image.convert("L")))
    for at, code, _ in segments(two):
        if code == 0xC0:
            two[at + 4] = 12
    yield "twelve-bits", bytes(two)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*"):
        old.unlink()
    expected = {}
    for name, data in cases():
        (OUT / f"{name}.jpg").write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            expected[name] = [pixels.shape[1], pixels.shape[0], fnv1a(pixels.tobytes())]
            print(f"{name:36} mean {pixels.mean():.2f}")
        except Exception as error:
            expected[name] = None
            print(f"{name:36} refused: {error}"[:120])
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
    (OUT / "expected.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
