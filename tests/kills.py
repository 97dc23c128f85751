"""`python -m tests.kills`: the study on a tiny `scenes`, killed at random moments and begun again by the same call.

After every kill no file may be partial under its final name; in the end every file must be what an undisturbed study
leaves, bit for bit but for times and memory, and nothing else may be left.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch

from attnsem import stages
from attnsem.datasets import scenes
from attnsem.datasets.prepared import prepare
from attnsem.files import ROOT, load_tensors, read_json, write_json
from attnsem.runs import environment
from results.record import record

QUICK = {"dataset": "scenes", "epochs": 3, "lr_step": 2, "batch_size": 8, "precision": "32-true", "device": "cpu"}
CACHED = {2: {"feature_cache": 2}, 3: {"feature_cache": 2}}
OF_THE_RUN = ("seconds", "peak_memory_gib", "finished", "git", "mtime_ns")


def study(folder: Path) -> None:
    """Preparation, the four stages with their caches and evaluation, and recording: one call that goes on."""
    torch.set_num_threads(1)
    data, runs = folder / "data", folder / "runs"
    prepare(scenes.load(train=40, val=8, test=40), data=data, train_size=72, image_size=64)
    for stage in (1, 2, 3, 4):
        stages.train(stage, **QUICK | CACHED.get(stage, {}), data=data, runs=runs)
    record(runs, "recorded", folder / "results")


def content(path: Path) -> object:
    """What a file holds, read as the study reads it; an error where it is partial."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    if path.suffix == ".npy":
        array = np.load(path)
        return array.dtype.str, array.shape, array.tobytes()
    if path.suffix == ".pt":
        return {} if path.name == "resume.pt" and load_tensors(path) else path.read_bytes()
    if path.suffix == ".json":
        found = read_json(path)
        return {name: value for name, value in found.items() if name not in OF_THE_RUN}
    return path.read_bytes()


def files(folder: Path, *, hidden: bool = False) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if path.name != ".lock" and (hidden or path.name[0] != ".")}


class Killed:
    """A study in processes of their own, forked from one that has imported everything."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.kills", "torchvision", "lightning_fabric"])

    def run(self, seconds: float | None = None) -> bool:
        """Whether it came to its end; killed after so many seconds else. AssertionError where it failed."""
        process = self.context.Process(target=study, args=(self.folder,))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return False
        assert process.exitcode == 0, f"the study ended with {process.exitcode} after a kill"
        return True


def partial_files(folder: Path) -> list[str]:
    wrong = []
    for name, path in files(folder).items():
        try:
            content(path)
        except Exception as error:
            wrong.append(f"{name}: {error}")
    return wrong


def differing(folder: Path, undisturbed: Path) -> list[str]:
    """Names of what is not as in the undisturbed study, leftovers included."""
    ours, theirs = files(folder, hidden=True), files(undisturbed, hidden=True)
    wrong = [f"left over or missing: {name}" for name in sorted(set(ours) ^ set(theirs))]
    both = sorted(set(ours) & set(theirs))
    return wrong + [f"differs: {name}" for name in both if content(ours[name]) != content(theirs[name])]


def survive(place: Path, kills: int, seed: int = 0) -> dict:
    """Kills studies `kills` times in all, each until it comes to its end; what was seen."""
    undisturbed = Killed(place / "undisturbed")
    assert undisturbed.run()
    started = time.monotonic()
    assert Killed(place / "timed").run()
    length = time.monotonic() - started
    random, done, studies, wrong = np.random.default_rng(seed), 0, 0, []
    while done < kills:
        one = Killed(place / f"killed{studies}")
        while True:
            last = done >= kills
            if one.run(None if last else random.uniform(0, length / 2)):
                break
            done += 1
            wrong += partial_files(one.folder)
        wrong += differing(one.folder, undisturbed.folder)
        studies += 1
    return {"kills": done, "studies": studies, "seconds of an undisturbed study": round(length, 1), "wrong": wrong}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("place", type=Path, help="an empty folder for the studies")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = survive(given.place, given.kills, given.seed)
    print(json.dumps(found, indent=2))
    write_json(ROOT / "benchmarks/robustness/kills.json", found | environment())
