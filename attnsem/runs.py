"""The run folder `runs/<dataset>/<part>/seed<k>/stage<n>/`: what a stage leaves behind, and reading it again."""

import errno
import hashlib
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure

from attnsem import StudyError
from attnsem.paper import ROOT, Settings, part_of, rebuilt

NAMED = {"parameters", "parent_sha256", "data_fingerprint", "labels", "checkpoint_sha256", "scores_sha256"}
STARTED = time.monotonic()
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
VERSIONS = ("torch", "torchvision", "lightning-fabric", "timm", "numpy", "pandas", "pillow", "scikit-learn")


def rooted(path: str | Path) -> Path:
    """A path as the notebooks take it: relative ones start at the project's root, from whatever folder."""
    return ROOT / Path(path).expanduser()


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Writes by `save` under a temporary name in the same folder, then renames.

    StudyError, and nothing left, where the disk is full or the folder may not be written.
    """
    partial = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save(partial)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, also where torch says it in other words, as a StudyError that names the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or cause.errno not in REFUSALS:
            raise
        raise StudyError(
            f"{path} cannot be written: {os.strerror(cause.errno).lower()}; make room or name another folder, and run "
            "the same command again, which goes on from what is there"
        ) from error


def write_tensors(path: Path, state: dict) -> None:
    def save(partial: Path) -> None:
        with open(partial, "wb") as file:  # torch keeps to itself why it cannot write a path
            torch.save(state, file)

    write(path, save)


def write_json(path: Path, content: dict) -> None:
    write(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read ({error}); delete it and make it again") from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """With its index, as CSV."""
    write(path, lambda partial: table.to_csv(partial, lineterminator="\n"))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    def save(partial: Path) -> None:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)

    write(path, save)


def write_figure(path: Path, figure: Figure) -> None:
    """In the format of the path's suffix."""
    write(path, lambda partial: figure.savefig(partial, format=path.suffix[1:]))


def load_tensors(path: Path) -> dict:
    """A file of tensors by torch.load(weights_only=True), which runs no code; StudyError on any other."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(f"{path} is no file of plain tensors that torch can load ({reason})") from error
    if not isinstance(state, dict):
        raise StudyError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder against other processes; the lock of a process that died is free again.

    wait: for the process that holds it, having told which, in place of a StudyError.
    """
    owner = folder / ".holder"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            holder = owner.read_text() if owner.exists() else "another process"
            told = f"{folder} is being written by {holder}"
            if not wait:
                raise StudyError(f"{told}; wait for it, or stop it") from error
            print(f"{told}; waiting for it", flush=True)
            lock.acquire()
        owner.write_text(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def processor() -> str:
    """The CPU's name, on systems that tell it, and how many cores there are."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def environment(device: torch.device | str = "cpu") -> dict:
    """Git revision, versions and device, for a manifest."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(git, capture_output=True, text=True, check=False)
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "git": described.stdout.strip() or "no git checkout",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in VERSIONS},
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
    }


def cost(seconds: float, device: torch.device | str = "cpu") -> dict:
    """Wall time in seconds and peak memory in GiB, for a manifest."""
    usage = {"seconds": round(seconds, 1)}
    usage["peak_memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if torch.device(device).type == "cuda":
        usage["peak_gpu_memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return usage


def manifest(*, fingerprint: str | None = None, **parameters: object) -> dict:
    """What a notebook ends with: its parameters, environment, and cost since attnsem was imported."""
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in parameters.items()}
    passed = time.monotonic() - STARTED
    return {"parameters": shown, "data_fingerprint": fingerprint, **environment(), **cost(passed)}


@dataclass(frozen=True)
class Run:
    """One stage's folder."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings, runs: Path) -> "Run":
        return cls(runs / settings.dataset / part_of(settings) / f"seed{settings.seed}" / f"stage{settings.stage}")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def resume(self) -> Path:
        return self.folder / "resume.pt"

    @property
    def complete(self) -> bool:
        """The manifest is written last."""
        return (self.folder / "manifest.json").exists()

    @property
    def origin(self) -> dict | None:
        """What the run was made from, complete or interrupted: parameters, parent and data; None if never begun."""
        if self.complete:
            return self.manifest
        return load_tensors(self.resume)["origin"] if self.resume.exists() else None

    @property
    def manifest(self) -> dict:
        """StudyError where the file is none, or lacks what makes it one."""
        path = self.folder / "manifest.json"
        found = read_json(path)
        if not isinstance(found, dict) or not set(found) >= NAMED:
            raise StudyError(f"{path} is no manifest of a stage; delete {self.folder} to train anew")
        return found

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch: loss, lr, and alpha and mAP in % where there are any."""
        path = self.folder / "history.csv"
        try:
            return pd.read_csv(path).astype(float).astype({"epoch": int})
        except (OSError, ValueError, KeyError) as error:
            raise StudyError(f"{path} is no history of epochs ({error}); delete {self.folder} to train anew") from error

    @property
    def settings(self) -> Settings:
        try:
            return rebuilt(self.manifest["parameters"])
        except StudyError as error:
            raise StudyError(f"{self.folder / 'manifest.json'}: {error}") from error

    def scores(self) -> dict[str, np.ndarray]:
        """ids (N,), labels (C,), targets (N, C), scores (N, C) logits and those of the parts the network has."""
        return read_scores(self.folder / "scores.npz")

    def state(self) -> dict:
        """The checkpoint's tensors, refused if the file is not the one that the manifest names."""
        if not self.checkpoint.exists() or checksum(self.checkpoint) != self.manifest["checkpoint_sha256"]:
            raise StudyError(
                f"{self.checkpoint} is not the file its manifest names; delete {self.folder} to train anew"
            )
        return load_tensors(self.checkpoint)


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """A score file; StudyError if it is missing or is none, or its arrays do not fit each other."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = dict(arrays)
        shape = (*found["ids"].shape, *found["labels"].shape)
        parts = {name: array for name, array in found.items() if name not in ("ids", "labels")}
        if len(shape) != 2 or any(array.shape != shape for array in parts.values()):
            raise ValueError("its arrays do not fit each other")
        if not np.isin(parts["targets"], (-1, 0, 1)).all() or parts["scores"].dtype.kind != "f":
            raise ValueError("its targets or scores are none")
        return found
    except Exception as error:  # zipfile, zlib and numpy raise what they like on a broken file
        raise StudyError(f"{path} is no score file ({error}); evaluate its stage again") from error
