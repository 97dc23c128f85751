"""Cached outputs of frozen parts for a fixed set of augmented views, memory-mapped."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.datasets.arrays import Views, batches
from attnsem.datasets.prepared import Prepared
from attnsem.datasets.storage import fill, mapped
from attnsem.engine import Fabric, held_by_all, largest_batch
from attnsem.model import Network
from attnsem.paper import Settings

VIEWS_SEED = 20468  # views are the same for every seed and stage, so that runs share them


@dataclass(frozen=True)
class Features:
    """views: (images, V, K, h, w), mapped; rows: those of the split; of: "features" (float16) or "maps", which are
    Network.forward_maps of them; baseline: (rows, V, C) logits to take for the maps' y′."""

    views: np.ndarray
    rows: np.ndarray
    of: str = "features"
    baseline: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, version: np.ndarray) -> Tensor:
        """indices, version: (N,) images and which of their views. Returns (N, K, h, w), read into memory."""
        batch = torch.from_numpy(self.views[self.rows[indices], version])
        if self.baseline is not None:
            batch[:, : self.baseline.shape[2]] = self.baseline[indices, version][..., None, None]
        return batch

    def pooled(self) -> Tensor:
        """(rows, V, K) float32 means over the positions."""
        chunks = (self.views[self.rows[chunk]] for chunk in batches(np.arange(len(self)), 256))
        return torch.cat([torch.from_numpy(chunk).float().mean((3, 4)) for chunk in chunks])


def cached(
    fabric: Fabric, backbone: nn.Module, prepared: Prepared, split: str, settings: Settings, *, views: int
) -> Features:
    """The split's features: `views` augmented ones of training images, or (views=0) the whole test images.

    Keyed by what they depend on: the backbone's weights, views, ids, sizes and precision; `train` has its rows of
    `trainval`. Goes on if interrupted.
    """
    size = settings.train_size if views else settings.image_size
    holder = "trainval" if split == "train" else split
    images, rows = prepared.images(holder, size), prepared.images(split, size).rows
    key = {
        "backbone": [settings.backbone, state_checksum(backbone)],
        "images": [images.sha256, holder, settings.image_size],
        "views": [views, VIEWS_SEED],
        "precision": fabric.strategy.precision.precision,  # on a CPU Fabric has another one for 16-mixed
    }
    target = prepared.folder / "features" / prepared.image_set / f"{holder}-{short(key)}.npy"
    margin = settings.train_size - settings.image_size
    crops = [Views.drawn(len(images), margin, VIEWS_SEED, view) for view in range(views)] or [Views.whole(len(images))]
    backbone.eval()

    @torch.inference_mode()
    def features(start: int, stop: int, size: int = 1) -> np.ndarray:
        parts = []
        for indices in batches(np.arange(start, stop), size):
            batch = images[indices].to(fabric.device)
            with fabric.autocast():
                x = [backbone(view.of(batch, indices, settings.image_size)) for view in crops]
            parts.append(torch.stack(x, 1).half().cpu())
            if not parts[-1].isfinite().all():
                raise StudyError(f"features of {settings.backbone} are too large for float16; give feature_cache 0")
        return torch.cat(parts).numpy()

    def make() -> None:
        shape = (len(images), *features(0, 1).shape[1:])
        title = f"features of {len(images)} images, {len(crops)} views each"
        filled = partial(fill, target, shape, np.float16, title=title)
        largest_batch(lambda size: filled(partial(features, size=size)), fabric.device)

    return Features(made_once(fabric, target, make), rows)


def cached_maps(fabric: Fabric, network: Network, features: Features) -> Features:
    """Network.forward_maps of cached features, float32: all that stage 3 needs while the attention stands still."""
    path = Path(features.views.filename)
    key = [path.stem, state_checksum(nn.ModuleList([network.classifier, network.attention]))]
    target = path.with_name(f"{path.stem}-maps-{short(key)}.npy")
    network.eval()

    @torch.inference_mode()
    def rows(start: int, stop: int) -> np.ndarray:
        x = torch.from_numpy(np.array(features.views[start:stop])).to(fabric.device).float()
        with fabric.autocast():
            maps = network.forward_maps(x.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        return maps.unflatten(0, x.shape[:2]).cpu().numpy()

    shape = (*features.views.shape[:2], *rows(0, 1).shape[2:])
    title = f"attention of {shape[0]} images, {shape[1]} views each"
    views = made_once(fabric, target, lambda: fill(target, shape, np.float32, rows, title))
    return replace(features, views=views, of="maps")


def state_checksum(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def short(key: object) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def made_once(fabric: Fabric, target: Path, make: Callable[[], None]) -> np.ndarray:
    """The mapped array, made by the first process that asks for it while the others wait."""
    with held_by_all(fabric, target.with_suffix(""), wait=True):
        if fabric.is_global_zero and not target.exists():
            make()
        fabric.barrier()
    return mapped(target)
