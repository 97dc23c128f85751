"""Average precision in the nine readings that "mAP" may have, how it is interpolated × what is difficult; and F1."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from attnsem import StudyError

INTERPOLATIONS = ("none", "11-point", "all-point")
DIFFICULT = ("ignore", "negative", "positive")


class Ranked(NamedTuple):
    """Targets (C, N) of each label by falling score; last_of_tie (C, N): the next score is lower; order (C, N):
    the images in that order."""

    targets: np.ndarray
    last_of_tie: np.ndarray
    order: np.ndarray


def average_precision(
    targets: np.ndarray, scores: np.ndarray, *, interpolation: str = "none", difficult: str = "ignore"
) -> np.ndarray:
    """Average precision of every label, a fraction.

    targets: (N, C) in {1, 0, -1 = difficult}; scores: (N, C), higher is surer, of any scale.
    interpolation: "none" sums (R_n - R_{n-1}) P_n, as scikit-learn's `average_precision_score`; "11-point"
        is the mean over t = 0, 0.1, ..., 1 of the best precision at recall >= t (VOC2007 devkit,
        `VOCevalcls.m`); "all-point" is the area under the precision made monotone (VOC2010+ devkit).
    difficult: whether those images are left out of the label's ranking, count as negative, or as positive.

    Equal scores are one threshold, as in scikit-learn, so the order of the images does not matter; the
    devkits break ties by the order of the file.

    Returns (C,) float64; nan for a label without positives.
    Raises StudyError for an unknown reading, and for scores or targets that are none.
    """
    return _average_precision(rank(targets, scores), interpolation, difficult)


def mean_average_precision(targets: np.ndarray, scores: np.ndarray, **reading: str) -> float:
    """Mean of `average_precision` over the labels that have positives, a fraction; nan if none has."""
    return float(pd.Series(average_precision(targets, scores, **reading)).mean())


def readings(targets: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """All nine readings of one score file, in percent.

    targets, scores: (N, C) as in `average_precision`; labels: the C names.
    Returns nine rows indexed by (interpolation, difficult); a column for each label, `mAP` over the labels
    that have positives, and `labels_without_positives`, the number of labels that `mAP` leaves out.
    """
    ranked = rank(targets, scores)
    if len(labels) != len(ranked.targets):
        raise StudyError(f"There are {len(labels)} label names for {len(ranked.targets)} columns of scores.")
    rows = pd.MultiIndex.from_product([INTERPOLATIONS, DIFFICULT], names=["interpolation", "difficult"])
    counted = DIFFICULT if -1 in ranked.targets else DIFFICULT[:1]  # without difficult ones all three are one
    ap = {(name, of): 100 * _average_precision(ranked, name, of) for name in INTERPOLATIONS for of in counted}
    table = pd.DataFrame([ap.get(row, ap[row[0], DIFFICULT[0]]) for row in rows], index=rows, columns=list(labels))
    return table.assign(mAP=table.mean(axis=1), labels_without_positives=table.isna().sum(axis=1))


def precision_recall_f1(targets: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """CP, CR, CF1, OP, OR, OF1 (%): a row for labels of probability 0.5 or more, and one for those of them that are
    among their image's three likeliest, as ML-GCN's code counts (Chen et al. 2019).

    targets, logits: (N, C); difficult ones are left out. C: means over the labels that have positives, where one that
    is never predicted has the precision 0. O: over all labels at once. F1: harmonic mean of the P and the R beside it.
    """
    rank(targets, logits)  # refuses what is none
    order, rows = np.argsort(-np.where(targets == -1, -np.inf, logits), axis=1, kind="stable"), {}
    likely, present = (targets != -1) & (logits >= 0), targets == 1
    judged = present.any(axis=0)  # labels that have positives
    for name, predicted in {"0.5": likely, "top 3": likely & (np.argsort(order, axis=1) < 3)}.items():
        counts = np.stack([part.sum(axis=0) for part in (present & predicted, predicted, present)])
        for kind, (hits, told, there) in (("C", counts[:, judged]), ("O", counts.sum(axis=1, keepdims=True))):
            p, r = ((hits / of.clip(1)).mean() if judged.any() else np.nan for of in (told, there))
            rows.setdefault(name, {}).update({f"{kind}P": p, f"{kind}R": r, f"{kind}F1": 2 * p * r / (p + r or 1)})
    return 100 * pd.DataFrame(rows).T


def rank(targets: np.ndarray, scores: np.ndarray) -> Ranked:
    targets, scores = np.asarray(targets), np.asarray(scores, dtype=np.float64)
    if targets.shape != scores.shape or targets.ndim != 2 or not targets.size:
        shapes = f"Targets have the shape {targets.shape} and scores {scores.shape}"
        raise StudyError(f"{shapes}: both must be (images, labels) and not empty.")
    if not np.isfinite(scores).all():
        raise StudyError(f"{np.sum(~np.isfinite(scores))} of {scores.size} scores are not finite numbers.")
    if not ((targets == 1) | (targets == 0) | (targets == -1)).all():
        raise StudyError(f"Targets must be 1, 0 or -1 (difficult), found {np.unique(targets)}.")
    scores = np.ascontiguousarray(scores.T)
    order = np.argsort(-scores, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    last_of_tie = np.pad(scores[:, :-1] != scores[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    return Ranked(np.take_along_axis(targets.T, order, axis=1), last_of_tie, order)


def _average_precision(ranked: Ranked, interpolation: str, difficult: str) -> np.ndarray:
    positive, counted = roles(ranked.targets, interpolation, difficult)
    true_positives = np.cumsum(positive, axis=1, dtype=np.int32) * ranked.last_of_tie
    true_positives = np.maximum.accumulate(true_positives, axis=1)
    seen = np.cumsum(counted, axis=1, dtype=np.int32)
    return mean_precision(true_positives, true_positives * ranked.last_of_tie / np.maximum(seen, 1), interpolation)


def roles(targets: np.ndarray, interpolation: str, difficult: str) -> tuple[np.ndarray, np.ndarray]:
    """Which images are positive, and which are counted at all: like targets, bool. StudyError on an unknown reading."""
    if interpolation not in INTERPOLATIONS or difficult not in DIFFICULT:
        choices = f"interpolation is one of {INTERPOLATIONS} and difficult one of {DIFFICULT}"
        raise StudyError(f"There is no reading {interpolation!r} with difficult {difficult!r}: {choices}.")
    positive = targets != 0 if difficult == "positive" else targets == 1
    return positive, targets != -1 if difficult == "ignore" else np.ones_like(positive)


def mean_precision(true_positives: np.ndarray, precision: np.ndarray, interpolation: str) -> np.ndarray:
    """AP of each ranking: (rankings,), nan without positives.

    Both (rankings, T), true positives down to each threshold and its precision, at all or where recall rises. Inside a
    tie, where no threshold lies, the count repeats the last threshold's and the precision is 0.
    """
    positives = true_positives[:, -1]
    if interpolation != "none":
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if interpolation == "11-point":
        # In whole numbers true_positives / positives >= t / 10 is exact: as floats, 3 * 0.1 exceeds a recall of 3 / 10.
        firsts = [np.searchsorted(10 * row, np.arange(11) * row[-1]) for row in true_positives]
        mean = np.take_along_axis(precision, np.stack(firsts), axis=1).mean(axis=1)
    else:
        gained = np.diff(true_positives, axis=1, prepend=0)
        mean = np.einsum("cn,cn->c", gained, precision) / np.maximum(positives, 1)
    return np.where(positives > 0, mean, np.nan)
