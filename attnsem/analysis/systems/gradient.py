"""What systems trained by gradient share: epochs that go on where they were interrupted, and the space of a search."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from attnsem import NotFiniteError
from attnsem.analysis.search import EPOCHS, LR, WEIGHT_DECAY
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.search import log_uniform
from attnsem.analysis.systems.task import Progress
from attnsem.datasets.arrays import batches
from attnsem.engine import ahead
from attnsem.losses import multilabel_loss
from attnsem.training import seed_torch

SETTINGS = {"lr": 0.01, "weight_decay": 0.0005, "epochs": 4, "batch_size": 24}  # of every such system, and its own
SGD = partial(torch.optim.SGD, momentum=0.9)
MANY_EPOCHS = (10, 40)  # where a step costs little
Inputs = Callable[[np.ndarray, np.ndarray], Tensor]  # of images (n,), each in that of its views (n,)


def space(
    random: np.random.Generator, *, lr: tuple[float, float] = LR, epochs: tuple[int, int] = EPOCHS
) -> dict[str, float | int]:
    """A draw of rate, weight decay and epochs, within the limits of every row unless others are given."""
    rate, weight_decay = log_uniform(random, *lr), log_uniform(random, *WEIGHT_DECAY)
    return {"lr": rate, "weight_decay": weight_decay, "epochs": int(random.integers(epochs[0], epochs[1] + 1))}


def maps(examples: Examples) -> Inputs:
    """Cached features (n, K, h, w) float32 on the device."""
    features = examples.features
    return lambda images, view: features.batch(images, view).to(examples.device, torch.float32)


def vectors(array: np.ndarray, examples: Examples) -> Inputs:
    """Rows of (N, D), or of (N, V, D), float32 on the device."""
    tensor = torch.from_numpy(array if array.ndim == 3 else array[:, None]).float().to(examples.device)
    return lambda images, view: tensor[images, view % tensor.shape[1]]


def label_loss(network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Eq. (10) of the network's logits (n, C); targets −1 are left out."""
    return multilabel_loss(network(inputs), targets)


def train(
    network: nn.Module,
    examples: Examples,
    inputs: Inputs,
    settings: dict,
    *,
    seed: int,
    progress: Progress,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = label_loss,
    optimizer: Callable[..., torch.optim.Optimizer] = SGD,
) -> dict[str, Tensor]:
    """Trains a network and returns its state; the rate drops to a tenth after half of the epochs.

    loss: of the network, inputs of a batch and their targets (n, C). What is drawn in an epoch follows from
    (seed, epoch), so that an interrupted run ends where another does. NotFiniteError.
    """
    network, targets = network.to(examples.device), torch.from_numpy(examples.targets).to(examples.device)
    steps = optimizer(network.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"])
    if progress.state:
        network.load_state_dict(progress.state["network"])
        steps.load_state_dict(progress.state["optimizer"])
    for epoch in range(len(progress.rows), settings["epochs"]):
        random = np.random.default_rng((seed, epoch))
        order, view = random.permutation(len(targets)), random.integers(examples.views, size=len(targets))
        seed_torch(seed, epoch)
        network.train()
        lr = settings["lr"] * 0.1 ** (epoch // math.ceil(settings["epochs"] / 2))
        for group in steps.param_groups:
            group["lr"] = lr
        total = 0.0
        for batch, images in ahead(lambda i, v=view: (inputs(i, v[i]), i), batches(order, settings["batch_size"])):
            value = loss(network, batch, targets[images])
            steps.zero_grad()
            value.backward()
            steps.step()
            total += value.detach() * len(images)
        mean = float(total) / len(targets)
        if not math.isfinite(mean):
            raise NotFiniteError(
                f"the loss is not finite in epoch {epoch + 1}; give a smaller lr than {settings['lr']}"
            )
        state = {"network": network.state_dict(), "optimizer": steps.state_dict()}
        progress.save({"epoch": epoch + 1, "loss": mean, "lr": lr}, state)
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


@torch.inference_mode()
def evaluate(network: nn.Module, state: dict[str, Tensor], examples: Examples, inputs: Inputs) -> np.ndarray:
    """The outputs (N, …) of the network in that state on the first view of each image."""
    network.load_state_dict(state)
    network.to(examples.device).eval()
    order = batches(np.arange(len(examples.ids)), 64)
    parts = [network(batch).float().cpu() for batch in ahead(lambda i: inputs(i, np.zeros_like(i)), order)]
    return torch.cat(parts).numpy()


def is_mixed(examples: Examples) -> bool:
    """Whether the stage 1 that a system stands on was computed in bfloat16, where that is faster."""
    return examples.source.parent.settings.precision == "bf16-mixed"
