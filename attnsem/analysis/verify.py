"""`python -m attnsem.analysis.verify`: every link from the data to the tables of results, and which is broken.

data fingerprint → arrays → checkpoints of the stages → scores → metrics → tables. What is not committed, data and
checkpoints, is checked where --data and --runs name it.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError, metrics, paper
from attnsem.analysis import tables
from attnsem.analysis.results import compared, page, with_results
from attnsem.datasets.prepared import Prepared
from attnsem.files import ROOT, checksum, read_json, rooted
from attnsem.runs import Run

ROUNDING = 0.02  # points of mAP that float16 may cost, by ties, in many images; in few a single tie costs more


def broken(results: Path = ROOT / "results") -> Iterator[str]:
    """A sentence for each broken link between what is recorded below `results`."""
    for path in sorted(results.rglob("manifest.json")):
        run = Run(path.parent)
        name = run.folder.relative_to(results).as_posix()
        try:
            manifest, told = run.manifest, read_json(run.folder / "metrics.json")
            yield from (f"{name}: {sentence}" for sentence in broken_parent(run, manifest))
            if (scores := run.folder / "scores.npz").exists():
                if checksum(scores) != manifest["scores_sha256"]:
                    yield f"{name}: scores.npz is not the file that its manifest names"
                else:
                    yield from (f"{name}: {sentence}" for sentence in broken_metrics(run, told))
        except (StudyError, KeyError, TypeError, ValueError) as error:
            yield f"{name}: cannot be read ({error})"


def broken_parent(run: Run, manifest: dict) -> Iterator[str]:
    """The parent's checkpoint and data, where it is recorded beside the run."""
    before, runs = paper.before(run.settings), run.folder.parents[3]
    if before is None:
        return
    parent = Run.of(before, runs)
    if not parent.complete and runs.parent.name == "val":  # of learning rates that were tried, with their parents
        parent = Run.of(before, runs.parent)
    if not parent.complete:
        return
    if parent.manifest["checkpoint_sha256"] != manifest["parent_sha256"]:
        yield f"was trained from another checkpoint than that of {parent.folder}"
    if parent.manifest["data_fingerprint"] != manifest["data_fingerprint"]:
        yield f"was trained on other data than {parent.folder}"


def broken_metrics(run: Run, told: dict) -> Iterator[str]:
    found = run.scores()
    table = metrics.readings(found["targets"], found["scores"].astype(np.float32), found["labels"])
    for reading, row in table.iterrows():
        if not abs(row["mAP"] - told["readings"][" ".join(reading)]["mAP"]) <= max(ROUNDING, 50 / len(found["ids"])):
            yield f"metrics.json says another mAP ({', '.join(reading)}) than the scores give, {row['mAP']:.2f}"


def broken_checkpoints(results: Path, runs: Path, name: str) -> Iterator[str]:
    """Of recorded runs `name` and the folder of runs that they were recorded from."""
    if not (results / name).is_dir():
        yield f"nothing is recorded as {name}; the folder of runs must have the name of what is recorded of it"
    for path in sorted((results / name).rglob("manifest.json")):
        place = path.parent.relative_to(results / name)
        run = Run(runs / place)
        if not run.checkpoint.exists():
            yield f"{name}/{place}: there is no checkpoint in {run.folder}"
        elif checksum(run.checkpoint) != read_json(path)["checkpoint_sha256"]:
            yield f"{name}/{place}: {run.checkpoint} is not the checkpoint that is recorded"


def broken_data(results: Path, data: Path) -> Iterator[str]:
    """The prepared data that the recorded runs name, and its arrays."""
    fingerprints = {}
    for path in sorted(results.rglob("manifest.json")):
        manifest = read_json(path)
        fingerprints.setdefault(manifest["parameters"]["dataset"], set()).add(manifest["data_fingerprint"])
    for dataset, known in fingerprints.items():
        try:
            prepared = Prepared.load(dataset, data)
        except StudyError as error:
            yield str(error)
            continue
        if prepared.fingerprint not in known:
            yield f"{prepared.path} has the fingerprint {prepared.fingerprint[:12]}, which no recorded run has"
        for path in sorted((data / "arrays" / prepared.description["images"]).glob("*.npy")):
            if checksum(path) != read_json(path.with_suffix(".json"))["sha256"]:
                yield f"{path} is not the array that was prepared"


def broken_tables() -> Iterator[str]:
    readme = (ROOT / "README.md").read_text()
    pages = {"README.md": (with_results(readme), readme), "results/README.md": (page(), None)}
    for name, (wanted, found) in pages.items():
        if wanted != (found or (ROOT / name).read_text()):
            yield f"{name} is not what python -m attnsem.analysis.results writes from the recorded runs"


def broken_differences() -> Iterator[str]:
    """Of the tables of differences, by the means that the recorded scores have now; intervals are not drawn again."""
    for folder, dataset, stage in compared():
        path = folder / dataset / f"differences-stage{stage}.csv"
        measured = {row.name: row.ap()["mAP"] for row in tables.rows(folder, dataset, stage).values() if row.files}
        table = pd.read_csv(path)[["row", "less", "difference", "low", "high"]]
        for row, less, told, low, high in table.itertuples(index=False):
            if not {row, less} <= set(measured):
                yield f"{path} has {row} less {less}, and they are not both recorded"
                continue
            again = (measured[row] - measured[less]).mean()  # of the seeds that both have
            if not (abs(again - told) <= 1e-4 and low <= high):
                yield f"{path} says {row} less {less} is {told}, and its scores {again:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnsem.analysis.verify", description=__doc__)
    parser.add_argument("--runs", help="folder of runs with checkpoints, recorded under the same name")
    parser.add_argument("--data", help="folder of prepared data")
    given = parser.parse_args()
    results = ROOT / "results"
    found = [*broken(results), *broken_tables(), *broken_differences()]
    if given.runs:
        found += broken_checkpoints(results, rooted(given.runs), rooted(given.runs).name)
    if given.data:
        found += broken_data(results, rooted(given.data))
    print("\n".join(found) or f"{len(list(results.rglob('manifest.json')))} recorded stages: every link holds")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
