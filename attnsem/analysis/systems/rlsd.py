"""RLSD: Zhang, Wu, Shen, Zhang, Lu, "Multi-label image classification with regional latent semantic dependencies", IEEE
Trans. Multimedia 20(10), 2018.

Features X (N, D, h, w). A localisation layer, as of region proposals, finds in X regions that may hold several labels:
at each position k = 12 anchors with a confidence and offsets; the R surest boxes after non-maximum suppression are the
image's regions. Each region's features, interpolated to 7 × 7, become a code; an LSTM reads the code and says labels
for some steps, so that labels of one region depend on each other; the image's logits (N, C) are the greatest over its
regions. The paper's RLSD sees no boxes of the data set; trained with them, "RLSD + ft-RPN" is its upper bound.

`boxes` "without": no box is seen in training; "with": they are, those of difficult objects too; "auto": where the data
set has them. With them the localisation layer has a loss of its own (anchors with IoU ≥ 0.7, or a box's best, are
positive, < 0.3 negative). Ours, for we have no layer that was trained elsewhere: in both, the logarithm of a region's
confidence is added to its logits, so that the labels alone train confidences too; without boxes the offsets stay 0 and
regions are anchors.

The paper leaves open, or we could not learn of it: sides of the anchors, steps, what the LSTM reads after the code
(ours: the embedding of its own last probabilities), how its steps become one answer (ours: the greatest), the loss
(ours: eq. 10, as in every row). Ours departs: confidences and offsets are found in X reduced to `channels` channels; a
region's code is of the mean of its interpolated features; codes and LSTM are narrower (512 for 4,096), and R is 16,
for two CPU cores; labels begin unlikely; AdamW, its rates in the search on val; the backbone stands still.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torchvision.ops import roi_align

from attnsem.analysis.systems import gradient
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.objects import Objects, learns_from_boxes
from attnsem.analysis.systems.regions import Localisation, Located, localisation_loss
from attnsem.analysis.systems.task import Progress
from attnsem.losses import multilabel_loss
from attnsem.training import seed_torch

SIZES = {"channels": 256, "code": 512, "hidden": 512, "steps": 3, "regions": 16}
SETTINGS = gradient.SETTINGS | {"lr": 1e-3, "boxes": "auto"} | SIZES
LR = (1e-4, 3e-3)
UNLIKELY = -3.0  # logit with which a label begins, for the greatest of 48 is taken
GRID = 3  # points of a region's sides, each interpolated four times


class Regions(NamedTuple):
    """boxes: (N, R, 4) corners as fractions; logits: (N, R, C), in them the logarithm of a region's confidence."""

    boxes: Tensor
    logits: Tensor


class RLSD(nn.Module):
    """features: D; sizes: SIZES; is_mixed: bfloat16 in training, float32 for scores."""

    def __init__(self, *, features: int, labels: int, is_mixed: bool = False, **sizes: int):
        super().__init__()
        channels, code, hidden, self.steps, self.count = (SIZES | sizes).values()
        self.is_mixed = is_mixed
        self.reduce = nn.Sequential(nn.Conv2d(features, channels, 1), nn.ReLU())
        self.localisation = Localisation(channels)
        self.code = nn.Sequential(nn.Linear(features, code), nn.ReLU())
        self.lstm, self.said = nn.LSTMCell(code, hidden), nn.Linear(labels, code)
        self.classifier = nn.Linear(hidden, labels)
        nn.init.constant_(self.classifier.bias, UNLIKELY)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, C) logits."""
        return self.regions(x)[0].logits.amax(1)

    def regions(self, x: Tensor) -> tuple[Regions, Located]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.is_mixed and self.training):
            located = self.localisation(self.reduce(x))
            boxes, confidence = self.localisation.choose(located, self.count)
            corners = boxes * boxes.new_tensor(x.shape[:1:-1]).repeat(2)
            parts = roi_align(x, list(corners), GRID, sampling_ratio=2, aligned=True)
            logits = self.say(self.code(parts.mean((2, 3)))).unflatten(0, confidence.shape)
        return Regions(boxes, logits + logsigmoid(confidence)[..., None]), located

    def say(self, code: Tensor) -> Tensor:
        """Codes (M, …) -> (M, C) logits of labels, the greatest over the steps."""
        word, state, logits = code, None, []
        for _ in range(self.steps):
            state = self.lstm(word, state)
            logits.append(self.classifier(state[0]).float())
            word = self.said(logits[-1].sigmoid())
        return torch.stack(logits).amax(0)


def loss_with_boxes(network: RLSD, batch: tuple[Tensor, list[Tensor]], targets: Tensor) -> Tensor:
    """batch: features of the images, and the boxes (M, 4) of the objects in each."""
    regions, located = network.regions(batch[0])
    boxes = [own.to(batch[0].device) for own in batch[1]]
    return multilabel_loss(regions.logits.amax(1), targets) + localisation_loss(located, boxes)


space = partial(gradient.space, lr=LR)


def network_of(examples: Examples, settings: dict) -> RLSD:
    shape = {"features": examples.features.views.shape[2], "labels": len(examples.labels)}
    return RLSD(**shape, **{name: settings[name] for name in SIZES}, is_mixed=gradient.is_mixed(examples))


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    inputs, loss = gradient.maps(train), gradient.label_loss
    if learns_from_boxes(train, settings["boxes"]):
        inputs, loss = with_boxes(train, inputs), loss_with_boxes
    seed_torch(seed)
    common = {"seed": seed, "progress": progress, "loss": loss, "optimizer": torch.optim.AdamW}
    return gradient.train(network_of(train, settings), train, inputs, settings, **common)


def with_boxes(train: Examples, maps: gradient.Inputs) -> gradient.Inputs:
    """What maps gives of images in their views, and the boxes that these views have."""
    objects = Objects(train)
    return lambda images, view: (maps(images, view), [objects.of(*one) for one in zip(images, view, strict=True)])


def loaded(state: dict[str, Tensor], examples: Examples, settings: dict) -> RLSD:
    network = network_of(examples, settings)
    network.load_state_dict(state)
    return network.to(examples.device).eval()


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    return gradient.evaluate(network_of(examples, settings), state, examples, gradient.maps(examples))
