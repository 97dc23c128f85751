"""A trained network in a small file: its heads alone, for a backbone whose weights anyone's machine gets by itself.

FILE.npz has the heads' tensors in float16; FILE.json beside it says whose they are, what mAP they have, and which
weights of the backbone they were trained on: a checksum of each part, with the kernels rounded to float16.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attnsem import StudyError, paper, stages
from attnsem.backbones import Backbone
from attnsem.datasets.weights import way_to_weights
from attnsem.files import checksum, read_arrays, read_json, rooted
from attnsem.model import Network
from attnsem.paper import Settings

BACKBONE = "backbone."


@dataclass(frozen=True)
class Heads:
    """manifest: of FILE.json."""

    path: Path
    manifest: dict

    @classmethod
    def of(cls, path: str | Path) -> "Heads":
        """StudyError where there is no such pair of files, or the two are not of each other."""
        path = rooted(path)
        if not path.is_file():
            raise StudyError(f"there is no file of heads {path}; give another one by -p heads, or leave it out")
        manifest = read_json(path.with_suffix(".json"))
        if checksum(path) != manifest.get("sha256"):
            raise StudyError(f"{path} is not the file that {path.stem}.json beside it names; take both from one place")
        return cls(path, manifest)

    @property
    def settings(self) -> Settings:
        return paper.checked(Settings, self.manifest["parameters"])

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in read_arrays(self.path).items()}

    def network(self, weights: str = "imagenet") -> Network:
        """In evaluation mode, on a backbone with these weights; StudyError where the heads were trained on others."""
        settings = self.settings.model_copy(update={"weights": weights})
        try:
            network = stages.network_of(settings, len(self.manifest["labels"]))
        except StudyError as error:
            if weights != "imagenet":
                raise
            fault = f"{self.path.name} needs the weights of {settings.backbone} that it was trained on"
            remedy = f"{way_to_weights(settings.backbone)}, or name it by -p weights PATH (make predict WEIGHTS=PATH)"
            raise StudyError(f"{fault}, and {str(error).partition(';')[0]}; {remedy}") from error
        round_kernels(network.backbone)
        parts, trained_on = checksums(network.backbone), self.manifest["backbone"]
        if others := [part for part in trained_on if parts.get(part) != trained_on[part]]:
            fault = f"{weights} weights of {settings.backbone} are not those that {self.path.name} was trained on"
            remedy = "leave weights imagenet, or give torchvision's or timm's own file"
            raise StudyError(f"{fault} ({others[0]} differs); {remedy}")
        heads = self.tensors()
        keys = [key for key in network.state_dict() if not key.startswith(BACKBONE) and "num_batches" not in key]
        if heads.keys() != set(keys):
            raise StudyError(f"{self.path} has other tensors than this version's network; write it again from its run")
        network.load_state_dict(heads, strict=False)
        return network.eval()


@torch.no_grad()
def round_kernels(backbone: Backbone) -> None:
    """To float16's nearest values, in float32: what the files that these heads were trained on hold."""
    for parameter in backbone.parameters():
        if parameter.dim() == 4:
            parameter.copy_(parameter.half())


def checksums(backbone: Backbone) -> dict[str, str]:
    """SHA-256 of the tensors of each part, such as conv0 or denseblock1, in their order, without BatchNorm's counts."""
    digests = defaultdict(hashlib.sha256)
    for key, tensor in backbone.trunk.state_dict().items():
        if tensor.is_floating_point():
            part = next(word for word in key.split(".") if not word.isdecimal() and word != "net")
            digests[part].update(key.encode() + tensor.float().contiguous().numpy().tobytes())
    return {part: digest.hexdigest() for part, digest in digests.items()}
