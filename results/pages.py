"""What pages and tables say of results/, written from the recorded runs."""

from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import paper
from attnsem.analysis import claims, tables
from attnsem.analysis.report import FUSED_POOLING, PRINTED, delta, parts_of_gain, places
from attnsem.analysis.results import PARTS, as_markdown
from attnsem.analysis.rows import BASELINE, LONGER, REPAIR, ROWS, settings_of
from attnsem.analysis.systems import GROUP
from attnsem.analysis.systems.comparison import METHOD
from attnsem.files import ROOT, read_json, write_table
from attnsem.runs import Run
from results.alpha import readings_of_alpha
from results.first_page import first_tables

OTHERS = (BASELINE, LONGER, FUSED_POOLING, "se, α fixed", PRINTED, REPAIR)  # what the rows are compared with
OF_GROUP = {"future work": (REPAIR, f"{REPAIR}, semantic loss"), GROUP: (METHOD,)}  # and what those of a group are
HEADLINE = (METHOD, PRINTED, REPAIR, FUSED_POOLING)
PAGE = """# Results

Score files, metrics and manifests of the runs that the pages discuss, and tables made from them. This page and the
tables are written by `python -m results.record`; none of it is typed. [findings.md](findings.md) reads the runs on
other backbones than the paper's.

- [rows.csv](rows.csv): every row of every grid, its mAP, standard deviation over seeds, and Δ mAP vs. baseline.
- [stages.csv](stages.csv): every tested stage, mAP of each part of its network, and three more readings of AP.
- `<grid>/<data set>/differences-stage<n>.csv`: Δ mAP of every row vs. others, with 95 % bootstrap intervals over test
  images and seeds; `claims-stage<n>.csv`: the paper's claims, tested, and how many times narrower an interval is enough
  to decide an inconclusive one (`shrink`); `gain-stage<n>.csv`: what the gain of the confidence gate is made of.
- `<grid>/<data set>/localisation_*.csv`, `squeeze_*`, `agreement_*`, `planted_*`, `scale_*`, `company_*`,
  `influence_*`: the numbers behind notebooks 09 and 10, some of them of rows whose runs are not kept.
- `<grid>/<data set>/<row>/seed<k>/stage<n>`: a run. `scores.npz` has the logits of the test images (float16),
  `metrics.json` the nine readings of mAP and the labels' AP of the headline's (of the full logits, to four digits),
  `history.csv` an epoch a line, `manifest.json` parameters, revision, versions, machine, seconds and checksums. Equal
  scores are there once: the other runs have none, and their manifests name in `scores_of` the run that has them. So
  where α ends at 1: ŷ is y′, and stage 1's are kept, from which a GPU's own differ by rounding. Where
  `scores_left_out` is there, they have gone for room, and tables are made without that run.
- `<grid>/<data set>/images.npz`: the test images' ids, labels and targets, once for all score files.
- `<grid>/more`: other systems that another machine has run, on a stage 1 of its own; the grid's tables show them.
- `<grid>/val` and `<grid>/more/val`: runs by which schedules were chosen, without scores; `stage<n>-draws.json` has
  every draw of a search.

`make verify` follows every link from the scores to these tables, `make grid` runs what is missing
([grids](../grids/README.md)), and `python -m results.record --runs runs/NAME --name NAME` records finished runs. The
nine readings of a score file again, with numpy and pandas alone:

```python
import numpy as np
from attnsem.metrics import readings

folder = "results/voc2007-densenet448/voc2007"
images, scores = (np.load(f"{folder}/{name}.npz") for name in ("images", "proposed-alpha-fixed/seed0/stage3/scores"))
readings(images["targets"], scores["scores"], images["labels"])
```

## Grids

mAP in %, not interpolated, difficult ignored. Δ mAP vs. baseline in points, with its 95 % interval. `baseline` is the
backbone alone; `proposed` has the literal gate and α clamped; in the last three columns α is fixed at 0.48. "0 to the
last digit": the row's scores are those of its baseline, and claims about it cannot be tested.
"""


def write_pages(name: str | None = None) -> None:
    """compare(), and what WRITTEN names."""
    compare(name=name)
    for path, text_of in WRITTEN.items():
        (ROOT / path).write_text(text_of((ROOT / path).read_text()))


def compare(results: Path = ROOT / "results", name: str | None = None) -> None:
    """Writes <grid>/<dataset>/differences-stage<n>.csv, every row vs. those of OTHERS and OF_GROUP, gain and claims.

    The slow part: 1,000 resamples of each score file. name: of a grid in `results`; None is all.
    """
    for folder, dataset, stage in places(results):
        if name not in (None, folder.name):
            continue
        rows = tables.read_rows(folder, dataset, stage)
        pairs = [(rows.values(), rows[other]) for other in OTHERS if other in rows]
        for group, others in OF_GROUP.items():
            pairs += [([row for row in rows.values() if row.group == group], rows[other]) for other in others]
        differences = [tables.differences(*pair) for pair in pairs]
        write_table(folder / dataset / f"differences-stage{stage}.csv", pd.concat(differences).round(4))
        write_table(folder / dataset / f"gain-stage{stage}.csv", parts_of_gain(rows))
        tested = claims.tested(rows, dataset, stage).round(4)
        write_table(folder / dataset / f"claims-stage{stage}.csv", tested, index=False)


def rows_table(results: Path = ROOT / "results") -> pd.DataFrame:
    """results/rows.csv: a line a table's row that has been run, of every grid; what compare() wrote beside its mAP."""
    parts = []
    for folder, dataset, stage in places(results):
        rows = tables.read_rows(folder, dataset, stage)
        table = tables.mean_and_spread(row for row in rows.values() if row.files)[["mAP", "sd of seeds", "seeds"]]
        differences = pd.read_csv(folder / dataset / f"differences-stage{stage}.csv")
        vs_baseline = differences[differences["vs."] == BASELINE].set_index("row")[["Δ mAP", "low", "high"]]
        table = table.reset_index().join(vs_baseline, on="row")
        grid = {"grid": folder.name, "data set": dataset, "stage": stage, "backbone": tables.backbone(rows, stage)}
        parts.append(pd.DataFrame(grid, table.index).join(table))
    table = pd.concat(parts).rename(columns={"Δ mAP": "Δ mAP vs. baseline"})
    return table.round(4).astype({"seeds": int})


def grids_table(rows: pd.DataFrame, results: Path = ROOT / "results") -> pd.DataFrame:
    """A line a grid of rows_table, and one for what has no table of rows: its stages."""
    lines = []
    for (grid, dataset, stage), table in rows.groupby(["grid", "data set", "stage"]):
        table = table.set_index("row")
        of = f"{table['backbone'].iloc[0]}, stage {stage}"
        line = {"grid": grid, "data set": dataset, "backbone": of, "rows": f"{len(table)}"}
        fewest, most = table["seeds"].min(), table["seeds"].max()
        line |= {
            "seeds": f"{most}" if fewest == most else f"{fewest} to {most}",
            "baseline": f"{table.loc[BASELINE, 'mAP']:.1f}",
        }
        place = results / grid, dataset, stage
        lines.append(
            line | {name: gained(table.loc[name]) if name in table.index else absent(*place, name) for name in HEADLINE}
        )
    for folder in sorted(path for path in results.iterdir() if path.is_dir() and path.name not in {*rows["grid"]}):
        runs = [Run(path.parent) for path in sorted(folder.rglob("manifest.json"))]
        for split in sorted({run.settings.test_split for run in runs}):
            lines.append(stages_line(folder.name, [run for run in runs if run.settings.test_split == split]))
    return pd.DataFrame(lines).fillna("")


def stages_line(name: str, runs: list[Run]) -> dict[str, str]:
    """Of grids_table, for the runs of a folder that are scored on one split, of stage 1 alone."""
    settings = runs[0].settings
    mean_ap = np.mean([read_json(run.folder / "metrics.json")["mAP"] for run in runs if run.settings.stage == 1])
    dataset = settings.dataset + (f", {settings.test_split}" if settings.test_split != "test" else "")
    trained = "trained" if settings.train_backbone else "frozen"
    backbone = f"{settings.backbone} {trained}, {settings.image_size} pixels, stage {settings.stage}"
    line = {"grid": name, "data set": dataset, "backbone": backbone, "rows": f"stages: {len(runs)}"}
    return line | {"seeds": f"{len({run.settings.seed for run in runs})}", "baseline": f"{mean_ap:.1f}"}


def absent(folder: Path, dataset: str, stage: int, name: str) -> str:
    """In place of Δ mAP, of a row of which no scores are recorded."""
    part = folder / dataset / paper.part_of(settings_of(ROWS[name], stage, dataset=dataset))
    return "scores left out" if any(part.glob(f"seed*/stage{stage}/manifest.json")) else "not run"


def gained(row: pd.Series) -> str:
    """Δ mAP vs. baseline of a line of rows_table."""
    equal = row["low"] == row["high"] == 0
    return "0 to the last digit" if equal else delta(row.rename({"Δ mAP vs. baseline": "Δ mAP"}))


def recorded_stages(results: Path = ROOT / "results") -> str:
    """results/stages.csv: mAP (%) of every tested stage: of each part, and three more readings of what it trains."""
    rows = []
    for path in sorted(results.rglob("manifest.json"), key=lambda path: path.parent.parts):
        run = Run(path.parent)
        if not run.score_file.exists():
            continue
        settings, metrics = run.settings, read_json(run.folder / "metrics.json")
        parts, readings = metrics["parts"], {name: table["mAP"] for name, table in metrics["readings"].items()}
        frozen = "" if settings.train_backbone else " frozen"
        row = {
            "recorded in": run.folder.relative_to(results).as_posix(),
            "backbone, pixels": f"{settings.backbone}{frozen}, {settings.image_size}",
            "epochs": settings.epochs if "system" not in run.manifest else "",
            "chance": 100 * (run.scores()["targets"] == 1).mean(),
        }
        row |= {sign: parts.get(part) for part, sign in PARTS.items()}
        row |= {name: readings[f"{name} ignore"] for name in ("11-point", "all-point")}
        row |= {"other system": readings["none ignore"]} if "system" in run.manifest else {}
        rows.append(row | {"lowest of nine": min(value for value in readings.values() if value is not None)})
    return pd.DataFrame(rows).round(2).to_csv(index=False, lineterminator="\n")


def page() -> str:
    """results/README.md: what is here, how to score it again, and a line a grid."""
    return f"{PAGE}\n{as_markdown(grids_table(rows_table()))}"


def recorded_rows() -> str:
    return rows_table().to_csv(index=False, lineterminator="\n")


def with_parts(text: str, parts: dict[str, str]) -> str:
    """The text with what stands between `<!-- name -->` and `<!-- end of name -->` written anew."""
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}{part}{end}{rest.split(end)[1]}"
    return text


WRITTEN = {  # what is made of the recorded runs, from the text that is there
    "README.md": lambda text: with_parts(text, first_tables()),
    "CHOICES.md": lambda text: with_parts(text, {"alpha": as_markdown(readings_of_alpha())}),
    "results/README.md": lambda text: page(),
    "results/rows.csv": lambda text: recorded_rows(),
    "results/stages.csv": lambda text: recorded_stages(),
}
