"""CNN-RNN: Wang, Yang, Mao, Huang, Huang, Xu, "CNN-RNN: a unified framework for multi-label image classification", CVPR
2016.

The labels of an image are a path, the most frequent in training first, then END. An LSTM reads the embeddings of the
labels said so far; its output o and the pooled features v (N, D) are projected into the embeddings' space,
x = ReLU(U_o o + U_I v), and the scores of what comes next are the products of x with the embeddings of the C labels and
END. The loss is minus the logarithm of a path's probability. Beam search keeps the `width` likeliest unfinished paths
of each length.

What ranks images: a label's score is its probability, the sum over the kept paths p of P(p) P(label | p), as a logit.
A label is said once in a path at most, so saying it after p and after another path exclude each other: over all paths
this is P(label) itself, and a beam leaves out the least likely ones. The paper needs a yes or no alone, whether the
label is in the likeliest path; that gives every other image the same score. For labels that the beam never says there
is a score this way too.

The paper leaves open whether END is embedded like a label (ours: yes, and START), what comes after a label that was
said (ours: not that label again, in training neither) and how embeddings begin (ours: with the length 1). Ours departs:
the backbone stands still; AdamW, for the few epochs of every row without dropout, whose rate and the embeddings'
dimension, 64 in the paper, are drawn in the search on val; a target −1 is neither in a path nor does it cost anything
there; no path is longer than the longest in training, but for one label that may follow it. Labels that no training
image has come last.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from attnsem.analysis.systems import gradient
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.task import Progress
from attnsem.training import seed_torch

SIZES = {"embedding": 64, "hidden": 512, "dropout": 0.0, "width": 5}
SETTINGS = gradient.SETTINGS | {"lr": 3e-3} | SIZES
LR = (1e-4, 1e-2)
LEAST = 1e-12  # probability


class CNNRNN(nn.Module):
    """order: the C labels as a path has them; longest: labels in a path at most; both are kept with the weights. sizes:
    SIZES, of them width that of the beam."""

    def __init__(self, *, channels: int, order: Tensor, longest: int, **sizes: float):
        super().__init__()
        embedding, hidden, dropout, self.width = (SIZES | sizes).values()
        self.end = len(order)  # START is end + 1
        self.register_buffer("order", order)
        self.register_buffer("longest", torch.tensor(longest))
        self.embedding = nn.Embedding(len(order) + 2, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.of_said, self.of_image = nn.Linear(hidden, embedding), nn.Linear(channels, embedding)
        self.dropout = nn.Dropout(dropout)

    def next_logits(self, outputs: Tensor, image: Tensor, said: Tensor) -> Tensor:
        """outputs: (…, hidden) of the LSTM; image: of_image's (…, embedding); said: (…, t). Returns (…, C + 1)."""
        joint = self.dropout((self.of_said(outputs) + image).relu())
        logits = joint @ self.embedding.weight[: self.end + 1].T
        return logits.masked_fill(one_hot(said, self.end + 2).any(-2)[..., : self.end + 1], -torch.inf)

    def paths(self, targets: Tensor) -> Tensor:
        """targets (N, C) -> (N, the longest + 1): each image's labels in order, END, and END again up to the length."""
        is_there = targets[:, self.order] == 1
        places = torch.where(is_there, torch.arange(self.end, device=targets.device), self.end).sort(1).values
        words = torch.cat([self.order, self.order.new_tensor([self.end])])[places]
        length = int(is_there.sum(1).max())
        return torch.cat([words[:, :length], torch.full_like(words[:, :1], self.end)], 1)

    def loss(self, v: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images of −log P(path). v: (N, D)."""
        path = self.paths(targets)
        start = torch.full_like(path[:, :1], self.end + 1)
        before = torch.cat([start, path[:, :-1]], 1)
        outputs = self.lstm(self.embedding(before))[0]
        is_before = torch.ones(path.shape[1], path.shape[1], device=path.device).tril().bool()
        prefixes = torch.where(is_before, before[:, None], self.end + 1)
        logits = self.next_logits(outputs, self.of_image(v)[:, None], prefixes)
        unknown = torch.cat([targets < 0, torch.zeros_like(targets[:, :1], dtype=torch.bool)], 1)
        logits = logits.masked_fill(unknown[:, None], -torch.inf)
        is_over = before == self.end
        losses = cross_entropy(logits.transpose(1, 2).masked_fill(is_over[:, None], 0), path, reduction="none")
        return losses.masked_fill(is_over, 0).sum() / len(path)

    @torch.no_grad()
    def search(self, v: Tensor, prefix: tuple[int, ...] = ()) -> tuple[Tensor, list[list[int]]]:
        """v: (N, D); prefix: labels that every path begins with.

        Returns each label's probability (N, C), and the likeliest finished path of each image, without its prefix.
        """
        image, n = self.of_image(v)[:, None], len(v)
        said = torch.tensor([self.end + 1, *prefix], device=v.device).expand(n, 1, -1)
        state = self.lstm(self.embedding(said[:, 0]))[1]
        likelihood = torch.zeros(n, 1, dtype=torch.float64, device=v.device)  # logarithm, as best
        best, paths = torch.full_like(likelihood[:, 0], -torch.inf), [[] for _ in range(n)]
        probability = torch.zeros(n, self.end, dtype=torch.float64, device=v.device)
        for length in range(len(prefix), int(self.longest) + 1):
            outputs = state[0].view(n, said.shape[1], -1)
            step = likelihood[..., None] + self.next_logits(outputs, image, said).double().log_softmax(-1)
            probability += step[..., :-1].exp().sum(1)
            finished, place = step[..., -1].max(1)
            for row in torch.nonzero(finished > best).flatten().tolist():
                paths[row] = said[row, place[row], 1 + len(prefix) :].tolist()
            best = best.maximum(finished)
            if length == self.longest:
                break
            likelihood, places = step[..., :-1].flatten(1).topk(min(self.width, step[..., :-1][0].numel()), dim=1)
            parent, label = places // self.end, places % self.end
            said = torch.cat([said.gather(1, parent[..., None].expand(-1, -1, said.shape[2])), label[..., None]], 2)
            rows = (torch.arange(n, device=v.device)[:, None] * outputs.shape[1] + parent).flatten()
            state = self.lstm(self.embedding(label.view(-1, 1)), tuple(part[:, rows] for part in state))[1]
        return probability, paths

    def forward(self, v: Tensor) -> Tensor:
        """(N, D) -> (N, C) logits of the labels' probabilities."""
        return self.search(v)[0].clamp(LEAST, 1 - LEAST).logit()


def by_frequency(targets: np.ndarray) -> Tensor:
    """The labels of targets (N, C), the most frequent first; of equally frequent ones the first first."""
    return torch.from_numpy(np.argsort(-(targets == 1).sum(0), kind="stable"))


def space(random: np.random.Generator) -> dict[str, float | int]:
    return gradient.space(random, lr=LR) | {"embedding": int(random.choice([64, 128, 256]))}


def network_of(examples: Examples, settings: dict, order: Tensor, longest: int = 0) -> CNNRNN:
    sizes = {name: settings[name] for name in SIZES}
    return CNNRNN(channels=examples.features.views.shape[2], order=order, longest=longest, **sizes)


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    seed_torch(seed)
    longest = int((train.targets == 1).sum(1).max())
    network = network_of(train, settings, by_frequency(train.targets), longest)
    common = {"seed": seed, "progress": progress, "loss": CNNRNN.loss, "optimizer": torch.optim.AdamW}
    return gradient.train(network, train, gradient.vectors(train.pooled(), train), settings, **common)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    network = network_of(examples, settings, state["order"])
    return gradient.evaluate(network, state, examples, gradient.vectors(examples.pooled(), examples))
