"""Label dependencies without a look into the network: in the labels, in what a row gains, and what stackers could."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attnsem import StudyError, metrics, stages
from attnsem.analysis.statistics import bootstrap, interval, two_way
from attnsem.analysis.tables import Row
from attnsem.datasets.features import cached
from attnsem.datasets.prepared import Prepared
from attnsem.engine import launched, memory_given_back
from attnsem.files import rooted
from attnsem.runs import Run
from attnsem.training import out_of_fold

FOLDS = 5
FEWEST = 10  # positives by which an AP is worth a mark
OWN = "own logit"


def cooccurrence(targets: np.ndarray, labels: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """targets: (N, C). Each (C, C): `count`; `conditional`, P(column | row); `lift`, that over P(column); `phi`, the
    correlation of the two labels. StudyError where there is one label alone."""
    if len(labels) < 2:
        raise StudyError(f"{labels[0]} is the only label, and has no other to depend on; there must be two or more")
    present = (targets == 1).astype(float)
    count = present.T @ present
    alone = np.diag(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        conditional = count / alone[:, None]
        lift = conditional / (alone / len(targets))
        measures = {"count": count, "conditional": conditional, "lift": lift, "phi": np.corrcoef(present.T)}
    return {name: pd.DataFrame(values, labels, labels) for name, values in measures.items()}


def tree_order(phi: pd.DataFrame) -> list[str]:
    """The labels in the order of a tree by average linkage, those that go together beside each other."""
    distances = (1 - phi.fillna(0)).to_numpy()[np.triu_indices(len(phi), 1)]
    return [phi.index[place] for place in leaves_list(linkage(distances, "average"))]


def usual_company(phi: pd.DataFrame) -> pd.Series:
    """For each label the other one that it correlates with most; none for a label that correlates with none."""
    others = phi.where(~np.eye(len(phi), dtype=bool)).dropna(how="all")
    return others[others.max(axis=1) > 0].idxmax(axis=1)


def gains_by_company(row: Row, other: Row, company: pd.Series) -> pd.DataFrame:
    """Δ AP of a row vs. another (points), of each label on test images with and without its company.

    Means over the seeds that both have; low and high: 95 % bootstrap interval over those images and the seeds. The mean
    over labels takes the labels' resamples as independent; labels with fewer than FEWEST positives on one side, where
    an AP says nothing, are left out of both.
    """
    seeds = {*row.seeds} & {*other.seeds}
    row, other = row.of(seeds), other.of(seeds)
    table, resamples, targets = [], {True: [], False: []}, row.logits()[0][0]
    for label, companion in company.items():
        column, beside = row.labels.index(label), row.labels.index(companion)
        positives = {side: ((targets[:, column] == 1) & (targets[:, beside] == int(side))).sum() for side in resamples}
        for side, count in positives.items():
            table.append([label, companion, side, count, np.nan, np.nan, np.nan])
            if min(positives.values()) >= FEWEST:
                ours, theirs = (resampled_ap(part, column, beside, side) for part in (row, other))
                delta = ours - theirs
                resamples[side].append(np.append(delta[:, 0].mean(), two_way(delta[:, 1:])))
                table[-1][4:] = with_interval(resamples[side][-1])
    for side, parts in resamples.items():
        if parts:
            table.append(["mean of labels", "", side, np.nan, *with_interval(np.nanmean(parts, axis=0))])
    return pd.DataFrame(table, columns=["label", "company", "with", "positives", "Δ AP", "low", "high"])


def resampled_ap(row: Row, column: int, beside: int, present: bool) -> np.ndarray:
    """(seeds, 1 + resamples) AP (%) of a label on the images with or without another: first as measured."""
    ap = []
    for targets, logits in row.logits():
        images = targets[:, beside] == int(present)
        own = targets[images][:, [column]], logits[images][:, [column]]
        ap.append(np.append(metrics.average_precision(*own), bootstrap(*own)))
    return 100 * np.stack(ap)


def with_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The first of them, as measured, and the 95 % bootstrap interval of the rest."""
    return values[0], *interval(values[1:])


def company_sides(gains: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """gains_by_company's two sides as figures.gains takes them, without the labels that were left out."""
    gains = gains.dropna(subset="Δ AP")
    gains = gains.set_index(gains["label"] + (" (" + gains["company"] + ")").replace(" ()", ""))
    sides = {"images with the company": True, "images without": False}
    return {name: gains.loc[gains["with"] == side, ["Δ AP", "low", "high"]] for name, side in sides.items()}


@memory_given_back()
def unseen_logits(run: Run, data: str | Path, *, device: str = "auto") -> list[tuple[np.ndarray, ...]]:
    """What stackers learn from and are judged on: (logits, targets, test logits, test targets), once or by folds.

    run: of stage 1. Where the backbone stood still the logits are out of fold, of classifiers that did not train on
    the image. Else none of the training images' is honest, and stackers are cross-fitted over the test images.
    """
    scores, settings = run.scores(), run.settings
    logits, targets = scores["scores"].astype(np.float32), scores["targets"]
    if settings.train_backbone:
        fold = np.random.default_rng(settings.seed).permutation(len(logits)) % FOLDS
        return [(logits[fold != k], targets[fold != k], logits[fold == k], targets[fold == k]) for k in range(FOLDS)]
    prepared, fabric = Prepared.load(settings.dataset, rooted(data)), launched(device, precision=settings.precision)
    backbone = stages.load(run).backbone.to(fabric.device, memory_format=torch.channels_last)
    split, views = settings.train_split, settings.feature_cache or 1
    features = cached(fabric, backbone, prepared, split, settings, views=views)
    train_targets = prepared.targets(split)
    unseen = out_of_fold(features, torch.from_numpy(train_targets), settings, FOLDS).mean(1).numpy()
    return [(unseen, train_targets, logits, targets)]


def linear() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression())


def trees() -> object:
    return HistGradientBoostingClassifier(max_iter=60, max_depth=3, learning_rate=0.1, random_state=0)


def with_others(logits: np.ndarray, targets: np.ndarray, column: int) -> np.ndarray:
    """(N, C): the label's own logit in its place, 1 or 0 for the other labels, a half where difficult."""
    inputs = np.where(targets == -1, 0.5, targets).astype(np.float32)
    inputs[:, column] = logits[:, column]
    return inputs


STACKERS = {
    "all logits, linear": (linear, lambda logits, *_: logits),
    "all logits, boosted trees": (trees, lambda logits, *_: logits),
    "true other labels, linear": (linear, with_others),
    "true other labels, boosted trees": (trees, with_others),
}


def stack(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Test targets (N, C) and scores (N, C) of each label from: its own logit; all labels' logits, by a linear and a
    small nonlinear stacker; its own logit and which other labels truly are there, an oracle, by both.

    A label with fewer than FEWEST positives, or negatives, to learn from keeps its own logit."""
    scores = {OWN: [part[2] for part in parts]} | {name: [] for name in STACKERS}
    for logits, targets, test_logits, test_targets in parts:
        for name, (model, inputs) in STACKERS.items():
            stacked = test_logits.copy()
            for column in range(logits.shape[1]):
                rows = targets[:, column] != -1
                if min((targets[:, column] == value).sum() for value in (0, 1)) >= FEWEST:
                    fitted = model().fit(inputs(logits, targets, column)[rows], targets[rows, column])
                    stacked[:, column] = fitted.decision_function(inputs(test_logits, test_targets, column))
            scores[name].append(stacked)
    test_targets = np.concatenate([part[3] for part in parts])
    return test_targets, {name: np.concatenate(folds) for name, folds in scores.items()}


def gains(targets: np.ndarray, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """mAP and Δ mAP vs. the own logit's (points), a row each; 95 % intervals of a paired bootstrap over the images."""
    means = {}
    for name, part in scores.items():
        resamples = np.nanmean(bootstrap(targets, part), axis=1)
        means[name] = 100 * np.append(metrics.mean_average_precision(targets, part), resamples)
    table = {name: [values[0], *with_interval(values - means[OWN])] for name, values in means.items()}
    return pd.DataFrame(table, ["mAP", "Δ mAP", "low", "high"]).T.rename_axis(f"Δ vs. {OWN}")
