"""Expected values of the augmentations: torchvision's, on PIL images.

Run with the peers' environment:  python scripts/golden_augment.py > tests/golden/augment.json
(`--size W H` makes another picture size, for a larger check that is not kept).

The input images are formulas, repeated in src/data/augment/golden.rs. A case is
[image, channels, operation, value, FNV-1a hash of all bytes, four of the bytes].
"""

import argparse
import json
import os

# torch.linspace's last bit depends on whether its loop is compiled with fused multiply-add, as it is for every processor
# that has it: the middle of TrivialAugment's translations is 15.999999 with it (15 pixels) and 16.0 without.
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as F

WORD = 0xFFFFFFFF


def value(name, x, y, c):
    if name == "noise":
        h = (x * 374761393 + y * 668265263 + c * 2246822519) & WORD
        h = ((h ^ (h >> 13)) * 1274126177) & WORD
        return (h ^ (h >> 16)) & 255
    if name == "smooth":
        return (x * 5 + y * 3 + c * 70 + x * y // 8) & 255
    if name == "dull":
        return 60 + 20 * c + value("noise", x // 3, y // 3, c) % 90
    assert name == "flat"
    return 90 + 30 * c


def picture(name, channels, width, height):
    data = [[[value(name, x, y, c) for c in range(channels)] for x in range(width)] for y in range(height)]
    data = np.array(data, dtype=np.uint8)
    return Image.fromarray(data[:, :, 0], "L") if channels == 1 else Image.fromarray(data, "RGB")


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def policy_op(name):
    return lambda image, magnitude: autoaugment._apply_op(
        image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=None
    )


FACTORS = [0.0, 0.1, 0.37, 0.6, 0.99, 1.0, 1.01, 1.4, 1.9, 3.5]
ANGLES = [-10.0, -7.3, -0.01, 0.0, 0.5, 3.21, 9.99, 45.0, 90.0, 180.0, -270.0, 135.0]
OPERATIONS = {
    "brightness": (F.adjust_brightness, FACTORS),
    "contrast": (F.adjust_contrast, FACTORS),
    "saturation": (F.adjust_saturation, FACTORS),
    "hue": (F.adjust_hue, [-0.5, -0.31, -0.1, -0.003, 0.0, 0.004, 0.02, 0.1, 0.25, 0.49, 0.5]),
    "sharpness": (F.adjust_sharpness, FACTORS),
    "posterize": (F.posterize, list(range(1, 9))),
    "solarize": (F.solarize, [0.0, 1.0, 59.5, 127.5, 178.5, 254.0, 255.0, 256.0]),
    "grayscale": (lambda image, _: F.rgb_to_grayscale(image, len(image.getbands())), [0]),
    "autocontrast": (lambda image, _: F.autocontrast(image), [0]),
    "equalize": (lambda image, _: F.equalize(image), [0]),
    "invert": (lambda image, _: F.invert(image), [0]),
    "shear-x": (policy_op("ShearX"), [-0.99, -0.3, -0.013, 0.0, 0.1, 0.3, 0.627]),
    "shear-y": (policy_op("ShearY"), [-0.99, -0.3, -0.013, 0.0, 0.1, 0.3, 0.627]),
    "translate-x": (policy_op("TranslateX"), [-101.5, -18.1, -1.0, 0.0, 0.9, 7.5, 39.0, 40.0]),
    "translate-y": (policy_op("TranslateY"), [-101.5, -18.1, -1.0, 0.0, 0.9, 7.5, 31.0, 32.0]),
    "rotate-nearest": (policy_op("Rotate"), ANGLES),
    "rotate-bilinear": (lambda image, angle: F.rotate(image, angle, InterpolationMode.BILINEAR), ANGLES),
}


def result(image, channels, operation, magnitude, output):
    data = np.asarray(output).tobytes()
    places = [0, len(data) // 3, len(data) // 2, len(data) - 2]
    return [image, channels, operation, magnitude, f"{fnv1a(data):016x}", [data[place] for place in places]]


def cases(width, height):
    for image in ["noise", "smooth", "dull", "flat"]:
        for channels in [1, 3]:
            source = picture(image, channels, width, height)
            for operation, (function, magnitudes) in OPERATIONS.items():
                chosen = magnitudes if image in ("noise", "smooth") else magnitudes[1:8:3] or magnitudes
                for magnitude in chosen:
                    yield result(image, channels, operation, magnitude, function(source, magnitude))


def space(magnitudes_of):
    """Operation → signed, magnitudes (or null)."""
    return {
        name: [signed, [float(m) for m in magnitudes] if magnitudes.ndim > 0 else None]
        for name, (magnitudes, signed) in magnitudes_of.items()
    }


def policies(width, height):
    rand, auto, wide = autoaugment.RandAugment(), autoaugment.AutoAugment(), autoaugment.TrivialAugmentWide()
    source = picture("smooth", 3, width, height)
    applied = []
    for policy, table in [
        ("rand", rand._augmentation_space(31, (height, width))),
        ("wide", wide._augmentation_space(31)),
        ("auto", auto._augmentation_space(10, (height, width))),
    ]:
        for name, (magnitudes, signed) in table.items():
            # The middle one (15 of 31) is among them.
            bins = range(0, len(magnitudes), 3) if magnitudes.ndim > 0 else [0]
            for bin in bins:
                magnitude = float(magnitudes[bin]) if magnitudes.ndim > 0 else 0.0
                negated = signed and bin % 2 == 0
                output = policy_op(name)(source, -magnitude if negated else magnitude)
                applied.append([policy, *result(name, bin, negated, -magnitude if negated else magnitude, output)])
    return {
        "rand": space(rand._augmentation_space(31, (height, width))),
        "wide": space(wide._augmentation_space(31)),
        "auto": space(auto._augmentation_space(10, (height, width))),
        "imagenet": auto.policies,
        "applied": applied,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=2, default=[40, 32])
    width, height = parser.parse_args().size
    print("{")
    versions = {"torchvision": torchvision.__version__, "pillow": PIL.__version__, "torch": torch.__version__}
    print(f' "made by": {json.dumps(versions)},')
    print(f' "size": [{width}, {height}],')
    print(' "cases": [')
    print(",\n".join("  " + json.dumps(case) for case in cases(width, height)))
    print(" ],")
    tables = policies(width, height)
    applied = tables.pop("applied")
    print(f' "tables": {json.dumps(tables)},')
    print(' "applied": [')
    print(",\n".join("  " + json.dumps(case) for case in applied))
    print(" ]\n}")


main()
