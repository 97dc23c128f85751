"""The epoch loop and its resumption, the same for the four stages."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from attnsem import NotFiniteError, StudyError
from attnsem.datasets.arrays import Views, batches
from attnsem.datasets.features import Features
from attnsem.datasets.similarity import softened
from attnsem.datasets.storage import Images
from attnsem.engine import Fabric, ahead, compiled, largest_batch, share_batchnorm
from attnsem.files import load_tensors, write_table, write_tensors
from attnsem.losses import loss_of
from attnsem.metrics import mean_average_precision
from attnsem.model import Classifier, Network, Output
from attnsem.notebook import bar, say_epoch
from attnsem.paper import Settings
from attnsem.runs import Run, environment

LOGITS = ("baseline", "attended", "semantic", "fused")


@dataclass(frozen=True)
class Split:
    """What a network is fed: images or cached features of them, with targets (images, C).

    ids: of the images; similarity: (C, C) of labels by text, blended into the targets of ỹ alone.
    """

    inputs: Images | Features
    targets: Tensor
    settings: Settings
    ids: tuple[str, ...] = ()
    similarity: Tensor | None = None

    def order(self, epoch: int) -> np.ndarray:
        """Of the images in a training epoch: follows from (seed, stage, epoch) alone, as crops and flips do."""
        return self.random(epoch, 0).permutation(len(self.targets))

    def random(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.settings.seed, self.settings.stage, epoch, purpose))

    def training_batches(self, fabric: Fabric, epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor, int]]:
        """This process's inputs and targets of each batch, and the number of images of all processes together."""
        count, settings = len(self.targets), self.settings
        margin = settings.train_size - settings.image_size
        views, version = Views.drawn(count, margin, settings.seed, settings.stage, epoch, 1), None
        if isinstance(self.inputs, Features):
            version = self.random(epoch, 2).integers(self.inputs.views.shape[1], size=count)
        for inputs, share, together in self.batches(fabric, self.order(epoch), settings.batch_size, views, version):
            yield inputs, self.targets[share].to(fabric.device), together

    def test_batches(self, fabric: Fabric, size: int) -> Iterator[tuple[dict[str, Tensor], np.ndarray]]:
        """This process's inputs in batches of that size, neither cropped nor flipped, and which images they are."""
        order, views = np.arange(len(self.targets)), Views.whole(len(self.targets))
        version = np.zeros_like(order) if isinstance(self.inputs, Features) else None
        for inputs, share, _ in self.batches(fabric, order, size * fabric.world_size, views, version):
            yield inputs, share

    def batches(
        self, fabric: Fabric, order: np.ndarray, size: int, views: Views, version: np.ndarray | None
    ) -> Iterator[tuple[dict[str, Tensor], np.ndarray, int]]:
        """Read ahead in threads as uint8 or float16; cropped, flipped and made float32 on the device.

        version: (images,) which of an image's cached views, None for images.
        """

        def read(indices: np.ndarray) -> tuple[Tensor, np.ndarray, int]:
            share = indices[fabric.global_rank :: fabric.world_size]
            rows = self.inputs[share] if version is None else self.inputs.batch(share, version[share])
            return rows.pin_memory() if fabric.device.type == "cuda" else rows, share, len(indices)

        for rows, share, together in ahead(read, batches(order, size)):
            rows = rows.to(fabric.device, non_blocking=True)
            if version is None:
                yield {"images": views.of(rows, share, self.settings.image_size)}, share, together
            else:
                rows = rows.float().contiguous(memory_format=torch.channels_last)
                yield {self.inputs.of: rows}, share, together


def seed_torch(*key: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


@dataclass
class Progress:
    """A stage so far: one row an epoch, the seconds that its epochs took, and the devices and versions it ran on."""

    history: list[dict]
    seconds: float = 0.0
    environments: list[dict] = field(default_factory=list)


def set_modes(network: Network, trained: tuple[str, ...], settings: Settings) -> None:
    """Lets the trained parts learn; the others keep weights and BatchNorm statistics."""
    for name, part in network.named_children():
        keeps_statistics = name == "backbone" and settings.batchnorm == "fixed"
        part.requires_grad_(name in trained).train(name in trained and not keeps_statistics)


class Learner:
    """A network of which a stage trains some parts, on the logits named `scored`, with their optimizer."""

    def __init__(self, fabric: Fabric, network: Network, settings: Settings, trained: tuple[str, ...], scored: str):
        self.fabric, self.network, self.settings = fabric, network, settings
        self.trained, self.scored = trained, scored
        share_batchnorm(network, fabric)
        set_modes(network, trained, settings)
        network.to(memory_format=torch.channels_last)
        if settings.compile:
            compiled(network)
        scales = {"classifier": settings.new_lr} if settings.stage == 1 else {}
        groups = [{"params": getattr(network, name).parameters(), "scale": scales.get(name, 1.0)} for name in trained]
        self.model, self.optimizer = fabric.setup(network, sgd(groups, settings))
        self.scaler = getattr(fabric.strategy.precision, "scaler", None)  # of the loss, under 16-mixed

    def loss(self, output: Output, targets: Tensor, images: int, similarity: Tensor | None) -> Tensor:
        """Of a batch: images, of all processes together."""
        settings, of = self.settings, loss_of(self.settings, images)
        loss = of(getattr(output, self.scored), targets)
        if settings.semantic_loss and output.semantic is not None:
            if similarity is not None:
                targets = softened(targets, similarity.to(targets.device), settings.similarity_weight)
            loss = loss + settings.semantic_loss * of(output.semantic, targets)
        return loss

    def step(self, loss: Tensor, epoch: int) -> Tensor:
        """Returns whether loss and gradient, where its scale is 1 or less, are finite, on the device."""
        self.optimizer.zero_grad()
        self.fabric.backward(loss * self.fabric.world_size)  # the processes' gradients are averaged
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        is_finite = torch.nn.utils.get_total_norm(gradients).isfinite()
        if self.scaler is not None:
            is_finite |= self.scaler.get_scale() > 1  # the scale may have made it so: the step is skipped, it is halved
        fusion = self.network.fusion
        if fusion is not None and fusion.is_fixed(epoch):
            fusion.alpha.grad.zero_()  # weight decay alone gathers momentum
        self.optimizer.step()
        if fusion is not None:
            fusion.keep(epoch)
        return is_finite & loss.isfinite()


def sgd(parameters: object, settings: Settings) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def fit(learner: Learner, run: Run, train: Split, test: Split, origin: dict) -> tuple[Progress, dict[str, np.ndarray]]:
    """Trains a stage, writing a resume state after each epoch. Returns its progress and the logits on `test`.

    origin: what a resumed run must share with the interrupted one: parameters and parent's checksum.
    """
    fabric, settings, fusion = learner.fabric, learner.settings, learner.network.fusion
    progress, logits = restored(learner, run), None
    if progress.history and fabric.is_global_zero:  # a kill may have come between the state and its history
        write_table(run.folder / "history.csv", pd.DataFrame(progress.history), index=False)
    machine = {name: part for name, part in environment(fabric.device).items() if name in ("device", "versions")}
    if progress.environments[-1:] != [machine]:
        progress.environments.append(machine)
    for epoch in range(len(progress.history), settings.epochs):
        started, logits = time.monotonic(), None
        row = {"epoch": epoch + 1, "loss": train_epoch(learner, train, epoch), "lr": settings.lr_at(epoch)}
        if fusion is not None:
            row["alpha"] = fusion.weight.item()
        if learner.scaler is not None:
            row["loss_scale"] = learner.scaler.get_scale()
        if settings.evaluate_every and (epoch + 1) % settings.evaluate_every == 0:
            logits = evaluate(fabric, learner.network, test)
            row["mAP"] = 100 * mean_average_precision(test.targets.numpy(), logits[learner.scored])
        progress.history.append(row)
        progress.seconds += time.monotonic() - started
        if fabric.is_global_zero:
            save(learner, progress, run, origin)
            say_epoch(row, settings.epochs, progress.seconds)
    return progress, logits or evaluate(fabric, learner.network, test)


def train_epoch(learner: Learner, train: Split, epoch: int) -> float:
    """Mean loss an image, over all processes.

    Raises StudyError at the end of an epoch in which a loss or the gradient was not finite, naming the first such
    step and its images, or in which, the last one, no step was taken; until then nothing is read from the device.
    """
    fabric, settings, scaler = learner.fabric, learner.settings, learner.scaler
    scale = scaler and scaler.get_scale()
    total, first_fault = torch.zeros((), device=fabric.device), torch.full((), math.inf, device=fabric.device)
    for group in learner.optimizer.param_groups:
        group["lr"] = settings.lr_at(epoch) * group["scale"]
    set_modes(learner.network, learner.trained, settings)
    seed_torch(settings.seed, settings.stage, epoch)
    steps = math.ceil(len(train.targets) / settings.batch_size)
    epoch_batches = bar(train.training_batches(fabric, epoch), f"epoch {epoch + 1} of {settings.epochs}", steps)
    for step, (inputs, targets, images) in enumerate(epoch_batches):
        loss = learner.loss(learner.model(**inputs), targets, images, train.similarity)
        first_fault = torch.where(learner.step(loss, epoch), first_fault, first_fault.clamp(max=step))
        total += loss.detach() * images
    mean = fabric.all_reduce(total, reduce_op="sum").item() / len(train.targets)
    fault = fabric.all_reduce(first_fault, reduce_op="min").item()
    if scaler and epoch + 1 == settings.epochs and scaler.get_scale() == scale * scaler.get_backoff_factor() ** steps:
        fault = min(fault, 0)
    if math.isfinite(fault):
        refuse_not_finite(train, int(fault), epoch)
    return mean


def refuse_not_finite(train: Split, step: int, epoch: int) -> None:
    size, settings = train.settings.batch_size, train.settings
    rows = train.order(epoch)[step * size :][:size]
    names = [train.ids[row] for row in rows] if train.ids else rows.tolist()
    place = f"stage {settings.stage} is not finite in epoch {epoch + 1}, step {step + 1}, with the images"
    remedy = f"give a smaller lr than {settings.lr}, or precision 32-true, and another folder by -p runs"
    raise NotFiniteError(f"the loss or gradient of {place} {', '.join(map(str, names))}; {remedy}")


def out_of_fold(features: Features, targets: Tensor, settings: Settings, folds: int) -> Tensor:
    """y′ (images, V, C) of each image by a classifier, trained as stage 1 trains it, that has not seen the image.

    settings: stage 1's; StudyError unless its backbone stood still.
    """
    if settings.train_backbone:
        reason = "for the backbone has seen every training image; train it with train_backbone False"
        raise StudyError(f"baseline_folds needs a stage 1 that trained its classifier alone, {reason}, or give 0")
    pooled = features.pooled()[..., None, None]
    logits = torch.zeros(*pooled.shape[:2], targets.shape[1])
    fold_of = np.random.default_rng((settings.seed, 1)).permutation(len(targets)) % folds
    for fold in range(folds):
        seed_torch(settings.seed, 1, fold)
        classifier = Classifier(channels=pooled.shape[2], labels=targets.shape[1])
        optimizer, others = sgd(classifier.parameters(), settings), np.flatnonzero(fold_of != fold)
        for epoch in range(settings.epochs):
            random = np.random.default_rng((settings.seed, 1, epoch, fold))
            optimizer.param_groups[0]["lr"] = settings.lr_at(epoch) * settings.new_lr
            for indices in batches(random.permutation(others), settings.batch_size):
                inputs = pooled[indices, random.integers(pooled.shape[1], size=len(indices))]
                loss = loss_of(settings)(classifier(inputs), targets[indices])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        in_fold = fold_of == fold
        with torch.inference_mode():
            logits[in_fold] = classifier(pooled[in_fold].flatten(0, 1)).unflatten(0, (-1, pooled.shape[1]))
    return logits


@torch.inference_mode()
def evaluate(fabric: Fabric, network: Network, split: Split, parts: Sequence[str] = LOGITS) -> dict[str, np.ndarray]:
    """Those parts of model.Output (images, ...) float32 that the network has; each process computes its share."""
    network.eval()

    def forward(size: int) -> dict[str, Tensor]:
        rows = {}
        seed_torch(split.settings.seed, split.settings.stage)
        for inputs, share in split.test_batches(fabric, size):
            with fabric.autocast():
                output = network(**inputs)
            for name in parts:
                if (part := getattr(output, name)) is not None:
                    if name not in rows:
                        rows[name] = torch.zeros(len(split.targets), *part.shape[1:], device=part.device)
                    rows[name][share] = part.float()
        return rows

    rows = largest_batch(forward, fabric.device)
    return {name: fabric.all_reduce(part, reduce_op="sum").cpu().numpy() for name, part in rows.items()}


def save(learner: Learner, progress: Progress, run: Run, origin: dict) -> None:
    state = {"network": learner.network.state_dict(), "optimizer": learner.optimizer.state_dict()}
    state["scaler"] = learner.fabric.strategy.precision.state_dict()
    write_tensors(run.resume, state | {"progress": asdict(progress), "origin": origin})
    write_table(run.folder / "history.csv", pd.DataFrame(progress.history), index=False)


def restored(learner: Learner, run: Run) -> Progress:
    """Puts back the state after the last whole epoch, if there is one."""
    if not run.resume.exists():
        return Progress(history=[])
    state = load_tensors(run.resume)
    learner.network.load_state_dict(state["network"])
    learner.optimizer.load_state_dict(state["optimizer"])
    if state.get("scaler"):
        learner.scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
