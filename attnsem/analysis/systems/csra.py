"""CSRA: Zhu and Wu, "Residual attention: a simple but effective method for multi-label recognition", ICCV 2021.

Features X (N, D, h, w). A 1×1 convolution gives each label its score at each position, s (N, C, h, w). A label's logit
is the mean of s, as with average pooling, and λ times the mean of s under a softmax of T s over the positions. H heads
have a convolution each and a temperature T each, the last one T = ∞, which is max pooling; their logits are added up.

The paper chooses λ and H anew for each data set and backbone (λ 0.1 and one head for VOC2007 with ResNet-101): ours
are drawn in the search on val. It leaves open whether there is a bias (ours: as in stage 1's classifier, which this is
with one head and λ 0). Ours departs: the label's weights are not normalised to length 1, as the authors' code has it
and the paper's equations have not; the backbone stands still; the schedule is that of every row.
"""

import numpy as np
import torch
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.analysis.systems import gradient
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.search import log_uniform
from attnsem.analysis.systems.task import Progress
from attnsem.training import seed_torch

TEMPERATURES = {1: (1,), 2: (1, torch.inf), 4: (1, 2, 4, torch.inf), 6: (1, 2, 3, 4, 5, torch.inf)}  # table of sec. 3
SETTINGS = gradient.SETTINGS | {"heads": 1, "residual": 0.1}


class CSRA(nn.Module):
    """(N, D, h, w) -> (N, C) logits. heads: of TEMPERATURES; residual: λ."""

    def __init__(self, *, channels: int, labels: int, heads: int = 1, residual: float = 0.1):
        super().__init__()
        self.residual, self.temperatures = residual, TEMPERATURES[heads]
        self.scores = nn.Conv2d(channels, heads * labels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x).float().flatten(2).unflatten(1, (len(self.temperatures), -1))
        heads = zip(scores.unbind(1), self.temperatures, strict=True)
        return sum(score.mean(2) + self.residual * attended(score, temperature) for score, temperature in heads)


def attended(scores: Tensor, temperature: float) -> Tensor:
    """Mean of scores (N, C, positions) under a softmax of them over the positions: (N, C)."""
    if temperature == torch.inf:
        return scores.amax(2)
    return ((temperature * scores).softmax(2) * scores).sum(2)


def space(random: np.random.Generator) -> dict[str, float | int]:
    own = {"residual": log_uniform(random, 0.05, 2), "heads": int(random.choice(list(TEMPERATURES)))}
    return gradient.space(random) | own


def network_of(examples: Examples, settings: dict) -> CSRA:
    channels = examples.features.views.shape[2]
    own = {name: settings[name] for name in ("heads", "residual")}
    if own["heads"] not in TEMPERATURES:
        raise StudyError(f"parameter heads of csra must be one of {[*TEMPERATURES]}, not {own['heads']}")
    return CSRA(channels=channels, labels=len(examples.labels), **own)


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    seed_torch(seed)
    network = network_of(train, settings)
    return gradient.train(network, train, gradient.maps(train), settings, seed=seed, progress=progress)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    return gradient.evaluate(network_of(examples, settings), state, examples, gradient.maps(examples))
