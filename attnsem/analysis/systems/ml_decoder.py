"""ML-Decoder: Ridnik, Sharir, Ben-Cohen, Ben-Baruch, Noy, "ML-Decoder: scalable and versatile classification head",
2021.

Features X (N, D, h, w) become h w vectors of `width`; a decoder layer without self-attention reads them by
cross-attention from one fixed random query for each label, up to 100 of them, each for a group of labels beyond that;
a fully connected layer a query gives its labels' logits (N, C). The layer is timm's.

The paper leaves open, for features that stand still, rate and epochs: ours are drawn in the search on val, from its own
rate of 0.0001 on. Ours departs: AdamW in place of Adam with a one-cycle rate, averaged weights and the asymmetric loss,
so that the head alone is what differs from other rows, whose loss is eq. 10 too; the backbone stands still.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.analysis.systems import gradient
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.task import Progress
from attnsem.training import seed_torch

SETTINGS = gradient.SETTINGS | {"lr": 3e-4, "width": 768}
HEADS = 8  # of the cross-attention, in timm's layer
LR = (1e-4, 3e-3)


class Decoder(nn.Module):
    """(N, D, h, w) -> (N, C) logits. is_mixed: bfloat16 in training; scores are always made in float32."""

    def __init__(self, *, channels: int, labels: int, width: int = 768, is_mixed: bool = False):
        from timm.layers.ml_decoder import MLDecoder  # here alone: timm takes seconds to import

        super().__init__()
        if width % HEADS:
            raise StudyError(f"parameter width of ml_decoder must be a multiple of {HEADS}, not {width}")
        self.is_mixed = is_mixed
        self.decoder = MLDecoder(num_classes=labels, decoder_embedding=width, initial_num_features=channels)
        self.decoder.decoder = self.decoder.decoder.layers[0]  # torch's stack of this one asks it for self-attention

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.is_mixed and self.training):
            return self.decoder(x).float()


space = partial(gradient.space, lr=LR)


def network_of(examples: Examples, settings: dict) -> Decoder:
    sizes = {"channels": examples.features.views.shape[2], "labels": len(examples.labels)}
    return Decoder(**sizes, width=settings["width"], is_mixed=gradient.is_mixed(examples))


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    seed_torch(seed)
    network, inputs = network_of(train, settings), gradient.maps(train)
    common = {"seed": seed, "progress": progress, "optimizer": torch.optim.AdamW}
    return gradient.train(network, train, inputs, settings, **common)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    return gradient.evaluate(network_of(examples, settings), state, examples, gradient.maps(examples))
