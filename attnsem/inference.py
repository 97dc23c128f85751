"""A trained network on images: the prepared ones, or anyone's photographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnsem import StudyError
from attnsem.arrays import Images, Views, batches
from attnsem.datasets import read_image
from attnsem.engine import ahead, largest_batch, launched, memory_given_back
from attnsem.model import Network, Output


@dataclass(frozen=True)
class Photographs:
    """Image files, resized to size x size when a batch of them is read."""

    paths: Sequence[Path]
    size: int

    @classmethod
    def of(cls, place: Path, size: int) -> "Photographs":
        """A file, or a folder's images in alphabetical order; in a folder others are named and left out.

        Raises StudyError where there is no image.
        """
        if not place.exists():
            raise StudyError(f"there is no {place}; give a photograph or a folder of them by -p photos")
        if place.is_file():
            read_image(place)
            return cls([place], size)
        paths = []
        for path in sorted(path for path in place.iterdir() if path.is_file()):
            try:
                read_image(path)
                paths.append(path)
            except StudyError as error:
                print(f"left out: {error}")
        if not paths:
            raise StudyError(f"{place} has no image in it; give a photograph or a folder of them by -p photos")
        return cls(paths, size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """(N, size, size, 3) uint8."""
        images = [read_image(self.paths[index]) for index in indices]
        resized = [image.resize((self.size, self.size), Image.Resampling.BILINEAR) for image in images]
        return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))


@memory_given_back()
@torch.inference_mode()
def outputs(network: Network, images: Images | Photographs, *, device: str = "auto") -> Output:
    """The network's outputs for whole images, on the CPU, where the network is left too."""
    fabric = launched(device, precision="32-true")
    network = network.to(fabric.device, memory_format=torch.channels_last).eval()
    views, order = Views.whole(len(images)), np.arange(len(images))

    def found(size: int) -> list[Output]:
        parts, read = [], ahead(images.__getitem__, batches(order, size))
        for indices, batch in zip(batches(order, size), read, strict=True):
            output = network(views.of(batch.to(fabric.device), indices, batch.shape[1]))
            parts.append(Output(*(None if part is None else part.cpu() for part in output)))
        return parts

    parts = zip(*largest_batch(found, fabric.device), strict=True)
    network.cpu()
    return Output(*(None if part[0] is None else torch.cat(part) for part in parts))


def best(output: Output) -> Tensor:
    """The logits (N, C) that a network is judged by: ŷ, else ŷ_att, else y′."""
    return next(part for part in (output.fused, output.attended, output.baseline) if part is not None)
