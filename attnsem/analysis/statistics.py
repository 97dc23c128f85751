"""Statistics of differences: the bootstrap over test images, 95 % intervals, and what they say of a claim."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from attnsem.metrics import check_reading, mean_precision, rank, roles, thresholds

LITTLE = 0.25  # points of mAP; half of what the paper claims on VOC2007


def bootstrap(
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    interpolation: str = "none",
    difficult: str = "ignore",
) -> np.ndarray:
    """AP of every label in each of `resamples` draws of the images with replacement (Efron 1979): (resamples, C).

    Parameters and result as of `metrics.average_precision`; nan where a draw has no positive of the label. The draws
    follow from the seed and the number of images alone: two models scored on the same images have the same draws.
    """
    check_reading(interpolation, difficult)
    ranked = rank(targets, scores)
    positive, counted = roles(ranked.targets, difficult)
    labels, images = positive.shape
    random = np.random.default_rng(seed)
    draws = [np.bincount(random.integers(0, images, images), minlength=images) for _ in range(resamples)]
    times = np.stack(draws).astype(np.int32)  # that each draw has each image

    def ap_of(label: int) -> np.ndarray:
        ap = []
        for first in range(0, resamples, 64):  # as many rankings as a processor's cache holds
            counts = times[first : first + 64, ranked.order[label]]
            curves = thresholds(counts * positive[label], counts * counted[label], ranked.last_of_tie[label])
            ap.append(mean_precision(*curves, interpolation))
        return np.concatenate(ap)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(ap_of, range(labels))), axis=1)


def interval(resamples: np.ndarray) -> np.ndarray:
    """Bounds of the 95 % bootstrap interval; nan where there are no resamples but nan."""
    return np.nanquantile(resamples, (0.025, 0.975))


def paired_difference(ours: pd.Series, theirs: pd.Series, resamples: np.ndarray) -> dict[str, float]:
    """Δ mAP of two rows, mean over seeds, its 95 % bootstrap interval, and its standard deviation over seeds.

    ours, theirs: mAP by seed, of the same seeds; resamples: of the difference of their means, on the same draws of
    the test images. sign flips: the share of resamples that have another sign.
    """
    mean, (low, high) = ours.mean() - theirs.mean(), interval(resamples)
    flips = float((np.sign(resamples) != np.sign(mean)).mean())
    return {"Δ mAP": mean, "low": low, "high": high, "sign flips": flips, "sd of seeds": (ours - theirs).std()}


def verdict(low: float, high: float, claim: str, size: float = 0.0) -> str:
    """On a claim, by the interval alone; not testable where it is 0 to 0, as of a row whose α ran to 1.

    claim: "gains" size points or more, "loses" (below 0), "little" (within LITTLE of 0), "no gain" (at most LITTLE).
    """
    if low == high == 0:
        return "not testable"
    is_supported, is_contradicted = {
        "gains": (low > 0 and high >= size, high < size or high <= 0),
        "loses": (high < 0, low >= 0),
        "little": (low >= -LITTLE and high <= LITTLE, low > LITTLE or high < -LITTLE),
        "no gain": (high <= LITTLE, low > LITTLE),
    }[claim]
    return "supported" if is_supported else "contradicted" if is_contradicted else "inconclusive"
