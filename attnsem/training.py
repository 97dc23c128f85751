"""The epoch loop and its resumption, the same for the four stages."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from attnsem import StudyError
from attnsem.arrays import Images, Views, batches
from attnsem.engine import ahead, compiled, largest_batch, share_batchnorm
from attnsem.features import Features
from attnsem.files import load_tensors, write, write_tensors
from attnsem.losses import multilabel_loss, softened
from attnsem.metrics import mean_average_precision
from attnsem.model import Classifier, Network
from attnsem.notebook import bar
from attnsem.paper import Settings
from attnsem.runs import Run, environment

LOGITS = ("baseline", "attended", "semantic", "fused")


@dataclass(frozen=True)
class Split:
    """What a network is fed: images or cached features of them, with targets (images, C).

    similarity: (C, C) of labels by text, blended into the targets of ỹ alone; ids: of the images.
    """

    inputs: Images | Features
    targets: Tensor
    settings: Settings
    similarity: Tensor | None = None
    ids: tuple[str, ...] = ()

    def drawn(self, fabric: Fabric, *key: int) -> Iterator[tuple[dict[str, Tensor], Tensor, int]]:
        """A training epoch's batches: this process's inputs and targets, and the images of all processes together.

        Order, crops and flips follow from the key (seed, stage, epoch) alone.
        """
        count, settings = len(self.targets), self.settings
        order = np.random.default_rng((*key, 0)).permutation(count)
        views = Views.drawn(count, settings.train_size - settings.image_size, *key, 1)
        which = None
        if isinstance(self.inputs, Features):
            which = np.random.default_rng((*key, 2)).integers(self.inputs.views.shape[1], size=count)
        for inputs, share, together in self.fed(fabric, order, settings.batch_size, views, which):
            yield inputs, self.targets[share].to(fabric.device), together

    def whole(self, fabric: Fabric, size: int) -> Iterator[tuple[dict[str, Tensor], np.ndarray]]:
        """This process's inputs in batches of that size, neither cropped nor flipped, and which images they are."""
        order, views = np.arange(len(self.targets)), Views.whole(len(self.targets))
        which = np.zeros_like(order) if isinstance(self.inputs, Features) else None
        for inputs, share, _ in self.fed(fabric, order, size * fabric.world_size, views, which):
            yield inputs, share

    def fed(
        self, fabric: Fabric, order: np.ndarray, size: int, views: Views, which: np.ndarray | None
    ) -> Iterator[tuple[dict[str, Tensor], np.ndarray, int]]:
        """Read ahead in threads as uint8 or float16; cropped, flipped and made float32 on the device."""

        def read(indices: np.ndarray) -> tuple[Tensor, np.ndarray, int]:
            share = indices[fabric.global_rank :: fabric.world_size]
            rows = self.inputs[share] if which is None else self.inputs.batch(share, which[share])
            return rows.pin_memory() if fabric.device.type == "cuda" else rows, share, len(indices)

        for rows, share, together in ahead(read, batches(order, size)):
            rows = rows.to(fabric.device, non_blocking=True)
            if which is None:
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
) -> Progress:
    """Trains the parts on the logits named `scored`, writing a resume state after each epoch.

    origin: what a resumed run must share with the interrupted one: parameters and parent's checksum.
    """
    share_batchnorm(network, fabric)
    only(network, trained, settings)
    network.to(memory_format=torch.channels_last)
    if settings.compile:
        compiled(network)
    optimizer = torch.optim.SGD(
        groups(network, trained, settings),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    model, optimizer = fabric.setup(network, optimizer)
    progress = restored(network, optimizer, run)
    if progress.history and fabric.is_global_zero:
        write_history(progress, run)  # a kill may have come between the state and its history
    now = environment(fabric.device)
    here = {"device": now["device"], "versions": now["versions"]}
    if progress.environments[-1:] != [here]:
        progress.environments.append(here)
    for epoch in range(len(progress.history), settings.epochs):
        started = time.monotonic()
        lr = settings.lr_at(epoch)
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
            scores = evaluate(fabric, network, test)[scored]
            row["mAP"] = 100 * mean_average_precision(test.targets.numpy(), scores)
        progress.history.append(row)
        progress.seconds += time.monotonic() - started
        if fabric.is_global_zero:
            save(network, optimizer, progress, run, origin)
        fabric.print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    return progress


def train_epoch(
    fabric: Fabric,
    model: nn.Module,
    network: Network,
    optimizer: torch.optim.Optimizer,
    train: Split,
    scored: str,
    epoch: int,
) -> float:
    """Mean loss an image, over all processes.

    Raises StudyError at the end of an epoch in which a loss or the gradient was not finite, naming the first such
    step and its images; until then nothing is read back from the device.
    """
    settings, total = train.settings, torch.zeros((), device=fabric.device)
    first = torch.full((), math.inf, device=fabric.device)
    seed_torch(settings.seed, settings.stage, epoch)
    steps = math.ceil(len(train.targets) / settings.batch_size)
    drawn = train.drawn(fabric, settings.seed, settings.stage, epoch)
    for step, (inputs, targets, together) in enumerate(bar(drawn, f"epoch {epoch + 1} of {settings.epochs}", steps)):
        output = model(**inputs)
        loss = multilabel_loss(getattr(output, scored), targets, settings.difficult, images=together)
        if settings.semantic_loss and output.semantic is not None:
            if train.similarity is not None:
                targets = softened(targets, train.similarity.to(targets.device), settings.similarity_weight)
            own = multilabel_loss(output.semantic, targets, settings.difficult, images=together)
            loss = loss + settings.semantic_loss * own
        optimizer.zero_grad()
        fabric.backward(loss * fabric.world_size)  # the processes' gradients are averaged
        sound = loss.isfinite() & torch.nn.utils.get_total_norm(gradients(network)).isfinite()
        first = torch.where(sound, first, first.clamp(max=step))
        optimizer.step()
        if network.fusion is not None:
            network.fusion.clamp()
        total += loss.detach() * together
    mean = fabric.all_reduce(total, reduce_op="sum").item() / len(train.targets)
    if math.isfinite(first.item()):
        refuse_not_finite(train, int(first.item()), epoch)
    return mean


def gradients(network: Network) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def refuse_not_finite(train: Split, step: int, epoch: int) -> None:
    settings = train.settings
    order = np.random.default_rng((settings.seed, settings.stage, epoch, 0)).permutation(len(train.targets))
    rows = order[step * settings.batch_size :][: settings.batch_size]
    names = [train.ids[row] for row in rows] if train.ids else rows.tolist()
    raise StudyError(
        f"the loss or gradient of stage {settings.stage} is not finite in epoch {epoch + 1}, step {step + 1}, with the "
        f"images {', '.join(map(str, names))}; the state before that epoch is kept, give a smaller lr than "
        f"{settings.lr}"
    )


def out_of_fold(features: Features, targets: Tensor, settings: Settings, folds: int) -> Tensor:
    """y′ (images, V, C) of each image by a classifier, trained as stage 1 trains it, that has not seen the image.

    settings: stage 1's, with the backbone frozen.
    """
    pooled = features.pooled()[..., None, None]
    found = torch.zeros(*pooled.shape[:2], targets.shape[1])
    fold_of = np.random.default_rng((settings.seed, 1)).permutation(len(targets)) % folds
    for fold in range(folds):
        seed_torch(settings.seed, 1, fold)
        classifier = Classifier(channels=pooled.shape[2], labels=targets.shape[1])
        optimizer = torch.optim.SGD(
            classifier.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        for epoch in range(settings.epochs):
            random = np.random.default_rng((settings.seed, 1, epoch, fold))
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(epoch) * settings.new_lr
            for indices in batches(random.permutation(np.flatnonzero(fold_of != fold)), settings.batch_size):
                inputs = pooled[indices, random.integers(pooled.shape[1], size=len(indices))]
                loss = multilabel_loss(classifier(inputs), targets[indices], settings.difficult)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        held_out = fold_of == fold
        with torch.inference_mode():
            found[held_out] = classifier(pooled[held_out].flatten(0, 1)).unflatten(0, (-1, pooled.shape[1]))
    return found


@torch.inference_mode()
def evaluate(fabric: Fabric, network: Network, split: Split) -> dict[str, np.ndarray]:
    """Logits (images, C) float32 of each part the network has; each process computes its share of the images."""
    network.eval()

    def logits(size: int) -> dict[str, Tensor]:
        found = {}
        seed_torch(split.settings.seed, split.settings.stage)
        for inputs, share in split.whole(fabric, size):
            with fabric.autocast():
                output = network(**inputs)
            for name in LOGITS:
                if (part := getattr(output, name)) is not None:
                    rows = found.setdefault(name, torch.zeros(len(split.targets), part.shape[1], device=part.device))
                    rows[share] = part.float()
        return found

    found = largest_batch(logits, fabric.device)
    return {name: fabric.all_reduce(part, reduce_op="sum").cpu().numpy() for name, part in found.items()}


def save(network: Network, optimizer: torch.optim.Optimizer, progress: Progress, run: Run, origin: dict) -> None:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    write_tensors(run.resume, state | {"origin": origin})
    write_history(progress, run)


def write_history(progress: Progress, run: Run) -> None:
    write(
        run.folder / "history.csv",
        lambda partial: pd.DataFrame(progress.history).to_csv(partial, index=False, lineterminator="\n"),
    )


def restored(network: Network, optimizer: torch.optim.Optimizer, run: Run) -> Progress:
    """Puts back the state after the last whole epoch, if there is one."""
    if not run.resume.exists():
        return Progress(history=[])
    state = load_tensors(run.resume)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])
