"""A trained network on images: the prepared ones, or anyone's photographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnsem import StudyError
from attnsem.datasets import read_image
from attnsem.datasets.storage import Images
from attnsem.engine import launched, memory_given_back
from attnsem.runs import Run
from attnsem.stages import load
from attnsem.training import LOGITS, Split, evaluate


@dataclass(frozen=True)
class Photographs:
    """Image files, resized to size x size when a batch of them is read; names: paths within the folder."""

    paths: Sequence[Path]
    size: int
    names: Sequence[str]

    @classmethod
    def of(cls, place: Path, size: int) -> "Photographs":
        """A file, or the images of a folder and those within, by their paths' order; others are named and left out.

        Raises StudyError where there is no image.
        """
        if not place.exists():
            raise StudyError(f"there is no {place}; give a photograph or a folder of them by -p photos")
        if place.is_file():
            read_image(place)
            return cls([place], size, [place.name])
        paths = []
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            try:
                read_image(path)
                paths.append(path)
            except StudyError as error:
                print(f"left out: {error}")
        if not paths:
            raise StudyError(f"{place} has no image in it; give a photograph or a folder of them by -p photos")
        return cls(paths, size, [path.relative_to(place).as_posix() for path in paths])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """(N, size, size, 3) uint8."""
        images = [read_image(self.paths[index]) for index in indices]
        resized = [image.resize((self.size, self.size), Image.Resampling.BILINEAR) for image in images]
        return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))


@memory_given_back()
def outputs(run: Run, images: Images | Photographs, *, device: str = "auto") -> dict[str, np.ndarray]:
    """What a run's network makes of whole images: logits (N, C) of each part that it has, by its name in model.Output,
    and `attention` (N, C, h, w) where it has any."""
    fabric = launched(device, precision="32-true")
    network = load(run).to(fabric.device, memory_format=torch.channels_last)
    split = Split(images, torch.zeros(len(images)), run.settings)
    return evaluate(fabric, network, split, (*LOGITS, "attention"))
