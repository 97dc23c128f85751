"""The epoch loop and its resumption, the same for the four stages."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.arrays import Images, Views, batches, forward_batch
from attnsem.features import Features
from attnsem.losses import multilabel_loss
from attnsem.metrics import mean_average_precision
from attnsem.model import Network
from attnsem.paper import Settings
from attnsem.progress import bar
from attnsem.runs import Run, load_tensors, write

LOGITS = ("baseline", "attended", "semantic", "fused")


@dataclass(frozen=True)
class Split:
    """What a network is fed: images or cached features of them, with targets (images, C)."""

    inputs: Images | Features
    targets: Tensor
    settings: Settings

    def drawn(self, *key: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """A training epoch's batches; order, crops and flips follow from the key (seed, stage, epoch) alone."""
        size, count = self.settings.image_size, len(self.targets)
        order = np.random.default_rng((*key, 0)).permutation(count)
        views = Views.drawn(count, self.settings.train_size - size, *key, 1)
        cached = isinstance(self.inputs, Features)
        which = np.random.default_rng((*key, 2)).integers(self.inputs.views.shape[1], size=count) if cached else None
        for indices in batches(order, self.settings.batch_size):
            if cached:
                yield {"features": self.inputs.batch(indices, which[indices])}, self.targets[indices]
            else:
                yield {"images": views.of(self.inputs[indices], indices, size)}, self.targets[indices]

    def whole(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Batches of that size in order, neither cropped nor flipped."""
        views = Views.whole(len(self.targets))
        for indices in batches(np.arange(len(self.targets)), size):
            if isinstance(self.inputs, Features):
                yield {"features": self.inputs.batch(indices, np.zeros_like(indices))}
            else:
                yield {"images": views.of(self.inputs[indices], indices, self.settings.image_size)}


@dataclass
class Progress:
    """A stage so far: one row an epoch, and the seconds that its epochs took."""

    history: list[dict]
    seconds: float = 0.0


def only(network: Network, trained: tuple[str, ...], settings: Settings) -> None:
    """Lets these parts learn; the others keep weights and BatchNorm statistics."""
    for name, part in network.named_children():
        fixed = name == "backbone" and settings.batchnorm == "fixed"
        part.requires_grad_(name in trained).train(name in trained and not fixed)


def groups(network: Network, trained: tuple[str, ...], settings: Settings) -> list[dict]:
    """Parameter groups with their multiple of lr."""
    scale = {"classifier": settings.new_lr} if settings.stage == 1 else {}
    return [{"params": list(getattr(network, name).parameters()), "scale": scale.get(name, 1.0)} for name in trained]


def fit(
    fabric: Fabric,
    network: Network,
    *,
    trained: tuple[str, ...],
    scored: str,
    train: Split,
    test: Split,
    settings: Settings,
    run: Run,
    origin: dict,
) -> tuple[nn.Module, Progress]:
    """Trains the parts on the logits named `scored`, writing a resume state after each epoch.

    origin: what a resumed run must share with the interrupted one: parameters and parent's checksum.
    """
    only(network, trained, settings)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        groups(network, trained, settings),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    model, optimizer = fabric.setup(network, optimizer)
    progress = restored(network, optimizer, run, origin)
    for epoch in range(len(progress.history), settings.epochs):
        started = time.monotonic()
        lr = settings.lr * settings.lr_drop ** (epoch // settings.lr_step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        only(network, trained, settings)
        row = {
            "epoch": epoch + 1,
            "loss": train_epoch(fabric, model, network, optimizer, train, scored, epoch),
            "lr": lr,
        }
        if network.fusion is not None:
            row["alpha"] = network.fusion.alpha.item()
        if settings.evaluate_every and (epoch + 1) % settings.evaluate_every == 0:
            scores = evaluate(fabric, model, network, test)[scored]
            row["mAP"] = 100 * mean_average_precision(test.targets.numpy(), scores)
        progress.history.append(row)
        progress.seconds += time.monotonic() - started
        save(network, optimizer, progress, run, origin)
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    return model, progress


def train_epoch(
    fabric: Fabric,
    model: nn.Module,
    network: Network,
    optimizer: torch.optim.Optimizer,
    train: Split,
    scored: str,
    epoch: int,
) -> float:
    """Mean loss an image. Raises StudyError when it is not finite."""
    settings, total = train.settings, torch.zeros((), device=fabric.device)
    steps = math.ceil(len(train.targets) / settings.batch_size)
    drawn = train.drawn(settings.seed, settings.stage, epoch)
    for inputs, targets in bar(drawn, f"epoch {epoch + 1} of {settings.epochs}", total=steps):
        inputs, targets = fabric.to_device((inputs, targets))
        loss = multilabel_loss(getattr(model(**inputs), scored), targets, settings.difficult)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        if network.fusion is not None:
            network.fusion.clamp()
        total += loss.detach() * len(targets)
    mean = total.item() / len(train.targets)
    if not math.isfinite(mean):
        raise StudyError(
            f"the loss of stage {settings.stage} is {mean} in epoch {epoch + 1}; the state before that epoch is kept, "
            f"give a smaller lr than {settings.lr}"
        )
    return mean


@torch.inference_mode()
def evaluate(fabric: Fabric, model: nn.Module, network: Network, split: Split) -> dict[str, np.ndarray]:
    """Logits (images, C) float32 of each part the network has."""
    network.eval()
    found = {}
    for inputs in split.whole(forward_batch(fabric.device)):
        output = model(**fabric.to_device(inputs))
        for name in LOGITS:
            if (logits := getattr(output, name)) is not None:
                found.setdefault(name, []).append(logits.float().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def save(network: Network, optimizer: torch.optim.Optimizer, progress: Progress, run: Run, origin: dict) -> None:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    write(run.resume, lambda partial: torch.save(state | {"origin": origin}, partial))
    write(
        run.folder / "history.csv",
        lambda partial: pd.DataFrame(progress.history).to_csv(partial, index=False, lineterminator="\n"),
    )


def restored(network: Network, optimizer: torch.optim.Optimizer, run: Run, origin: dict) -> Progress:
    """Puts back the state after the last whole epoch, if there is one."""
    if not run.resume.exists():
        return Progress(history=[])
    state = load_tensors(run.resume)
    refuse_other(run, state["origin"], origin)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def refuse_other(run: Run, found: dict, wanted: dict) -> None:
    """Raises StudyError when a folder's run has other parameters, data or parent than the one asked for."""
    for name, value in wanted["parameters"].items():
        if found["parameters"].get(name) != value:
            raise StudyError(
                f"{run.folder} holds a run with {name} {found['parameters'].get(name)!r}, not {value!r}; "
                f"delete that folder, or give another one by -p runs"
            )
    for name, what in {"parent_sha256": "its parent stage", "data_fingerprint": "the prepared data"}.items():
        if found[name] != wanted[name]:
            raise StudyError(f"{what} has changed since {run.folder} was trained; delete that folder to train it anew")
