"""AIACNN and MVAIACNN: Wang, Xie, Yang et al., "Large scale automatic image annotation based on convolutional neural
network", J. Visual Communication and Image Representation 49, 2017, by authors of the paper that is reproduced here.

As far as it is determined for us: its text was not to be had. Known are its title, that it is a convolutional network
with "multitask voting" (the MV), and its two names in Table 2 and Figure 3. We read each label as a task, and the
voting as several such decisions joined. Here: a fully connected layer with ReLU and dropout on the pooled features of
the backbone and one logit a label, `voters` times from other starts; a score is the logit of the mean of their
probabilities. One voter is AIACNN.

Not determined, and so ours: how many voters there are, whether they vote by probabilities or decisions, and what tells
them apart (starts, views, subsets or losses); the width of the layer; the loss (eq. 10); how labels that are rare are
treated; its own network, in whose place the backbone of all rows stands; whether the network was fine-tuned (here it
stands still). Epochs are drawn from 10 to 40, as in dbn.py. A row of
this name is no reproduction of that paper.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from attnsem.analysis.systems import gradient
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.task import Progress
from attnsem.losses import multilabel_loss
from attnsem.training import seed_torch

SETTINGS = gradient.SETTINGS | {"epochs": 20, "voters": 1, "hidden": 1024, "dropout": 0.5}


space = partial(gradient.space, epochs=gradient.MANY_EPOCHS)


class Voters(nn.Module):
    """x: (N, K) pooled features. Returns logits (N, voters, C)."""

    def __init__(self, channels: int, labels: int, settings: dict) -> None:
        super().__init__()
        hidden, dropout = settings["hidden"], settings["dropout"]
        self.voters = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, labels))
            for _ in range(settings["voters"])
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([voter(x) for voter in self.voters], 1)


def loss(network: Voters, x: Tensor, targets: Tensor) -> Tensor:
    """Eq. (10) of each voter, which learns alone, summed."""
    return sum(multilabel_loss(logits, targets) for logits in network(x).unbind(1))


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    seed_torch(seed)
    pooled = train.pooled()
    network, inputs = Voters(pooled.shape[2], len(train.labels), settings), gradient.vectors(pooled, train)
    return gradient.train(network, train, inputs, settings, seed=seed, progress=progress, loss=loss)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    pooled = examples.pooled()
    network = Voters(pooled.shape[2], len(examples.labels), settings)
    logits = gradient.evaluate(network, state, examples, gradient.vectors(pooled, examples))
    return logit_of_mean(torch.from_numpy(logits)).numpy()


def logit_of_mean(logits: Tensor) -> Tensor:
    """(N, voters, C) -> (N, C): the logit of the voters' mean probability."""
    return logsigmoid(logits).logsumexp(1) - logsigmoid(-logits).logsumexp(1)
