"""The rows of the table, part by part; in each the plain loop of plain.py stands beside the study's own code."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from PIL import Image

from attnsem import datasets, engine, metrics, stages, training
from attnsem.analysis.statistics import bootstrap
from attnsem.datasets import scenes
from attnsem.datasets.prepared import Prepared, prepare
from attnsem.engine import fastest_precision, launched
from attnsem.files import ROOT
from attnsem.losses import multilabel_loss
from attnsem.model import Network
from attnsem.paper import Settings
from attnsem.training import Split
from benchmarks import plain
from benchmarks.measure import Limits, Row, compare, seconds

LABELS = 20
SIZES = {"train_size": 512, "image_size": 448}


@dataclass(frozen=True)
class Setting:
    """What all parts share; folder: for temporary files, photos: a folder of JPEGs or None."""

    device: torch.device
    batch: int
    rounds: int
    limits: Limits
    folder: Path
    photos: Path | None

    @cached_property
    def paths(self) -> list[Path]:
        """A batch of photographs, or of scenes enlarged to VOC2007's usual size with a camera's noise."""
        count = self.batch
        if self.photos:
            return sorted(self.photos.glob("*.jpg"))[:count]
        random, paths = np.random.default_rng(0), []
        for index in range(count):
            scene = scenes.draw(f"scene{index:05}", seed=0).resize((500, 375), Image.Resampling.BICUBIC)
            noisy = np.asarray(scene) + random.normal(0, 6, (375, 500, 3))
            paths.append(self.folder / f"{index}.jpg")
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
        return paths

    @cached_property
    def prepared(self) -> Prepared:
        """The same photographs as the user's own data set, for training and for testing."""
        targets = pd.DataFrame(self.targets, columns=[f"label{k}" for k in range(LABELS)])
        rows = []
        for split in ("train", "test"):
            (self.folder / split).mkdir()
            for path in self.paths:
                (self.folder / split / path.name).symlink_to(path.resolve())
            names = [f"{split}/{path.name}" for path in self.paths]
            rows.append(targets.assign(image=names, split=split))
        table = self.folder / "photographs.csv"
        pd.concat(rows).to_csv(table, index=False)
        return prepare(datasets.load(str(table), data=self.folder), data=self.folder, **SIZES)

    @cached_property
    def targets(self) -> np.ndarray:
        return (np.random.default_rng(1).random((len(self.paths), LABELS)) < 0.08).astype(np.int8)

    def settings(self, stage: int, **changed: object) -> Settings:
        given = {"weights": "none", "precision": fastest_precision(self.device.type), "batch_size": self.batch}
        return Settings(dataset="photographs", stage=stage, **SIZES, **given | changed)

    def split(self, settings: Settings, fabric: Fabric, network: Network) -> Split:
        """The training split as a stage has it, cached features included."""
        return stages.splits(fabric, network, self.prepared, settings)[0]

    def loader(self) -> torch.utils.data.DataLoader:
        return plain.loader(plain.Photographs(self.paths, self.targets, **SIZES), self.batch)

    def compare(self, what: str, plain: Callable, ours: Callable, **given: object) -> Row:
        return compare(what, plain, ours, **{"device": self.device, "rounds": self.rounds, "unit": "an image"} | given)


def networks(setting: Setting, settings: Settings) -> tuple[Network, Network]:
    """A stage's network twice: contiguous as the plain loop has it, and channels_last as ours."""
    network = stages.network_of(settings, LABELS).to(setting.device)
    return network, copy.deepcopy(network).to(memory_format=torch.channels_last)


def sgd(network: Network, settings: Settings) -> torch.optim.SGD:
    training.set_modes(network, stages.trained_parts(settings, network), settings)
    return training.sgd([parameter for parameter in network.parameters() if parameter.requires_grad], settings)


def learner_of(network: Network, settings: Settings, fabric: Fabric) -> training.Learner:
    trained, scored = stages.trained_parts(settings, network), stages.scored_part(settings)
    return training.Learner(fabric, network, settings, trained, scored)


def input_rows(setting: Setting) -> Iterator[Row]:
    """On one core: an epoch's batches, without training on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = setting.settings(1, precision="32-true")
    fabric = launched("cpu", precision="32-true")
    inputs = setting.prepared.images("trainval", SIZES["train_size"])
    split, loader = Split(inputs, torch.from_numpy(setting.targets), settings), setting.loader()

    def drain(batches: Iterator) -> None:
        for _ in batches:
            pass

    yield setting.compare(
        "input: decode, resize, crop, flip / crop, flip of prepared arrays, one core",
        lambda: drain(loader),
        lambda: drain(split.training_batches(fabric, 0)),
        of=len(inputs),
        limit=(SIZES["train_size"] ** 2 * 2 + SIZES["image_size"] ** 2 * 5) * 3 / setting.limits.bytes,
    )
    torch.set_num_threads(threads)


def step_rows(setting: Setting) -> Iterator[Row]:
    for precision in dict.fromkeys(["32-true", fastest_precision(setting.device.type)]):
        yield from steps(setting, precision)


def steps(setting: Setting, precision: str) -> Iterator[Row]:
    """DenseNet-121 at 448 pixels on a batch that is already on the device."""
    settings = setting.settings(1, precision=precision)
    contiguous, ours = networks(setting, settings)
    batch = min(setting.batch, 8) if setting.device.type == "cpu" else setting.batch
    images = torch.rand(batch, 3, SIZES["image_size"], SIZES["image_size"], device=setting.device)
    last = images.to(memory_format=torch.channels_last)
    targets = torch.from_numpy(setting.targets[:batch]).to(setting.device)
    fabric = launched(setting.device.type, precision=precision)

    def forward(network: Network, batch: torch.Tensor) -> None:
        network.eval()
        with torch.inference_mode():
            network(batch)

    def step(network: Network, batch: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        network.train()
        optimizer.zero_grad()
        multilabel_loss(network(batch).baseline, targets).backward()
        optimizer.step()

    def autocast(work: Callable, *arguments: object) -> None:
        with fabric.autocast():
            work(*arguments)

    for name, work, given in (
        ("forward", forward, [(), ()]),
        ("training step", step, [(sgd(n, settings),) for n in (contiguous, ours)]),
    ):
        slow, fast = partial(work, contiguous, images, *given[0]), partial(autocast, work, ours, last, *given[1])
        least = setting.limits.least(fast, precision) / batch
        yield setting.compare(
            f"{name}: contiguous float32 / channels_last {precision}", slow, fast, of=batch, limit=least
        )


def stage_rows(setting: Setting) -> Iterator[Row]:
    for stage in (1, 2, 3, 4):
        yield from epochs_of_stage(setting, stage)


def epochs_of_stage(setting: Setting, stage: int) -> Iterator[Row]:
    """An epoch from JPEGs and from prepared arrays (stages 2 and 3: from cached features)."""
    settings = setting.settings(stage, feature_cache=1 if stage in (2, 3) else 0)
    fabric = launched(setting.device.type, precision=settings.precision)
    scored, count = stages.scored_part(settings), len(setting.paths)
    contiguous, network = networks(setting, settings)
    split, loader = setting.split(settings, fabric, network), setting.loader()
    trained = stages.trained_parts(settings, network)
    slow_optimizer, learner = sgd(contiguous, settings), learner_of(network, settings, fabric)

    def slow() -> None:
        training.set_modes(contiguous, trained, settings)
        plain.train(contiguous, slow_optimizer, loader, scored)

    def fast(split: Split = split) -> None:
        training.train_epoch(learner, split, 0)

    what = "cached features" if settings.feature_cache else "prepared arrays"
    name = f"stage {stage}, an epoch"
    yield setting.compare(f"{name}: plain script / {what}, {settings.precision}", slow, fast, of=count)
    if settings.feature_cache:
        whole = Split(setting.prepared.images("trainval", SIZES["train_size"]), split.targets, settings)
        yield setting.compare(
            f"{name}: our own without / with cached features", lambda: fast(whole), fast, of=count, plain_script=False
        )
    else:
        ready = Ready(split, fabric)
        yield setting.compare(
            f"{name}: batches already there / read, cropped and flipped",
            lambda: fast(ready),
            fast,
            of=count,
            plain_script=False,
        )


class Ready:
    """A split whose batches of an epoch are on the device before it begins."""

    def __init__(self, split: Split, fabric: Fabric):
        self.settings, self.targets = split.settings, split.targets
        self.batches = list(split.training_batches(fabric, 0))

    def training_batches(self, *_: object) -> list:
        return self.batches


def evaluation_rows(setting: Setting) -> Iterator[Row]:
    for stage in (1, 2, 4):
        settings = setting.settings(stage)
        fabric = launched(setting.device.type, precision=settings.precision)
        contiguous, network = networks(setting, settings)
        _, test = stages.splits(fabric, network, setting.prepared, settings)
        photographs = plain.Photographs(setting.paths, setting.targets, train_size=448, image_size=448)
        loader, scored = plain.loader(photographs, setting.batch), stages.scored_part(settings)
        yield setting.compare(
            f"stage {stage}, evaluation: plain script / prepared arrays, {settings.precision}",
            lambda network=contiguous, loader=loader, scored=scored: plain.evaluate(network, loader, scored),
            lambda fabric=fabric, network=network, test=test: training.evaluate(fabric, network, test),
            of=len(setting.paths),
        )


def compile_rows(setting: Setting) -> Iterator[Row]:
    """`compile=True` beside the default; compilation is in the untimed first call and its seconds are printed."""
    settings = setting.settings(1)
    _, network = networks(setting, settings)
    fused = copy.deepcopy(network)
    engine.compiled(fused)
    fabric = launched(setting.device.type, precision=settings.precision)
    inputs = setting.prepared.images("trainval", SIZES["train_size"])
    split = Split(inputs, torch.from_numpy(setting.targets), settings)

    def epoch_of(network: Network) -> Callable[[], None]:
        learner = learner_of(network, settings, fabric)
        return lambda: training.train_epoch(learner, split, 0)

    eager, compiled = epoch_of(network), epoch_of(fused)
    print(f"compilation and the first epoch: {seconds(compiled, setting.device):.0f} s", flush=True)
    yield setting.compare("stage 1, an epoch: eager / compiled", eager, compiled, of=len(inputs), plain_script=False)


def batch_rows(setting: Setting) -> Iterator[Row]:
    """On a GPU: the paper's batch beside larger ones, compiled and not, until the memory is full."""
    if setting.device.type != "cuda":
        return
    for fused in (False, True):
        usual = training_step(setting, setting.batch, fused)
        with suppress(torch.OutOfMemoryError):
            for batch in (setting.batch * 2**k for k in range(10)):
                torch.cuda.reset_peak_memory_stats()
                step = training_step(setting, batch, fused)
                least = setting.limits.least(training_step(setting, batch, False), "bf16-mixed") / batch
                yield setting.compare(
                    f"training step{', compiled' if fused else ''}: batch {setting.batch} / batch {batch}",
                    usual,
                    step,
                    of=batch,
                    plain_of=setting.batch,
                    limit=least,
                )
                print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


def training_step(setting: Setting, batch: int, fused: bool) -> Callable[[], None]:
    """Stage 1's step as training.train_epoch does it, on a batch that is already on the device."""
    settings = setting.settings(1, batch_size=batch)
    _, network = networks(setting, settings)
    if fused:
        engine.compiled(network)
    fabric = launched(setting.device.type, precision=settings.precision)
    model, optimizer = fabric.setup(network, sgd(network, settings))
    shape = (batch, 3, SIZES["image_size"], SIZES["image_size"])
    images = torch.rand(shape, device=setting.device).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(batch, LABELS, device=setting.device)

    def step() -> None:
        optimizer.zero_grad()
        fabric.backward(multilabel_loss(model(images).baseline, targets))
        optimizer.step()

    return step


def metric_rows(setting: Setting) -> Iterator[Row]:
    for images, labels in ((4952, 20), (10_000, 38)):
        random = np.random.default_rng(0)
        targets = random.choice([0, 1, -1], p=[0.91, 0.08, 0.01], size=(images, labels)).astype(np.int8)
        scores, names = random.normal(size=targets.shape) + targets, [str(label) for label in range(labels)]
        yield setting.compare(
            f"nine AP readings of {images} × {labels}: scikit-learn in a loop / ours",
            lambda targets=targets, scores=scores: plain.nine_readings(targets, scores),
            lambda targets=targets, scores=scores, names=names: metrics.readings(targets, scores, names),
            of=1,
            unit="a score file",
        )
        yield setting.compare(
            f"bootstrap of {images} × {labels}: scikit-learn in a loop (10 resamples) / ours (1,000)",
            lambda targets=targets, scores=scores: plain.bootstrap(targets, scores, 10),
            lambda targets=targets, scores=scores: bootstrap(targets, scores, resamples=1000),
            of=1000,
            plain_of=10,
            unit="a resample",
        )


def study_rows(setting: Setting) -> Iterator[Row]:
    """`make study` on `scenes` in a prepared environment, installing left out.

    Plain: the same four stages by the plain loop, one epoch of each timed and taken as often as the stage has
    epochs; without notebooks, figures or evaluation.
    """
    runs = setting.folder / "study"
    command = ["make", "study", f"DATA={setting.folder / 'scenes'}", f"RUNS={runs}"]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    ours = time.perf_counter() - started
    manifests = [json.loads(path.read_text()) for path in sorted(runs.rglob("manifest.json"))]
    images = setting.folder / "jpegs"
    images.mkdir()
    dataset = scenes.load()
    ids = dataset.splits["trainval"]
    for image_id in ids:
        dataset.open(image_id).save(images / f"{image_id}.jpg", quality=95)
    slow = 0.0
    for manifest in manifests:
        settings = Settings(**manifest["parameters"]).model_copy(update={"precision": "32-true"})
        network = stages.network_of(settings, len(dataset.labels))
        optimizer = sgd(network, settings)
        photographs = plain.Photographs(
            [images / f"{image_id}.jpg" for image_id in ids],
            dataset.targets.loc[list(ids)].to_numpy(),
            train_size=settings.train_size,
            image_size=settings.image_size,
        )
        loader = plain.loader(photographs, settings.batch_size)
        epoch = seconds(
            lambda network=network, optimizer=optimizer, loader=loader, settings=settings: plain.train(
                network, optimizer, loader, stages.scored_part(settings)
            ),
            torch.device("cpu"),
        )
        slow += epoch * settings.epochs
    row = Row("make study: plain loops, training only / all of it", "a study", slow, ours, *3 * [slow / ours])
    peak = max(manifest["peak_memory_gib"] for manifest in manifests)
    print(f"| {row.what} | {slow:.0f} | {ours:.0f} s | {row.ratio:.2f} | peak {peak} GiB in a stage |")
    yield row


def import_rows(setting: Setting) -> Iterator[Row]:
    """What a notebook of a stage pays before it begins: a ratio of 0.63 is 1.6 times the import of torch."""

    def imported(module: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)

    yield setting.compare(
        "a fresh process: import torch / import attnsem.stages",
        imported("torch"),
        imported("attnsem.stages"),
        of=1,
        unit="a process",
    )


PARTS = {
    "imports": import_rows,
    "input": input_rows,
    "steps": step_rows,
    "stages": stage_rows,
    "evaluation": evaluation_rows,
    "batches": batch_rows,
    "metrics": metric_rows,
    "study": study_rows,
    "compile": compile_rows,
}
