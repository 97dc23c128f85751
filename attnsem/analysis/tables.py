"""Rows of the tables from score files: mean and spread over seeds, differences between rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError, metrics, paper
from attnsem.analysis import statistics, systems
from attnsem.analysis.rows import BASELINE, GROUPS, POOLING, ROWS, choice_path, settings_of, stages_of
from attnsem.files import read_json, rooted
from attnsem.paper import ALPHA, Settings
from attnsem.runs import Run

ATTENDED = "ŷ_att alone"  # what attention pooling fuses with y′
Statistic = Callable[[np.ndarray], np.ndarray]  # of labels' Δ AP (…, C) -> (…)
DIFFERENCE = ["Δ mAP", "low", "high", "sd of seeds", "seeds"]
FUSED = {  # rows made of other rows' score files: of which row's seed s, or the next one, and the weight in ŷ
    "two baselines, α fixed": [(BASELINE, 0, ALPHA), (BASELINE, 1, 1 - ALPHA)],
    ATTENDED: [(POOLING, 0, 1.0)],
    "baseline and two ŷ_att, α fixed": [(BASELINE, 0, ALPHA), *((POOLING, s, (1 - ALPHA) / 2) for s in (0, 1))],
}


@dataclass(frozen=True)
class Row:
    """A row of a table: the score files of its seeds, the same test images in each.

    Of several files the logits are added by `weights`.
    """

    group: str
    name: str
    files: tuple[tuple[Path, ...], ...] = ()
    weights: tuple[float, ...] = (1.0,)

    @property
    def labels(self) -> list[str]:
        return read_scores(self.files[0][0])["labels"].tolist()

    @property
    def seeds(self) -> list[str]:
        return [path.parents[1].name for path, *_ in self.files]

    def of(self, seeds: set[str]) -> "Row":
        pairs = zip(self.seeds, self.files, strict=True)
        return replace(self, files=tuple(files for seed, files in pairs if seed in seeds))

    def logits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Targets and logits (images, C) of each seed."""
        return [logits(files, self.weights) for files in self.files]

    def ap(self) -> pd.DataFrame:
        """AP (%) not interpolated, difficult ignored: a row a seed, columns the labels and mAP."""
        table = pd.DataFrame([100 * metrics.average_precision(*part) for part in self.logits()], self.seeds)
        table.columns = self.labels
        return table.assign(mAP=table.mean(axis=1))

    def precision_recall_f1(self) -> pd.DataFrame:
        """metrics.precision_recall_f1 (%), mean over seeds."""
        return sum(metrics.precision_recall_f1(*part) for part in self.logits()) / len(self.files)

    def readings(self) -> pd.DataFrame:
        """metrics.readings of the first seed."""
        return metrics.readings(*logits(self.files[0], self.weights), self.labels)

    def resamples(self) -> np.ndarray:
        """(seeds, resamples, C) AP (%); the same draws of test images for every row."""
        times = [tuple(map(written, files)) for files in self.files]
        return np.stack([resampled_ap(*one, self.weights) for one in zip(self.files, times, strict=True)])


def read_scores(path: Path) -> dict[str, np.ndarray]:
    return scores_at(path, written(path))


def written(path: Path) -> int:
    """When a run's score file was: its manifest comes last."""
    return path.with_name("manifest.json").stat().st_mtime_ns


@cache
def scores_at(path: Path, time: int) -> dict[str, np.ndarray]:
    """As the file was written at that time: the same notebook may read it again after another training."""
    return same_as(Run(path.parent)).scores()


def same_as(run: Run) -> Run:
    """Stage 1's run where stage 3 ends at α = 1 and has its logits but for bfloat16's rounding, as a GPU has."""
    first = run.settings
    while before := paper.before(first):
        first = before
    parent = Run.of(first, run.folder.parents[3])
    if run.settings.stage != 3 or not parent.complete or not parent.score_file.exists():
        return run
    ours, its = (arrays["scores"].astype(np.float32) for arrays in (run.scores(), read_scores(parent.score_file)))
    is_alike = ours.shape == its.shape and np.allclose(ours, its, rtol=2**-8, atol=2**-5)
    return parent if is_alike and run.history["alpha"].iloc[-1] == 1 else run


def logits(files: tuple[Path, ...], weights: tuple[float, ...] = (1.0,)) -> tuple[np.ndarray, np.ndarray]:
    """Targets and logits (images, C) of a seed's files, added by their weights."""
    arrays = [read_scores(path) for path in files]
    parts = [scores["scores"].astype(np.float32) for scores in arrays]
    return arrays[0]["targets"], sum(weight * part for weight, part in zip(weights, parts, strict=True))


@cache
def resampled_ap(files: tuple[Path, ...], times: tuple[int, ...], weights: tuple[float, ...]) -> np.ndarray:
    return 100 * statistics.bootstrap(*logits(files, weights))


def read_rows(runs: str | Path, dataset: str, stage: int) -> dict[str, Row]:
    """Every row of rows.GROUPS after that stage, then the other systems, by name; without files where not run.

    runs: a folder of runs, or one of results/. StudyError where it has none.
    """
    rows, folder = {}, rooted(runs)
    for group, names in GROUPS.items():
        for name, row in names.items():
            if stages := stages_of(row, stage):
                settings = settings_of(row, stages[-1], dataset=dataset)
                files = tuple((path,) for path in score_files(settings, folder).values())
                rows[name] = Row(group, name, files)
    if not any(row.files for row in rows.values()):
        remedy = "name a folder that has by -p runs, or run a grid (README.md)"
        raise StudyError(f"{folder} has no complete run of {dataset} up to stage {stage}; {remedy}")
    rows |= {name: fused(name, folder, dataset) if stage < 4 else Row("controls", name) for name in FUSED}
    rows = dict(sorted(rows.items(), key=lambda item: list(GROUPS).index(item[1].group)))
    return rows | system_rows(folder, dataset)


def system_rows(folder: Path, dataset: str) -> dict[str, Row]:
    """The other systems, by name, of the folder, or of `more` there, another machine's; without files where not run."""
    rows, homes = {}, (folder, folder / "more")
    for key, system in systems.SYSTEMS.items():
        found = next(filter(None, (complete_files(home / dataset / key, 1) for home in homes)), {})
        rows[system.name] = Row(systems.GROUP, system.name, tuple((path,) for path in found.values()))
    return rows


def score_files(settings: Settings, folder: Path) -> dict[str, Path]:
    """By seed, of the complete runs of a stage."""
    return complete_files(Run.of(settings, folder).folder.parents[1], settings.stage)


def complete_files(part: Path, stage: int) -> dict[str, Path]:
    runs = [Run(folder) for folder in sorted(part.glob(f"seed*/stage{stage}"))]
    found = [run.folder for run in runs if run.complete and run.score_file.exists()]
    return {folder.parent.name: folder / "scores.npz" for folder in found}


def fused(name: str, folder: Path, dataset: str) -> Row:
    """A row of FUSED, of ŷ_att as stage 2 leaves it; without files where there are not the seeds of each part."""
    terms, columns = FUSED[name], []
    for part, offset, _ in terms:
        paths = score_files(settings_of(ROWS[part], 1 if part == BASELINE else 2, dataset=dataset), folder)
        following = dict(zip(paths, [*list(paths)[offset:], *list(paths)[:offset]], strict=True))
        columns.append({seed: paths[other] for seed, other in following.items() if len(paths) > offset})
    seeds = sorted(set.intersection(*(set(column) for column in columns)))
    files = tuple(tuple(column[seed] for column in columns) for seed in seeds)
    return Row("controls", name, files, tuple(weight for *_, weight in terms))


def seeds(rows: dict[str, Row]) -> list[str]:
    """Those of which any row has been run, as far as any has."""
    runs = sorted((path.parent.name, path.parents[1].name) for row in rows.values() for path, *_ in row.files)
    return sorted({seed.removeprefix("seed") for stage, seed in runs if stage == runs[-1][0]})


def backbone(rows: dict[str, Row], stage: int) -> str:
    """Of a table's runs, as a heading has it: name, whether it was trained, and the images' size."""
    first = next(row for row in rows.values() if row.files)  # the baseline, where it has been run
    settings = Run(first.files[0][0].parent).settings
    trained = "trained in stage 1" if settings.train_backbone else "frozen"
    trained = "fine-tuned" if stage == 4 else trained if first.name == BASELINE else ""
    return f"{settings.backbone} {trained}".rstrip() + f", {settings.image_size} pixels"


def mean_and_spread(rows: Iterable[Row]) -> pd.DataFrame:
    """mAP (%) of the rows that have been run, by kind and row: mean and standard deviation over seeds, how many."""
    ap = {(row.group, row.name): row.ap()["mAP"] for row in rows if row.files}
    table = [{"mAP": part.mean(), "sd of seeds": part.std(), "seeds": len(part)} for part in ap.values()]
    names = pd.MultiIndex.from_tuples(ap, names=["kind", "row"])
    return pd.DataFrame(table, names, columns=["mAP", "sd of seeds", "seeds"])


def by_label(rows: Iterable[Row]) -> pd.DataFrame:
    """AP (%) of each label and mAP, mean over seeds: a row a table's row that has been run."""
    return pd.DataFrame({row.name: row.ap().mean() for row in rows if row.files}).T


def precision_recall_f1(rows: Iterable[Row]) -> pd.DataFrame:
    """CP, CR, CF1, OP, OR and OF1 (%), mean over seeds: a row a row that has been run; columns (threshold, metric)."""
    table = {row.name: row.precision_recall_f1().T.unstack() for row in rows if row.files}
    return pd.DataFrame(table).T.rename_axis("row")


def difference(row: Row, other: Row) -> dict[str, float]:
    """Δ mAP over the seeds that both have: mean, 95 % interval over images and seeds, standard deviation, seeds."""
    estimate, by_seed = estimated(row, other, lambda delta: np.nanmean(delta, axis=-1))
    low, high = estimate.interval
    spread = {"sd of seeds": by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan, "seeds": len(by_seed)}
    return {"Δ mAP": estimate.value, "low": low, "high": high} | spread


def estimated(row: Row, other: Row, statistic: Statistic) -> tuple[statistics.Estimate, np.ndarray]:
    """A statistic of the labels' Δ AP: the estimate of its mean over seeds, and its values by seed."""
    seeds = {*row.seeds} & {*other.seeds}
    row, other = row.of(seeds), other.of(seeds)
    delta = (row.ap() - other.ap()).drop(columns="mAP").to_numpy()
    resamples, by_seed = statistic(row.resamples() - other.resamples()), statistic(delta)
    drawn = statistics.two_way(resamples), resamples.mean(axis=0)
    return statistics.Estimate.of(float(by_seed.mean()), *drawn, len(seeds)), by_seed


def differences(rows: Iterable[Row], other: Row) -> pd.DataFrame:
    """`difference` of each row that has been run to `other`: a row each, columns as there, and the other row's name."""
    table = {row.name: difference(row, other) for row in rows if {*row.seeds} & {*other.seeds} and row != other}
    table = pd.DataFrame.from_dict(table, orient="index", columns=DIFFERENCE, dtype=float).astype({"seeds": int})
    return table.assign(**{"vs.": other.name}).rename_axis("row")


def company(label: str, row: Row) -> list[str]:
    """Labels of which more than half of the test images show `label` too; none where there is no such label."""
    if not row.files or label not in row.labels:
        return []
    present = pd.DataFrame(logits(row.files[0])[0] == 1, columns=row.labels)
    return [other for other in row.labels if other != label and present[label][present[other]].mean() > 0.5]


def seed_differences(rows: Iterable[Row], other: Row) -> pd.DataFrame:
    """Δ mAP (points) of each seed: a row a row that has been run."""
    ours = {row.name: row.ap()["mAP"] - other.ap()["mAP"] for row in rows if row.files and row != other}
    return pd.DataFrame.from_dict(ours, orient="index")


def draws(runs: str | Path, dataset: str, stage: int) -> pd.DataFrame:
    """What a search on val has tried (analysis/search.py): a line a draw, by row; what was drawn, mAP, the last α."""
    parts = []
    for name, row in ROWS.items():
        if stage in stages_of(row, stage):
            choice = choice_path(settings_of(row, stage, dataset=dataset), rooted(runs))
            path = choice.with_name(f"{choice.stem}-draws.json")
            parts += [pd.DataFrame(read_json(path)["draws"]).assign(row=name)] if path.exists() else []
    return pd.concat(parts).set_index("row") if parts else pd.DataFrame()


def best_so_far(table: pd.DataFrame) -> pd.DataFrame:
    """mAP (%) on val of the best of the first 1, 2, … draws: a row a row of `draws`."""
    by_row = table["mAP"].astype(float).groupby(level=0, sort=False)
    best = {name: part.cummax().ffill().to_numpy() for name, part in by_row}
    return pd.DataFrame.from_dict(best, orient="index").rename(columns=lambda place: place + 1)


def selection(runs: str | Path, dataset: str, stage: int) -> pd.DataFrame:
    """mAP (%) of the first seed on test at the last epoch, at the one that test picks, and at the one that val picks in
    the run of the same learning rate that was trained on `train`."""
    table, folder = {}, rooted(runs)
    for row in read_rows(runs, dataset, stage).values():
        if not row.files or row.name in FUSED or row.group == systems.GROUP:
            continue
        test = Run(row.files[0][0].parent)
        place = test.folder.relative_to(folder)
        candidates = [Run(folder / "val" / f"lr{test.settings.lr:g}" / place), Run(folder / "val" / place)]
        val = next((run for run in candidates if run.complete), None)
        on_test, on_val = (run.history.get("mAP", pd.Series()) if run else pd.Series() for run in (test, val))
        if len(on_test) and on_val.notna().any():
            last, best = on_test.iloc[-1], on_test.max()
            table[row.name] = [last, on_test.get(on_val.idxmax(), np.nan), best, best - last]
    columns = ["last", "picked on val", "picked on test", "optimistic bias"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)


def mark_best(styled: "pd.io.formats.style.Styler") -> "pd.io.formats.style.Styler":
    """Best in red and second best in blue in each line, as the paper's Table 1 has them for each label."""
    colours = {1: "color: #c00; font-weight: bold", 2: "color: #00c; font-weight: bold"}
    return styled.apply(lambda line: line.rank(ascending=False, method="min").map(colours).fillna(""), axis=1)
