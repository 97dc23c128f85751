"""`python -m results.heads`: the heads of a run on a frozen backbone, for `make predict`, with their mAP."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from attnsem import StudyError, metrics
from attnsem.analysis.heads import BACKBONE, Heads, checksums, round_kernels
from attnsem.analysis.rows import REPAIR, ROWS, run_of_row
from attnsem.datasets.features import cached
from attnsem.datasets.prepared import Prepared
from attnsem.engine import launched
from attnsem.files import ROOT, checksum, read_json, rooted, write_arrays, write_json
from attnsem.runs import Run
from attnsem.stages import load, scored_part
from attnsem.training import Split, evaluate


def write_heads(run: Run, path: Path, **facts: object) -> None:
    """The heads of a complete run whose backbone was frozen. facts: what else the manifest says, such as mAP."""
    state, network = run.state(), load(run)
    round_kernels(network.backbone)
    floats = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    heads = {key: tensor.half().numpy() for key, tensor in floats.items() if not key.startswith(BACKBONE)}
    if not all(np.isfinite(array).all() for array in heads.values()):
        raise StudyError(f"heads of {run.folder} are too large for float16; they cannot be written so")
    write_arrays(path, heads)
    names = ("parameters", "labels", "data_fingerprint", "git", "finished", "checkpoint_sha256")
    origin = {name: run.manifest[name] for name in names}
    trained_on = {"sha256": checksum(path), "backbone": checksums(network.backbone)}
    write_json(path.with_suffix(".json"), origin | facts | trained_on)


def mean_ap(network: torch.nn.Module, run: Run, prepared: Prepared, split: str) -> float:
    """In %, over whole images, by the backbone's cached features and heads in float32."""
    settings, targets = run.settings, prepared.targets(split)
    trained_in, in_float32 = (launched("cpu", precision=precision) for precision in (settings.precision, "32-true"))
    features = cached(trained_in, network.backbone, prepared, split, settings, views=0)
    logits = evaluate(in_float32, network, Split(features, torch.from_numpy(targets), settings))
    return round(100 * metrics.mean_average_precision(targets, logits[scored_part(settings)]), 2)


def write(row: str, dataset: str, seed: int, runs: Path, data: Path, out: Path) -> None:
    runs, data, path = map(rooted, (runs, data, out))
    run, prepared = run_of_row(row, 3, dataset=dataset, seed=seed, runs=runs), Prepared.load(dataset, data)
    recorded = {"row": row, "recorded_mAP": {"test": round(read_json(run.folder / "metrics.json")["mAP"], 2)}}
    write_heads(run, path, **recorded)
    heads, trained = Heads.of(path), load(run)
    halves = load(run)
    halves.load_state_dict(heads.tensors(), strict=False)
    splits = {"test": "test", "val": "val (trained on)"}
    networks = {"mAP": halves, "mAP_in_float32": trained}
    measured = {
        name: {what: mean_ap(network, run, prepared, split) for split, what in splits.items()}
        for name, network in networks.items()
    }
    write_json(path.with_suffix(".json"), heads.manifest | measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--row", default=REPAIR, choices=ROWS, metavar="ROW")
    parser.add_argument("--dataset", default="voc2007")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/voc2007-densenet448"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=ROOT / "data/heads/voc2007.npz")
    arguments = parser.parse_args()
    try:
        write(**vars(arguments))
    except StudyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
