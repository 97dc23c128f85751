"""Tables from score files alone; `python -m attnsem.results` writes the README's."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from attnsem import metrics
from attnsem.paper import ROOT
from attnsem.runs import Run, rooted, write

PARTS = {"baseline": "y′", "attended": "ŷ_att", "semantic": "ỹ", "fused": "ŷ"}
KEPT = ("manifest.json", "history.csv", "metrics.json", "scores.npz")
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
    """Copies what is small of every complete stage below `runs` to results/<name>."""
    for manifest in sorted(runs.rglob("manifest.json")):
        for kept in KEPT:
            content = (manifest.parent / kept).read_bytes()
            target = results / name / manifest.parent.relative_to(runs) / kept
            write(target, lambda partial, content=content: partial.write_bytes(content))


def recorded(results: Path = ROOT / "results") -> pd.DataFrame:
    """mAP (%) of every recorded stage, re-scored: of each part, and three more readings of what the stage trains."""
    rows = []
    for manifest in sorted(results.rglob("manifest.json"), key=lambda path: path.parent.parts):
        run = Run(manifest.parent)
        settings, parts, own = run.settings, parts_table(run), stages_table([run]).iloc[0]
        frozen = "" if settings.train_backbone else " frozen"
        row = {
            "recorded in": run.folder.relative_to(results).as_posix(),
            "backbone, pixels": f"{settings.backbone}{frozen}, {settings.image_size}",
            "epochs": settings.epochs,
            "chance": 100 * (run.scores()["targets"] == 1).mean(),
        }
        row |= {sign: parts[("none", "ignore")].get(sign, "") for sign in PARTS.values()}
        row |= {"11-point": own[("11-point", "ignore")], "all-point": own[("all-point", "ignore")]}
        rows.append(row | {"lowest of nine": own.min()})
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    cells = [
        [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row] for row in table.to_numpy(object)
    ]
    lines = [list(table.columns), ["---"] * table.shape[1], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_results(readme: str) -> str:
    """The README's text with the table of what is recorded now."""
    before, rest = readme.split(MARKS[0])
    return before + MARKS[0] + as_markdown(recorded()) + MARKS[1] + rest.split(MARKS[1])[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record runs under results/ and write the README's table anew.")
    parser.add_argument("--runs", help="folder of runs to record")
    parser.add_argument("--name", help="their folder under results/")
    given = parser.parse_args()
    if given.runs:
        record(rooted(given.runs), given.name)
    readme = ROOT / "README.md"
    readme.write_text(with_results(readme.read_text()))
