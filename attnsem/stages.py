"""The four stages of section 3.1: what each trains, from what, with what."""

import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from attnsem import StudyError, backbones, metrics, paper
from attnsem.datasets.features import cached, cached_maps
from attnsem.datasets.prepared import Prepared
from attnsem.datasets.similarity import similarity
from attnsem.engine import Fabric, fastest_precision, held_by_all, launched, memory_given_back
from attnsem.files import checksum, held, rooted, write_arrays, write_json, write_tensors
from attnsem.model import Network
from attnsem.notebook import command_line
from attnsem.paper import VARIANT, Settings, Variant
from attnsem.runs import Run, complete_run, cost, environment, lineage
from attnsem.training import Learner, Split, fit, out_of_fold, seed_torch, set_modes

TRAINED = {
    1: ("backbone", "classifier"),
    2: ("attention",),
    3: ("semantic", "fusion"),
    4: ("backbone", "classifier", "attention", "semantic", "fusion"),
}


@memory_given_back()
def train(
    stage: int,
    *,
    runs: str | Path = "runs",
    data: str | Path = "data",
    parents: str | Path | None = None,
    device: str = "auto",
    wait: bool = False,
    processes: int = 1,
    nodes: int = 1,
    **parameters: object,
) -> Run:
    """Trains and evaluates a stage, or gives the complete run with the same parameters; resumes if interrupted.

    parents: folder of runs that has the parent stage; None is `runs`.
    parameters: of paper.Settings; None takes the data set's default; what paper.INHERITED names is the parent's.
    wait: for another process that holds the run's folder, in place of an error.
    processes: on each of the nodes, from the command line only; the global batch stays batch_size.
    Raises StudyError on a missing or changed parent, other parameters in the folder, or another writer.
    """
    settings, runs, data = paper.settings(stage, **parameters), rooted(runs), rooted(data)
    before, parent = paper.before(settings), None
    if before:
        parent = complete_run(before, rooted(parents or runs), dataset=parameters["dataset"], data=data)
        inherited, own = parent.settings.model_dump(include=paper.INHERITED), settings.model_dump()
        for name in inherited.keys() & {name for name, value in parameters.items() if value is not None}:
            if Path(str(own[name])).name != str(inherited[name]):  # of a weight file its name is kept
                fault = f"stage {stage} inherits {name} {inherited[name]!r} from {parent.folder}, not {own[name]!r}"
                raise StudyError(f"{fault}; leave it out, or train stage 1 with it in another folder by -p runs")
        settings = settings.model_copy(update=inherited)
    prepared = Prepared.load(str(parameters["dataset"]), data)
    run = Run.of(settings, runs)
    begun = run.origin  # read once: of an interrupted run it is in the file of its whole state
    if settings.precision == "auto":
        precision = begun["parameters"]["precision"] if begun else fastest_precision(device)
        settings = settings.model_copy(update={"precision": precision})
    files = {name: rooted(getattr(settings, name)) for name in ("weights", "similarity")}
    origin = {
        "parameters": settings.model_dump() | {name: Path(getattr(settings, name)).name for name in files},
        "parent_sha256": parent and parent.manifest["checkpoint_sha256"],
        "data_fingerprint": prepared.fingerprint,
        **{f"{name}_sha256": checksum(file) if file.is_file() else None for name, file in files.items()},
    }
    if parent is not None and parent.manifest["data_fingerprint"] != prepared.fingerprint:
        raise StudyError(f"{parent.folder} was trained on another state of {prepared.name}; delete it, train it again")
    if begun:
        refuse_other(run, begun, origin)
    if run.complete:
        print(f"{run.folder.relative_to(runs)} is complete")
        with suppress(StudyError), held(run.folder):  # what a kill after the manifest may have left
            run.resume.unlink(missing_ok=True)
        return run
    fabric = launched(device, precision=settings.precision, processes=processes, nodes=nodes)
    if (own := fabric.strategy.precision.precision) != settings.precision:
        raise StudyError(f"a {fabric.device.type} has no precision {settings.precision}; give {own} or 32-true")
    with held_by_all(fabric, run.folder, wait=wait):
        if not run.complete:  # the process that was waited for may have been at the same
            run_stage(fabric, settings, run, parent, prepared, origin)
    return run


def refuse_other(run: Run, begun: dict, origin: dict) -> None:
    """Raises StudyError when a folder's run has other parameters, data, parent or files than the one asked for."""
    earlier = paper.checked(Settings, begun["parameters"]).model_dump()
    for name, value in origin["parameters"].items():
        if earlier[name] != value:
            remedy = "delete that folder, or give another one by -p runs"
            raise StudyError(f"{run.folder} holds a run with {name} {earlier[name]!r}, not {value!r}; {remedy}")
    for name, what in {"parent_sha256": "its parent stage", "data_fingerprint": "the prepared data"}.items():
        if begun[name] != origin[name]:
            raise StudyError(f"{what} has changed since {run.folder} was trained; delete that folder to train it anew")
    for name in ("weights", "similarity"):
        earlier, now = (one.get(f"{name}_sha256") for one in (begun, origin))
        if earlier and now and earlier != now:
            fault = f"the file {name} has SHA-256 {now[:12]}…, but {run.folder} was trained with {earlier[:12]}…"
            raise StudyError(f"{fault}; give that one, delete that folder, or give another folder by -p runs")


def variant_of(settings: Settings) -> Variant:
    """The parts that a stage's network has: stage 1 none, stage 2 attention, literally with SE1 and its layer."""
    if settings.stage == 2 and settings.attention_objective == "confidence":
        return Variant(attention=True, head="none")
    return VARIANT[{1: "densenet", 2: "att"}.get(settings.stage, settings.variant)]


def scored_part(settings: Settings) -> str:
    """The logits that a stage is trained on and judged by."""
    variant = variant_of(settings)
    if variant.head == "none":
        return "attended" if variant.attention else "baseline"
    return "fused" if variant.fused else "semantic"


def trained_parts(settings: Settings, network: Network) -> tuple[str, ...]:
    if settings.stage == 1 and not settings.train_backbone:
        return ("classifier",)
    is_literal = settings.stage == 2 and settings.attention_objective == "literal"
    parts = TRAINED[3] + TRAINED[2] if is_literal else TRAINED[settings.stage]
    return tuple(part for part in parts if getattr(network, part) is not None)


def network_of(settings: Settings, labels: int, state: dict | None = None) -> Network:
    """A stage's network, with its parent's tensors where they are given."""
    seed_torch(settings.seed, settings.stage)
    backbone = backbones.build(settings.backbone, "none" if state else settings.weights)
    readings = settings.model_dump(include={"gate", "alpha", "alpha_warmup"})
    sizes = {"labels": labels, "per_label": settings.channels_per_label}
    network = Network(backbone=backbone, variant=variant_of(settings), **sizes, **readings)
    if state:
        anew = ("semantic.", "fusion.") if settings.stage == 3 else ()  # whatever the parent has
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith(anew)}, strict=False)
    return network


def load(run: Run) -> Network:
    """The trained network of a complete run, in evaluation mode."""
    state = run.state()
    network = network_of(run.settings, len(run.manifest["labels"]), state)
    network.load_state_dict(state)
    return network.eval()


def run_stage(
    fabric: Fabric, settings: Settings, run: Run, parent: Run | None, prepared: Prepared, origin: dict
) -> None:
    network = network_of(settings, len(prepared.labels), parent and parent.state()).to(fabric.device)
    refuse_sizes(network, settings, len(prepared.ids(settings.train_split)))
    train_split, test_split = splits(fabric, network, prepared, settings, parent)
    scored, trained = scored_part(settings), trained_parts(settings, network)
    learner = Learner(fabric, network, settings, trained, scored)
    progress, logits = fit(learner, run, train_split, test_split, origin)
    if fabric.is_global_zero:
        write_tensors(run.checkpoint, network.state_dict())
        write_scores(run, prepared, settings, {"scores": logits[scored]} | logits)
        write_manifest(run, prepared, origin, progress.seconds, fabric, begun_on=progress.environments[:-1])
        run.resume.unlink(missing_ok=True)


@torch.no_grad()
def refuse_sizes(network: Network, settings: Settings, images: int) -> None:
    """StudyError where a layer refuses images of that size, or BatchNorm the smallest batch of an epoch's `images`."""
    state, size = deepcopy(network.state_dict()), settings.image_size
    set_modes(network, trained_parts(settings, network), settings)

    def fault(batch: int, side: int) -> str:
        try:
            x = network.forward_features(torch.zeros(batch, 3, side, side, device=network.backbone.mean.device))
            if x.dim() != 4 or x.shape[1] != network.backbone.channels:
                shapes = f"features {tuple(x.shape)}, not (N, {network.backbone.channels}, h, w)"
                raise StudyError(f"backbone {settings.backbone} gives {shapes}; mend what it returns, or its channels")
            network.forward_head(x)
        except StudyError:
            raise
        except Exception as error:  # of whatever network
            return str(error).partition("\n")[0] or type(error).__name__
        is_enough = x.shape[2:].numel() > (network.attention is not None)
        return "" if is_enough else f"its map has {x.shape[2]} × {x.shape[3]} positions"

    smallest = images % settings.batch_size or settings.batch_size
    batch = min(smallest, 2)
    if reason := fault(batch, size):
        if smallest == 1 < images and not fault(2, size):
            batch_size = next(n for n in [*range(settings.batch_size + 1, images), images] if images % n != 1)
            raise StudyError(f"the last batch of an epoch has one image ({reason}); give batch_size {batch_size}")
        sides = sorted(range(32, 545, 32), key=lambda side: (side < size, abs(side - size)))
        side = next((side for side in sides if not fault(batch, side)), None)
        remedy = f"prepare and train with image_size {side}" if side else "give another backbone"
        raise StudyError(f"backbone {settings.backbone} cannot take images of {size} pixels ({reason}); {remedy}")
    network.load_state_dict(state)


def splits(
    fabric: Fabric, network: Network, prepared: Prepared, settings: Settings, parent: Run | None = None
) -> tuple[Split, Split]:
    """Training and test inputs: cached features where the backbone stands still and a cache is asked for, in stage 3
    what the attention makes of them."""
    names = settings.train_split, settings.test_split
    targets = [torch.from_numpy(prepared.targets(name)) for name in names]
    is_frozen = settings.stage in (2, 3) or (settings.stage == 1 and not settings.train_backbone)
    if settings.baseline_folds and settings.stage == 3 and not settings.feature_cache:
        raise StudyError("baseline_folds needs a feature_cache in stage 3")
    if is_frozen and settings.feature_cache:
        network.backbone.to(memory_format=torch.channels_last)
        views = dict(zip(names, (settings.feature_cache, 0), strict=True))
        inputs = [cached(fabric, network.backbone, prepared, name, settings, views=views[name]) for name in names]
        if settings.stage == 3 and network.attention is not None and settings.gate != "pooled":
            maps = [cached_maps(fabric, network, features) for features in inputs]
            if settings.baseline_folds:
                first = lineage(parent, parent.folder.parents[3])[0].settings
                unseen = out_of_fold(inputs[0], targets[0], first, settings.baseline_folds)
                maps[0] = replace(maps[0], baseline=unseen)
            inputs = maps
    else:
        sizes = settings.train_size, settings.image_size
        inputs = [prepared.images(name, size) for name, size in zip(names, sizes, strict=True)]
    parts = zip(inputs, targets, names, strict=True)
    train_split, test_split = (Split(*part, settings, prepared.ids(name)) for *part, name in parts)
    if settings.similarity and settings.stage > 2:
        alike = similarity(rooted(settings.similarity), prepared.labels, settings.similarity_seed)
        train_split = replace(train_split, similarity=torch.from_numpy(alike))
    return train_split, test_split


def write_scores(run: Run, prepared: Prepared, settings: Settings, logits: dict[str, np.ndarray]) -> None:
    """scores.npz and metrics.json. logits: (N, C) of each part the network has, and `scores`, those it is judged by.

    An mAP is null where no label has a positive: JSON has no nan.
    """
    targets = prepared.targets(settings.test_split)
    images = {"ids": np.array(prepared.ids(settings.test_split)), "labels": np.array(prepared.labels)}
    write_arrays(run.folder / "scores.npz", images | {"targets": targets} | logits)
    table = metrics.readings(targets, logits["scores"], prepared.labels)
    decisions = metrics.precision_recall_f1(targets, logits["scores"])
    mean_ap = {name: 100 * metrics.mean_average_precision(targets, part) for name, part in logits.items()}
    mean_ap = {name: None if np.isnan(value) else value for name, value in mean_ap.items()}
    content = {
        "mAP": mean_ap.pop("scores"),
        "parts": mean_ap,
        "readings": {" ".join(reading): row.dropna().to_dict() for reading, row in table.iterrows()},
        "precision_recall_f1": {threshold: row.dropna().to_dict() for threshold, row in decisions.iterrows()},
    }
    write_json(run.folder / "metrics.json", content)


def write_manifest(run: Run, prepared: Prepared, origin: dict, seconds: float, fabric: Fabric, **facts: object) -> None:
    """Last of all, for it makes the run complete. facts: what else it says, as what it was begun on."""
    given, machine = origin["parameters"], environment(fabric.device) | cost(seconds, fabric.device)
    sizes = {given["train_split"]: given["train_size"], given["test_split"]: given["image_size"]}
    manifest = {
        "labels": prepared.labels,
        "arrays_sha256": {split: prepared.images(split, size).sha256 for split, size in sizes.items()},
        "checkpoint_sha256": checksum(run.checkpoint),
        "scores_sha256": checksum(run.folder / "scores.npz"),
        "finished": time.strftime("%Y-%m-%d"),
        "processes": fabric.world_size,
    }
    write_json(run.folder / "manifest.json", origin | manifest | facts | machine)


if __name__ == "__main__":
    options = {"processes": (1, "on each node, one for each GPU"), "nodes": (1, "of the cluster")}
    command_line(train, "Train and evaluate a stage, on one or several processes.", "stage", [*TRAINED], **options)
