"""Variants of SE networks for scripts/golden.py, which makes tests/golden/variants.json of them.

Written from the SE paper (arXiv 1709.01507v4, §6.5 and Tables 10 to 16), from the article about structures that look
like SE and are not (zhihu p/32702350) and from the He et al. 2015 networks, without a look at the product.
"""
import torch
from torch import nn
from torch.nn import functional as F

# What `model.se` of a configuration may change.
DEFAULTS = {
    "reduction": 16,
    "bias": False,
    "structure": "se",  # gap-scale, gap-sigmoid, conv, parallel
    "squeeze": "average",  # max, none
    "gate": "sigmoid",  # tanh, relu
    "placement": "standard",  # pre, pre-shared, post, identity, identity-before-projection, inside, inside-before-norm
    "stages": None,  # as the paper counts them: the stem is stage 1
}
SQUEEZES = {
    "average": lambda u: u.mean((2, 3), keepdim=True),
    "max": lambda u: F.adaptive_max_pool2d(u, 1),
    "none": lambda u: u,
}
GATES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu}


class SEVariant(nn.Module):
    """Of the map `u`, whose `channels` it rescales; `unit_inputs` are the channels of the unit's input `x`."""

    def __init__(self, channels, unit_inputs, settings):
        super().__init__()
        self.structure = settings["structure"]
        self.squeeze, self.gate = SQUEEZES[settings["squeeze"]], GATES[settings["gate"]]
        if not self.structure.startswith("gap-"):
            hidden = max(channels // settings["reduction"], 1)
            seen = unit_inputs if self.structure == "parallel" else channels
            self.fc1 = nn.Conv2d(seen, hidden, 1, bias=settings["bias"])
            self.fc2 = nn.Conv2d(hidden, channels, 1, bias=settings["bias"])

    def excitation(self, z):
        return self.fc2(F.relu(self.fc1(z)))

    def forward(self, u, x):
        if self.structure == "gap-scale":
            return u * u.mean((2, 3), keepdim=True)
        if self.structure == "gap-sigmoid":
            return u * u.mean((2, 3), keepdim=True).sigmoid()
        if self.structure == "conv":
            return self.excitation(u)
        return u * self.gate(self.excitation(self.squeeze(x if self.structure == "parallel" else u)))


class Unit(nn.Module):
    """ReLU(F(x) + shortcut(x)) with an SE block where its settings place it. `layers`: width, kernel, stride of F's."""

    def __init__(self, inputs, layers, projects, settings):
        super().__init__()
        outputs, self.count = layers[-1][0], len(layers)
        self.stride, self.appended = max(stride for _, _, stride in layers), outputs - inputs
        channels = inputs
        for at, (width, kernel, stride) in enumerate(layers, 1):
            self.add_module(f"conv{at}", nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False))
            self.add_module(f"bn{at}", nn.BatchNorm2d(width))
            channels = width
        self.downsample = None
        if projects:
            projection = nn.Conv2d(inputs, outputs, 1, self.stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.placement = settings["placement"] if settings else None
        if settings:
            of_input = ("pre", "pre-shared", "identity-before-projection")
            inside = ("inside", "inside-before-norm")
            assert self.placement not in inside or len(layers) == 3, "no bottleneck to be inside of"
            width = inputs if self.placement in of_input else layers[1][0] if self.placement in inside else outputs
            self.se = SEVariant(width, inputs, settings)

    def branch(self, y, se):
        for at in range(1, self.count + 1):
            y = self.get_submodule(f"conv{at}")(y)
            y = se("inside-before-norm", y) if at == 2 else y
            y = self.get_submodule(f"bn{at}")(y)
            y = F.relu(y) if at < self.count else y
            y = se("inside", y) if at == 2 else y
        return y

    def shortcut(self, x):
        if self.downsample is not None:
            return self.downsample(x)
        return F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.appended))

    def forward(self, x):
        def se(place, u):
            """The SE block if this is its place; any other leaves `u` alone."""
            return self.se(u, x) if place == self.placement else u

        shared = se("pre-shared", x)
        y = se("standard", self.branch(se("pre", shared), se))
        shortcut = se("identity", self.shortcut(se("identity-before-projection", shared)))
        return se("post", F.relu(y + shortcut))


class ResNet(nn.Module):
    """Stages of (width, units), each but the first halving the map. Bottlenecks halve it first, as released."""

    def __init__(self, classes, stem, stages, bottleneck, settings):
        super().__init__()
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(stem.out_channels)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True) if bottleneck else nn.Identity()
        inputs, names = stem.out_channels, []
        for stage, (width, depth) in enumerate(stages, 2):
            has_se = settings["stages"] is None or stage in settings["stages"]
            units = []
            for at in range(depth):
                stride = 2 if stage > 2 and at == 0 else 1
                layers = [(width, 3, stride), (width, 3, 1)]
                layers = [(width, 1, stride), (width, 3, 1), (4 * width, 1, 1)] if bottleneck else layers
                units.append(Unit(inputs, layers, bottleneck and at == 0, settings if has_se else None))
                inputs = layers[-1][0]
            names.append(f"layer{stage - 1}")
            self.add_module(names[-1], nn.Sequential(*units))
        self.names, self.fc = names, nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for name in self.names:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3)))


def resnet_20(classes, settings):
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    return ResNet(classes, stem, [(16, 3), (32, 3), (64, 3)], False, settings)


def resnet_50(classes, settings):
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    return ResNet(classes, stem, [(64, 3), (128, 4), (256, 6), (512, 3)], True, settings)


BUILDERS = {"se-resnet-20": resnet_20, "se-resnet-50": resnet_50}
# By base: size of the images, reduction ratio, and the variants by name: what each changes.
STRUCTURES = {name: {"structure": name} for name in ("gap-scale", "gap-sigmoid", "conv", "parallel")}
PLACEMENTS = {
    name: {"placement": name}
    for name in ("pre", "pre-shared", "post", "identity", "identity-before-projection", "inside", "inside-before-norm")
}
COMMON = {
    "se": {},
    "with biases": {"bias": True},
    **{name: STRUCTURES[name] for name in ("gap-sigmoid", "conv", "parallel")},
    "squeeze none": {"squeeze": "none"},
    **{name: PLACEMENTS[name] for name in ("pre", "post", "identity")},
}
VARIANTS = {
    "se-resnet-20": (16, 4, COMMON | {
        "gap-scale": STRUCTURES["gap-scale"],
        "gap-scale in stage 4": STRUCTURES["gap-scale"] | {"stages": [4]},  # in all it overflows float32
        "squeeze max": {"squeeze": "max"},
        "gate tanh": {"gate": "tanh"},
        "gate relu": {"gate": "relu"},
        **{name: PLACEMENTS[name] for name in ("pre-shared", "identity-before-projection")},
        "stage 2": {"stages": [2]},
        "stages 3 and 4": {"stages": [3, 4]},
    }),
    "se-resnet-50": (64, 16, COMMON | {
        **{name: PLACEMENTS[name] for name in ("inside", "inside-before-norm")},
        "stages 2 to 4": {"stages": [2, 3, 4]},
    }),
}


def variants():
    """(name, base, settings, size of the images) of each."""
    for base, (size, reduction, changes) in VARIANTS.items():
        for name, change in changes.items():
            yield f"{base}, {name}", base, DEFAULTS | {"reduction": reduction} | change, size


# Trainable parameters of SE-ResNet-50 for 1000 classes: by arithmetic on the authors' prototxts.
PLAIN_RESNET_50 = 25_557_032
KNOWN_TRAINABLE = [
    ({"reduction": 2}, 45_676_584),
    ({"reduction": 4}, 35_616_808),
    ({"reduction": 8}, 30_586_920),
    ({}, 28_071_976),
    ({"reduction": 32}, 26_814_504),
    ({"reduction": 2, "bias": True}, 45_699_240),
    ({"reduction": 4, "bias": True}, 35_635_688),
    ({"reduction": 8, "bias": True}, 30_603_912),
    ({"bias": True}, 28_088_024),
    ({"reduction": 32, "bias": True}, 26_830_080),
    ({"stages": [2]}, 25_581_608),
    ({"stages": [3]}, 25_688_104),
    ({"stages": [4]}, 26_343_464),
    ({"stages": [2, 3, 4]}, PLAIN_RESNET_50 + 942_080),
    ({"placement": "pre"}, PLAIN_RESNET_50 + 1_991_168),
    ({"placement": "identity"}, PLAIN_RESNET_50 + 2_514_944),
    ({"placement": "identity-before-projection"}, PLAIN_RESNET_50 + 1_991_168),
    ({"placement": "inside"}, PLAIN_RESNET_50 + 157_184),
    ({"structure": "gap-sigmoid"}, PLAIN_RESNET_50),
]
# Their multiply-adds at 224: the released net's, and the 411,041,792 more than a plain net's without a squeeze.
KNOWN_MACS = [
    ({"bias": True}, 3_860_488_192),
    ({"squeeze": "none"}, 3_855_925_248 + 2_048_000 + 411_041_792),
]
