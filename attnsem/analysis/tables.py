"""Rows of the tables from score files: mean and spread over seeds, and differences by a paired bootstrap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError, metrics
from attnsem.analysis.rows import BASELINE, GROUPS, LONGER, settings_of, stages_of
from attnsem.files import rooted
from attnsem.runs import Run, command

LITTLE = 0.25  # points of mAP; half of what the paper claims on VOC2007
AVERAGED = "two baselines averaged"


@dataclass(frozen=True)
class Row:
    """A row of a table: the score files of its seeds, the same test images in each. Several files are averaged."""

    group: str
    name: str
    command: str
    files: tuple[tuple[Path, ...], ...] = ()

    @property
    def labels(self) -> list[str]:
        return _read(self.files[0][0])["labels"].tolist()

    @property
    def seeds(self) -> list[str]:
        return [path.parents[1].name for path, *_ in self.files]

    def of(self, seeds: set[str]) -> "Row":
        pairs = zip(self.seeds, self.files, strict=True)
        return replace(self, files=tuple(files for seed, files in pairs if seed in seeds))

    def ap(self) -> pd.DataFrame:
        """AP (%) not interpolated, difficult ignored: a row a seed, columns the labels and mAP."""
        table = pd.DataFrame([100 * metrics.average_precision(*logits(files)) for files in self.files], self.seeds)
        table.columns = self.labels
        return table.assign(mAP=table.mean(axis=1))

    def resampled(self) -> np.ndarray:
        """(resamples, C) AP (%), mean over the seeds; the same draws of test images for every row."""
        return np.mean([_bootstrap(files) for files in self.files], axis=0)


@cache
def _read(path: Path) -> dict[str, np.ndarray]:
    return Run(path.parent).scores()


def logits(files: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and logits (images, C) of a seed, the mean where it has several files."""
    found = [_read(path) for path in files]
    return found[0]["targets"], np.mean([one["scores"].astype(np.float32) for one in found], axis=0)


@cache
def _bootstrap(files: tuple[Path, ...]) -> np.ndarray:
    return 100 * metrics.bootstrap(*logits(files))


def rows(runs: str | Path, dataset: str, stage: int) -> dict[str, Row]:
    """Every row of rows.GROUPS after that stage, by name; without files where it has not been run.

    runs: a folder of runs, or of what is recorded of them under results/. StudyError where it has none.
    """
    found, folder = {}, rooted(runs)
    for group, named in GROUPS.items():
        for name, row in named.items():
            if stages := stages_of(row, stage):
                settings = settings_of(row, stages[-1], dataset=dataset)
                files = sorted(Run.of(settings, folder).folder.parents[1].glob(f"seed*/stage{stages[-1]}/scores.npz"))
                complete = tuple((file,) for file in files if Run(file.parent).complete)
                found[name] = Row(group, name, command(settings), complete)
    if not any(row.files for row in found.values()):
        raise StudyError(
            f"{folder} has no complete run of {dataset} up to stage {stage}; name a folder that has by -p runs, or run "
            "a grid (README.md)"
        )
    seeds = [file for (file,) in found[BASELINE].files]
    pairs = tuple(zip(seeds, seeds[1:] + seeds[:1], strict=True)) if len(seeds) > 1 else ()
    found[AVERAGED] = Row("controls", AVERAGED, found[BASELINE].command, pairs)
    return dict(sorted(found.items(), key=lambda item: list(GROUPS).index(item[1].group)))


def seeds(found: dict[str, Row]) -> list[str]:
    """Those of which any row has been run."""
    return sorted({seed.removeprefix("seed") for row in found.values() for seed in row.seeds})


def mean_and_spread(found: Sequence[Row]) -> pd.DataFrame:
    """mAP (%) by row: mean and standard deviation over seeds, how many; where there are none the command to run."""
    table = {}
    for row in found:
        if row.files:
            ap = row.ap()["mAP"]
            table[row.group, row.name] = {
                "mAP": ap.mean(),
                "sd of seeds": ap.std(),
                "seeds": len(ap),
                "runs": "recorded",
            }
        else:
            table[row.group, row.name] = {"seeds": 0, "runs": f"not run: {row.command}"}
    return pd.DataFrame(table.values(), pd.MultiIndex.from_tuples(table, names=["rows", "row"]))


def by_label(found: Sequence[Row]) -> pd.DataFrame:
    """AP (%) of each label and mAP, mean over seeds: a row a table's row that has been run."""
    return pd.DataFrame({row.name: row.ap().mean() for row in found if row.files}).T


def difference(row: Row, other: Row, labels: Sequence[str] | None = None) -> dict[str, float]:
    """row less other in points of mAP, or of the mean AP of some labels, means over the seeds that both have.

    low, high: 95 % interval over 1,000 resamples of the test images, the same for both; flips: the share of them in
    which the sign is another; sd: standard deviation of the difference over seeds, nan with one.
    """
    both = {*row.seeds} & {*other.seeds}
    row, other = row.of(both), other.of(both)
    columns = slice(None) if labels is None else [row.labels.index(label) for label in labels]
    ours, theirs = (side.ap().drop(columns="mAP").iloc[:, columns].mean(axis=1) for side in (row, other))
    point = ours.mean() - theirs.mean()
    drawn = np.nanmean(row.resampled()[:, columns], axis=1) - np.nanmean(other.resampled()[:, columns], axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    flips = float((np.sign(drawn) != np.sign(point)).mean())
    return {"difference": point, "low": low, "high": high, "flips": flips, "sd of seeds": (ours - theirs).std()}


def differences(found: Sequence[Row], other: Row) -> pd.DataFrame:
    """`difference` of each row that has been run to `other`: a row each, columns as there."""
    table = {row.name: difference(row, other) for row in found if {*row.seeds} & {*other.seeds} and row != other}
    return pd.DataFrame(table).T.rename_axis(f"less {other.name}")


def verdict(measured: dict[str, float], claim: str, size: float = 0.0) -> str:
    """holds, does not hold or undecided here, by the interval alone.

    A row whose α ran to 1 is its baseline to the last digit: its interval is 0 to 0, and a verdict on it says no more.
    claim: "gains" size points or more of mAP, "loses" (below 0), "little" (within LITTLE of 0), "no gain" (at most
    LITTLE).
    """
    low, high = measured["low"], measured["high"]
    holds, fails = {
        "gains": (low > 0 and high >= size, high < size or high <= 0),
        "loses": (high < 0, low >= 0),
        "little": (low >= -LITTLE and high <= LITTLE, low > LITTLE or high < -LITTLE),
        "no gain": (high <= LITTLE, low > LITTLE),
    }[claim]
    return "holds" if holds else "does not hold" if fails else "undecided here"


def verdicts(found: dict[str, Row], size: float, company: Sequence[str] = ()) -> pd.DataFrame:
    """The paper's claims on what has been run. size: the gain it states; company: labels often seen with person."""
    claims = [
        ("attention alone changes little", "att", "baseline", "little", 0, None),
        ("SE and convs without attention hurt", "se", "baseline", "loses", 0, None),
        (f"the whole gains {size}", "proposed", "baseline", "gains", size, None),
        ("deeper stacking does not help", "se5_conv5", "proposed", "no gain", 0, None),
    ]
    longer = LONGER if LONGER in found else BASELINE
    if longer != BASELINE:
        claims.append(
            (f"the whole gains {size} over the baseline trained as long", "proposed", longer, "gains", size, None)
        )
    if company:
        claims.append(
            (f"labels that often come with person gain ({', '.join(company)})", "proposed", longer, "gains", 0, company)
        )
    table = {}
    for claim, name, other, kind, least, labels in claims:
        if {*found[name].seeds} & {*found[other].seeds}:
            measured = difference(found[name], found[other], labels)
            table[claim] = {"rows": f"{name} less {other}", "verdict": verdict(measured, kind, least)} | measured
        else:
            table[claim] = {"rows": f"{name} less {other}", "verdict": "not run"}
    columns = ["rows", "verdict", "difference", "low", "high", "flips", "sd of seeds"]
    return pd.DataFrame(table).T.reindex(columns=columns).rename_axis("claim")


def stated_gain(dataset: str) -> float:
    """Points of mAP that the paper's text states for the whole method over DenseNet; on other data as on VOC2007."""
    return 0.8 if dataset.startswith("mirflickr") else 0.5


def company(label: str, row: Row, share: float = 0.5) -> list[str]:
    """Labels of which more than that share of the test images show `label` too; none where there is no such label."""
    if not row.files or label not in row.labels:
        return []
    present = pd.DataFrame(logits(row.files[0])[0] == 1, columns=row.labels)
    return [other for other in row.labels if other != label and present[label][present[other]].mean() > share]


def selection(runs: str | Path, dataset: str, stage: int) -> pd.DataFrame:
    """mAP (%) on test at the last epoch, at the epoch that val picks, and at the one that test picks; of one seed.

    The val run is that of the same learning rate, trained on `train`; its epochs count the same.
    """
    table, folder = {}, rooted(runs)
    for row in rows(runs, dataset, stage).values():
        if not row.files or row.name == AVERAGED:
            continue
        test = Run(row.files[0][0].parent)
        place = test.folder.relative_to(folder)
        beside = [folder / "val" / f"lr{test.settings.lr:g}" / place, folder / "val" / place]
        val = next((Run(place) for place in beside if Run(place).complete), None)
        if val is None or "mAP" not in test.history or "mAP" not in val.history:
            continue
        measured, picked = test.history["mAP"], val.history["mAP"].idxmax()
        table[row.name] = {
            "last": measured.iloc[-1],
            "picked on val": measured[picked],
            "picked on test": measured.max(),
            "flattery": measured.max() - measured.iloc[-1],
        }
    return pd.DataFrame(table).T


def with_best_marked(table: pd.DataFrame) -> "pd.io.formats.style.Styler":
    """Best in red and second best in blue in each column, as in the paper's Table 1."""

    def colours(column: pd.Series) -> list[str]:
        rank = column.rank(ascending=False, method="min")
        return [{1: "color: #c00; font-weight: bold", 2: "color: #00c; font-weight: bold"}.get(one, "") for one in rank]

    shown = table.style.apply(colours).format(precision=1, na_rep="", escape="html")
    return shown.format_index(escape="html").format_index(escape="html", axis=1)
