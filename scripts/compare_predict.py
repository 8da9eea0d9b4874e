#!/usr/bin/env python3
"""`senet predict` against timm and torchvision: the same random weights, the same image files, the same logits?

    VENV/bin/python scripts/compare_predict.py IMAGE...

Weights go through a safetensors file or a .pth; images are decoded, resized and cropped by each side's own code
(here: Pillow, with torchvision's transforms). Prints the largest difference of a logit as a share of the logits'
standard deviation.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

ROOT = Path(__file__).resolve().parent.parent
GOOGLE = ([0.5] * 3, [0.5] * 3)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
# Our name, how the peer makes it, the file's form, size, short side, mean and standard deviation.
NETS = [
    ("se-resnet-50", lambda: timm.create_model("legacy_seresnet50"), "safetensors", 224, 256, IMAGENET),
    ("se-resnet-50-v1.5", lambda: timm.create_model("seresnet50"), "safetensors", 224, 256, IMAGENET),
    ("se-resnet-50-v1.5", lambda: timm.create_model("seresnet50"), "pth", 224, 256, IMAGENET),
    ("senet-154", lambda: timm.create_model("legacy_senet154"), "safetensors", 224, 256, IMAGENET),
    ("mobilenet", lambda: timm.create_model("mobilenetv1_100"), "pth", 224, 256, IMAGENET),
    ("inception-v3", lambda: torchvision.models.inception_v3(init_weights=False), "pth", 299, 342, GOOGLE),
    ("vgg-16-bn", lambda: torchvision.models.vgg16_bn(), "safetensors", 224, 256, IMAGENET),
]


def ours(args, name, weights):
    command = [args.senet, "predict", "--model", name, "--weights", weights, "--json", "--logits", *args.images]
    result = subprocess.run(command, check=True, capture_output=True)
    return torch.tensor([prediction["logits"] for prediction in json.loads(result.stdout)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--senet", default=str(ROOT / "target/release/senet"))
    args = parser.parse_args()
    for name, make, form, size, short, (mean, std) in NETS:
        torch.manual_seed(0)
        prepare = transforms.Compose([
            transforms.Resize(short), transforms.CenterCrop(size), transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ])
        images = torch.stack([prepare(Image.open(path).convert("RGB")) for path in args.images])
        net = make().eval()
        with torch.no_grad():
            expected = net(images)
        with tempfile.TemporaryDirectory() as folder:
            weights = f"{folder}/weights.{form}"
            state = {key: value.contiguous() for key, value in net.state_dict().items()}
            save_file(state, weights) if form == "safetensors" else torch.save(state, weights)
            found = ours(args, name, weights)
        error = (found - expected).abs().max() / expected.std()
        print(f"{name} from {form}: largest difference {error:.2%} of the logits' standard deviation", flush=True)


if __name__ == "__main__":
    main()
