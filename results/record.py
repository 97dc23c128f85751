"""`python -m results.record`: results/ from finished runs, and the tables that pages show of it."""

import argparse
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from attnsem import StudyError
from attnsem.analysis import tables
from attnsem.files import ROOT, checksum, read_arrays, read_json, rooted, write, write_arrays, write_json
from attnsem.runs import Run
from results.pages import write_pages

DIGITS = 4  # of recorded metrics: a hundredth of what pages show
FORMER = re.compile(r"^attended(?=-|$)")  # the folder of attention pooling in runs before 2026-11-26


def record(runs: Path, name: str, results: Path = ROOT / "results") -> None:
    """Copies what is small of every complete stage below `runs` to results/<name>.

    Of the scores those of what the stage trains, in float16, and none of runs on val; the manifest then names that
    file's checksum, and keeps the full one's. Test images are the same for all: <dataset>/images.npz, and equal scores
    are there once. metrics.json is from the full scores, in short.
    """
    complete = sorted(set(runs.rglob("manifest.json")) - set(runs.glob("**/val/draw*/**/manifest.json")))
    if not complete:
        raise StudyError(f"{runs} has no complete run; nothing is recorded")
    for path in (results / name).rglob("images.npz"):
        keep_each(path.parent)
    for path in complete:
        run, target = Run(path.parent), results / name / recorded_place(path.parent.relative_to(runs))
        write_json(target / "metrics.json", in_short(read_json(run.folder / "metrics.json")))
        if (history := run.folder / "history.csv").exists():  # what trains without epochs has none
            write(target / history.name, lambda partial, source=history: shutil.copyfile(source, partial))
        manifest = run.manifest
        if run.settings.test_split == "test":
            scores = run.scores()
            record_images({key: scores[key] for key in ("ids", "labels", "targets")}, target.parents[2] / "images.npz")
            write_arrays(target / "scores.npz", {"scores": scores["scores"].astype(np.float16)})
            manifest["full_scores_sha256"] = manifest["scores_sha256"]
            manifest["scores_sha256"] = checksum(target / "scores.npz")
        write_json(target / "manifest.json", manifest)
    for path in (results / name).rglob("images.npz"):
        keep_once(path.parent)
    for path in sorted(runs.glob("**/val/*/*/stage*.json")):
        write_json(results / name / recorded_place(path.relative_to(runs)), read_json(path))


def in_short(metrics: dict) -> dict:
    """metrics.json to DIGITS: mAP in all readings, the labels' AP in the headline's: kept scores give the others."""
    kept = ("mAP", "labels_without_positives")
    for reading, values in metrics["readings"].items():
        if reading != "none ignore":
            metrics["readings"][reading] = {name: values[name] for name in kept if name in values}
    return rounded(metrics)


def rounded(content: object) -> object:
    """A JSON file's content with its numbers rounded to DIGITS."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    return round(content, DIGITS) if isinstance(content, float) else content


def recorded_place(place: Path) -> Path:
    """Where a run in that folder is recorded: its own, but under today's name of its row's folder."""
    return Path(*(FORMER.sub("attention_pooling", part) for part in place.parts))


def record_images(images: dict[str, np.ndarray], path: Path) -> None:
    """Once for all runs of a data set; StudyError where others are recorded there."""
    if path.exists() and any(not np.array_equal(array, images[name]) for name, array in read_arrays(path).items()):
        raise StudyError(f"{path} has other test images than these runs; record them under another --name")
    write_arrays(path, images)


def keep_once(folder: Path) -> None:
    """Of a data set's runs with equal scores the first stage's first keeps them; manifests of the others name it.

    Equal is what tables.same_as says too.
    """
    kept = {}
    for path in sorted(folder.rglob("scores.npz"), key=lambda path: (path.parent.name, path)):
        run = Run(path.parent)
        keeper = tables.same_as(run).score_file.parent
        if keeper == run.folder:
            keeper = kept.setdefault(checksum(path), run.folder)
        if keeper != run.folder:
            manifest = run.manifest | {"scores_sha256": checksum(keeper / "scores.npz")}
            manifest["scores_of"] = keeper.relative_to(folder).as_posix()
            write_json(run.folder / "manifest.json", manifest)
            path.unlink()


def keep_each(folder: Path) -> None:
    """Undoes keep_once, so that no run loses its scores where the one that kept them is recorded anew."""
    for path in folder.rglob("manifest.json"):
        manifest = read_json(path)
        if other := manifest.pop("scores_of", None):
            shutil.copyfile(folder / other / "scores.npz", path.with_name("scores.npz"))
            write_json(path, manifest)


def leave_out(run: Run) -> None:
    """Drops a recorded run's scores, for room, until it is recorded anew. Its manifest says so, and no table has it."""
    keep_each(run.folder.parents[2])
    write_json(run.folder / "manifest.json", run.manifest | {"scores_left_out": True})
    (run.folder / "scores.npz").unlink(missing_ok=True)
    keep_once(run.folder.parents[2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record runs under results/ and write the pages' tables anew.")
    parser.add_argument("--runs", help="folder of runs to record")
    parser.add_argument("--name", help="their folder under results/")
    arguments = parser.parse_args()
    if bool(arguments.runs) != bool(arguments.name):
        sys.exit("--runs and --name go together: the folder of runs, and what to call it under results/")
    if arguments.runs:
        record(rooted(arguments.runs), arguments.name)
    write_pages(arguments.name and Path(arguments.name).parts[0])  # <grid>/more is of that grid
