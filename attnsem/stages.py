"""The four stages of section 3.1: what each trains, from what, with what."""

import argparse
import ast
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from attnsem import StudyError, backbones, metrics, paper
from attnsem.arrays import Prepared
from attnsem.datasets.similarity import similarity
from attnsem.engine import fastest_precision, held_by_all, launched, memory_given_back
from attnsem.features import cached, cached_maps
from attnsem.files import checksum, held, rooted, write_arrays, write_json, write_tensors
from attnsem.model import Network
from attnsem.paper import VARIANTS, Settings, Variant
from attnsem.runs import Run, cost, environment, lineage, parent_of
from attnsem.training import Progress, Split, evaluate, fit, out_of_fold, seed_torch

TRAINED = {
    1: ("backbone", "classifier"),
    2: ("attention",),
    3: ("semantic", "fusion"),
    4: ("backbone", "classifier", "attention", "semantic", "fusion"),
}
FIRST_OF = {3: ("semantic.", "fusion.")}  # parts that a stage starts anew, whatever its parent has


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
    settings = paper.settings(stage, **parameters)
    runs, data = rooted(runs), rooted(data)
    parent = parent_of(settings, rooted(parents or runs))
    if parent is not None:
        settings = paper.inherit(settings, parent.settings)
    prepared = Prepared.load(settings.dataset, data)
    run = Run.of(settings, runs)
    begun = run.origin
    if settings.precision == "auto":
        precision = begun["parameters"]["precision"] if begun else fastest_precision(device)
        settings = replace(settings, precision=precision)
    origin = {
        "parameters": asdict(
            replace(settings, weights=Path(settings.weights).name, similarity=Path(settings.similarity).name)
        ),
        "parent_sha256": parent and parent.manifest["checkpoint_sha256"],
        "data_fingerprint": prepared.fingerprint,
    }
    if parent is not None and parent.manifest["data_fingerprint"] != prepared.fingerprint:
        raise StudyError(
            f"{parent.folder} was trained on another state of {prepared.name}; delete it and train it again"
        )
    if begun:
        refuse_other(run, begun, origin)
    if run.complete:
        print(f"{run.folder.relative_to(runs)} is complete")
        with suppress(StudyError), held(run.folder):  # what a kill after the manifest may have left
            run.resume.unlink(missing_ok=True)
        return run
    fabric = launched(device, precision=settings.precision, processes=processes, nodes=nodes)
    with held_by_all(fabric, run.folder, wait=wait):
        if not run.complete:  # the process that was waited for may have been at the same
            run_stage(fabric, settings, run, parent, prepared, origin, data)
    return run


def refuse_other(run: Run, found: dict, wanted: dict) -> None:
    """Raises StudyError when a folder's run has other parameters, data or parent than the one asked for."""
    held_by = asdict(Settings(**found["parameters"]))
    for name, value in wanted["parameters"].items():
        if held_by[name] != value:
            raise StudyError(
                f"{run.folder} holds a run with {name} {held_by[name]!r}, not {value!r}; "
                f"delete that folder, or give another one by -p runs"
            )
    for name, what in {"parent_sha256": "its parent stage", "data_fingerprint": "the prepared data"}.items():
        if found[name] != wanted[name]:
            raise StudyError(f"{what} has changed since {run.folder} was trained; delete that folder to train it anew")


def literal_attention(settings: Settings) -> bool:
    return settings.stage == 2 and settings.attention_objective == "literal"


def variant_of(settings: Settings) -> Variant:
    """The parts that a stage's network has: stage 1 none, stage 2 attention, literally with SE1 and its layer."""
    if settings.stage == 1:
        return VARIANTS["densenet"]
    if settings.stage == 2:
        return VARIANTS["att"] if literal_attention(settings) else Variant(attention=True, head="none")
    return paper.variant(settings.variant)


def scored_part(settings: Settings) -> str:
    """The logits that a stage is trained on and judged by."""
    variant = variant_of(settings)
    if variant.head == "none":
        return "attended" if variant.attention else "baseline"
    return "fused" if variant.fused else "semantic"


def trained_parts(settings: Settings, network: Network) -> tuple[str, ...]:
    if settings.stage == 1 and not settings.train_backbone:
        return ("classifier",)
    parts = TRAINED[3] + TRAINED[2] if literal_attention(settings) else TRAINED[settings.stage]
    return tuple(part for part in parts if getattr(network, part) is not None)


def network_of(settings: Settings, labels: int, state: dict | None = None) -> Network:
    """A stage's network, with its parent's tensors where they are given."""
    seed_torch(settings.seed, settings.stage)
    backbone = backbones.build(settings.backbone, "none" if state else settings.weights)
    network = Network(
        backbone=backbone,
        labels=labels,
        variant=variant_of(settings),
        gate=settings.gate,
        alpha=(settings.alpha_min, settings.alpha_max),
        per_label=settings.channels_per_label,
    )
    if state:
        kept = {k: v for k, v in state.items() if not k.startswith(FIRST_OF.get(settings.stage, ()))}
        network.load_state_dict(kept, strict=False)
    return network


def load(run: Run) -> Network:
    """The trained network of a complete run, in evaluation mode."""
    network = network_of(run.settings, len(run.manifest["labels"]), run.state())
    network.load_state_dict(run.state())
    return network.eval()


def run_stage(
    fabric: Fabric, settings: Settings, run: Run, parent: Run | None, prepared: Prepared, origin: dict, data: Path
) -> None:
    network = network_of(settings, len(prepared.labels), parent.state() if parent else None)
    network.to(fabric.device)
    train_split, test_split = splits(fabric, network, prepared, settings, data, parent)
    if settings.similarity and settings.stage > 2:
        alike = similarity(rooted(settings.similarity), prepared.labels, settings.similarity_seed)
        train_split = replace(train_split, similarity=torch.from_numpy(alike))
    scored = scored_part(settings)
    progress = fit(
        fabric,
        network,
        trained=trained_parts(settings, network),
        scored=scored,
        train=train_split,
        test=test_split,
        settings=settings,
        run=run,
        origin=origin,
    )
    logits = evaluate(fabric, network, test_split)
    if fabric.is_global_zero:
        write_tensors(run.checkpoint, network.state_dict())
        finish(run, origin, prepared, settings, logits, scored, progress, fabric)


def splits(
    fabric: Fabric, network: Network, prepared: Prepared, settings: Settings, data: Path, parent: Run | None = None
) -> tuple[Split, Split]:
    """Training and test inputs: cached features where the backbone stands still and a cache is asked for, in stage 3
    what the attention makes of them."""
    names = settings.train_split, settings.test_split
    targets = [torch.from_numpy(prepared.targets(name)) for name in names]
    still = settings.stage in (2, 3) or (settings.stage == 1 and not settings.train_backbone)
    if still and settings.feature_cache:
        network.backbone.to(memory_format=torch.channels_last)
        views = settings.feature_cache, 0
        inputs = [
            cached(fabric, network.backbone, prepared, name, settings, views=number, data=data)
            for name, number in zip(names, views, strict=True)
        ]
        if settings.stage == 3 and network.attention is not None and settings.gate != "pooled":
            maps = [cached_maps(fabric, network, features) for features in inputs]
            if settings.baseline_folds:
                unseen = out_of_fold(inputs[0], targets[0], first_stage(parent), settings.baseline_folds)
                maps[0] = replace(maps[0], baseline=unseen)
            inputs = maps
    else:
        if settings.baseline_folds and settings.stage == 3:
            raise StudyError("baseline_folds needs a feature_cache in stage 3")
        sizes = settings.train_size, settings.image_size
        inputs = [prepared.images(name, size) for name, size in zip(names, sizes, strict=True)]
    parts = zip(inputs, targets, names, strict=True)
    return tuple(Split(found, target, settings, ids=prepared.ids(name)) for found, target, name in parts)


def first_stage(parent: Run) -> Settings:
    """Stage 1's settings, for baseline_folds; StudyError unless its backbone stood still."""
    found = lineage(parent, parent.folder.parents[3])[0].settings
    if found.train_backbone:
        raise StudyError(
            "baseline_folds needs a stage 1 that trained its classifier alone, for the backbone has seen every "
            "training image; train it with train_backbone False, or leave baseline_folds 0"
        )
    return found


def finish(
    run: Run,
    origin: dict,
    prepared: Prepared,
    settings: Settings,
    logits: dict[str, np.ndarray],
    scored: str,
    progress: Progress,
    fabric: Fabric,
) -> None:
    """Writes scores, metrics and, last, the manifest that makes the run complete."""
    targets = prepared.targets(settings.test_split)
    description = {"ids": np.array(prepared.ids(settings.test_split)), "labels": np.array(prepared.labels)}
    write_arrays(run.folder / "scores.npz", description | {"targets": targets, "scores": logits[scored]} | logits)
    table = metrics.readings(targets, logits[scored], prepared.labels)
    write_json(
        run.folder / "metrics.json",
        {
            "mAP": table.loc[("none", "ignore"), "mAP"],
            "parts": {part: 100 * metrics.mean_average_precision(targets, found) for part, found in logits.items()},
            "readings": {" ".join(reading): row.dropna().to_dict() for reading, row in table.iterrows()},
        },
    )
    write_json(
        run.folder / "manifest.json",
        origin
        | {
            "labels": prepared.labels,
            "checkpoint_sha256": checksum(run.checkpoint),
            "scores_sha256": checksum(run.folder / "scores.npz"),
            "weights_sha256": checksum(path) if (path := rooted(settings.weights)).is_file() else None,
            "similarity_sha256": checksum(rooted(settings.similarity)) if settings.similarity else None,
            "finished": time.strftime("%Y-%m-%d"),
            "processes": fabric.world_size,
            "begun_on": progress.environments[:-1],  # other devices or versions, before it was interrupted
            **environment(fabric.device),
            **cost(progress.seconds, fabric.device),
        },
    )
    run.resume.unlink(missing_ok=True)


def value_of(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and evaluate a stage, on one or several processes.")
    parser.add_argument("stage", type=int, choices=sorted(TRAINED))
    parser.add_argument("-p", action="append", nargs=2, default=[], metavar=("NAME", "VALUE"), help="as for papermill")
    parser.add_argument("--processes", type=int, default=1, help="on each node, one for each GPU")
    parser.add_argument("--nodes", type=int, default=1)
    given = parser.parse_args()
    parameters = {name: value_of(value) for name, value in given.p}
    try:
        train(given.stage, processes=given.processes, nodes=given.nodes, **parameters)
    except StudyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
