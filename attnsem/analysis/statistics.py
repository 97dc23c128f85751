"""Statistics of differences: the bootstrap over test images and training seeds, 95 % intervals, tests of claims."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from attnsem.metrics import mean_precision, rank, roles

LITTLE = 0.25  # points of mAP within which two rows are equivalent; half of what the paper claims on VOC2007
LEVEL = 0.05


def bootstrap(targets: np.ndarray, scores: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """AP of every label in each of `resamples` draws of the images with replacement (Efron 1979): (resamples, C).

    Of targets and scores as in `metrics.average_precision`, not interpolated, difficult ignored; nan where a draw has
    no positive of the label. The draws follow from the seed and the number of images alone: two models scored on the
    same images have the same draws.
    """
    ranked = rank(targets, scores)
    positive, counted = roles(ranked.targets, "none", "ignore")
    labels, images = positive.shape
    random = np.random.default_rng(seed)
    draws = [np.bincount(random.integers(0, images, images), minlength=images) for _ in range(resamples)]
    times = np.stack(draws).astype(np.uint8)  # that each draw has each image, once on average

    def ap_of(label: int) -> np.ndarray:
        is_counted, last = counted[label], ranked.last_of_tie[label]
        order, tie = ranked.order[label][is_counted], (np.cumsum(last) - last)[is_counted]
        hits = np.flatnonzero(positive[label][is_counted])
        if not len(hits):
            return np.full(resamples, np.nan)
        ties, firsts = np.unique(tie[hits], return_index=True)  # recall rises at no other threshold
        ends, ap = np.searchsorted(tie, ties, side="right"), []
        for start in range(0, resamples, 64):  # as many rankings as a processor's cache holds
            counts = np.take(times[start : start + 64], order[: ends[-1]], axis=1)
            found = np.add.reduceat(counts[:, hits], firsts, axis=1, dtype=np.int32).cumsum(axis=1)
            seen = np.add.reduceat(counts, [0, *ends[:-1]], axis=1, dtype=np.int32).cumsum(axis=1)
            ap.append(mean_precision(found, found / np.maximum(seen, 1), "none"))
        return np.concatenate(ap)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(ap_of, range(labels))), axis=1)


def two_way(resamples: np.ndarray, seed: int = 1) -> np.ndarray:
    """Means over training seeds, images and seeds both drawn with replacement (Owen 2007): (S, R, …) -> (R, …).

    resamples: of each seed the value in each draw of the images. What differs between seeds is stretched by
    √(S / (S − 1)): S of S seeds drawn with replacement vary less than S new ones. The interval of one seed is of
    images alone.
    """
    seeds, draws = resamples.shape[:2]
    mean = resamples.mean(axis=0)
    if seeds == 1:
        return mean
    drawn = np.random.default_rng(seed).integers(0, seeds, (draws, seeds))
    of_drawn = resamples[drawn, np.arange(draws)[:, None]].mean(axis=1)
    return mean + (of_drawn - mean) * np.sqrt(seeds / (seeds - 1))


def interval(resamples: np.ndarray) -> np.ndarray:
    """Bounds of the 95 % bootstrap interval; nan where there are no resamples but nan."""
    return np.nanquantile(resamples, (0.025, 0.975))


@dataclass(frozen=True)
class Estimate:
    """A value, its bootstrap standard error over images and seeds, and Satterthwaite's degrees of freedom."""

    value: float
    error: float
    freedom: float

    @classmethod
    def of(cls, value: float, resamples: np.ndarray, of_images: np.ndarray, seeds: int) -> "Estimate":
        """resamples: (R,) of two_way; of_images: (R,) with the seeds as they are. One seed: of images alone."""
        whole, images = np.nanvar(resamples, ddof=1), np.nanvar(of_images, ddof=1)
        of_seeds = max(whole - images, 0)
        freedom = (seeds - 1) * (whole / of_seeds) ** 2 if of_seeds else np.inf
        return cls(value, float(np.sqrt(whole)), float(min(freedom, 1e6)))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Student's t."""
        reach = stdtrit(self.freedom, 0.975) * self.error
        return self.value - reach, self.value + reach

    def p_below(self, bound: float) -> float:
        """One-sided p value against the truth being at most `bound`."""
        return float(stdtr(self.freedom, (bound - self.value) / self.error))

    def p_above(self, bound: float) -> float:
        return 1 - self.p_below(bound)


def p_values(estimate: Estimate, claim: str, size: float = 0.0) -> tuple[float, float]:
    """One-sided p values against a claim on a difference being wrong, and against its being right; nan without error.

    claim: "gains" size or more, "loses", "little" (within LITTLE of 0: two one-sided tests), "no gain" (below LITTLE).
    "gains" is supported by a gain at all, and contradicted by one below `size`.
    """
    if not estimate.error:
        return np.nan, np.nan
    below, above = estimate.p_below, estimate.p_above
    return {
        "gains": (below(0), above(size)),
        "loses": (above(0), below(0)),
        "little": (max(above(LITTLE), below(-LITTLE)), min(below(LITTLE), above(-LITTLE))),
        "no gain": (above(LITTLE), below(LITTLE)),
    }[claim]


def holm(p: pd.Series) -> pd.Series:
    """p values adjusted for a family of tests (Holm 1979); nan is no test."""
    ordered = p.dropna().sort_values()
    steps = ordered * np.arange(len(ordered), 0, -1)
    return steps.cummax().clip(upper=1).reindex(p.index)


def shrink(p: float, freedom: float, tests: int) -> float:
    """How many times narrower an interval of that freedom is narrow enough for its estimate's one-sided p value, now p,
    to be below LEVEL after holm() of so many tests; inf where p is a half or more."""
    return float(stdtrit(freedom, 1 - LEVEL / tests) / stdtrit(freedom, 1 - p)) if p < 0.5 else np.inf


def verdict(wrong: float, right: float) -> str:
    """On a claim, by the adjusted p values that it is wrong and that it is right; nan: there was nothing to test."""
    if np.isnan(wrong):
        return "not testable"
    return "contradicted" if right < LEVEL else "supported" if wrong < LEVEL else "inconclusive"
