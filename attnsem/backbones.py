"""Backbones: images in [0, 1] to features; all that the rest needs to know is `channels`."""

import importlib
import re
import sys
from contextlib import suppress
from itertools import takewhile

import torch
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.datasets.weights import of_imagenet, way_to_weights
from attnsem.files import ROOT, load_tensors, rooted

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
IN_HALVES = ("efficientnet_v2_l", "googlenet", "inception_v3")  # torchvision's, the last two by transform_input
AFTER_MAPS = ("avgpool", "classifier", "fc", "heads")  # where the heads of torchvision's networks begin
SMALL = "densenet_small"
OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class Backbone(nn.Module):
    """Normalises images by the statistics its weights were trained with, then computes features.

    channels: D of eq. (2)'s X (N, D, h, w).
    """

    def __init__(self, trunk: nn.Module, *, channels: int, mean: tuple, std: tuple):
        super().__init__()
        self.trunk, self.channels = trunk, channels
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, 3, H, W) in [0, 1]."""
        return self.trunk((images - self.mean) / self.std)


def probed(trunk: nn.Module, name: str, *, mean: tuple, std: tuple, size: int = 224) -> Backbone:
    """A backbone whose numbers and layout are read off one forward pass: the map of a square image is square.

    size: of images that it takes, where those of 224 pixels are not. StudyError on rows of tokens or several maps.
    """
    from torchvision.ops import Permute

    first, h, last = 0, 1, 2
    for side in (224, size):
        with torch.no_grad(), suppress(AssertionError, AttributeError, RuntimeError, ValueError):
            _, first, h, last = trunk.eval()(torch.zeros(1, 3, side, side)).shape
            break
    if h not in (first, last):
        raise StudyError(f"backbone {name} has no feature map (N, channels, h, w); name a convolutional network")
    if h != last:
        trunk = nn.Sequential(trunk, Permute([0, 3, 1, 2]))
    return Backbone(trunk, channels=first if h == last else last, mean=mean, std=std)


def densenet_small() -> nn.Module:
    """For `scenes`: three dense blocks, no first pooling, so that 64 × 64 pixels give 8 × 8 positions."""
    from torchvision.models import DenseNet

    net = DenseNet(growth_rate=12, block_config=(3, 3, 3), num_init_features=24, num_classes=1)
    net.features.pool0 = nn.Identity()
    return net


def from_torchvision(name: str, weights: str) -> Backbone:
    from torchvision.models import DenseNet, get_model

    net = densenet_small() if name == SMALL else get_model(name, weights="DEFAULT" if weights == "imagenet" else None)
    keys, parts = set(net.state_dict()), []
    for part, module in takewhile(lambda child: child[0] not in AFTER_MAPS, net.named_children()):
        if not part.lower().startswith("aux"):
            parts += module if isinstance(module, nn.ModuleList) else [module]
    if isinstance(net, DenseNet):
        parts.append(nn.ReLU())  # its `features` ends at norm5; the ReLU is in `forward`
    trunk = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    load_file(weights, name, net=net, trunk=trunk, keys=keys)
    return probed(trunk, name, **(HALVES if name in IN_HALVES else IMAGENET))


class TimmTrunk(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_features(x)


def from_timm(name: str, weights: str) -> Backbone:
    import timm

    if not timm.is_model(name):
        raise StudyError(f"unknown backbone {name!r}: neither torchvision nor timm has it, nor is it module:function")
    net = timm.create_model(of_imagenet(name), pretrained=True) if weights == "imagenet" else timm.create_model(name)
    keys = set(net.state_dict())
    net.reset_classifier(0)
    if name == "legacy_xception":
        for part in ("conv3", "bn3", "conv4", "bn4", "act4"):
            setattr(net, part, nn.Identity())  # ends at block12 and a ReLU: 1024 channels, as DenseNet-121
    load_file(weights, name, net=net, trunk=net, keys=keys)
    mean, std, (*_, size) = (net.pretrained_cfg[key] for key in ("mean", "std", "input_size"))
    return probed(TimmTrunk({"net": net}), name, mean=mean, std=std, size=size)


def from_user(name: str, weights: str) -> Backbone:
    """`module:function` of the user: an nn.Module with `channels`, and `mean` and `std` if it has."""
    module, function = name.split(":", 1)
    sys.path += [folder for folder in ("", str(ROOT)) if folder not in sys.path]
    try:
        trunk = getattr(importlib.import_module(module), function)()
        channels, keys = trunk.channels, set(trunk.state_dict())
    except Exception as error:
        remedy = "give module:function of a module in the shell's folder or on PYTHONPATH"
        raise StudyError(f"backbone {name} cannot be had ({error!r}); {remedy}") from error
    load_file(weights, name, net=trunk, trunk=trunk, keys=keys)
    statistics = {key: getattr(trunk, key, default) for key, default in IMAGENET.items()}
    return Backbone(trunk, channels=channels, **statistics)


def load_file(weights: str, name: str, *, net: nn.Module, trunk: nn.Module, keys: set[str]) -> None:
    """Loads a local weight file into the trunk of `net`; of its `keys` those outside the trunk are left out.

    Raises StudyError naming the first missing, unexpected and misshapen key.
    """
    if weights in ("imagenet", "none"):
        return
    state = {OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in load_tensors(rooted(weights)).items()}
    of_trunk = {id(tensor) for tensor in trunk.state_dict(keep_vars=True).values()}
    tensors = {key: tensor for key, tensor in net.state_dict(keep_vars=True).items() if id(tensor) in of_trunk}
    faults = {
        "is missing": [key for key in tensors if key not in state and not key.endswith("num_batches_tracked")],
        "is unexpected": [key for key in state if key not in keys],
        "has another shape": [key for key in tensors if key in state and tensors[key].shape != state[key].shape],
    }
    if any(faults.values()):
        first = ", ".join(f"{keys[0]} {fault}" for fault, keys in faults.items() if keys)
        raise StudyError(f"weight file {weights} does not fit backbone {name}: {first}; give this network's own file")
    for key in tensors.keys() & state.keys():
        tensors[key].data.copy_(state[key])  # MNASNet's load_state_dict wants more than a dict


def build(name: str, weights: str = "none") -> Backbone:
    """A backbone by name: densenet_small, torchvision's, timm's, or the user's `module:function`.

    weights: "imagenet" (downloaded once by torchvision or timm), "none", or a local file. Raises StudyError.
    """
    from torchvision import models  # like timm, only where a network is built: seconds that many do not need

    if weights not in ("imagenet", "none") and not rooted(weights).is_file():
        raise StudyError(f"there is no weight file {weights}; weights is imagenet, none or a file")
    if weights == "imagenet" and (name == SMALL or ":" in name):
        raise StudyError(f"{name} has no ImageNet weights; give -p weights none, to leave it as it comes, or a file")
    in_torchvision = name == SMALL or name in models.list_models(models)
    source = from_user if ":" in name else from_torchvision if in_torchvision else from_timm
    try:
        return source(name, weights)
    except (OSError, RuntimeError) as error:
        fault = f"{weights} weights for backbone {name} cannot be had ({str(error).partition(chr(10))[0]})"
        remedy = way_to_weights(name) if weights == "imagenet" else "give another file"
        raise StudyError(f"{fault}; {remedy}, or give -p weights PATH of a local file, or -p weights none") from error
