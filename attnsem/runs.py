"""The run folder `runs/<dataset>/<part>/seed<k>/stage<n>/`: what a stage leaves behind, and reading it again."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from shutil import which

import numpy as np
import pandas as pd

from attnsem import StudyError, paper
from attnsem.files import ROOT, checksum, load_tensors, read_arrays, read_json, rooted
from attnsem.notebook import papermill
from attnsem.paper import Settings

NAMED = {"parameters", "parent_sha256", "data_fingerprint", "labels", "checkpoint_sha256", "scores_sha256"}
VERSIONS = ("torch", "torchvision", "lightning-fabric", "timm", "numpy", "pandas", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """One stage's folder."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings, runs: Path) -> "Run":
        return cls(runs / settings.dataset / paper.part_of(settings) / f"seed{settings.seed}/stage{settings.stage}")

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
        manifest = read_json(path)
        if not isinstance(manifest, dict) or not set(manifest) >= NAMED:
            raise StudyError(f"{path} is no manifest of a stage; delete {self.folder} to train anew")
        return manifest

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
            return paper.checked(Settings, self.manifest["parameters"])
        except StudyError as error:
            raise StudyError(f"{self.folder / 'manifest.json'}: {error}") from error

    @property
    def score_file(self) -> Path:
        """Its own; of recorded results that of the run, `scores_of` in the manifest, that has the same scores."""
        other = self.manifest.get("scores_of") if self.complete else None
        return (self.folder.parents[2] / other if other else self.folder) / "scores.npz"

    def scores(self) -> dict[str, np.ndarray]:
        """ids (N,), labels (C,), targets (N, C), scores (N, C) logits and those of the parts the network has.

        StudyError if the file is missing or is none, or its arrays do not fit each other. Recorded results have ids,
        labels and targets once, in their data set's images.npz.
        """
        path = self.score_file
        try:
            arrays = read_arrays(path)
            if "targets" not in arrays:
                arrays = read_arrays(path.parents[3] / "images.npz") | arrays
            shape = (*arrays["ids"].shape, *arrays["labels"].shape)
            parts = {name: array for name, array in arrays.items() if name not in ("ids", "labels")}
            if len(shape) != 2 or any(array.shape != shape for array in parts.values()):
                raise ValueError("its arrays do not fit each other")
            if not np.isin(parts["targets"], (-1, 0, 1)).all() or parts["scores"].dtype.kind != "f":
                raise ValueError("its targets or scores are none")
            return arrays
        except Exception as error:  # zipfile, zlib and numpy raise what they like on a broken file
            raise StudyError(f"{path} is no score file ({error}); evaluate its stage again") from error

    def state(self) -> dict:
        """The checkpoint's tensors, refused if the file is not the one that the manifest names."""
        path = self.checkpoint
        if not path.exists() or checksum(path) != self.manifest["checkpoint_sha256"]:
            raise StudyError(f"{path} is not the file its manifest names; delete {self.folder} to train anew")
        return load_tensors(path)


def command(settings: Settings, **place: object) -> str:
    """What trains a stage with these settings. place: seed and folders, where they are not the default."""
    names = {1: (), 2: ("attention_objective",)}.get(settings.stage, ("variant", "gate"))
    values = {"dataset": settings.dataset} | paper.changed(settings, (*names, *paper.NAMED[settings.stage])) | place
    return papermill(f"0{settings.stage}_train_stage{settings.stage}", **values)


def remedy(settings: Settings, runs: Path, dataset: str | None = None, data: str | Path = "data") -> str:
    """The commands that make a stage and all that it lacks, a line each, as the shell takes them where it stands.

    dataset: the path of the user's own table, in place of its name; data: folder of prepared data.
    """
    source = {"dataset": dataset or settings.dataset} | ({"data": data} if rooted(data) != rooted("data") else {})
    place = {"seed": settings.seed} | ({"runs": str(runs)} if runs != rooted("runs") else {})
    missing = [settings]
    while (before := paper.before(missing[0])) and not Run.of(before, runs).complete:
        missing.insert(0, before)
    lines = [command(stage, **place, **source) for stage in missing]
    if not (rooted(data) / "prepared" / settings.dataset / "dataset.json").exists():
        lines.insert(0, papermill("00_prepare_data", **source))
    notebooks = ROOT / "notebooks"
    return "\n".join([f"cd {quote(str(notebooks))}", *lines] if Path.cwd() != notebooks else lines)


def complete_run(settings: Settings, runs: Path, **source: object) -> Run:
    """The run of a stage; StudyError with what makes it where it is not complete. source: of remedy."""
    run = Run.of(settings, runs)
    if not run.complete:
        commands = remedy(settings, runs, **source)
        raise StudyError(f"stage {settings.stage} is not complete in {run.folder}; run:\n{commands}")
    return run


def lineage(run: Run, runs: str | Path) -> list[Run]:
    """The run and those it stands on, stage 1 first."""
    before = paper.before(run.settings)
    return [*lineage(complete_run(before, rooted(runs)), runs), run] if before else [run]


def processor() -> str:
    """The CPU's name, on systems that tell it, and how many cores there are."""
    names = re.findall(r"model name\s*: (.*)", table.read_text()) if (table := Path("/proc/cpuinfo")).exists() else []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def environment(device: object = "cpu") -> dict:
    """Git revision, versions and device, a torch.device or its name, for a manifest."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    described = which("git") and subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    kind, torch = str(device).partition(":")[0], sys.modules.get("torch")
    return {
        "git": described or "no git checkout",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in VERSIONS},
        "device": f"{kind}: {torch.cuda.get_device_name(device) if kind == 'cuda' else processor()}",
        "threads": torch.get_num_threads() if torch else 1,
    }


def peak_memory() -> int:
    """Of this process so far, in bytes."""
    try:
        import resource
    except ImportError:  # on Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cost(seconds: float, device: object = "cpu") -> dict:
    """Wall time in seconds and peak memory in GiB, for a manifest."""
    usage = {"seconds": round(seconds, 1), "peak_memory_gib": round(peak_memory() / 2**30, 2)}
    if str(device).startswith("cuda"):
        usage["peak_gpu_memory_gib"] = round(sys.modules["torch"].cuda.max_memory_allocated(device) / 2**30, 2)
    return usage
