"""Cached features of a frozen backbone: a fixed set of augmented views, float16, memory-mapped."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from attnsem.arrays import Images, Prepared, Views, batches, fill
from attnsem.engine import held_by_all, largest_batch
from attnsem.paper import Settings

VIEWS_SEED = 20468  # views are the same for every seed and stage, so that runs share them


def state_checksum(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Features:
    """views: (images, V, D, h, w) float16, mapped; rows: those of the split."""

    views: np.ndarray

    def __len__(self) -> int:
        return len(self.views)

    def batch(self, indices: np.ndarray, which: np.ndarray) -> Tensor:
        """indices, which: (N,) images and which of their views. Returns (N, D, h, w) float16, read into memory."""
        return torch.from_numpy(self.views[indices, which])


def cached(
    fabric: Fabric, backbone: nn.Module, prepared: Prepared, split: str, settings: Settings, *, views: int, data: Path
) -> Features:
    """The split's features: `views` augmented ones of training images, or (views=0) the whole test images.

    Keyed by what they depend on: the backbone's weights, views, ids, sizes and precision. Goes on if interrupted.
    """
    size = settings.train_size if views else settings.image_size
    images = prepared.images(split, size)
    key = {
        "backbone": [settings.backbone, state_checksum(backbone)],
        "images": [images.sha256, split, settings.image_size],
        "views": [views, VIEWS_SEED],
        "precision": settings.precision,
    }
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    target = data / "features" / prepared.description["images"] / f"{split}-{name}.npy"
    with held_by_all(fabric, target.with_suffix("")):
        if fabric.is_global_zero and not target.exists():
            compute(fabric, backbone, images, target, settings, views)
        fabric.barrier()
    return Features(np.load(target, mmap_mode="r"))


def compute(fabric: Fabric, backbone: nn.Module, images: Images, target: Path, settings: Settings, views: int) -> None:
    room = settings.train_size - settings.image_size
    drawn = [Views.drawn(len(images), room, VIEWS_SEED, view) for view in range(views)]
    drawn = drawn or [Views.whole(len(images))]
    backbone.eval()

    @torch.inference_mode()
    def rows(start: int, stop: int, size: int = 1) -> np.ndarray:
        parts = []
        for indices in batches(np.arange(start, stop), size):
            batch = images[indices].to(fabric.device)
            with fabric.autocast():
                found = [backbone(view.of(batch, indices, settings.image_size)) for view in drawn]
            parts.append(torch.stack(found, 1).half().cpu())
        return torch.cat(parts).numpy()

    shape = (len(images), *rows(0, 1).shape[1:])
    title = f"features of {len(images)} images, {len(drawn)} views each"
    largest_batch(lambda size: fill(target, shape, np.float16, partial(rows, size=size), title), fabric.device)
