"""What a semantic part does with a label's channel: how far other labels' logits move, and whether labels' lift agrees.

influence and lift: (C, C) frames, labels × labels.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import eye_array, hstack
from scipy.sparse.linalg import lsqr
from torch import Tensor

from attnsem import StudyError, metrics
from attnsem.analysis.channels import Channels
from attnsem.datasets.arrays import batches
from attnsem.model import Network, attended_logits, shuffled

INTERVENTIONS = ("removed", "of another image", "uniform")
MOST = 300  # images with a label that its channel is changed in
PERMUTATIONS = 2000
MOST_PAIRS = 10**8  # that are looked at in all permutations: of more than some 220 labels there are fewer, 99 at least


@dataclass(frozen=True)
class Influence:
    """How far the logits ỹ fall (row: whose channel is changed, column: whose logit): mean, and its 95 % interval.

    In images that show the row's label and not the column's, at the same other labels (`adjusted`): else every
    network would seem to know company, for it is in those images, and what is there moves most whatever is changed.
    On the diagonal in images that show the label. weight: 1 − α, by which ŷ follows ỹ; is_control: the network cannot
    know which channel is whose.
    """

    mean: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    weight: float
    is_control: bool = False

    @classmethod
    @torch.inference_mode()
    def of(cls, network: Network, channels: Channels, how: str = "removed") -> "Influence":
        """Logits before minus after an intervention on one label's channel, in at most MOST images that show the label.

        how: the channel is set to 0 ("removed"), taken from an image without the label ("of another image"), or spread
        evenly over the positions ("uniform", which keeps its sum).
        """
        random = np.random.default_rng(0)
        falls, columns, rows = [], [], []
        for column in range(len(channels.labels)):
            images = random.permutation(np.flatnonzero(channels.targets[:, column] == 1))[:MOST]
            without = np.flatnonzero(channels.targets[:, column] == 0)
            if not len(images) or not len(without):
                continue
            donors = random.choice(without, len(images))
            for batch, others in zip(batches(images, 256), batches(donors, 256), strict=True):
                before, lent = semantic_inputs(network, channels, batch), semantic_inputs(network, channels, others)
                after = tuple(intervene(part, other, column, how) for part, other in zip(before, lent, strict=True))
                falls.append(second_logits(network, before) - second_logits(network, after))
            columns.append(np.full(len(images), column))
            rows.append(images)
        if not falls:
            raise StudyError("no label is in some test images and missing in others; give more, or another data set")
        falls, columns, rows = torch.cat(falls).double().numpy(), np.concatenate(columns), np.concatenate(rows)
        effects = adjusted(falls, columns, channels.targets[rows], rows)
        frames = (pd.DataFrame(effect, channels.labels, channels.labels) for effect in effects)
        return cls(*frames, weight=1 - network.fusion.weight.item(), is_control=network.variant.shuffled)

    def summary(self, lift: pd.DataFrame) -> dict[str, float]:
        """A row of notebook 10's table: of the logits, then of the agreement with lift, pair-specific and plain."""
        away = ((self.low > 0) | (self.high < 0)).to_numpy()
        plain = agreement(self.mean, lift)
        return {
            "1 − α": self.weight,
            "own logit": np.nanmean(np.diag(self.mean)),
            "share of pairs moved": away[off_diagonal(away)].mean(),
            **agreement(pair_specific(self.mean), pair_specific(lift)),
            "plain correlation": plain["rank correlation"],
            "plain p": plain["p"],
        }


def semantic_inputs(network: Network, channels: Channels, rows: np.ndarray) -> tuple[Tensor, ...]:
    """What stands for the labels' channels before ỹ, each (rows, C, h, w)."""
    if network.semantic is None:
        return channels.a[rows], channels.s[rows]
    return channels.gated(network.gate, rows)


def second_logits(network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
    """ỹ, or ŷ_att where it stands in its place."""
    if network.semantic is None:
        return attended_logits(*inputs)
    if network.variant.shuffled:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same order before and after an intervention
            inputs = shuffled(*inputs)
    return network.semantic(*inputs)


def intervene(part: Tensor, other: Tensor, column: int, how: str) -> Tensor:
    changed, channel = part.clone(), part[:, column]
    changed[:, column] = {
        "removed": torch.zeros_like(channel),
        "of another image": other[:, column],
        "uniform": channel.mean((1, 2), keepdim=True).expand_as(channel),
    }[how]
    return changed


def adjusted(falls: np.ndarray, columns: np.ndarray, targets: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Least squares for each logit: an effect for each changed channel and one for each label in the image; on the
    diagonal the mean over the images.

    falls: (M, C) of the logits; columns: (M,) whose channel was changed; targets: (M, C) and images: (M,), in which
    image. Returns mean, low and high (C, C), the latter by errors clustered by image (Liang and Zeger 1986); nan where
    no image shows the row's label without the column's.
    """
    size = falls.shape[1]
    mean, error = np.full((size, size), np.nan), np.full((size, size), np.nan)
    for logit in range(size):
        own = falls[columns == logit, logit]
        if len(own) > 1:
            mean[logit, logit], error[logit, logit] = own.mean(), own.std(ddof=1) / len(own) ** 0.5
        is_fair = (targets[:, logit] == 0) & (columns != logit)
        if not is_fair.any():
            continue
        changed = np.unique(columns[is_fair])
        company = np.delete(targets[is_fair] == 1, logit, axis=1).astype(float)
        company = (company - company.mean(0))[:, company.min(0) < company.max(0)]  # else it has no effect
        inputs = np.hstack([columns[is_fair, None] == changed, company])
        inverse = np.linalg.pinv(inputs, rcond=1e-12)  # 1e-15, the default, inverts what is rounding alone
        effects = inverse @ falls[is_fair, logit]
        residuals = falls[is_fair, logit] - inputs @ effects
        mean[changed, logit] = effects[: len(changed)]
        clusters, cluster = np.unique(images[is_fair], return_inverse=True)
        sums = np.zeros((len(clusters), len(changed)))
        np.add.at(sums, cluster, (inverse[: len(changed)] * residuals).T)
        error[changed, logit] = np.sqrt((sums**2).sum(0))
    return mean, mean - 1.96 * error, mean + 1.96 * error


def off_diagonal(table: np.ndarray | pd.DataFrame) -> np.ndarray:
    """(C, C) bool: the pairs of two labels."""
    return ~np.eye(len(table), dtype=bool)


def pair_specific(table: pd.DataFrame) -> pd.DataFrame:
    """Off the diagonal, what is left when each row and each column has an effect of its own taken out (least squares):
    how strong a label's channel is, or how far a label's logit moves, whatever the partner, is no dependency."""
    pairs = off_diagonal(table) & np.isfinite(table.to_numpy())
    inputs = hstack([eye_array(len(table), format="csr")[places] for places in np.nonzero(pairs)], "csr")
    values = table.to_numpy()[pairs]
    residuals = values - inputs @ lsqr(inputs, values, atol=1e-15, btol=1e-15)[0]
    is_rounding = np.abs(residuals) < 1e-9 * np.abs(values).max(initial=1e-300)
    specific = np.full(table.shape, np.nan)
    specific[pairs] = np.where(is_rounding, 0, residuals)
    return pd.DataFrame(specific, table.index, table.columns)


def agreement(influence: pd.DataFrame, lift: pd.DataFrame) -> dict[str, float]:
    """Spearman's rank correlation of the two over pairs of two labels, and its null when labels are permuted (Mantel
    1967): the middle 95 % of PERMUTATIONS or fewer, and p; nan where nothing moves."""
    labels = lift.index[lift.notna().sum(axis=1) >= lift.notna().any().sum() - 1]  # that occur, and not always
    values, lift = influence.loc[labels, labels].to_numpy(), lift.loc[labels, labels].to_numpy()
    pairs = off_diagonal(values) & np.isfinite(values)
    if not values[pairs].any():
        return {"rank correlation": np.nan, "null low": np.nan, "null high": np.nan, "p": np.nan}
    lift_ranks = np.zeros(lift.shape)
    lift_ranks[off_diagonal(lift)] = pd.Series(lift[off_diagonal(lift)]).rank()
    ranks = pd.Series(values[pairs]).rank().to_numpy()

    def correlation(order: np.ndarray) -> float:
        return np.corrcoef(ranks, lift_ranks[np.ix_(order, order)][pairs])[0, 1]

    random, rho = np.random.default_rng(0), correlation(np.arange(len(lift)))
    permutations = min(PERMUTATIONS, max(MOST_PAIRS // lift.size, 99))
    null = np.array([correlation(random.permutation(len(lift))) for _ in range(permutations)])
    low, high = np.quantile(null, (0.025, 0.975))
    p = (np.sum(np.abs(null) >= abs(rho)) + 1) / (permutations + 1)
    return {"rank correlation": rho, "null low": low, "null high": high, "p": p}


def recovery(table: pd.DataFrame, planted: set[frozenset[str]]) -> dict[str, float]:
    """precision: of the pairs of labels with the greatest |value| (either way), as many as are planted, the share that
    is planted, which is the recall too; average precision: of the whole order; chance: of an order at random."""
    first, second = np.triu_indices(len(table), 1)
    strength = np.nan_to_num(np.maximum(table.abs(), table.abs().T).to_numpy()[first, second])
    pairs = zip(table.index[first], table.index[second], strict=True)
    is_planted = np.array([frozenset(pair) in planted for pair in pairs])
    if not strength.any():
        return {"precision": np.nan, "average precision": np.nan, "chance": is_planted.mean()}
    top = np.argsort(-strength, kind="stable")[: len(planted)]
    ap = metrics.average_precision(is_planted[:, None].astype(int), strength[:, None])[0]
    return {"precision": is_planted[top].mean(), "average precision": ap, "chance": is_planted.mean()}


def verdict(rows: dict[str, tuple[Influence, dict[str, float]]]) -> str:
    """The paper's second claim, that the convolutions learn which labels go together, a line a row.

    rows: influence and summary by name. What agrees no more than a control, whose channels are shuffled, shows none.
    """
    controls = [summary["rank correlation"] for influence, summary in rows.values() if influence.is_control]
    lines = ["**The convolutions learn which labels go together:**\n"]
    for name, (influence, summary) in rows.items():
        rho, p = summary["rank correlation"], summary["p"]
        is_learned = p < 0.05 and rho > max([0, *controls])
        answer = "a control" if influence.is_control else "supported for ỹ" if is_learned else "inconclusive"
        answer += f" (rank correlation with lift {rho:+.2f}, p = {p:.4f})"
        if np.isnan(p):
            answer = "not testable: no label's channel moves another label's logit"
        if influence.weight < 1e-3:
            answer += "; ŷ does not follow ỹ: α is 1"
        lines.append(f"- `{name}`: {answer}")
    return "\n".join(lines)
