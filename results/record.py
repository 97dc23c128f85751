"""`python -m results.record`: what is recorded of runs under results/, and the tables that pages show of it."""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.analysis import claims, tables
from attnsem.analysis.report import (
    channels_and_dependencies,
    claim_lines,
    claims_shown,
    compared,
    delta,
    gain_lines,
    on_the_papers_backbone,
    parts_of_gain,
    places,
)
from attnsem.analysis.results import PARTS, as_markdown, readings_of
from attnsem.analysis.rows import BASELINE, LONGER
from attnsem.files import ROOT, checksum, read_arrays, read_json, rooted, write, write_arrays, write_json, write_table
from attnsem.runs import Run

COPIED = ("history.csv", "metrics.json")
OTHERS = (BASELINE, LONGER, "attention pooling, α fixed", "se, α fixed")  # what the rows are compared with
PAGE = """# Recorded runs

Written by `python -m results.record`; none of it is typed. A folder is
`<recorded>/<dataset>/<row>/seed<k>/stage<n>`:
`scores.npz` has the logits of what the stage trains (float16), `<dataset>/images.npz` the test images' ids, labels and
targets, `metrics.json` the nine readings of the full scores and the mAP of each part, `history.csv` an epoch a line,
`manifest.json` parameters, revision, versions, machine, seconds and checksums. Below `val/` are the runs by which
learning rates were chosen, without scores, or `stage<n>-draws.json` with every draw of a search.
`differences-stage<n>.csv`, `gain-stage<n>.csv` and `claims-stage<n>.csv` are the paired bootstraps of the tables
below, over images and seeds; `stages.csv` has every recorded stage. [findings.md](findings.md) reads the runs on other
backbones.

mAP in %, not interpolated, difficult ignored, unless named: y′ is the backbone's own classifier, ŷ_att the attention
with confidence maps, ỹ the semantic part or the control that stands in its place, ŷ the fusion. `baseline` is the
backbone alone, after stage 1. Δ mAP is in points, with its 95 % bootstrap interval over test images and seeds.
"""
MARKS = "<!-- results -->\n", "<!-- end of results -->"


def record(runs: Path, name: str, results: Path = ROOT / "results") -> None:
    """Copies what is small of every complete stage below `runs` to results/<name>.

    Of the scores those of what the stage trains, in float16, and none of runs on val; the manifest then names that
    file's checksum, and keeps the full one's. Test images are the same for all: <dataset>/images.npz. metrics.json is
    from the full scores.
    """
    for path in sorted(set(runs.rglob("manifest.json")) - set(runs.glob("val/draw*/**/manifest.json"))):
        run, target = Run(path.parent), results / name / path.parent.relative_to(runs)
        for file in COPIED:
            if not (run.folder / file).exists():  # what trains without epochs has no history
                continue
            write(target / file, lambda partial, source=run.folder / file: shutil.copyfile(source, partial))
        manifest = run.manifest
        if run.settings.test_split == "test":
            scores = run.scores()
            record_images({key: scores[key] for key in ("ids", "labels", "targets")}, target.parents[2] / "images.npz")
            write_arrays(target / "scores.npz", {"scores": scores["scores"].astype(np.float16)})
            manifest["full_scores_sha256"] = manifest["scores_sha256"]
            manifest["scores_sha256"] = checksum(target / "scores.npz")
        write_json(target / "manifest.json", manifest)
    for path in sorted(runs.glob("val/*/*/stage*.json")):
        write_json(results / name / path.relative_to(runs), read_json(path))


def record_images(images: dict[str, np.ndarray], path: Path) -> None:
    """Once for all runs of a data set; StudyError where others are recorded there."""
    if path.exists() and any(not np.array_equal(array, images[name]) for name, array in read_arrays(path).items()):
        raise StudyError(f"{path} has other test images than these runs; record them under another --name")
    write_arrays(path, images)


def compare(results: Path = ROOT / "results", name: str | None = None) -> None:
    """Writes <recorded>/<dataset>/differences-stage<n>.csv, every row vs. those of OTHERS, and claims-stage<n>.csv.

    The slow part: 1,000 resamples of each score file. name: of what is recorded; None is all.
    """
    for folder, dataset, stage in places(results):
        if name not in (None, folder.name):
            continue
        rows = tables.read_rows(folder, dataset, stage)
        differences = [tables.differences(rows.values(), rows[other]) for other in OTHERS if other in rows]
        write_table(folder / dataset / f"differences-stage{stage}.csv", pd.concat(differences).round(4))
        write_table(folder / dataset / f"gain-stage{stage}.csv", parts_of_gain(rows))
        tested = claims.tested(rows, dataset, stage).round(4)
        write_table(folder / dataset / f"claims-stage{stage}.csv", tested, index=False)


def summary(folder: Path, dataset: str, stage: int) -> pd.DataFrame:
    """A row a table's row that has been run: mAP (%), its spread over seeds, and what compare() wrote."""
    rows = [row for row in tables.read_rows(folder, dataset, stage).values() if row.files]
    table = tables.mean_and_spread(rows).reset_index()
    differences = pd.read_csv(folder / dataset / f"differences-stage{stage}.csv").set_index(["vs.", "row"])
    for other in differences.index.unique(0):
        deltas = differences.loc[other].apply(delta, axis=1)
        table[f"Δ mAP vs. {other} (95 % CI)"] = table["row"].map(deltas).fillna("")
    return table.assign(**{"sd of seeds": table["sd of seeds"].map("{:.2f}".format).replace("nan", "")})


def heading(folder: Path, dataset: str, stage: int) -> str:
    backbone = tables.backbone(tables.read_rows(folder, dataset, stage), stage)
    return f"{folder.name}, {dataset}, after stage {stage}: {backbone}"


def recorded_stages(results: Path = ROOT / "results") -> str:
    """results/stages.csv: mAP (%) of every tested stage: of each part, and three more readings of what it trains."""
    rows = []
    for path in sorted(results.rglob("scores.npz"), key=lambda path: path.parent.parts):
        run = Run(path.parent)
        settings, readings = run.settings, readings_of(run)["mAP"]
        parts = read_json(run.folder / "metrics.json")["parts"]
        frozen = "" if settings.train_backbone else " frozen"
        row = {
            "recorded in": run.folder.relative_to(results).as_posix(),
            "backbone, pixels": f"{settings.backbone}{frozen}, {settings.image_size}",
            "epochs": settings.epochs if "system" not in run.manifest else "",
            "chance": 100 * (run.scores()["targets"] == 1).mean(),
        }
        row |= {sign: parts.get(part, "") for part, sign in PARTS.items()}
        row |= {name: readings[(name, "ignore")] for name in ("11-point", "all-point")}
        row |= {"other system": readings[("none", "ignore")]} if "system" in run.manifest else {}
        rows.append(row | {"lowest of nine": readings.min()})
    return pd.DataFrame(rows).round(2).to_csv(index=False, lineterminator="\n")


def with_results(text: str) -> str:
    """The README's text with its marked part, the paper's claims on the paper's backbone, written anew."""
    shown = [place for place in places() if on_the_papers_backbone(*place)]
    parts = [
        f"**{heading(*place)}**\n\n{as_markdown(claim_lines(claims_shown(compared(*place, 'claims'))))}\n"
        + as_markdown(gain_lines(compared(*place, "gain")))
        for place in shown
    ]
    before, rest = text.split(MARKS[0])
    return before + MARKS[0] + "\n".join(parts) + MARKS[1] + rest.split(MARKS[1])[1]


def page() -> str:
    """results/README.md: every row, the claims, and what notebooks 09 and 10 wrote."""
    parts = []
    for place in places():
        shown = [summary(*place), gain_lines(compared(*place, "gain")), claim_lines(compared(*place, "claims"))]
        shown += channels_and_dependencies(*place).values()
        parts += [f"## {heading(*place)}\n", *map(as_markdown, shown)]
    return f"{PAGE}\n" + "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record runs under results/ and write the pages' tables anew.")
    parser.add_argument("--runs", help="folder of runs to record")
    parser.add_argument("--name", help="their folder under results/")
    arguments = parser.parse_args()
    if bool(arguments.runs) != bool(arguments.name):
        sys.exit("--runs and --name go together: the folder of runs, and what to call it under results/")
    if arguments.runs:
        record(rooted(arguments.runs), arguments.name)
    compare(name=arguments.name)
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text()))
    (ROOT / "results/README.md").write_text(page())
    (ROOT / "results/stages.csv").write_text(recorded_stages())
