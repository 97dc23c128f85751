"""Batches of prepared images, cropped and flipped on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """Crops and flips of all images: top, left (images,) in pixels, flip (images,) bool (section 3.1)."""

    top: Tensor
    left: Tensor
    flip: Tensor

    @classmethod
    def drawn(cls, images: int, margin: int, *key: int) -> "Views":
        """Depends on the key, (seed, stage, epoch) in training, and an image's index alone."""
        random = np.random.default_rng(key)
        top, left = random.integers(0, margin + 1, (2, images))
        return cls(*map(torch.from_numpy, (top, left, random.random(images) < 0.5)))

    @classmethod
    def whole(cls, images: int) -> "Views":
        """Neither crop nor flip, as in testing."""
        zeros = torch.zeros(images, dtype=torch.long)
        return cls(zeros, zeros, zeros.bool())

    def of(self, batch: Tensor, indices: np.ndarray, size: int) -> Tensor:
        """(N, S, S, 3) uint8 on any device -> (N, 3, size, size) in [0, 1], channels last in memory."""
        crops = torch.empty((len(batch), size, size, 3), device=batch.device)
        views = (part[indices].tolist() for part in (self.top, self.left, self.flip))
        for image, out, top, left, flip in zip(batch, crops, *views, strict=True):
            crop = image[top : top + size, left : left + size]
            torch.div(crop.flip(1) if flip else crop, 255, out=out)
        return crops.permute(0, 3, 1, 2)


def batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
