#!/usr/bin/env python3
"""Golden numbers of the networks, from PyTorch, timm and torchvision, for tests/golden.

    make golden          (or: VENV/bin/pip install -r scripts/requirements.txt; VENV/bin/python scripts/golden.py)

No weights are stored: every tensor is filled by a formula of its name and the index of the value (`fill`), which
tests/networks.rs repeats. For each network networks.json holds logits in evaluation mode and, for one of each family,
the loss, the norm of every parameter's gradient and checksums of the batch-norm statistics of one training step, all
computed in float64; counts.json holds the parameters and multiply-adds of the network at its full size. variants.json
holds all of these for the variants of SE of golden_variants.py.

Networks that neither library has are written here, from the papers, without a look at the product.
"""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import golden_variants

ROOT = Path(__file__).resolve().parent.parent
BATCH, CLASSES = 4, 10


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def uniform(name, count):
    """`count` numbers in [0, 1) by SplitMix64 of (hash of the name + index), exact in float32."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def fill(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if name.endswith("bn3.weight"):
        # Branches that are small beside their shortcuts: else the maps of deep nets grow until a gate is chaos.
        values = (u + np.float32(0.5)) * np.float32(0.25)
    elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        values = u + np.float32(0.5)
    elif len(shape) == 1:
        values = (u - np.float32(0.5)) * np.float32(0.2)
    else:
        fan_in = int(np.prod(shape[1:]))
        values = (u - np.float32(0.5)) * np.float32(2 * np.sqrt(6 / fan_in))
    return torch.from_numpy(values.reshape(shape))


# timm's legacy SENet-154 names its stem like the rest of `layer0`, timm's newer one as a sequence, and so do we.
SENET_STEM = {
    "layer0.conv1.": "conv1.0.", "layer0.bn1.": "conv1.1.",
    "layer0.conv2.": "conv1.3.", "layer0.bn2.": "conv1.4.",
    "layer0.conv3.": "conv1.6.", "layer0.bn3.": "bn1.",
}


def our_name(name, renamed):
    """timm's legacy names (`layer0.bn1`, `se_module`, `last_linear`) as torchvision spells them."""
    for theirs, ours in renamed.items():
        name = name.replace(theirs, ours)
    return name.replace("layer0.", "").replace("se_module.", "se.").replace("last_linear.", "fc.")


# ---- SE in networks that others wrote without it ----


class SE(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = max(channels // 16, 1)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.fc2(F.relu(self.fc1(squeezed))).sigmoid()


def se_or_nothing(se, channels):
    return SE(channels) if se else nn.Identity()


def excite(module, channels):
    """Puts an SE block behind what `module` returns; its parameters are named MODULE.se."""
    module.se = SE(channels)
    module.register_forward_hook(lambda module, _, output: module.se(output))


def se_vgg_16_bn(classes):
    net = torchvision.models.vgg16_bn(num_classes=classes, dropout=0.0)
    for index, layer in enumerate(net.features):
        if isinstance(layer, nn.Conv2d):
            excite(net.features[index + 2], layer.out_channels)  # convolution, batch norm, ReLU
    return net


def inception_v3(classes):
    return torchvision.models.inception_v3(
        num_classes=classes, aux_logits=False, transform_input=False, init_weights=False, dropout=0.0)


def se_inception_v3(classes):
    net = inception_v3(classes)
    widths = {"5b": 256, "5c": 288, "5d": 288, "6a": 768, "6b": 768, "6c": 768, "6d": 768, "6e": 768,
              "7a": 1280, "7b": 2048, "7c": 2048}
    for name, channels in widths.items():
        excite(net.get_submodule(f"Mixed_{name}"), channels)
    return net


def released(net):
    """The authors' form of one of torchvision's or timm's: stride on a bottleneck's first convolution, ceil-mode pool."""
    net.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    for layer in net.modules():
        if hasattr(layer, "conv3") and layer.conv2.groups == 1:
            layer.conv1.stride, layer.conv2.stride = layer.conv2.stride, layer.conv1.stride
    return net


def without_se(net):
    for layer in net.modules():
        for name in ("se", "se_module"):
            if hasattr(layer, name):
                setattr(layer, name, nn.Identity())
    return net


def se_basic_resnet(net):
    for layer in net.modules():
        if hasattr(layer, "conv2"):
            excite(layer.bn2, layer.conv2.out_channels)
    return net


def resnext_101_32x4d(classes):
    from torchvision.models.resnet import Bottleneck, ResNet
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes=classes, groups=32, width_per_group=4)


def se_inception_resnet_v2(classes):
    net = timm.create_model("inception_resnet_v2", num_classes=classes, drop_rate=0.0)
    for block in [*net.repeat, *net.repeat_1, *net.repeat_2, net.block8]:
        excite(block.conv2d, block.conv2d.out_channels)  # whose output is scaled and added next
    return net


def se_mobilenet(classes):
    net = timm.create_model("mobilenetv1_100", num_classes=classes, drop_rate=0.0)
    for block in (block for stage in net.blocks for block in stage):
        excite(block.bn2, block.conv_pw.out_channels)  # timm's bn2 activates as well
    return net


# ---- Networks that neither library has ----


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class ConvBN(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, stride)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def halved(x):
    """Caffe's 3x3 max pool of stride 2, whose last window may reach over the edge."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


# Widths of a module: 1x1 (none: the module has stride 2); 3x3 after its reduction; the double 3x3 after its reduction;
# projection of the pool.
BN_INCEPTION = {
    "3a": (64, (64, 64), (64, 96, 96), 32),
    "3b": (64, (64, 96), (64, 96, 96), 64),
    "3c": (None, (128, 160), (64, 96, 96), None),
    "4a": (224, (64, 96), (96, 128, 128), 128),
    "4b": (192, (96, 128), (96, 128, 128), 128),
    "4c": (160, (128, 160), (128, 160, 160), 128),
    "4d": (96, (128, 192), (160, 192, 192), 128),
    "4e": (None, (128, 192), (192, 256, 256), None),
    "5a": (352, (192, 320), (160, 224, 224), 128),
    "5b": (352, (192, 320), (192, 224, 224), 128),
}


class InceptionModule(nn.Module):
    def __init__(self, inputs, widths, max_pool, se):
        super().__init__()
        single, (reduce, plain), (double_reduce, double_a, double_b), projection = widths
        self.halves, self.max_pool = single is None, max_pool
        stride = 2 if self.halves else 1
        if not self.halves:
            self.add_module("1x1", ConvBN(inputs, single, 1))
            self.add_module("pool_proj", ConvBN(inputs, projection, 1))
        self.add_module("3x3_reduce", ConvBN(inputs, reduce, 1))
        self.add_module("3x3", ConvBN(reduce, plain, 3, stride))
        self.add_module("double3x3_reduce", ConvBN(inputs, double_reduce, 1))
        self.add_module("double3x3a", ConvBN(double_reduce, double_a, 3))
        self.add_module("double3x3b", ConvBN(double_a, double_b, 3, stride))
        self.outputs = (single or 0) + plain + double_b + (projection or inputs)
        self.se = se_or_nothing(se, self.outputs)

    def pool(self, x):
        if self.halves:
            return halved(x)
        pool = F.max_pool2d if self.max_pool else F.avg_pool2d  # this average counts the padding
        return self.pool_proj(pool(x, 3, 1, 1))

    def forward(self, x):
        unit = self.get_submodule
        first = [] if self.halves else [unit("1x1")(x)]
        plain = unit("3x3")(unit("3x3_reduce")(x))
        double = self.double3x3b(self.double3x3a(self.double3x3_reduce(x)))
        return self.se(torch.cat([*first, plain, double, self.pool(x)], 1))


class BNInception(nn.Module):
    def __init__(self, classes, se):
        super().__init__()
        self.conv1 = ConvBN(3, 64, 7, 2)
        self.conv2_reduce = ConvBN(64, 64, 1)
        self.conv2 = ConvBN(64, 192, 3)
        channels = 192
        for name, widths in BN_INCEPTION.items():
            module = InceptionModule(channels, widths, name == "5b", se)
            self.add_module(f"inception_{name}", module)
            channels = module.outputs
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = halved(self.conv1(x))
        x = halved(self.conv2(self.conv2_reduce(x)))
        for name in BN_INCEPTION:
            x = self.get_submodule(f"inception_{name}")(x)
        return self.fc(x.mean((2, 3)))


class ShuffleUnit(nn.Module):
    GROUPS = 3

    def __init__(self, inputs, outputs, first, stride, se):
        super().__init__()
        self.stride, middle = stride, outputs // 4
        branch = outputs - inputs if stride == 2 else outputs  # the pooled input is the rest
        self.conv1 = conv(inputs, middle, 1, groups=1 if first else self.GROUPS)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv(middle, middle, 3, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, branch, 1, groups=self.GROUPS)
        self.bn3 = nn.BatchNorm2d(branch)
        self.se = se_or_nothing(se, branch)

    def shuffle(self, x):
        return x.unflatten(1, (self.GROUPS, -1)).transpose(1, 2).flatten(1, 2)

    def forward(self, x):
        y = self.shuffle(F.relu(self.bn1(self.conv1(x))))
        y = self.se(self.bn3(self.conv3(self.bn2(self.conv2(y)))))
        return F.relu(x + y if self.stride == 1 else torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))


class ShuffleNet(nn.Module):
    def __init__(self, classes, se):
        super().__init__()
        self.conv1 = conv(3, 24, 3, 2)
        self.bn1 = nn.BatchNorm2d(24)
        channels = 24
        for stage, (outputs, depth) in enumerate([(240, 4), (480, 8), (960, 4)], 1):
            units = [ShuffleUnit(channels, outputs, stage == 1, 2, se)]
            units += [ShuffleUnit(outputs, outputs, False, 1, se) for _ in range(depth - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            channels = outputs
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class PreactUnit(nn.Module):
    """BN, ReLU, convolution, two or three times."""

    def __init__(self, inputs, width, stride, bottleneck, projects, se):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        layers = [(width, 1, 1), (width, 3, stride), (outputs, 1, 1)]
        layers = layers if bottleneck else [(width, 3, stride), (outputs, 3, 1)]
        self.count, self.stride, self.appended = len(layers), stride, outputs - inputs
        channels = inputs
        for at, (width, kernel, step) in enumerate(layers, 1):
            self.add_module(f"bn{at}", nn.BatchNorm2d(channels))
            self.add_module(f"conv{at}", conv(channels, width, kernel, step))
            channels = width
        self.downsample = conv(inputs, outputs, 1, stride) if projects and inputs != outputs else None
        self.se = se_or_nothing(se, outputs)

    def shortcut(self, x, activated):
        if self.downsample is not None:
            return self.downsample(activated)
        return F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.appended))

    def forward(self, x):
        y = activated = F.relu(self.bn1(x))
        for at in range(1, self.count + 1):
            y = y if at == 1 else F.relu(self.get_submodule(f"bn{at}")(y))
            y = self.get_submodule(f"conv{at}")(y)
        return self.shortcut(x, activated) + self.se(y)


class PreactNet(nn.Module):
    def __init__(self, classes, widths, depth, bottleneck, projects, se):
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        channels = 16
        for stage, width in enumerate(widths, 1):
            units = []
            for at in range(depth):
                stride = 2 if stage > 1 and at == 0 else 1
                units.append(PreactUnit(channels, width, stride, bottleneck, projects, se))
                channels = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*units))
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


class CifarUnit(nn.Module):
    """He et al. 2015, §4.2, with option A."""

    def __init__(self, inputs, width, stride, se):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.se, self.stride, self.appended = se_or_nothing(se, width), stride, width - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.appended))
        return F.relu(self.se(y) + shortcut)


class CifarNet(nn.Module):
    """6n + 2 layers."""

    def __init__(self, classes, n, se):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        channels = 16
        for stage, width in enumerate((16, 32, 64), 1):
            units = []
            for at in range(n):
                units.append(CifarUnit(channels, width, 2 if stage > 1 and at == 0 else 1, se))
                channels = width
            self.add_module(f"layer{stage}", nn.Sequential(*units))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class ShakeBranch(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(F.relu(x))))))


class ShakeShortcut(nn.Module):
    """Two halves: of every stride-th pixel, and of those to their lower right."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride = stride
        self.conv1 = conv(inputs, outputs // 2, 1)
        self.conv2 = conv(inputs, outputs // 2, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        x, step = F.relu(x), self.stride
        moved = F.pad(x, (-1, 1, -1, 1))
        halves = self.conv1(x[:, :, ::step, ::step]), self.conv2(moved[:, :, ::step, ::step])
        return self.bn(torch.cat(halves, 1))


class ShakeUnit(nn.Module):
    """As at evaluation: the mean of the branches, where training draws their shares."""

    def __init__(self, inputs, outputs, stride, se):
        super().__init__()
        self.branch1 = ShakeBranch(inputs, outputs, stride)
        self.branch2 = ShakeBranch(inputs, outputs, stride)
        self.downsample = ShakeShortcut(inputs, outputs, stride) if inputs != outputs else nn.Identity()
        self.se = se_or_nothing(se, outputs)

    def forward(self, x):
        return self.se(0.5 * self.branch1(x) + 0.5 * self.branch2(x)) + self.downsample(x)


class ShakeShake(nn.Module):
    def __init__(self, classes, se):
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage, (width, stride) in enumerate([(96, 1), (192, 2), (384, 2)], 1):
            units = [ShakeUnit(channels, width, stride, se)]
            units += [ShakeUnit(width, width, 1, se) for _ in range(3)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            channels = width
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)))))
        return self.fc(F.relu(x).mean((2, 3)))


# ---- The list ----


@dataclass
class Reference:
    source: str
    build: Callable[[int], nn.Module]  # of the number of classes
    size: int = 64  # of the images of the golden numbers
    train: bool = False  # whether there are numbers of a training step too
    full_size: int = 224
    full_classes: int = 1000
    settings: dict | None = None  # of the SE blocks, other than the default
    renamed: dict | None = None


def from_torchvision(model, train=False, **options):
    def build(classes):
        return torchvision.models.get_model(model, weights=None, num_classes=classes, **options)

    return Reference(f"torchvision {model}", build, train=train)


def from_timm(model, train=False, **more):
    def build(classes):
        return timm.create_model(model, num_classes=classes, drop_rate=0.0)

    return Reference(f"timm {model}", build, train=train, **more)


def plain_and_se(name, source, build, train=True, **more):
    """`name` and `se-name`, written here: `build(classes, se)`. Numbers of training are of the one with SE."""
    paper = f"written for this file from {source}"
    return {
        name: Reference(paper, lambda classes: build(classes, False), **more),
        f"se-{name}": Reference(f"{paper}, with SE", lambda classes: build(classes, True), train=train, **more),
    }


def imagenet_networks():
    rounded = {"settings": {"rounding": "multiple-of-8"}}
    nets = {f"resnet-{n}-v1.5": from_torchvision(f"resnet{n}", n == 50) for n in (18, 34, 50, 101, 152)}
    nets |= {f"se-resnet-{n}-v1.5": from_timm(f"seresnet{n}", **rounded) for n in (18, 34)}
    nets |= {f"se-resnet-{n}": from_timm(f"legacy_seresnet{n}", n == 50) for n in (50, 101, 152)}
    nets |= {f"se-resnet-{n}-v1.5": from_timm(f"seresnet{n}", n == 50) for n in (50, 101, 152)}
    for kind in ("50-32x4d", "101-32x8d", "101-64x4d"):
        nets[f"resnext-{kind}-v1.5"] = from_torchvision(f"resnext{kind.replace('-', '_')}")
    for kind in ("50-32x4d", "101-32x4d"):
        nets[f"se-resnext-{kind}"] = from_timm(f"legacy_seresnext{kind.replace('-', '_')}", kind == "50-32x4d")
    for kind in ("50-32x4d", "101-32x4d", "101-64x4d", "101-32x8d"):
        nets[f"se-resnext-{kind}-v1.5"] = from_timm(f"seresnext{kind.replace('-', '_')}")
    nets["resnext-101-32x4d-v1.5"] = Reference("torchvision ResNet, 32 groups of 4", resnext_101_32x4d)
    nets |= released_networks(nets)
    for n in (18, 34):
        nets[f"se-resnet-{n}-legacy"] = legacy = from_timm(f"legacy_seresnet{n}")
        nets[f"resnet-{n}-legacy"] = Reference(
            f"{legacy.source}, its SE blocks removed", lambda classes, legacy=legacy: without_se(legacy.build(classes)))
    nets["senet-154"] = from_timm("legacy_senet154", True, renamed=SENET_STEM)
    nets["senet-154-v1.5"] = senet = from_timm("senet154")
    plain = f"{senet.source}, its SE blocks removed"
    nets["senet-154-v1.5-without-se"] = Reference(plain, lambda classes: without_se(senet.build(classes)))
    nets["senet-154-without-se"] = Reference(
        f"{plain}, in the released form", lambda classes: released(without_se(senet.build(classes))))
    return nets


def released_networks(nets):
    """The released forms that have no port: torchvision's and timm's nets, changed."""
    made = {}

    def add(name, source, build, **more):
        made[name] = Reference(f"{source}, in the released form", lambda classes: released(build(classes)), **more)

    for name in [f"resnet-{n}" for n in (18, 34, 50, 101, 152)]:
        add(name, nets[f"{name}-v1.5"].source, nets[f"{name}-v1.5"].build)
    for name in [f"resnext-{kind}" for kind in ("50-32x4d", "101-32x4d", "101-32x8d", "101-64x4d")]:
        add(name, nets[f"{name}-v1.5"].source, nets[f"{name}-v1.5"].build)
    for name in [f"se-resnext-101-{kind}" for kind in ("32x8d", "64x4d")]:
        add(name, nets[f"{name}-v1.5"].source, nets[f"{name}-v1.5"].build)
    for n in (18, 34):
        plain = nets[f"resnet-{n}-v1.5"]
        build = lambda classes, plain=plain: se_basic_resnet(plain.build(classes))  # noqa: E731
        add(f"se-resnet-{n}", f"{plain.source}, with SE", build, renamed={"bn2.se.": "se."})
    return made


def other_imagenet_networks():
    large = {"size": 96, "full_size": 299}  # 75 pixels are the least
    return {
        "inception-v3": Reference("torchvision inception_v3", inception_v3, **large),
        "se-inception-v3": Reference(
            "torchvision inception_v3, with SE", se_inception_v3, train=True, **large),
        "inception-resnet-v2": from_timm("inception_resnet_v2", **large),
        "se-inception-resnet-v2": Reference(
            "timm inception_resnet_v2, with SE", se_inception_resnet_v2, train=True,
            renamed={"conv2d.se.": "se."}, **large),
        "vgg-16-bn": from_torchvision("vgg16_bn", dropout=0.0),
        "se-vgg-16-bn": Reference("torchvision vgg16_bn, with SE", se_vgg_16_bn, train=True),
        "mobilenet": from_timm("mobilenetv1_100"),
        "se-mobilenet": Reference(
            "timm mobilenetv1_100, with SE", se_mobilenet, train=True, renamed={"bn2.se.": "se."}),
        **plain_and_se("bn-inception", "Ioffe and Szegedy 2015 and SE-BN-Inception's prototxt", BNInception),
        **plain_and_se("shufflenet", "Zhang et al. 2017, 1x, g = 3", ShuffleNet),
    }


def cifar_networks():
    cifar = {"size": 32, "full_size": 32, "full_classes": 10}

    def preact(widths, depth, bottleneck, projects):
        return lambda classes, se: PreactNet(classes, widths, depth, bottleneck, projects, se)

    he, wide, shake = "He et al. 2016", "Zagoruyko and Komodakis 2016", "Gastaldi 2017"
    basic, deep = preact((16, 32, 64), 18, False, False), preact((16, 32, 64), 18, True, True)
    def small(n):
        return lambda classes, se: CifarNet(classes, n, se)

    nets = {}
    for depth in (20, 32, 44, 56, 110):
        nets |= plain_and_se(f"resnet-{depth}", "He et al. 2015", small(depth // 6), **cifar, train=depth == 20)
    return nets | {
        **plain_and_se("preact-resnet-110", he, basic, **cifar, train=False),
        **plain_and_se("preact-resnet-164", he, deep, **cifar),
        **plain_and_se("wrn-16-8", wide, preact((128, 256, 512), 2, False, True), **cifar),
        **plain_and_se("shake-shake-26-2x96d", shake, ShakeShake, **cifar, train=False),
    }


# ---- The numbers ----


def filled(reference):
    """The network in float64: the truth, to which float32 on either side is an approximation."""
    net = reference.build(CLASSES).double()
    for name, tensor in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(fill(our_name(name, reference.renamed or {}), tensor.shape))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return net


def training_numbers(net, x, y, renamed):
    loss = F.cross_entropy(net.train()(x), y)
    loss.backward()
    sums = {our_name(n, renamed): t.sum().item() for n, t in net.state_dict().items() if "running_" in n}
    return {
        "train_loss": loss.item(),
        "gradient_norms": {our_name(n, renamed): p.grad.norm().item() for n, p in net.named_parameters()},
        "statistics": sums,
    }


def numbers(reference):
    size, net = reference.size, filled(reference)
    x = torch.from_numpy(uniform("input", BATCH * 3 * size * size).reshape(BATCH, 3, size, size)) * 2 - 1
    x, y = x.double(), torch.arange(BATCH) * 3 % CLASSES
    with torch.no_grad():
        logits = net.eval()(x)
    assert logits.isfinite().all(), f"{reference.source}: logits overflow"
    found = {"source": reference.source, "size": size}
    if reference.settings:
        found["settings"] = reference.settings
    found["logits"] = logits.flatten().tolist()
    return found | (training_numbers(net, x, y, reference.renamed or {}) if reference.train else {})


def counts(reference):
    """Parameters, and multiply-adds of the convolutions and linear layers, without computing anything."""
    with torch.device("meta"):
        net = reference.build(reference.full_classes).eval()
        image = torch.zeros(1, 3, reference.full_size, reference.full_size)
    macs = 0

    def count(layer, _, output):
        nonlocal macs
        pixels = output.shape[2:].numel() if output.dim() == 4 else 1
        macs += layer.weight.numel() * pixels

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    net(image)
    found = {
        "trainable": sum(parameter.numel() for parameter in net.parameters()),
        "bn_statistics": sum(buffer.numel() for name, buffer in net.named_buffers() if "running_" in name),
        "macs": macs,
        "classes": reference.full_classes,
        "size": reference.full_size,
        "source": reference.source,
    }
    return found | ({"settings": reference.settings} if reference.settings else {})


def write(name, head, networks):
    """One network a line, which keeps the file short and its differences readable."""
    head = {
        "made_by": "scripts/golden.py",
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__},
        **head,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
    nets = [f"  {json.dumps(net)}: {json.dumps(found)}" for net, found in networks.items()]
    path = ROOT / "tests" / "golden" / name
    path.write_text("{\n" + "".join(lines) + ' "networks": {\n' + ",\n".join(nets) + "\n }\n}\n")
    print(f"wrote {path.relative_to(ROOT)}")


def variant(base, settings, **more):
    return Reference(
        f"written in golden_variants.py: {base}", lambda classes: golden_variants.BUILDERS[base](classes, settings),
        settings=settings, train=True, **more)


def rounded(value):
    """To 12 digits, which are those that the order of a sum leaves alone."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def check_variants():
    """What is known of the variants from elsewhere: counts, and the numbers of the two nets that are no variants."""
    def full(change):
        return counts(variant("se-resnet-50", golden_variants.DEFAULTS | change))

    for change, trainable in golden_variants.KNOWN_TRAINABLE:
        assert full(change)["trainable"] == trainable, f"{change}: {full(change)['trainable']} for {trainable}"
    for change, macs in golden_variants.KNOWN_MACS:
        assert full(change)["macs"] == macs, f"{change}: {full(change)['macs']} for {macs}"
    biased = golden_variants.DEFAULTS | {"bias": True}
    for base, other in {
        "se-resnet-50": from_timm("legacy_seresnet50", True),
        "se-resnet-20": Reference("CifarNet", lambda classes: CifarNet(classes, 3, True), size=32, train=True),
    }.items():
        theirs, ours = numbers(other), numbers(variant(base, biased, size=other.size))
        for part in ("gradient_norms", "statistics"):
            assert ours[part].keys() == theirs[part].keys(), f"{base}: {part}"
            ordered = [theirs[part][name] for name in ours[part]]
            assert np.allclose(list(ours[part].values()), ordered, 1e-9, 1e-9), f"{base}: {part}"
        for part in ("logits", "train_loss"):
            assert np.allclose(ours[part], theirs[part], 1e-9, 1e-9), f"{base}: {part}"


def write_variants():
    check_variants()
    made = {}
    for name, base, settings, size in golden_variants.variants():
        reference = variant(base, settings, size=size, full_size=size, full_classes=CLASSES)
        cost, found = counts(reference), numbers(reference)
        head = {"base": base, "settings": settings, "size": size, "trainable": cost["trainable"], "macs": cost["macs"]}
        kept = ("logits", "train_loss", "gradient_norms", "statistics")
        made[name] = head | {key: rounded(found[key]) for key in kept}
        norms = found["gradient_norms"].values()
        assert np.isfinite([found["train_loss"], *norms, *found["statistics"].values()]).all(), f"{name}: overflow"
        print(f"{name}: logits up to {max(map(abs, found['logits'])):.3g}", flush=True)
    write("variants.json", {"batch": BATCH, "classes": CLASSES}, made)


def write_torch_save():
    """What torch.save makes of a small state dict, for the reader of such files."""
    def values(name, *shape):
        return torch.from_numpy(uniform(name, int(np.prod(shape))).reshape(shape))

    state = {
        "plain": values("plain", 2, 3),
        "half": values("half", 5).half(),
        "bfloat16": values("bfloat16", 5).bfloat16(),
        "double": values("double", 5).double(),
        "transposed": values("transposed", 3, 2).T,
        "channels_last": values("channels_last", 2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "part": values("part", 4, 4)[1:3, 2:],
        "bn.num_batches_tracked": torch.tensor(7),
    }
    torch.save({"epoch": 3, "state_dict": state}, ROOT / "tests" / "golden" / "torch_save.pth")


def main():
    write_torch_save()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    zoo = imagenet_networks() | other_imagenet_networks() | cifar_networks()
    write("counts.json", {}, {name: counts(reference) for name, reference in zoo.items()})
    made = {}
    for name, reference in zoo.items():
        made[name] = numbers(reference)
        print(f"{name}: logits up to {max(map(abs, made[name]['logits'])):.3g}", flush=True)
    write("networks.json", {"batch": BATCH, "classes": CLASSES}, made)
    write_variants()


if __name__ == "__main__":
    main()
