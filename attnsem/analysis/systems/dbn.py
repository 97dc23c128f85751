"""DBN: Srivastava, Salakhutdinov, "Learning representations for multimodal data with deep belief nets", ICML 2012
workshop on representation learning.

Vectors (N, D), low-level descriptors or pooled CNN features (`inputs`), standardised; two restricted Boltzmann machines
are trained one on the other without labels, the first with Gaussian visible units of variance 1, by one step of
contrastive divergence (Hinton 2002): scikit-learn's BernoulliRBM has no such units and no such training. Then a layer
for the labels stands on them, and all are fine-tuned on eq. (10).

Ours departs: theirs is of images and tags, joined by a layer that both share, and this study's data have no tags; its
image descriptors were others and more (3,857 numbers). Two layers of 1,024 units are those of the image's side in the
same authors' deep Boltzmann machine (JMLR 15, 2014). What is open to us, their text not being at hand: rate, epochs and
decay of the machines (rbm_epochs and rbm_lr, ours), whether hidden units were kept sparse (ours: not), and whether what
stands on them was fine-tuned through all layers (ours: yes). Epochs of fine-tuning are drawn from 10 to 40, where rows
that train on maps have 2 to 6: a step costs little here, and fewer do not end where val stops rising.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from attnsem.analysis.systems import gradient
from attnsem.analysis.systems.descriptors import vectors
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.linear import moments, standard
from attnsem.analysis.systems.task import Progress
from attnsem.datasets.arrays import batches
from attnsem.training import seed_torch

SETTINGS = gradient.SETTINGS | {"inputs": "descriptors", "hidden1": 1024, "hidden2": 1024}
SETTINGS |= {"rbm_epochs": 10, "rbm_lr": 0.001, "batch_size": 64, "lr": 0.05, "epochs": 20}


space = partial(gradient.space, epochs=gradient.MANY_EPOCHS)


def network_of(inputs: int, settings: dict, labels: int) -> nn.Sequential:
    first, second = settings["hidden1"], settings["hidden2"]
    layers = (nn.Linear(inputs, first), nn.Sigmoid(), nn.Linear(first, second), nn.Sigmoid(), nn.Linear(second, labels))
    return nn.Sequential(*layers)


@torch.no_grad()
def train_rbm(layer: nn.Linear, x: Tensor, settings: dict, *, seed: int, is_gaussian: bool) -> Tensor:
    """Makes the layer a restricted Boltzmann machine of x (N, D), in [0, 1] but where Gaussian.

    Returns the probabilities of its hidden units (N, H).
    """
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    visible, momentum = torch.zeros(x.shape[1], device=x.device), torch.zeros_like(layer.weight)
    for epoch in range(settings["rbm_epochs"]):
        seed_torch(seed, epoch)
        for images in batches(np.random.default_rng((seed, epoch)).permutation(len(x)), settings["batch_size"]):
            data = x[images]
            hidden = layer(data).sigmoid()
            again = hidden.bernoulli() @ layer.weight + visible
            again = again if is_gaussian else again.sigmoid()
            hidden_again = layer(again).sigmoid()
            step = (hidden.T @ data - hidden_again.T @ again) / len(images)
            momentum = 0.9 * momentum + step
            layer.weight += settings["rbm_lr"] * momentum
            layer.bias += settings["rbm_lr"] * (hidden - hidden_again).mean(0)
            visible += settings["rbm_lr"] * (data - again).mean(0)
    return layer(x).sigmoid()


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    rows = vectors(train, settings["inputs"])
    state = moments(rows)
    rows = standard(state, rows)
    seed_torch(seed)
    network = network_of(rows.shape[1], settings, len(train.labels)).to(train.device)
    if not progress.state:
        x = torch.from_numpy(rows).to(train.device)
        x = train_rbm(network[0], x, settings, seed=seed, is_gaussian=True)
        train_rbm(network[2], x, settings, seed=seed, is_gaussian=False)
    inputs = gradient.vectors(rows, train)
    return state | gradient.train(network, train, inputs, settings, seed=seed, progress=progress)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    rows = standard(state, vectors(examples, settings["inputs"]))
    network = network_of(rows.shape[1], settings, len(examples.labels))
    own = {name: tensor for name, tensor in state.items() if name not in ("mean", "deviation")}
    return gradient.evaluate(network, own, examples, gradient.vectors(rows, examples))
