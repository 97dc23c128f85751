"""Which labels go together: in the data, in what a semantic part does with a channel, and what it could bring."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from attnsem import metrics, stages
from attnsem.analysis import tables
from attnsem.analysis.attention import Channels
from attnsem.analysis.tables import Row
from attnsem.arrays import batches
from attnsem.datasets.prepared import Prepared
from attnsem.engine import launched, memory_given_back
from attnsem.features import cached
from attnsem.files import rooted
from attnsem.model import Network, attended_logits, shuffled
from attnsem.runs import Run
from attnsem.training import out_of_fold

INTERVENTIONS = ("removed", "of another image", "uniform")
PERMUTATIONS = 2000
FOLDS = 5
FEWEST = 10  # positives by which an AP is worth a mark


def cooccurrence(targets: np.ndarray, labels: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """targets: (N, C). Each (C, C): `count`; `conditional`, P(column | row); `lift`, that over P(column); `phi`, the
    correlation of the two labels."""
    present = (targets == 1).astype(float)
    count = present.T @ present
    alone = np.diag(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        conditional = count / alone[:, None]
        found = {
            "count": count,
            "conditional": conditional,
            "lift": conditional / (alone / len(targets)),
            "phi": np.corrcoef(present.T),
        }
    return {name: pd.DataFrame(part, labels, labels) for name, part in found.items()}


def order_of(phi: pd.DataFrame) -> list[str]:
    """The labels in the order of a tree by average linkage, those that go together beside each other."""
    apart = (1 - phi.fillna(0)).to_numpy()[np.triu_indices(len(phi), 1)]
    return [phi.index[place] for place in leaves_list(linkage(apart, "average"))]


def usual_company(phi: pd.DataFrame) -> pd.Series:
    """For each label the other one that it correlates with most; none for a label that correlates with none."""
    others = phi.where(~np.eye(len(phi), dtype=bool)).dropna(how="all")
    return others[others.max(axis=1) > 0].idxmax(axis=1)


@dataclass(frozen=True)
class Influence:
    """How far the logits ỹ move (row: whose channel is changed, column: whose logit): mean, and low and high of 95 %.

    In images that show the row's label and not the column's, at the same other labels (`adjusted`): else every
    network would seem to know company, for it is in those images, and what is there moves most whatever is changed.
    On the diagonal in images that show the label. weight: 1 − α, by which ŷ follows ỹ; control: the network cannot
    know which channel is whose.
    """

    mean: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    weight: float
    control: bool = False

    @property
    def sure(self) -> float:
        """Share of the pairs of two labels whose interval leaves 0 out; 0.05 where there is nothing."""
        away = (self.low > 0) | (self.high < 0)
        return float(away.to_numpy()[~np.eye(len(away), dtype=bool)].mean())


def semantic_inputs(network: Network, found: Channels, rows: np.ndarray) -> tuple[Tensor, ...]:
    """What stands for the labels' channels before ỹ, each (rows, C, h, w)."""
    return (found.a[rows], found.s[rows]) if network.semantic is None else found.read(network.gate, rows)


def second_logits(network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
    """ỹ, or ŷ_att where it stands in its place."""
    if network.semantic is None:
        return attended_logits(*inputs)
    if network.variant.shuffled:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same order before and after an intervention
            inputs = shuffled(*inputs)
    return network.semantic(*inputs)


@torch.inference_mode()
def influence(network: Network, found: Channels, how: str = "removed", *, most: int = 300, seed: int = 0) -> Influence:
    """Logits less those after an intervention on one label's channel, in at most `most` images that show the label.

    how: the channel is set to 0 ("removed"), taken from an image without the label ("of another image"), or spread
    evenly over the positions ("uniform", which keeps its sum).
    """
    random = np.random.default_rng(seed)
    moved, changed, rows = [], [], []
    for column in range(len(found.labels)):
        shown = random.permutation(np.flatnonzero(found.targets[:, column] == 1))[:most]
        without = np.flatnonzero(found.targets[:, column] == 0)
        if not len(shown) or not len(without):
            continue
        donors = random.choice(without, len(shown))
        for images, others in zip(batches(shown, 256), batches(donors, 256), strict=True):
            inputs, lent = semantic_inputs(network, found, images), semantic_inputs(network, found, others)
            altered = tuple(intervene(part, other, column, how) for part, other in zip(inputs, lent, strict=True))
            moved.append(second_logits(network, inputs) - second_logits(network, altered))
        changed.append(np.full(len(shown), column))
        rows.append(shown)
    moved = torch.cat(moved).double().numpy()
    rows = np.concatenate(rows)
    parts = adjusted(moved, np.concatenate(changed), found.targets[rows], rows)
    frames = (pd.DataFrame(part, found.labels, found.labels) for part in parts)
    return Influence(*frames, weight=1 - network.fusion.alpha.item(), control=network.variant.shuffled)


def adjusted(moved: np.ndarray, changed: np.ndarray, targets: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Least squares for each logit: an effect for each changed channel and one for each label in the image; on the
    diagonal the mean over the images.

    moved: (M, C); changed, images: (M,) columns and which image; targets: (M, C). Returns mean, low and high (C, C),
    the latter by errors clustered by image (Liang and Zeger 1986); nan where no image shows the row's label without
    the column's.
    """
    size = moved.shape[1]
    mean, error = np.full((size, size), np.nan), np.full((size, size), np.nan)
    for column in range(size):
        own = moved[changed == column, column]
        if len(own) > 1:
            mean[column, column], error[column, column] = own.mean(), own.std(ddof=1) / len(own) ** 0.5
        fair = (targets[:, column] == 0) & (changed != column)
        if not fair.any():
            continue
        known = np.unique(changed[fair])
        company = np.delete(targets[fair] == 1, column, axis=1).astype(float)
        inputs = np.hstack([changed[fair, None] == known, company - company.mean(0)])
        inverse = np.linalg.pinv(inputs)
        effects = inverse @ moved[fair, column]
        left = moved[fair, column] - inputs @ effects
        mean[known, column] = effects[: len(known)]
        _, of = np.unique(images[fair], return_inverse=True)
        clustered = np.zeros((of.max(initial=-1) + 1, len(known)))
        np.add.at(clustered, of, (inverse[: len(known)] * left).T)
        error[known, column] = np.sqrt((clustered**2).sum(0))
    return mean, mean - 1.96 * error, mean + 1.96 * error


def intervene(part: Tensor, other: Tensor, column: int, how: str) -> Tensor:
    changed = part.clone()
    channel = part[:, column]
    changed[:, column] = {
        "removed": torch.zeros_like(channel),
        "of another image": other[:, column],
        "uniform": channel.mean((1, 2), keepdim=True).expand_as(channel),
    }[how]
    return changed


def pair_specific(found: pd.DataFrame) -> pd.DataFrame:
    """Off the diagonal, what is left when each row and each column has an effect of its own taken out (least squares):
    how strong a label's channel is, or how far a label's logit moves, whatever the partner, is no dependency."""
    off = ~np.eye(len(found), dtype=bool) & np.isfinite(found.to_numpy())
    row, column = np.nonzero(off)
    effects = np.hstack([np.eye(len(found))[row], np.eye(len(found))[column]])
    values = found.to_numpy()[off]
    left = np.full(found.shape, np.nan)
    left[off] = values - effects @ np.linalg.lstsq(effects, values, rcond=None)[0]
    left[off] = np.where(np.abs(left[off]) < 1e-9 * np.abs(values).max(initial=1e-300), 0, left[off])
    return pd.DataFrame(left, found.index, found.columns)


def agreement(found: pd.DataFrame, lift: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Spearman's rank correlation of the two over pairs of two labels, and its null when labels are permuted (Mantel
    1967): the range of 95 % of PERMUTATIONS, and p; nan where nothing moves."""
    kept = lift.index[lift.notna().sum(axis=1) >= lift.notna().any().sum() - 1]  # labels that occur, and not always
    found, lift = found.loc[kept, kept], lift.loc[kept, kept]
    off = ~np.eye(len(lift), dtype=bool)
    ours, theirs = found.to_numpy(), lift.to_numpy()
    known = off & np.isfinite(ours)
    if not known.any() or not ours[known].any():
        return {"rank correlation": np.nan, "null low": np.nan, "null high": np.nan, "p": np.nan}
    ranks = np.zeros(lift.shape)
    ranks[off] = rankdata(theirs[off])
    of_ours = rankdata(ours[known])

    def correlation(order: np.ndarray) -> float:
        return np.corrcoef(of_ours, ranks[np.ix_(order, order)][known])[0, 1]

    random, size = np.random.default_rng(seed), len(lift)
    null = np.array([correlation(random.permutation(size)) for _ in range(PERMUTATIONS)])
    rho = correlation(np.arange(size))
    low, high = np.quantile(null, (0.025, 0.975))
    beyond = (np.sum(np.abs(null) >= abs(rho)) + 1) / (PERMUTATIONS + 1)
    return {"rank correlation": rho, "null low": low, "null high": high, "p": beyond}


def recovered(found: pd.DataFrame, planted: set[frozenset[str]]) -> dict[str, float]:
    """precision: of the pairs of labels with the greatest |influence| (either way), as many as are planted, the share
    that is planted, which is the recall too; average precision: of the whole order; chance: of an order at random."""
    strength = found.abs().to_numpy()
    strength = np.maximum(strength, strength.T)
    first, second = np.triu_indices(len(found), 1)
    names = list(found.index)
    true = np.array([frozenset((names[i], names[j])) in planted for i, j in zip(first, second, strict=True)])
    values = np.nan_to_num(strength[first, second])
    if not values.any():
        return {"precision": np.nan, "average precision": np.nan, "chance": true.mean()}
    top = np.argsort(-values, kind="stable")[: len(planted)]
    ap = metrics.average_precision(true[:, None].astype(int), values[:, None])[0]
    return {"precision": true[top].mean(), "average precision": ap, "chance": true.mean()}


def verdict(found: dict[str, tuple[Influence, dict[str, float]]]) -> str:
    """The paper's second claim, that the convolutions learn which labels go together, a line a row.

    found: by row the influence and the agreement of what is pair-specific in it with lift. What a control agrees too,
    whose channels are shuffled, is no dependency.
    """
    lines, shuffled = [], [agreed["rank correlation"] for moved, agreed in found.values() if moved.control]
    for name, (moved, agreed) in found.items():
        if np.isnan(agreed["p"]):
            told = "no label's channel moves another label's logit"
        else:
            learned = agreed["p"] < 0.05 and agreed["rank correlation"] > max([0, *shuffled])
            told = "a control" if moved.control else "holds for ỹ" if learned else "not shown"
            told += f" (rank correlation with lift {agreed['rank correlation']:+.2f}, p = {agreed['p']:.4f})"
            if learned and moved.weight < 1e-3:
                told += ", but ŷ does not follow ỹ: α is 1"
        lines.append(f"- `{name}`: {told}")
    return "**The convolutions learn which labels go together:**\n\n" + "\n".join(lines)


def by_company(row: Row, other: Row, company: pd.Series) -> pd.DataFrame:
    """AP of row less that of other (points), of each label on test images with and without its company.

    Means over seeds; low and high bound 95 % of 1,000 resamples of those images, the same for both rows. The mean
    over labels takes the labels' resamples as independent; labels with fewer than FEWEST positives on one side, where
    an AP says nothing, are left out of both.
    """
    labels, table, drawn = row.labels, [], {True: [], False: []}
    for label, usual in company.items():
        column, beside = labels.index(label), labels.index(usual)
        sides = []
        for present in (True, False):
            point, draws, images = gain_where(row, other, column, beside, present)
            sides.append((present, images, point, draws))
        enough = min(images for _, images, _, _ in sides) >= FEWEST
        for present, images, point, draws in sides:
            interval = (point, *np.nanquantile(draws, (0.025, 0.975))) if enough else (np.nan,) * 3
            table.append([label, usual, present, images, *interval])
            if enough:
                drawn[present].append((point, draws))
    for present, parts in drawn.items():
        if not parts:
            continue
        draws = np.nanmean([draws for _, draws in parts], axis=0)
        point = np.mean([point for point, _ in parts])
        table.append(["mean of labels", "", present, np.nan, point, *np.quantile(draws, (0.025, 0.975))])
    return pd.DataFrame(table, columns=["label", "company", "with", "positives", "difference", "low", "high"])


def gain_where(row: Row, other: Row, column: int, beside: int, present: bool) -> tuple[float, np.ndarray, int]:
    """AP (points) of a label on images with or without another, row less other: its mean, resamples, and positives."""
    sides = []
    for side in (row, other):
        found = []
        for files in side.files:
            targets, logits = tables.logits(files)
            rows = targets[:, beside] == int(present)
            if not (targets[rows, column] == 1).any():
                return np.nan, np.full(1, np.nan), 0
            own = targets[rows][:, [column]], logits[rows][:, [column]]
            found.append((100 * metrics.average_precision(*own)[0], 100 * metrics.bootstrap(*own)[:, 0]))
        sides.append((np.mean([ap for ap, _ in found]), np.mean([draws for _, draws in found], axis=0)))
    return sides[0][0] - sides[1][0], sides[0][1] - sides[1][1], int((own[0] == 1).sum())


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
    split = settings.train_split
    features = cached(fabric, backbone, prepared, split, settings, views=settings.feature_cache or 1, data=rooted(data))
    known = prepared.targets(split)
    unseen = out_of_fold(features, torch.from_numpy(known), settings, FOLDS).mean(1).numpy()
    return [(unseen, known, logits, targets)]


def stacked(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Test targets (N, C) and scores (N, C) of each label from: its own logit; all labels' logits, by a linear and a
    small nonlinear stacker; its own logit and which other labels truly are there, an oracle, by both."""
    inputs = {
        "own logit": (None, None),
        "all logits, linear": (linear, lambda logits, targets, _: logits),
        "all logits, boosted trees": (trees, lambda logits, targets, _: logits),
        "true other labels, linear": (linear, with_others),
        "true other labels, boosted trees": (trees, with_others),
    }
    found = {name: [] for name in inputs}
    for logits, targets, test_logits, test_targets in parts:
        for name, (model, of) in inputs.items():
            scores = test_logits.copy()
            for column in range(logits.shape[1]) if model else ():
                known = targets[:, column] != -1
                if len(np.unique(targets[known, column])) < 2:
                    continue
                fitted = model().fit(of(logits, targets, column)[known], targets[known, column])
                scores[:, column] = fitted.decision_function(of(test_logits, test_targets, column))
            found[name].append(scores)
    return np.concatenate([part[3] for part in parts]), {name: np.concatenate(part) for name, part in found.items()}


def linear() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression())


def trees() -> object:
    return HistGradientBoostingClassifier(max_iter=60, max_depth=3, learning_rate=0.1, random_state=0)


def with_others(logits: np.ndarray, targets: np.ndarray, column: int) -> np.ndarray:
    """(N, C): the label's own logit in its place, 1 or 0 for the other labels, a half where difficult."""
    found = np.where(targets == -1, 0.5, targets).astype(np.float32)
    found[:, column] = logits[:, column]
    return found


def gains(targets: np.ndarray, scores: dict[str, np.ndarray], base: str = "own logit") -> pd.DataFrame:
    """mAP less that of `base` in points, with 95 % intervals of a paired bootstrap over the images: a row each."""
    drawn = {name: 100 * np.nanmean(metrics.bootstrap(targets, found), axis=1) for name, found in scores.items()}
    table = {}
    for name, found in scores.items():
        mean = 100 * metrics.mean_average_precision(targets, found)
        low, high = np.quantile(drawn[name] - drawn[base], (0.025, 0.975))
        point = mean - 100 * metrics.mean_average_precision(targets, scores[base])
        table[name] = {"mAP": mean, "difference": point, "low": low, "high": high}
    return pd.DataFrame(table).T.rename_axis(f"less {base}")
