"""Rows of the tables from score files: mean and spread over seeds, differences between rows, verdicts on claims."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError, metrics
from attnsem.analysis.rows import BASELINE, GROUPS, LONGER, settings_of, stages_of
from attnsem.analysis.statistics import bootstrap, paired_difference, verdict
from attnsem.files import rooted
from attnsem.runs import Run, command

AVERAGED = "two baselines averaged"
DIFFERENCE = ["Δ mAP", "low", "high", "sign flips", "sd of seeds"]


@dataclass(frozen=True)
class Row:
    """A row of a table: the score files of its seeds, the same test images in each. Several files are averaged."""

    group: str
    name: str
    command: str
    files: tuple[tuple[Path, ...], ...] = ()

    @property
    def labels(self) -> list[str]:
        return read_scores(self.files[0][0])["labels"].tolist()

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

    def readings(self) -> pd.DataFrame:
        """metrics.readings of the first seed."""
        return metrics.readings(*logits(self.files[0]), self.labels)

    def resamples(self) -> np.ndarray:
        """(resamples, C) AP (%), mean over the seeds; the same draws of test images for every row."""
        return np.mean([resampled_ap(files) for files in self.files], axis=0)


@cache
def read_scores(path: Path) -> dict[str, np.ndarray]:
    return Run(path.parent).scores()


def logits(files: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and logits (images, C) of a seed, the mean where it has several files."""
    arrays = [read_scores(path) for path in files]
    return arrays[0]["targets"], np.mean([scores["scores"].astype(np.float32) for scores in arrays], axis=0)


@cache
def resampled_ap(files: tuple[Path, ...]) -> np.ndarray:
    return 100 * bootstrap(*logits(files))


def read_rows(runs: str | Path, dataset: str, stage: int) -> dict[str, Row]:
    """Every row of rows.GROUPS after that stage, by name; without files where it has not been run.

    runs: a folder of runs, or of what is recorded of them under results/. StudyError where it has none.
    """
    rows, folder = {}, rooted(runs)
    for group, names in GROUPS.items():
        for name, row in names.items():
            if stages := stages_of(row, stage):
                settings = settings_of(row, stages[-1], dataset=dataset)
                paths = sorted(Run.of(settings, folder).folder.parents[1].glob(f"seed*/stage{stages[-1]}/scores.npz"))
                files = tuple((path,) for path in paths if Run(path.parent).complete)
                rows[name] = Row(group, name, command(settings), files)
    if not any(row.files for row in rows.values()):
        raise StudyError(
            f"{folder} has no complete run of {dataset} up to stage {stage}; name a folder that has by -p runs, or run "
            "a grid (README.md)"
        )
    baselines = [path for (path,) in rows[BASELINE].files]
    pairs = tuple(zip(baselines, baselines[1:] + baselines[:1], strict=True)) if len(baselines) > 1 else ()
    rows[AVERAGED] = Row("controls", AVERAGED, rows[BASELINE].command, pairs)
    return dict(sorted(rows.items(), key=lambda item: list(GROUPS).index(item[1].group)))


def seeds(rows: dict[str, Row]) -> list[str]:
    """Those of which any row has been run."""
    return sorted({seed.removeprefix("seed") for row in rows.values() for seed in row.seeds})


def backbone(rows: dict[str, Row], stage: int) -> str:
    """Of a table's runs, as a heading has it: name, whether it was trained, and the images' size."""
    first = next(row for row in rows.values() if row.files)  # the baseline, where it has been run
    settings = Run(first.files[0][0].parent).settings
    trained = "trained in stage 1" if settings.train_backbone else "frozen"
    trained = "fine-tuned" if stage == 4 else trained if first.name == BASELINE else ""
    return f"{settings.backbone} {trained}".rstrip() + f", {settings.image_size} pixels"


def mean_and_spread(rows: Iterable[Row]) -> pd.DataFrame:
    """mAP (%) by row: mean and standard deviation over seeds, how many; where there are none the command to run."""
    table = {}
    for row in rows:
        ap = row.ap()["mAP"] if row.files else pd.Series(dtype=float)
        runs = "recorded" if row.files else f"not run: {row.command}"
        table[row.group, row.name] = {"mAP": ap.mean(), "sd of seeds": ap.std(), "seeds": len(ap), "runs": runs}
    return pd.DataFrame(table.values(), pd.MultiIndex.from_tuples(table, names=["kind", "row"]))


def by_label(rows: Iterable[Row]) -> pd.DataFrame:
    """AP (%) of each label and mAP, mean over seeds: a row a table's row that has been run."""
    return pd.DataFrame({row.name: row.ap().mean() for row in rows if row.files}).T


def difference(row: Row, other: Row, labels: Sequence[str] | None = None) -> dict[str, float]:
    """statistics.paired_difference of two rows, over the seeds that both have: of mAP, or of some labels' mean AP."""
    seeds = {*row.seeds} & {*other.seeds}
    row, other = row.of(seeds), other.of(seeds)
    columns = slice(None) if labels is None else [row.labels.index(label) for label in labels]
    ours, theirs = (side.ap().drop(columns="mAP").iloc[:, columns].mean(axis=1) for side in (row, other))
    resamples = [np.nanmean(side.resamples()[:, columns], axis=1) for side in (row, other)]
    return paired_difference(ours, theirs, resamples[0] - resamples[1])


def differences(rows: Iterable[Row], other: Row) -> pd.DataFrame:
    """`difference` of each row that has been run to `other`: a row each, columns as there, and the other row's name."""
    table = {row.name: difference(row, other) for row in rows if {*row.seeds} & {*other.seeds} and row != other}
    table = pd.DataFrame.from_dict(table, orient="index", columns=DIFFERENCE, dtype=float)
    return table.assign(**{"vs.": other.name}).rename_axis("row")


def verdicts(rows: dict[str, Row], size: float, company: Sequence[str] = ()) -> pd.DataFrame:
    """The paper's claims on what has been run. size: the gain it states; company: labels often seen with person."""
    longer = LONGER if LONGER in rows else BASELINE
    claims = [
        ("attention alone changes little", "att", BASELINE, "little", 0, None),
        ("SE and convs without attention hurt", "se", BASELINE, "loses", 0, None),
        (f"the whole gains {size}", "proposed", BASELINE, "gains", size, None),
        ("deeper stacking does not help", "se5_conv5", "proposed", "no gain", 0, None),
        (f"the whole gains {size} over the baseline trained as long", "proposed", LONGER, "gains", size, None),
        (f"labels that often come with person gain ({', '.join(company)})", "proposed", longer, "gains", 0, company),
    ]
    table = {}
    for claim, name, other, kind, least, labels in claims:
        if other not in rows or (labels is not None and not labels):
            continue
        table[claim] = {"rows": f"{name} vs. {other}", "verdict": "not run"}
        if {*rows[name].seeds} & {*rows[other].seeds}:
            delta = difference(rows[name], rows[other], labels)
            table[claim] |= delta | {"verdict": verdict(delta["low"], delta["high"], kind, least)}
    table = pd.DataFrame.from_dict(table, orient="index").reindex(columns=["rows", "verdict", *DIFFERENCE])
    return table.rename_axis("claim").astype(dict.fromkeys(DIFFERENCE, float))


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
    """mAP (%) of the first seed on test at the last epoch, at the epoch that val picks, and at the one that test picks.

    val: the run of the same learning rate that was trained on `train`.
    """
    table, folder = {}, rooted(runs)
    for row in read_rows(runs, dataset, stage).values():
        if not row.files or row.name == AVERAGED:
            continue
        test = Run(row.files[0][0].parent)
        place = test.folder.relative_to(folder)
        candidates = [Run(folder / "val" / f"lr{test.settings.lr:g}" / place), Run(folder / "val" / place)]
        val = next((run for run in candidates if run.complete), None)
        if val and "mAP" in test.history and "mAP" in val.history:
            mean_ap, picked = test.history["mAP"], val.history["mAP"].idxmax()
            last, best = mean_ap.iloc[-1], mean_ap.max()
            table[row.name] = [last, mean_ap[picked], best, best - last]
    columns = ["last", "picked on val", "picked on test", "optimistic bias"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)


def with_best_marked(table: pd.DataFrame) -> "pd.io.formats.style.Styler":
    """Best in red and second best in blue in each column, as in the paper's Table 1."""
    colours = {1: "color: #c00; font-weight: bold", 2: "color: #00c; font-weight: bold"}
    styled = table.style.apply(lambda column: column.rank(ascending=False, method="min").map(colours).fillna(""))
    styled = styled.format(precision=1, na_rep="", escape="html")
    return styled.format_index(escape="html").format_index(escape="html", axis=1)
