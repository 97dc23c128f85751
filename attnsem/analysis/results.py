"""What is recorded of runs under results/, and the tables that `python -m attnsem.analysis.results` writes from it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import metrics
from attnsem.analysis import tables
from attnsem.analysis.rows import BASELINE, LONGER, REPAIR
from attnsem.files import ROOT, checksum, read_json, rooted, write, write_arrays, write_json
from attnsem.runs import Run

PARTS = {"baseline": "y′", "attended": "ŷ_att", "semantic": "ỹ", "fused": "ŷ"}
KEPT = ("history.csv", "metrics.json")
LESS = (
    "baseline",
    "baseline, trained longer",
    "attention pooling, α fixed",
    "se, α fixed",
)  # what the other rows are compared with
PAGE = """# Recorded runs

Written by `python -m attnsem.analysis.results`; none of it is typed. A folder is
`<recorded>/<dataset>/<row>/seed<k>/stage<n>`:
`scores.npz` has ids, labels, targets and the logits of what the stage trains (float16), `metrics.json` the nine
readings of the full scores and the mAP of each part, `history.csv` an epoch a line, `manifest.json` parameters,
revision, versions, machine, seconds and checksums. Below `val/` are the runs by which learning rates were chosen,
without scores. `differences-stage<n>.csv` and `verdicts-stage<n>.csv` are the paired bootstraps of the README's tables.

mAP in %, not interpolated, difficult ignored, unless named: y′ is the backbone's own classifier, ŷ_att the attention
with confidence maps, ỹ the semantic part or the control that stands in its place, ŷ the fusion.
"""
TELLING = (  # rows that the README shows; results/README.md has all
    *(BASELINE, "att", "se", "proposed", "se5_conv5", "proposed, confidence gate", LONGER, *LESS[2:], "two_layer"),
    *("shuffled, confidence gate, α fixed", REPAIR, "proposed, confidence gate, out-of-fold baseline"),
    *("proposed, pooled gate, semantic loss", f"{REPAIR}, 4 channels", f"{REPAIR}, text similarity"),
)
MARKS = "<!-- results -->\n", "<!-- end of results -->"


def readings_of_parts(run: Run) -> dict[str, pd.DataFrame]:
    """metrics.readings of each part's logits, by its sign in the paper."""
    found = run.scores()
    targets, labels = found["targets"], found["labels"]
    return {sign: metrics.readings(targets, found[part], labels) for part, sign in PARTS.items() if part in found}


def parts_table(run: Run) -> pd.DataFrame:
    """mAP (%): a row a part of the network, the nine readings as columns (interpolation, difficult)."""
    return pd.DataFrame({sign: table["mAP"] for sign, table in readings_of_parts(run).items()}).T


def stages_table(runs: Sequence[Run]) -> pd.DataFrame:
    """mAP (%) of what each stage trains: a row a stage, the nine readings as columns (interpolation, difficult)."""
    rows = {}
    for run in runs:
        found = run.scores()
        rows[f"stage {run.settings.stage}"] = metrics.readings(found["targets"], found["scores"], found["labels"])[
            "mAP"
        ]
    return pd.DataFrame(rows).T


def labels_table(run: Run) -> pd.DataFrame:
    """AP (%) of each label and mAP, not interpolated, difficult ignored: a row a part of the network."""
    return pd.DataFrame({sign: table.loc[("none", "ignore")] for sign, table in readings_of_parts(run).items()}).T


def record(runs: Path, name: str, results: Path = ROOT / "results") -> None:
    """Copies what is small of every complete stage below `runs` to results/<name>.

    Of the scores those of what the stage trains, in float16 (metrics.json is from the full ones), and none of runs
    on val. The manifest then names the recorded file's checksum, and keeps the full one's.
    """
    for path in sorted(runs.rglob("manifest.json")):
        run, target = Run(path.parent), results / name / path.parent.relative_to(runs)
        for kept in KEPT:
            content = (run.folder / kept).read_bytes()
            write(target / kept, lambda partial, content=content: partial.write_bytes(content))
        manifest = run.manifest
        if run.settings.test_split == "test":
            scores = run.scores()
            kept = {key: scores[key] for key in ("ids", "labels", "targets")}
            write_arrays(target / "scores.npz", kept | {"scores": scores["scores"].astype(np.float16)})
            manifest["full_scores_sha256"] = manifest["scores_sha256"]
            manifest["scores_sha256"] = checksum(target / "scores.npz")
        write_json(target / "manifest.json", manifest)


def compare(results: Path = ROOT / "results", name: str | None = None) -> None:
    """Writes <recorded>/<dataset>/differences-stage<n>.csv, every row less those of LESS, and verdicts-stage<n>.csv.

    The slow part: 1,000 resamples of each score file. name: of what is recorded; None is all.
    """
    for folder, dataset, stage in compared(results):
        if name not in (None, folder.name):
            continue
        found, less = tables.rows(folder, dataset, stage), []
        for other in (name for name in LESS if name in found):
            table = tables.differences(found.values(), found[other]).rename_axis("row").reset_index()
            less.append(table.assign(less=other))
        place = folder / dataset
        write_csv(place / f"differences-stage{stage}.csv", pd.concat(less).round(4))
        company = tables.company("person", found[BASELINE])
        size = tables.stated_gain(dataset)
        write_csv(place / f"verdicts-stage{stage}.csv", tables.verdicts(found, size, company).reset_index().round(4))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    write(path, lambda partial: table.to_csv(partial, index=False, lineterminator="\n"))


def compared(results: Path = ROOT / "results") -> list[tuple[Path, str, int]]:
    """Recorded folder, data set and last stage, wherever there are three rows or more to compare."""
    paths = [path for stage in (3, 4) for path in sorted(results.glob(f"*/*/proposed/seed0/stage{stage}"))]
    places = [(path.parents[3], path.parents[2].name, int(path.name[-1])) for path in paths]
    return [place for place in places if sum(bool(row.files) for row in tables.rows(*place).values()) > 2]


def summary(folder: Path, dataset: str, stage: int) -> pd.DataFrame:
    """A row a table's row that has been run: mAP (%), its spread over seeds, and what compare() wrote."""
    rows = [row for row in tables.rows(folder, dataset, stage).values() if row.files]
    measured = tables.mean_and_spread(rows).drop(columns="runs").reset_index()
    written = pd.read_csv(folder / dataset / f"differences-stage{stage}.csv").set_index(["less", "row"])
    for name in LESS:
        if name in written.index:
            text = written.loc[name].apply(interval, axis=1)
            measured[f"less {name}"] = measured["row"].map(text).fillna("")
    measured["sd of seeds"] = measured["sd of seeds"].map(lambda sd: "" if pd.isna(sd) else f"{sd:.2f}")
    return measured.rename(columns={"rows": "kind"})


def interval(row: pd.Series) -> str:
    return f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"


def verdict_lines(folder: Path, dataset: str, stage: int) -> pd.DataFrame:
    table = pd.read_csv(folder / dataset / f"verdicts-stage{stage}.csv").query("verdict != 'not run'")
    return table[["claim", "rows", "verdict"]].assign(difference=[interval(row) for _, row in table.iterrows()])


def attention_lines(folder: Path, dataset: str, stage: int) -> list[str]:
    """What notebooks 09 and 10 wrote beside the recorded runs, as tables: empty where they have not been run there."""
    place, parts = folder / dataset, []
    for path in sorted(place.glob(f"localisation_*_stage{stage}.csv")):
        table = pd.read_csv(path)
        shown = {
            name: [between(row, name) for _, row in table.iterrows()] for name in ("pointing game", "mass less area")
        }
        parts.append(as_markdown(table[["maps"]].assign(**shown)))
    columns = {
        "agreement": ["1 − α", "rank correlation", "p", "plain correlation", "plain p"],
        "planted": ["precision", "average precision"],
    }
    for name, wanted in columns.items():
        if (path := place / f"{name}_stage{stage}.csv").exists():
            table = pd.read_csv(path)[["row", *wanted]]
            shown = {name: ["" if pd.isna(cell) else f"{cell:.2f}" for cell in table[name]] for name in wanted}
            parts.append(as_markdown(table.assign(**shown)))
    if (path := place / f"scale_stage{stage}.csv").exists():
        table = pd.read_csv(path)
        parts.append(as_markdown(table.iloc[:, :1].assign(difference=[interval(row) for _, row in table.iterrows()])))
    return parts


def between(row: pd.Series, name: str) -> str:
    return f"{row[name]:.1f} ({row[f'{name}, low']:.1f} to {row[f'{name}, high']:.1f})"


def heading(folder: Path, dataset: str, stage: int) -> str:
    settings = Run(next((folder / dataset).glob("densenet/seed*/stage1"))).settings
    frozen = "fine-tuned" if stage == 4 else "frozen" if not settings.train_backbone else "trained in stage 1"
    return f"{folder.name}, {dataset}, after stage {stage}: {settings.backbone} {frozen}, {settings.image_size} pixels"


def recorded(results: Path = ROOT / "results") -> pd.DataFrame:
    """mAP (%) of every recorded stage that was tested: of each part, and three more readings of what it trains."""
    rows = []
    for path in sorted(results.rglob("scores.npz"), key=lambda path: path.parent.parts):
        run = Run(path.parent)
        settings, parts, own = (
            run.settings,
            read_json(run.folder / "metrics.json")["parts"],
            stages_table([run]).iloc[0],
        )
        frozen = "" if settings.train_backbone else " frozen"
        row = {
            "recorded in": run.folder.relative_to(results).as_posix(),
            "backbone, pixels": f"{settings.backbone}{frozen}, {settings.image_size}",
            "epochs": settings.epochs,
            "chance": 100 * (run.scores()["targets"] == 1).mean(),
        }
        row |= {sign: parts.get(part, "") for part, sign in PARTS.items()}
        row |= {"11-point": own[("11-point", "ignore")], "all-point": own[("all-point", "ignore")]}
        rows.append(row | {"lowest of nine": own.min()})
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    cells = [
        [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row] for row in table.to_numpy(object)
    ]
    lines = [list(table.columns), ["---"] * table.shape[1], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_results(text: str) -> str:
    """The README's text with its marked part written anew from what is recorded now."""
    parts = []
    for place in compared():
        table = summary(*place)
        parts += [f"### {heading(*place)}\n", as_markdown(table[table["row"].isin(TELLING)])]
        parts += [as_markdown(verdict_lines(*place)), *attention_lines(*place)]
    before, rest = text.split(MARKS[0])
    return before + MARKS[0] + "\n".join(parts) + MARKS[1] + rest.split(MARKS[1])[1]


def page() -> str:
    """results/README.md: every row, and every recorded stage."""
    rows = [f"## {heading(*place)}\n\n{as_markdown(summary(*place))}\n" for place in compared()]
    return f"{PAGE}\n{''.join(rows)}## Every recorded stage\n\n{as_markdown(recorded())}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record runs under results/ and write the pages' tables anew.")
    parser.add_argument("--runs", help="folder of runs to record")
    parser.add_argument("--name", help="their folder under results/")
    given = parser.parse_args()
    if bool(given.runs) != bool(given.name):
        sys.exit("--runs and --name go together: the folder of runs, and what to call it under results/")
    if given.runs:
        record(rooted(given.runs), given.name)
    compare(name=given.name)
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text()))
    (ROOT / "results/README.md").write_text(page())
