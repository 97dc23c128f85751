"""`python -m tests.verify`: every link from the data to the tables of results, and which is broken.

data fingerprint → arrays → checkpoints of the stages → scores → metrics → tables. What is not committed, data and
checkpoints, is checked where --data and --runs name it.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError, paper
from attnsem.analysis import tables
from attnsem.analysis.report import places
from attnsem.analysis.results import readings_of
from attnsem.datasets.prepared import Prepared
from attnsem.files import ROOT, checksum, read_json, rooted
from attnsem.metrics import precision_recall_f1, readings
from attnsem.runs import Run
from results.pages import WRITTEN
from results.record import recorded_place

ROUNDING = 0.02  # points of mAP that float16 may cost, by ties, in many images; in few a single tie costs more


def broken(results: Path = ROOT / "results") -> Iterator[str]:
    """A sentence for each broken link between the files below `results`."""
    for path in sorted(results.rglob("manifest.json")):
        run = Run(path.parent)
        name = run.folder.relative_to(results).as_posix()
        try:
            yield from (f"{name}: {sentence}" for sentence in chain(broken_parent(run), broken_scores(run)))
        except (StudyError, KeyError, TypeError, ValueError) as error:
            yield f"{name}: cannot be read ({error})"


def broken_revisions(results: Path = ROOT / "results") -> Iterator[str]:
    """Runs whose code cannot be had: of no commit of this repository, or with changes on top of one.

    Nothing where there is no repository, or a shallow one, which has not all commits.
    """
    if not has_all_commits():
        return
    revisions = {}
    for path in sorted(results.rglob("manifest.json")):
        revisions.setdefault(read_json(path)["git"], []).append(path.parent.relative_to(results).as_posix())
    for revision, runs in revisions.items():
        commit = revision.removesuffix("-dirty")
        why = "has changes on top" if commit != revision else "is no commit of this repository"
        if commit != revision or git("cat-file", "-t", commit) != "commit":
            yield f"{revision}, of which {len(runs)} runs are ({runs[0]}, …), {why}; train them anew"


def has_all_commits() -> bool:
    return git("rev-parse", "--is-shallow-repository") == "false"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def broken_parent(run: Run) -> Iterator[str]:
    """The parent's checkpoint and data, where it is recorded beside the run."""
    before = run.settings if "system" in run.manifest else paper.before(run.settings)
    runs = run.folder.parents[3]
    folders = [runs, runs.parent] if runs.parent.name == "val" else [runs]  # learning rates that were tried share them
    parent = next((Run.of(before, folder) for folder in folders if before and Run.of(before, folder).complete), None)
    if parent and parent.manifest["checkpoint_sha256"] != run.manifest["parent_sha256"]:
        yield f"was trained from another checkpoint than that of {parent.folder}"
    if parent and parent.manifest["data_fingerprint"] != run.manifest["data_fingerprint"]:
        yield f"was trained on other data than {parent.folder}"
    arrays = run.manifest.get("arrays_sha256")  # of runs since 2026-11-27
    if parent and arrays and parent.manifest.get("arrays_sha256", arrays) != arrays:
        yield f"was trained on other arrays of images than {parent.folder}"


def broken_scores(run: Run) -> Iterator[str]:
    """The scores, where they are recorded, and the metrics."""
    scores, metrics = run.score_file, read_json(run.folder / "metrics.json")
    stored = metrics["readings"]
    if not scores.exists():
        if "scores_of" in run.manifest:
            yield f"its scores are those of {scores.parent}, which has none"
        elif run.settings.test_split == "test" and "scores_left_out" not in run.manifest:
            yield "scores.npz is gone"
        return
    if checksum(scores) != run.manifest["scores_sha256"]:
        yield "scores.npz is not the file that its manifest names"
        return
    scores = run.scores()
    tolerance = max(ROUNDING, 50 / len(scores["ids"]))
    for reading, mean_ap in readings_of(run)["mAP"].items():
        gap = abs(mean_ap - stored[" ".join(reading)]["mAP"])
        if not gap <= tolerance and not gap <= tolerance + hanging(run)[reading]:
            yield f"metrics.json says another mAP ({', '.join(reading)}) than the scores give, {mean_ap:.2f}"
    if "precision_recall_f1" not in metrics:
        return
    for threshold, row in precision_recall_f1(scores["targets"], scores["scores"]).iterrows():
        for name, value in row.dropna().items():
            spread = tolerance + (ties(run) if threshold == "top 3" else 0)
            if not abs(value - metrics["precision_recall_f1"][threshold][name]) <= spread:
                yield f"metrics.json says another {name} ({threshold}) than the scores give, {value:.2f}"


def hanging(run: Run) -> pd.Series:
    """Points of each reading's mAP that hang on which of two images with one score, as float16 has it, is first."""
    arrays = run.scores()
    scores, present = arrays["scores"].astype(float), arrays["targets"] == 1
    most, least = (readings(arrays["targets"], scores + sign * present, arrays["labels"]) for sign in (1e-9, -1e-9))
    return most["mAP"] - least["mAP"]


def ties(run: Run) -> float:
    """Points of recall or precision, mean over labels, that hang on ties at the third place, which are float16's."""
    arrays = run.scores()
    present, scores = arrays["targets"] == 1, arrays["scores"]
    third, fourth = -np.sort(-scores, axis=1)[:, 2:4].T
    tied, told = (scores == third[:, None]) & (third == fourth)[:, None], scores >= third[:, None]
    recall = ((tied & present) / present.sum(0).clip(1)).max(1).sum() / present.shape[1]
    return 100 * max(recall, (tied.sum(0) / told.sum(0).clip(1)).mean())


def broken_checkpoints(results: Path, runs: Path, name: str) -> Iterator[str]:
    """Of recorded runs `name` and the folder of runs that they were recorded from."""
    if not (results / name).is_dir():
        yield f"nothing is recorded as {name}; the folder of runs must have the name of its folder in results"
    folders = {recorded_place(path.parent.relative_to(runs)): path.parent for path in runs.rglob("manifest.json")}
    for path in sorted((results / name).rglob("manifest.json")):
        place = path.parent.relative_to(results / name)
        run = Run(folders.get(place, runs / place))
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
    for dataset, recorded in fingerprints.items():
        try:
            prepared = Prepared.load(dataset, data)
        except StudyError as error:
            yield str(error)
            continue
        if prepared.fingerprint not in recorded:
            yield f"{prepared.name} has the fingerprint {prepared.fingerprint[:12]}, which no recorded run has"
        for path in sorted((data / "arrays" / prepared.image_set).glob("*.npy")):
            if checksum(path) != read_json(path.with_suffix(".json"))["sha256"]:
                yield f"{path} is not the array that was prepared"


def broken_tables() -> Iterator[str]:
    for name, text_of in WRITTEN.items():
        text = (ROOT / name).read_text()
        if text != text_of(text):
            yield f"{name} is not what python -m results.record writes from the recorded runs"


def broken_differences() -> Iterator[str]:
    """Of the tables of differences, by the means that the recorded scores have now; intervals are not drawn again."""
    for folder, dataset, stage in places():
        path = folder / dataset / f"differences-stage{stage}.csv"
        mean_ap = {row.name: row.ap()["mAP"] for row in tables.read_rows(folder, dataset, stage).values() if row.files}
        table = pd.read_csv(path)[["row", "vs.", "Δ mAP", "low", "high"]]
        for row, other, stored, low, high in table.itertuples(index=False):
            if not {row, other} <= set(mean_ap):
                yield f"{path} has {row} vs. {other}, and they are not both recorded"
                continue
            delta = (mean_ap[row] - mean_ap[other]).mean()  # of the seeds that both have
            if not (abs(delta - stored) <= 1e-4 and low <= high):
                yield f"{path} says {row} vs. {other} is {stored}, and its scores {delta:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.verify", description=__doc__)
    parser.add_argument("--runs", help="folder of runs with checkpoints, recorded under the same name")
    parser.add_argument("--data", help="folder of prepared data")
    arguments, results = parser.parse_args(), ROOT / "results"
    sentences = [*broken(results), *broken_revisions(results), *broken_tables(), *broken_differences()]
    if arguments.runs:
        sentences += broken_checkpoints(results, rooted(arguments.runs), rooted(arguments.runs).name)
    if arguments.data:
        sentences += broken_data(results, rooted(arguments.data))
    aside = "" if has_all_commits() else ", but that to commits was not looked at: this is no whole repository"
    print("\n".join(sentences) or f"{len([*results.rglob('manifest.json')])} recorded stages: every link holds{aside}")
    sys.exit(bool(sentences))


if __name__ == "__main__":
    main()
