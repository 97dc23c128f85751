"""What the attention channels see, and whether it is their labels: localisation against boxes."""

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
from attnsem.datasets.prepared import Prepared
from attnsem.engine import largest_batch, launched, memory_given_back
from attnsem.features import cached
from attnsem.files import rooted
from attnsem.model import gated, spatial_softmax
from attnsem.runs import Run
from attnsem.training import Split

TOLERANCE = 0.03  # of a side: 15 pixels of 500, as in Zhang et al. 2016's pointing game
FINE = 8  # divisions of a position's side when boxes are laid over the positions
RESAMPLES = 1000


@dataclass(frozen=True)
class Channels:
    """What a run makes of a split's N images before the semantic part: Z, S and the class activation maps of y′ (Zhou
    et al. 2016), each (N, C, h, w), float32; targets (N, C)."""

    prepared: Prepared
    ids: tuple[str, ...]
    targets: np.ndarray
    z: Tensor
    s: Tensor
    activation: Tensor

    @cached_property
    def a(self) -> Tensor:
        return spatial_softmax(self.z)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.prepared.labels

    def read(self, gate: str, rows: np.ndarray | slice = slice(None)) -> tuple[Tensor, Tensor]:
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
        rows = pd.Series(range(len(self.ids)), self.ids)
        columns = pd.Series(range(len(self.labels)), self.labels)
        found = self.prepared.boxes
        found = found[found["image"].isin(rows.index) & found["label"].isin(columns.index) & (found["difficult"] == 0)]
        return found.assign(row=rows[found["image"]].to_numpy(), column=columns[found["label"]].to_numpy())


@memory_given_back()
@torch.inference_mode()
def channels(run: Run, data: str | Path, *, only: Sequence[str] = (), device: str = "auto") -> Channels:
    """Of the run's test images, or those with some ids, from cached features where the run has them.

    StudyError if it has no attention.
    """
    settings, prepared = run.settings, Prepared.load(run.settings.dataset, rooted(data))
    network = stages.load(run)
    if network.attention is None:
        raise StudyError("this network has no attention channels; choose a row that has, such as proposed")
    fabric = launched(device, precision=settings.precision)
    network = network.to(fabric.device, memory_format=torch.channels_last)
    split, frozen = settings.test_split, settings.stage < 4 and settings.feature_cache
    if frozen:
        inputs = cached(fabric, network.backbone, prepared, split, settings, views=0, data=rooted(data))
    else:
        inputs = prepared.images(split, settings.image_size)
    ids, targets = prepared.ids(split), prepared.targets(split)
    if only:
        rows = [ids.index(image_id) for image_id in only]
        ids, targets, inputs = tuple(only), targets[rows], replace(inputs, rows=inputs.rows[rows])

    def forward(size: int) -> list[Tensor]:
        parts = []
        for batch, _ in Split(inputs, torch.from_numpy(targets), settings).whole(fabric, size):
            with fabric.autocast():
                x = network.forward_features(batch["images"]) if "images" in batch else batch["features"]
                z, _, s = network.attention(x)
            activation = torch.einsum("ndhw,cd->nchw", x.float(), network.classifier.fc.weight)
            parts.append([part.float().cpu() for part in (z, s, activation)])
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    return Channels(prepared, ids, targets, *largest_batch(forward, fabric.device))


def coverage(found: Channels) -> np.ndarray:
    """Share of each position that a label's boxes cover, (N, C, h, w) float32; positions are evenly spread."""
    (n, c), (h, w) = found.targets.shape, found.z.shape[2:]
    share = np.zeros((n, c, h, w), np.float32)
    sides = np.array([w, h, w, h]) * FINE
    table = found.boxes
    corners = np.rint(table[["xmin", "ymin", "xmax", "ymax"]].to_numpy() * sides).astype(int)
    for (row, column), group in table.reset_index(drop=True).groupby(["row", "column"]):
        covered = np.zeros((h * FINE, w * FINE), bool)
        for xmin, ymin, xmax, ymax in corners[group.index]:
            covered[ymin : max(ymax, ymin + 1), xmin : max(xmax, xmin + 1)] = True
        share[row, column] = covered.reshape(h, FINE, w, FINE).mean((1, 3))
    return share


def of_one(maps: Tensor) -> np.ndarray:
    """Each channel without what is below 0 and with the sum 1; uniform where nothing is left."""
    positive = maps.clamp(min=0).flatten(2)
    total = positive.sum(2, keepdim=True)
    shares = torch.where(total > 0, positive / total.clamp(min=1e-12), 1 / positive.shape[2])
    return shares.view(maps.shape).numpy()


def pointing(maps: Tensor, found: Channels) -> np.ndarray:
    """The pointing game of Zhang et al. 2016: 1 where a channel's greatest position lies in a box of its label or
    within TOLERANCE of one, 0 where not, (N, C); nan where the label has no box."""
    peak = maps.flatten(2).argmax(2).numpy()
    table = found.boxes
    rows, columns = table["row"].to_numpy(), table["column"].to_numpy()
    inside = near_boxes(found)[np.arange(len(table)), peak[rows, columns]]
    hits = np.full(found.targets.shape, np.nan)
    hits[rows, columns] = 0
    hits[rows[inside], columns[inside]] = 1
    return hits


def near_boxes(found: Channels) -> np.ndarray:
    """(boxes, h w): whether a position's middle lies in the box or within TOLERANCE of it."""
    h, w = found.z.shape[2:]
    y, x = np.divmod(np.arange(h * w), w)
    x, y = (x + 0.5) / w, (y + 0.5) / h
    xmin, ymin, xmax, ymax = found.boxes[["xmin", "ymin", "xmax", "ymax"]].to_numpy().T[..., None]
    inside = (x >= xmin - TOLERANCE) & (x <= xmax + TOLERANCE)
    return inside & (y >= ymin - TOLERANCE) & (y <= ymax + TOLERANCE)


def random_hits(found: Channels) -> np.ndarray:
    """What the pointing game gives a position at random, (N, C)."""
    share = np.full((*found.targets.shape, found.z[0, 0].numel()), np.nan)
    near = (
        pd.DataFrame(near_boxes(found)).groupby([found.boxes["row"].to_numpy(), found.boxes["column"].to_numpy()]).any()
    )
    rows, columns = map(np.array, zip(*near.index, strict=True))
    share[rows, columns] = near.to_numpy()
    return share.mean(2)


def mass_inside(maps: Tensor, covered: np.ndarray) -> np.ndarray:
    """Share of a channel, as of_one makes it, that lies inside its label's boxes, (N, C); nan without boxes."""
    share = (of_one(maps) * covered).sum((2, 3))
    return np.where(covered.any((2, 3)), share, np.nan)


def compared(found: Channels, seed: int = 0) -> dict[str, Tensor]:
    """What localisation is measured of, by name, each (N, C, h, w): the channels, and what they must beat."""
    n, c, h, w = found.z.shape
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h - 0.5, (torch.arange(w) + 0.5) / w - 0.5, indexing="ij")
    centre = torch.exp(-(x**2 + y**2) / (2 * 0.25**2))
    other = np.random.default_rng(seed).integers(1, c, (n, c)) + np.arange(c)
    shuffled = found.a[torch.arange(n)[:, None], torch.from_numpy(other % c)]
    return {
        "A, the channel": found.a,
        "σ(S) ∘ A, confidence": found.read("confidence")[0],
        "S, confidence maps": found.s,
        "class activation of y′": found.activation,
        "the label's average channel": found.average.expand(n, c, h, w),
        "another label's channel": shuffled,
        "a blob in the centre": centre.expand(n, c, h, w),
        "uniform": torch.ones(()).expand(n, c, h, w),
    }


def resampled_means(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """(RESAMPLES, C): means over the images, drawn with replacement, of values (N, C) that are not nan."""
    random = np.random.default_rng(seed)
    times = random.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES).astype(np.float32)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return (times @ np.nan_to_num(values).astype(np.float32)) / (times @ known.astype(np.float32))


def with_interval(values: np.ndarray) -> dict[str, float]:
    """Mean over the labels of the means over images of values (N, C), and the interval of 95 % of the resamples."""
    low, high = np.quantile(np.nanmean(resampled_means(values), axis=1), (0.025, 0.975))
    return {"mean": np.nanmean(np.nanmean(values[:, np.isfinite(values).any(0)], axis=0)), "low": low, "high": high}


@dataclass(frozen=True)
class Localisation:
    """By what is compared: hits and mass inside, each (N, C), nan where a label has no box; area: the boxes' share."""

    labels: tuple[str, ...]
    hits: dict[str, np.ndarray]
    mass: dict[str, np.ndarray]
    area: np.ndarray

    def overall(self) -> pd.DataFrame:
        """Means over labels (%), a row each: the pointing game and the mass less the boxes' share of area, with their
        95 % intervals."""
        table = {}
        for name in self.hits:
            parts = {"pointing game": self.hits[name], "mass less area": self.mass[name] - self.area}
            found = {measure: with_interval(values) for measure, values in parts.items()}
            table[name] = {
                measure if key == "mean" else f"{measure}, {key}": 100 * value
                for measure, values in found.items()
                for key, value in values.items()
            }
        return pd.DataFrame(table).T.rename_axis("maps")

    def by_label(self) -> pd.DataFrame:
        """Pointing game, means over images (%): a row each, columns the labels and their mean."""
        parts = {name: pd.DataFrame(values).mean() for name, values in self.hits.items()}
        table = 100 * pd.DataFrame(parts, self.labels).T
        return table.assign(mean=table.mean(axis=1))

    def of_labels(self, name: str = "A, the channel") -> pd.DataFrame:
        """As overall, of `name` alone: a row each label, means over its images and their 95 % intervals (%)."""
        parts = {"pointing game": self.hits[name], "mass less area": self.mass[name] - self.area}
        table = {}
        for measure, values in parts.items():
            low, high = pd.DataFrame(resampled_means(values)).quantile([0.025, 0.975]).to_numpy()
            mean = pd.DataFrame(values).mean()
            table |= {measure: 100 * mean, f"{measure}, low": 100 * low, f"{measure}, high": 100 * high}
        return pd.DataFrame({key: np.asarray(value) for key, value in table.items()}, self.labels).rename_axis("label")

    def less(self, name: str = "A, the channel") -> pd.DataFrame:
        """Pointing game and mass of `name` less that of every other row (points), with 95 % intervals."""
        rows = {}
        for other in self.hits:
            if other != name:
                for measure, values in (("pointing game", self.hits), ("mass inside", self.mass)):
                    found = with_interval(values[name] - values[other])
                    rows[other, measure] = {key: 100 * value for key, value in found.items()}
        return pd.DataFrame(rows).T.rename_axis([f"{name}, less", "measure"])


def localised(found: Channels) -> Localisation:
    """StudyError where the data set has no boxes."""
    if found.boxes.empty:
        raise StudyError(f"{found.prepared.name} has no boxes, so where its channels should look is not known")
    covered, maps = coverage(found), compared(found)
    hits = {name: pointing(part, found) for name, part in maps.items()}
    mass = {name: mass_inside(part, covered) for name, part in maps.items()}
    hits["uniform"] = random_hits(found)
    return Localisation(found.labels, hits, mass, np.where(covered.any((2, 3)), covered.mean((2, 3)), np.nan))


def verdict(less: pd.DataFrame) -> str:
    """One sentence on the paper's first claim, that each channel attends to its label, from Localisation.less."""
    rivals = ("another label's channel", "the label's average channel", "class activation of y′")
    parts, wins = [], []
    for rival in rivals:
        row = less.loc[(rival, "pointing game")]
        wins.append(row["low"] > 0)
        parts.append(f"{row['mean']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}) to {rival}")
    if all(wins[:2]):
        rival = less.loc[(rivals[2], "pointing game")]
        told = "holds"
        if rival["high"] < 0:
            told += ", but the plain classifier's activation points better"
        elif not wins[2]:
            told += "; that it points better than the plain classifier's activation is not shown"
    else:
        lost = any(less.loc[(rival, "pointing game")]["high"] < 0 for rival in rivals[:2])
        told = "does not hold" if lost else "not shown"
    mass = less.loc[(rivals[2], "mass inside")]
    parts.append(
        f"of the mass inside the boxes {mass['mean']:+.1f} ({mass['low']:+.1f} to {mass['high']:+.1f}) to the last"
    )
    return f"**Each channel attends to its label: {told}.** Pointing game, points: {'; '.join(parts)}."


def picked(values: np.ndarray, seed: int = 0) -> dict[str, int]:
    """Rows of the best, median and worst of values (N,), nan left out, and of a random one."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(-values[known], kind="stable")]
    random = np.random.default_rng(seed).choice(known)
    return {"best": order[0], "median": order[len(order) // 2], "worst": order[-1], "random": random}


def attended(
    found: Channels, image_id: str, image: np.ndarray, logits: np.ndarray, only: Sequence[str] = ()
) -> AttendedImage:
    """An image with the channels, scores and boxes of its true labels, or of `only` some. logits: (C,) of the image."""
    row = found.ids.index(image_id)
    true = tuple(label for label, target in zip(found.labels, found.targets[row], strict=True) if target == 1)
    labels = tuple(only or true)
    columns = [found.labels.index(label) for label in labels]
    boxes = found.prepared.boxes_of(image_id)[["label", "xmin", "ymin", "xmax", "ymax"]]
    boxes = tuple(boxes[boxes["label"].isin(labels)].itertuples(index=False, name=None))
    scores = 1 / (1 + np.exp(-logits[columns].astype(float)))
    return AttendedImage(image_id, image, labels, found.a[row, columns].numpy(), scores, boxes, true)


def chosen(prepared: Prepared, split: str, *, names: str, count: int, seed: int) -> list[str]:
    """Image ids: those named, with commas between, else `count` random ones that have a label.

    Raises StudyError on a name that the split does not have.
    """
    ids, wanted = prepared.ids(split), [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in ids]:
        raise StudyError(f"{prepared.name} has no {split} image {unknown[0]!r}; its ids are like {ids[0]!r}")
    labelled = np.flatnonzero((prepared.targets(split) == 1).any(axis=1))
    drawn = np.random.default_rng(seed).permutation(labelled)[:count]
    return wanted or [ids[row] for row in sorted(drawn)]


@torch.inference_mode()
def squeezed(run: Run, found: Channels, images: int = 1000) -> dict[str, float]:
    """SE1's squeeze and gate over some images: how far each strays from one image to the next, over its mean."""
    network = stages.load(run)
    if network.semantic is None or "se1" not in getattr(network.semantic, "se", {}):
        raise StudyError("this row has no SE1; choose one that has, such as proposed")
    source = found.read(run.settings.gate, slice(0, images))[1]
    squeeze = source.mean((2, 3))
    gate = network.semantic.se["se1"].excitation(squeeze)
    return {
        "squeeze: mean": squeeze.mean().item(),
        "squeeze: sd over images": squeeze.std(0).mean().item(),
        "gate: mean": gate.mean().item(),
        "gate: sd over images": gate.std(0).mean().item(),
    }


def attention_of(run: Run) -> str:
    """What the channels of a run hang on: stage 3 leaves them as its parent has them."""
    return run.manifest["parent_sha256" if run.settings.stage == 3 else "checkpoint_sha256"]


def labels_named(names: str, known: Sequence[str]) -> list[str]:
    """Those named, with commas between; StudyError on one that there is not."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise StudyError(f"there is no label {unknown[0]!r}; there are {', '.join(known)}")
    return wanted


def moved(run: Run, parent: Run) -> float:
    """How far stage 2 took the kernels of conv_att from where they began, over their length there."""
    begun = stages.network_of(run.settings, len(run.manifest["labels"]), parent.state())
    before, after = (
        torch.cat([kernel.flatten() for kernel in network.attention.conv_att.parameters() if kernel.ndim == 4])
        for network in (begun, stages.load(run))
    )
    return ((after - before).norm() / before.norm()).item()
