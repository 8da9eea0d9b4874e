"""Makes tests/golden/pixels/: three JPEGs and the samples that Pillow and torchvision make of them.

    python scripts/golden_pixels.py [FOLDER]

The pictures are made up but photograph-like: soft shapes at many sizes, edges, and noise that falls off with frequency.
Expected samples are PNGs of 224 × 224, named PICTURE.eval.png (Resize(256), CenterCrop(224)) and
PICTURE.X-Y-WIDTH-HEIGHT.png (cut out, then resized, as RandomResizedCrop does)."""
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

SEED = 20260
PICTURES = [  # name, width, height, chroma, progressive, quality, crops (x, y, width, height)
    ("colour-420", 330, 265, "4:2:0", False, 85, [(37, 61, 251, 203), (101, 3, 96, 117)]),
    ("colour-444", 259, 331, "4:4:4", False, 80, [(149, 50, 87, 83)]),
    ("gray", 341, 256, None, True, 85, [(90, 21, 230, 224)]),
]


def picture(rng, width, height):
    """Noise whose amplitude falls as 1 / frequency, in three related channels, under a few shapes with edges."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    fall = 1 / np.maximum(frequency, 1 / max(width, height)) ** 1.4
    layers = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) * fall).real for _ in range(4)]
    layers = [(layer - layer.mean()) / layer.std() for layer in layers]
    image = np.stack([128 + 45 * layers[0] + 22 * layer for layer in layers[1:]], -1)
    y, x = np.mgrid[:height, :width]
    for _ in range(7):
        centre, radius = rng.uniform(0, [width, height]), rng.uniform(12, 60)
        turn, stretch, colour = rng.uniform(0, np.pi), rng.uniform(0.3, 1), rng.uniform(-70, 70, 3)
        u = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
        v = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
        image[np.hypot(u, v / stretch) < radius] += colour
    return Image.fromarray(np.clip(image, 0, 255).round().astype(np.uint8))


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/pixels")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    centre = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for name, width, height, chroma, progressive, quality, crops in PICTURES:
        image = picture(rng, width, height)
        path = folder / f"{name}.jpg"
        if chroma is None:
            image.convert("L").save(path, quality=quality, progressive=progressive, optimize=True)
        else:
            image.save(path, quality=quality, subsampling=chroma, progressive=progressive, optimize=True)
        decoded = Image.open(path).convert("RGB")
        samples = {"eval": centre(decoded)}
        for x, y, w, h in crops:
            samples[f"{x}-{y}-{w}-{h}"] = functional.resized_crop(decoded, y, x, h, w, [224, 224])
        for what, sample in samples.items():
            sample = sample.convert("L") if chroma is None else sample
            sample.save(folder / f"{name}.{what}.png", optimize=True)
    print(f"torch {torch.__version__}, Pillow {Image.__version__}:")
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:8} {path.name}")


main()
