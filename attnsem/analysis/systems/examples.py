"""What a system learns from: a split's targets, and its cached features, images and descriptors once asked for."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from attnsem import StudyError, stages
from attnsem.datasets.features import Features, cached, made_once
from attnsem.datasets.prepared import Prepared
from attnsem.datasets.storage import Images, fill
from attnsem.engine import Fabric
from attnsem.paper import Settings
from attnsem.runs import Run

AS = {"ignore": -1, "negative": 0, "positive": 1}  # Settings.difficult: the target of a difficult label in training


@dataclass(frozen=True)
class Source:
    """The backbone of a complete stage 1, and the data set; the splits share it."""

    fabric: Fabric
    parent: Run
    prepared: Prepared

    @cached_property
    def backbone(self) -> nn.Module:
        network = stages.load(self.parent).to(self.fabric.device)
        return network.backbone.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Examples:
    """A split of N images and C labels. views: augmented ones of each training image, 0: the whole image, V = 1."""

    source: Source
    split: str
    views: int
    settings: Settings  # of the parent: stage 1

    @property
    def is_training(self) -> bool:
        return self.views > 0

    @property
    def ids(self) -> tuple[str, ...]:
        return self.source.prepared.ids(self.split)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.prepared.labels

    @property
    def device(self) -> torch.device:
        return self.source.fabric.device

    @cached_property
    def targets(self) -> np.ndarray:
        """(N, C) int8; in training −1 is what difficult labels are by the setting `difficult`."""
        targets = self.source.prepared.targets(self.split)
        return np.where(targets == -1, AS[self.settings.difficult], targets) if self.is_training else targets

    @property
    def boxes(self) -> pd.DataFrame:
        """One row an object, corners as fractions of width and height; none where the data set has none."""
        boxes = self.source.prepared.boxes
        return boxes[boxes["image"].isin(self.ids)]

    @property
    def images(self) -> Images:
        """Training images at train_size, others at image_size pixels."""
        size = self.settings.train_size if self.is_training else self.settings.image_size
        return self.source.prepared.images(self.split, size)

    @cached_property
    def features(self) -> Features:
        """The backbone's maps (N, V, K, h, w) on the disk; `features.batch(indices, version)` reads (n, K, h, w)."""
        source = self.source
        return cached(source.fabric, source.backbone, source.prepared, self.split, self.settings, views=self.views)

    def pooled(self) -> np.ndarray:
        """(N, V, K) float32 means over the positions; kept on the disk, for the maps take minutes to read."""
        path = Path(self.features.views.filename)
        target, shape = path.with_name(f"{path.stem}-pooled.npy"), self.features.views.shape[:3]

        def rows(start: int, stop: int) -> np.ndarray:
            return torch.from_numpy(read(path, start, stop)).float().mean((3, 4)).numpy()

        make = partial(fill, target, shape, np.float32, rows, f"pooled features of {shape[0]} images")
        return np.array(made_once(self.source.fabric, target, make)[self.features.rows])


def read(path: str | Path, start: int, stop: int) -> np.ndarray:
    """Rows of a .npy file, mapped for that alone, so that what has been read does not stay in this process's memory."""
    return np.array(np.load(path, mmap_mode="r")[start:stop])


def learnable(train: Examples) -> np.ndarray:
    """The places of labels that are present in some training images and absent in others; says which are not.

    StudyError where there is none.
    """
    present, absent = ((train.targets == value).any(axis=0) for value in (1, 0))
    for is_there, what in ((present, "never present"), (absent, "never absent")):
        if missing := [label for label, there in zip(train.labels, is_there, strict=True) if not there]:
            print(f"{', '.join(missing)}: {what} in {train.split}, and so not learned; every image has the same score")
    if not (present & absent).any():
        raise StudyError(f"no label of {train.source.prepared.name} is both present and absent in {train.split}")
    return np.flatnonzero(present & absent)
