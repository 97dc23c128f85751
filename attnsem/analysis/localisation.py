"""Whether each channel attends to its label: the pointing game, and the share of the attention inside the boxes."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attnsem import StudyError
from attnsem.analysis.channels import Channels

TOLERANCE = 0.03  # of a side: 15 pixels of 500, as in Zhang et al. 2016's pointing game
FINE = 8  # divisions of a position's side when boxes are laid over the positions
RESAMPLES = 1000
CORNERS = ["xmin", "ymin", "xmax", "ymax"]

POINTING, INSIDE, EXCESS = "pointing game", "share inside the boxes", "inside − area"
CHANNEL, ACTIVATION = "A, the channel", "class activation of y′"
AVERAGE, OTHER, UNIFORM = "the label's average channel", "another label's channel", "uniform"


def coverage(channels: Channels) -> np.ndarray:
    """Share of each position that a label's boxes cover, (N, C, h, w) float32; positions are evenly spread."""
    h, w = channels.z.shape[2:]
    share = np.zeros(channels.z.shape, np.float32)
    corners = np.rint(channels.boxes[CORNERS].to_numpy() * FINE * [w, h, w, h]).astype(int)
    for (row, column), places in channels.boxes.groupby(["row", "column"]).indices.items():
        covered = np.zeros((h * FINE, w * FINE), bool)
        for xmin, ymin, xmax, ymax in corners[places]:
            covered[ymin : max(ymax, ymin + 1), xmin : max(xmax, xmin + 1)] = True
        share[row, column] = covered.reshape(h, FINE, w, FINE).mean((1, 3))
    return share


def near_boxes(channels: Channels) -> np.ndarray:
    """(N, C, h w) float32: 1 where a position's middle lies in a box of the label or within TOLERANCE of one, else 0;
    nan where the label has no box."""
    h, w = channels.z.shape[2:]
    y, x = np.divmod(np.arange(h * w), w)
    x, y = (x + 0.5) / w, (y + 0.5) / h
    xmin, ymin, xmax, ymax = channels.boxes[CORNERS].to_numpy().T[..., None]
    inside = (x >= xmin - TOLERANCE) & (x <= xmax + TOLERANCE) & (y >= ymin - TOLERANCE) & (y <= ymax + TOLERANCE)
    near = np.full((*channels.targets.shape, h * w), np.nan, np.float32)
    places = channels.boxes["row"].to_numpy(), channels.boxes["column"].to_numpy()
    near[places] = 0
    np.maximum.at(near, places, inside)
    return near


def pointing(maps: Tensor, near: np.ndarray) -> np.ndarray:
    """The pointing game of Zhang et al. 2016: near_boxes at each map's greatest position, (N, C)."""
    peak = maps.flatten(2).argmax(2, keepdim=True).numpy()
    return np.take_along_axis(near, peak, axis=2)[..., 0].astype(float)


def with_sum_one(maps: Tensor) -> np.ndarray:
    """Each map without what is below 0 and with the sum 1; uniform where nothing is left."""
    positive = maps.clamp(min=0).flatten(2)
    total = positive.sum(2, keepdim=True)
    shares = torch.where(total > 0, positive / total.clamp(min=1e-12), 1 / positive.shape[2])
    return shares.view(maps.shape).numpy()


def share_inside(maps: Tensor, covered: np.ndarray) -> np.ndarray:
    """Share of a map, as with_sum_one makes it, that lies inside its label's boxes, (N, C); nan without boxes."""
    share = (with_sum_one(maps) * covered).sum((2, 3))
    return np.where(covered.any((2, 3)), share, np.nan)


def compared_maps(channels: Channels) -> dict[str, Tensor]:
    """What localisation is measured of, by name, each (N, C, h, w): the channels, and what they must beat."""
    n, c, h, w = channels.z.shape
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h - 0.5, (torch.arange(w) + 0.5) / w - 0.5, indexing="ij")
    centre = torch.exp(-(x**2 + y**2) / (2 * 0.25**2))
    other = np.random.default_rng(0).integers(1, max(c, 2), (n, c)) + np.arange(c)
    return {
        CHANNEL: channels.a,
        "σ(S) ∘ A, confidence": channels.gated("confidence")[0],
        "S, confidence maps": channels.s,
        ACTIVATION: channels.activation,
        AVERAGE: channels.average.expand(n, c, h, w),
        OTHER: channels.a[torch.arange(n)[:, None], torch.from_numpy(other % c)],
        "a blob in the centre": centre.expand(n, c, h, w),
        UNIFORM: torch.ones(()).expand(n, c, h, w),
    }


@cache
def draws(images: int) -> np.ndarray:
    """(RESAMPLES, images) float32: how many times each draw with replacement has each image."""
    return np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(np.float32)


def resampled_means(values: np.ndarray) -> np.ndarray:
    """(RESAMPLES, C): means of values (N, C) that are not nan over the images, drawn with replacement."""
    times = draws(len(values))
    with np.errstate(invalid="ignore"):
        return times @ np.nan_to_num(values).astype(np.float32) / (times @ np.isfinite(values).astype(np.float32))


def mean_and_interval(values: np.ndarray, *, over_labels: bool = False) -> dict[str, np.ndarray | float]:
    """Mean over images of each label's values (N, C), or the mean of those over labels, and its 95 % bootstrap
    interval."""
    mean, resamples = pd.DataFrame(values).mean(), pd.DataFrame(resampled_means(values))
    if over_labels:
        mean, resamples = mean.mean(), resamples.mean(axis=1)
    low, high = resamples.quantile([0.025, 0.975]).to_numpy()
    return {"mean": mean, "low": low, "high": high}


@dataclass(frozen=True)
class Localisation:
    """By what is compared: hits of the pointing game and share inside the boxes, each (N, C), nan where a label has no
    box; area: the boxes' share of the image."""

    labels: tuple[str, ...]
    hits: dict[str, np.ndarray]
    inside: dict[str, np.ndarray]
    area: np.ndarray

    @classmethod
    def of(cls, channels: Channels) -> "Localisation":
        """StudyError where the data set has no boxes."""
        if channels.boxes.empty:
            raise StudyError(f"{channels.prepared.name} has no boxes, so where its channels should look is not known")
        covered, near, maps = coverage(channels), near_boxes(channels), compared_maps(channels)
        hits = {name: pointing(part, near) for name, part in maps.items()}
        inside = {name: share_inside(part, covered) for name, part in maps.items()}
        hits[UNIFORM] = near.mean(2, dtype=float)  # what a position at random has
        return cls(channels.labels, hits, inside, np.where(covered.any((2, 3)), covered.mean((2, 3)), np.nan))

    def measures(self, name: str, *, over_labels: bool = False) -> dict:
        """In %: the pointing game and the share inside the boxes minus their area, each with its low and high."""
        values = {POINTING: self.hits[name], EXCESS: self.inside[name] - self.area}
        return {
            measure if key == "mean" else f"{measure}, {key}": 100 * np.asarray(value)
            for measure, part in values.items()
            for key, value in mean_and_interval(part, over_labels=over_labels).items()
        }

    @cached_property
    def overall(self) -> pd.DataFrame:
        """Means over labels, a row each of what is compared; columns as in measures."""
        table = {name: self.measures(name, over_labels=True) for name in self.hits}
        return pd.DataFrame(table, dtype=float).T.rename_axis("maps")

    @cached_property
    def of_labels(self) -> pd.DataFrame:
        """Of the channels alone: a row each label, means over its images; columns as in measures."""
        return pd.DataFrame(self.measures(CHANNEL), self.labels).rename_axis("label")

    def by_label(self) -> pd.DataFrame:
        """Pointing game, means over images (%): a row each of what is compared, columns the labels and their mean."""
        means = {name: 100 * pd.DataFrame(hits, columns=self.labels).mean() for name, hits in self.hits.items()}
        table = pd.DataFrame(means).T
        return table.assign(**{"mean of labels": table.mean(axis=1)})

    @cached_property
    def vs_others(self) -> pd.DataFrame:
        """The channels' pointing game and share inside minus those of every other row (points), means over labels."""
        rows = {}
        for other in [name for name in self.hits if name != CHANNEL]:
            for measure, values in ((POINTING, self.hits), (INSIDE, self.inside)):
                rows[other, measure] = mean_and_interval(values[CHANNEL] - values[other], over_labels=True)
        return 100 * pd.DataFrame(rows).T.rename_axis([f"{CHANNEL}, Δ vs.", "measure"])


def verdict(vs_others: pd.DataFrame) -> str:
    """One sentence on the paper's first claim, that each channel attends to its label, from Localisation.vs_others."""
    hits = vs_others.xs(POINTING, level=1).loc[[OTHER, AVERAGE, ACTIVATION]]
    is_better, is_worse = hits["low"] > 0, hits["high"] < 0
    if is_better[[OTHER, AVERAGE]].all():
        answer = "supported"
        if is_worse[ACTIVATION]:
            answer += ", but the plain classifier's activation points better"
        elif not is_better[ACTIVATION]:
            answer += "; that it points better than the plain classifier's activation is inconclusive"
    else:
        answer = "contradicted" if is_worse[[OTHER, AVERAGE]].any() else "inconclusive"
    rows = [*hits.iterrows(), (ACTIVATION, vs_others.loc[(ACTIVATION, INSIDE)])]
    deltas = [f"{row['mean']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}) vs. {name}" for name, row in rows]
    return (
        f"**Each channel attends to its label: {answer}.** Pointing game, Δ in points: {'; '.join(deltas[:-1])}. "
        f"Share of the attention inside the boxes: {deltas[-1]}."
    )


def examples(values: np.ndarray, seed: int = 0) -> dict[str, int]:
    """Rows of the best, median and worst of values (N,), nan left out, and of a random one."""
    rows = np.flatnonzero(np.isfinite(values))
    order = rows[np.argsort(-values[rows], kind="stable")]
    chance = np.random.default_rng(seed).choice(rows)
    return {"best": order[0], "median": order[len(order) // 2], "worst": order[-1], "random": chance}
