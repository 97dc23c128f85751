"""A system on a data set and its stage 1: its settings, where its run is, and how far it has come."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError, paper
from attnsem.analysis.search import SPLITS
from attnsem.analysis.systems import SYSTEMS, check_name, module_of
from attnsem.analysis.systems.examples import Examples, Source
from attnsem.datasets.prepared import Prepared
from attnsem.engine import Fabric, launched
from attnsem.files import load_tensors, read_json, rooted, write_table, write_tensors
from attnsem.notebook import papermill
from attnsem.runs import Run, complete_run

ZERO, MOST = ("weight_decay", "dropout", "residual"), {"dropout": 1, "shrinkage": 1}  # other numbers: above 0
VIEWS = 2  # stored augmented views of a training image, where stage 3 of the data set has none


@dataclass
class Progress:
    """What a system that trains by epochs has come to; kept in the run's folder, or only here where there is none."""

    run: Run | None = None
    origin: dict = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    state: dict | None = None
    earlier: float = 0.0  # seconds before it was interrupted
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, run: Run, origin: dict) -> "Progress":
        if not run.resume.exists():
            return cls(run, origin)
        kept = load_tensors(run.resume)
        return cls(run, origin, kept["rows"], kept["state"], kept["seconds"])

    def save(self, row: dict, state: dict) -> None:
        """After a whole epoch. row: of history.csv; state: plain tensors and numbers that the next epoch needs."""
        self.rows, self.state = [*self.rows, row], state
        if self.run:
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
            kept = {"rows": self.rows, "state": state, "seconds": self.seconds, "origin": self.origin}
            write_tensors(self.run.resume, kept)
            write_table(self.run.folder / "history.csv", pd.DataFrame(self.rows), index=False)

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.since


@dataclass(frozen=True)
class Task:
    """parent: the complete stage 1 whose backbone it stands on; views: stored ones of a training image."""

    name: str
    runs: Path
    parent: Run
    prepared: Prepared
    views: int
    seed: int
    settings: dict[str, object]

    @property
    def run(self) -> Run:
        return Run(self.runs / self.prepared.name / self.name / f"seed{self.seed}" / "stage1")

    @property
    def origin(self) -> dict:
        return {
            "parameters": self.parent.settings.model_dump(),
            "parent_sha256": self.parent.manifest["checkpoint_sha256"],
            "data_fingerprint": self.prepared.fingerprint,
            "system": {"name": self.name, "feature_cache": self.views, "settings": self.settings},
        }

    def fabric(self, device: str) -> Fabric:
        return launched(device, precision=self.parent.settings.precision)

    def examples(self, fabric: Fabric, train: str, test: str) -> tuple[Examples, Examples]:
        source, settings = Source(fabric, self.parent, self.prepared), self.parent.settings
        return Examples(source, train, self.views, settings), Examples(source, test, 0, settings)


def choice_of(name: str, dataset: str, runs: Path) -> Path:
    """Of what a search on val has chosen."""
    return runs / "val" / paper.name_of(dataset) / name / "stage1.json"


def task(
    name: str,
    own: dict[str, object],
    *,
    dataset: str,
    seed: int = 0,
    runs: str | Path = "runs",
    data: str | Path = "data",
    feature_cache: int | None = None,
    is_on_val: bool = False,
) -> Task:
    """StudyError on what is no parameter of the system, and where stage 1 is not complete or its data have changed.

    own: settings, in place of those chosen on val and of the defaults; feature_cache: None as in stage 3; is_on_val: on
    a stage 1 that has not seen val.
    """
    check_name(name)
    prepared, runs = Prepared.load(dataset, rooted(data)), rooted(runs)
    if (feature_cache or 0) < 0:
        raise StudyError(f"parameter feature_cache must be 0 or more, not {feature_cache}")
    views = feature_cache or paper.settings(3, dataset=dataset).feature_cache or VIEWS
    path = choice_of(name, dataset, runs)
    chosen = read_json(path) if path.exists() and not is_on_val else {}
    settings = settings_of(name, chosen | own)
    parent = stage1(dataset, seed, runs, data, is_on_val)
    if parent.manifest["data_fingerprint"] != prepared.fingerprint:
        raise StudyError(f"{parent.folder} was trained on another state of {prepared.name}; delete it, train it again")
    return Task(name, runs, parent, prepared, views, seed, settings)


def stage1(dataset: str, seed: int, runs: Path, data: str | Path, is_on_val: bool) -> Run:
    """is_on_val: that of <runs>/val, trained on `train`, or one whose backbone was never trained."""
    settings = paper.settings(1, dataset=dataset, seed=seed)
    unseen = Run.of(settings, runs / "val")
    parent = unseen if is_on_val and unseen.complete else complete_run(settings, runs, dataset=dataset, data=data)
    if is_on_val and parent.settings.train_backbone and parent.settings.train_split != "train":
        command = papermill("01_train_stage1", dataset=dataset, seed=seed, runs=runs / "val", data=data, **SPLITS)
        fault = f"nothing can be chosen on val, for the backbone of {parent.folder} has seen it"
        raise StudyError(f"{fault}; in notebooks run: {command}")
    return parent


def settings_of(name: str, values: dict[str, object]) -> dict[str, object]:
    """A system's settings with those values; StudyError on an unknown name, a wrong type or one out of range."""
    defaults = module_of(name).SETTINGS | SYSTEMS[name].fixed
    for key, value in values.items():
        if key not in defaults or key in SYSTEMS[name].fixed:
            names = ", ".join(sorted({*defaults} - {*SYSTEMS[name].fixed}))
            raise StudyError(f"{name} has no parameter {key!r}; there are {names}")
        kind = type(defaults[key])
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (kind, int) if kind is float else kind):
            raise StudyError(f"parameter {key} of {name} must be of type {kind.__name__}, not {value!r}")
        if kind in (int, float) and not (0 < value <= MOST.get(key, np.inf) or (key in ZERO and value == 0)):
            least, most = "0 or more" if key in ZERO else "above 0", f", at most {MOST[key]}" if key in MOST else ""
            raise StudyError(f"parameter {key} of {name} must be {least}{most}, not {value!r}")
    return {key: type(default)(values.get(key, default)) for key, default in defaults.items()}
