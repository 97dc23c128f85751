"""What a run makes of a data set's test images before its semantic part: a channel of attention for each label."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attnsem import StudyError, stages
from attnsem.analysis.pictures import AttendedImage
from attnsem.datasets.features import cached
from attnsem.datasets.prepared import Prepared
from attnsem.engine import largest_batch, launched, memory_given_back
from attnsem.files import rooted
from attnsem.model import gated, spatial_softmax
from attnsem.runs import Run
from attnsem.training import Split

SQUEEZED = 1000  # images that SE1's squeeze is looked at over


@dataclass(frozen=True)
class Channels:
    """Of N images: Z, S and the class activation maps of y′ (Zhou et al. 2016), each (N, C, h, w), float32; targets
    (N, C)."""

    prepared: Prepared
    ids: tuple[str, ...]
    targets: np.ndarray
    z: Tensor
    s: Tensor
    activation: Tensor

    @classmethod
    @memory_given_back()
    @torch.inference_mode()
    def of(cls, run: Run, data: str | Path, *, ids: Sequence[str] = (), device: str = "auto") -> "Channels":
        """Of the run's test images, or those with some ids, from cached features where the run has them.

        StudyError if it has no attention.
        """
        settings, prepared = run.settings, Prepared.load(run.settings.dataset, rooted(data))
        if run.manifest["data_fingerprint"] != prepared.fingerprint:
            raise StudyError(f"{run.folder} was trained on another state of {prepared.name} than {rooted(data)} has")
        network, split = stages.load(run), run.settings.test_split
        if network.attention is None:
            raise StudyError("this network has no attention channels; choose a row that has, such as proposed")
        fabric = launched(device, precision=settings.precision)
        network = network.to(fabric.device, memory_format=torch.channels_last)
        if settings.stage < 4 and settings.feature_cache:
            inputs = cached(fabric, network.backbone, prepared, split, settings, views=0)
        else:
            inputs = prepared.images(split, settings.image_size)
        targets = prepared.targets(split)
        if not (targets == 1).any():
            reason = f"no {split} image of {prepared.name} shows a label, by which its channels could be judged"
            raise StudyError(f"{reason}; train with -p test_split val, or look at 11_predict, which needs none")
        if ids:
            rows = [prepared.ids(split).index(image_id) for image_id in ids]
            targets, inputs = targets[rows], replace(inputs, rows=inputs.rows[rows])

        def forward(size: int) -> list[Tensor]:
            parts = []
            for batch, _ in Split(inputs, torch.from_numpy(targets), settings).test_batches(fabric, size):
                with fabric.autocast():
                    x = network.forward_features(batch["images"]) if "images" in batch else batch["features"]
                    z, _, s = network.attention(x)
                activation = torch.einsum("ndhw,cd->nchw", x.float(), network.classifier.fc.weight)
                parts.append([part.float().cpu() for part in (z, s, activation)])
            return [torch.cat(part) for part in zip(*parts, strict=True)]

        return cls(prepared, tuple(ids) or prepared.ids(split), targets, *largest_batch(forward, fabric.device))

    @cached_property
    def a(self) -> Tensor:
        return spatial_softmax(self.z)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.prepared.labels

    def gated(self, gate: str, rows: np.ndarray | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """What the semantic part reads of some images with that gate, and what its SE1 squeezes, each (N, C, h, w)."""
        if gate == "pooled":
            raise StudyError("the gate pooled reads features, not channels; choose a row with another gate")
        return gated(gate, self.z[rows], self.a[rows], self.s[rows])

    @cached_property
    def average(self) -> Tensor:
        """(C, h, w): the mean channel of each label over the images that show it; 0 where none does."""
        present = torch.from_numpy(self.targets == 1).float()
        return torch.einsum("nc,nchw->chw", present, self.a) / present.sum(0).clamp(min=1)[:, None, None]

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """The images' boxes that are not difficult, with rows image and column of the label: `row`, `column`."""
        boxes = self.prepared.boxes
        rows, columns = (pd.Index(names) for names in (self.ids, self.labels))
        boxes = boxes[boxes["image"].isin(rows) & boxes["label"].isin(columns) & (boxes["difficult"] == 0)]
        return boxes.assign(row=rows.get_indexer(boxes["image"]), column=columns.get_indexer(boxes["label"]))

    def true_labels(self, row: int) -> tuple[str, ...]:
        return tuple(label for label, target in zip(self.labels, self.targets[row], strict=True) if target == 1)

    def map_of(self, image_id: str, label: str, gate: str = "literal") -> np.ndarray:
        """(h, w): a label's channel as a gate reads it; that of `literal` is A itself."""
        row = self.ids.index(image_id)
        return self.gated(gate, slice(row, row + 1))[0][0, self.labels.index(label)].numpy()

    def attended(
        self, image_id: str, image: np.ndarray, logits: np.ndarray, labels: Sequence[str] = ()
    ) -> AttendedImage:
        """An image with channels, scores and boxes of its true labels, or of some others. logits: (C,) of the image."""
        row = self.ids.index(image_id)
        true = self.true_labels(row)
        labels = tuple(labels) or true
        columns = [self.labels.index(label) for label in labels]
        boxes = self.prepared.boxes_of(image_id)[["label", "xmin", "ymin", "xmax", "ymax"]]
        boxes = tuple(boxes[boxes["label"].isin(labels)].itertuples(index=False, name=None))
        scores = 1 / (1 + np.exp(-logits[columns].astype(float)))
        return AttendedImage(image_id, image, labels, self.a[row, columns].numpy(), scores, boxes, true)


def attention_checksum(run: Run) -> str:
    """Of the checkpoint that a run's channels follow from: stage 3 leaves them as its parent has them."""
    return run.manifest["parent_sha256" if run.settings.stage == 3 else "checkpoint_sha256"]


@torch.inference_mode()
def squeeze(run: Run, channels: Channels) -> dict[str, float]:
    """SE1's squeeze and gate over the first SQUEEZED images: the mean, and how far each strays between images."""
    network = stages.load(run)
    if network.semantic is None or "se1" not in getattr(network.semantic, "se", {}):
        raise StudyError("this row has no SE1; choose one that has, such as proposed")
    means = channels.gated(run.settings.gate, slice(SQUEEZED))[1].mean((2, 3))
    gate = network.semantic.se["se1"].excitation(means)
    return {
        f"{name}: {statistic}": value.mean().item()
        for name, values in (("squeeze", means), ("gate", gate))
        for statistic, value in (("mean", values), ("sd over images", values.std(0)))
    }


def kernel_change(run: Run, parent: Run) -> float:
    """How far stage 2 took the kernels of conv_att from where they began, over their length there."""
    start = stages.network_of(run.settings, len(run.manifest["labels"]), parent.state())
    before, after = (
        torch.cat([kernel.flatten() for kernel in network.attention.conv_att.parameters() if kernel.ndim == 4])
        for network in (start, stages.load(run))
    )
    return ((after - before).norm() / before.norm()).item()


def named(text: str, names: Sequence[str], unknown: str) -> list[str]:
    """Those in the text, with commas between, and quotes around one that has a comma itself.

    StudyError that begins with `unknown` on one that is not of `names`."""
    listed = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]
    for name in listed:
        if name not in names:
            more = ", …" if len(names) > 40 else ""
            raise StudyError(f"{unknown} {name!r}; there are {', '.join(names[:40])}{more}")
    return listed


def image_ids(prepared: Prepared, split: str, *, names: str = "", count: int, seed: int) -> list[str]:
    """Those named, with commas between, else `count` random ones, that have a label if any has one.

    StudyError on an unknown name."""
    ids = prepared.ids(split)
    is_labelled = (prepared.targets(split) == 1).any(axis=1)
    labelled = np.flatnonzero(is_labelled if is_labelled.any() else ~is_labelled)
    rows = np.random.default_rng(seed).permutation(labelled)[:count]
    return named(names, ids, f"{prepared.name} has no {split} image") or [ids[row] for row in sorted(rows)]
