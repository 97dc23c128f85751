"""The two tables of the first page, written from the result files: what gains how much, and the paper's claims."""

from pathlib import Path

import pandas as pd

from attnsem.analysis import claims, tables
from attnsem.analysis.report import (
    FUSED_POOLING,
    KINDS,
    PRINTED,
    claim_lines,
    claims_shown,
    compared,
    delta,
    on_the_papers_backbone,
    order,
    places,
    reference,
)
from attnsem.analysis.results import as_markdown
from attnsem.analysis.rows import BASELINE, REPAIR
from attnsem.analysis.systems.comparison import METHOD
from attnsem.files import ROOT
from attnsem.runs import Run

SEEDS = 4  # of a grid whose claims the first page shows
CLAIMED_IN = [f"fine-tuned, α {kind}" for kind in KINDS[:2]] + ["stage 4, α fixed"]
CLAIMED_IN += [f"frozen, α {kind}" for kind in KINDS[:2]]
GAINS_IN = {  # where the first table's gains are recorded
    "fine-tuned 448, stage 3": ("voc2007-densenet448-tuned", "voc2007", 3),
    "fine-tuned 224, stage 4": ("voc2007-densenet224-batchnorm", "voc2007", 4),
    "frozen 448": ("voc2007-densenet448", "voc2007", 3),
    "frozen 224, MIRFlickr": ("mirflickr-densenet224", "mirflickr38", 3),
}
ALPHA_LEARNT = ("proposed, α sigmoid", "proposed, α warm-up")  # whose α does not end at 1 at once
GAINS_OF = (  # what the first table's lines say, and which rows' gains they have: the first that is recorded
    ("the method, α learnt in [0, 1]", *ALPHA_LEARNT, METHOD),
    ("the method, α fixed", PRINTED),
    ("… with ỹ the same for every image", "att, α fixed"),
    ("… without attention", "se, α fixed"),
    ("… without SE and paths between labels", "grouped, α fixed"),
    ("two baselines (two backbones)", "two baselines, α fixed"),
    ("the repair, α fixed", REPAIR),
    ("… without SE and paths between labels", "grouped, confidence gate, α fixed"),
    ("y′ and ŷ_att", FUSED_POOLING),
)


def first_tables() -> dict[str, str]:
    """What the README's marks name, in Markdown."""
    title, table = first_claims()
    return {"gains": as_markdown(gains()), "results": f"{title}\n\n{as_markdown(table)}"}


def gains() -> pd.DataFrame:
    """The baseline's mAP and a line of GAINS_OF a line, a place of GAINS_IN a column; empty: not recorded."""
    table = pd.DataFrame({"Δ mAP vs. baseline (95 % CI)": ["mAP of the baseline", *(line for line, *_ in GAINS_OF)]})
    for title, (grid, *of) in GAINS_IN.items():
        _, baseline, rows = over_reference(ROOT / "results" / grid, *of)
        names = [next((name for name in names if name in rows.index), None) for _, *names in GAINS_OF]
        cells = [gain_cell(rows.loc[name], rows["seeds"].max()) if name else "" for name in names]
        table[title] = [f"{baseline.ap()['mAP'].mean():.2f}", *cells]
    return table


def over_reference(folder: Path, dataset: str, stage: int) -> tuple[dict[str, tables.Row], tables.Row, pd.DataFrame]:
    """The rows recorded there, reference() of them, and the differences from it, a line a row."""
    rows = tables.read_rows(folder, dataset, stage)
    other, differences = reference(rows), compared(folder, dataset, stage, "differences")
    return rows, other, differences[differences["vs."] == other.name].set_index("row")


def gain_cell(row: pd.Series, seeds: int) -> str:
    """A line of a table of differences; seeds: the most that a line of it has."""
    notes = [row.name.removeprefix("proposed, α ")] if row.name in ALPHA_LEARNT else []
    return ", ".join([delta(row), *notes, *fewer(row["seeds"], seeds)])


def fewer(seeds: int, most: int) -> list[str]:
    """A note on how many seeds there are, where others have more."""
    return [f"{seeds} seeds" if seeds > 1 else "1 seed"] if seeds < most else []


def first_claims() -> tuple[str, pd.DataFrame]:
    """Which grids decide the paper's claims, and a line a claim, with Δ and verdict for α learnt in [0, 1] and fixed,
    each where stage 1 trained the backbone and where not.

    They are of data sets for which the paper states a gain, and have SEEDS and the data set's largest images. Of two
    that have a claim the one with more seeds shows it. Some labels are shown where the paper's cells say how much they
    gain.
    """
    stated = [place for place in places() if claims.stated_gain(place[1]) and on_the_papers_backbone(*place)]
    rows = {place: tables.read_rows(*place) for place in sorted(stated, key=order)}
    seeds = {place: len(tables.seeds(of)) for place, of in rows.items()}
    pixels = {place: Run(of[BASELINE].files[0][0].parent).settings.image_size for place, of in rows.items()}
    largest = {dataset: max(pixels[place] for place in rows if place[1] == dataset) for _, dataset, _ in rows}
    lines, names = [], {}
    for place in (place for place in rows if seeds[place] >= SEEDS and pixels[place] == largest[place[1]]):
        trained = "frozen" if "frozen" in tables.backbone(rows[place], place[2]) else "fine-tuned"
        names.setdefault(trained, {})[place[0].name] = seeds[place]
        shown = claims_shown(compared(*place, "claims"))
        is_printed = shown[["printed", "from its cells"]].notna().any(axis=1)
        shown = claim_lines(shown[is_printed | shown["claim"].str.startswith(claims.MOST.partition(" {}")[0])])
        prefix = "" if place[1] == next(iter(rows))[1] else f"{place[1]}: "
        lines += [claim_cell(line, trained, prefix, seeds[place]) for line in shown.to_dict("records")]
    printed = {line["claim"]: line["printed (cells)"] for line in lines}
    lines += [
        line | {"printed (cells)": printed[line["claim"]]} for line in after_stage_4() if line["claim"] in printed
    ]
    table = pd.DataFrame(lines).drop_duplicates(["claim", "place"])
    table["claim"] = pd.Categorical(table["claim"], table["claim"].unique())
    table = table.pivot(index=["claim", "printed (cells)"], columns="place", values="verdict").fillna("")
    table = table[[place for place in CLAIMED_IN if place in table]].reset_index().astype({"claim": str})
    texts = [f"{trained.capitalize()}: {', '.join(of)}." for trained, of in sorted(names.items())]
    counts = sorted({count for of in names.values() for count in of.values()})
    return f"{' '.join(texts)} {' or '.join(map(str, counts))} seeds each.", table


def after_stage_4() -> list[dict[str, str]]:
    """Lines of first_claims, where the gains after stage 4 are from."""
    grid, dataset, stage = next(place for place in GAINS_IN.values() if place[2] == 4)
    shown = claim_lines(claims_shown(compared(ROOT / "results" / grid, dataset, stage, "claims")))
    return [claim_cell(line, "stage 4", "", shown["seeds"].max()) for line in shown.to_dict("records")]


def claim_cell(line: dict[str, str | int], trained: str, prefix: str, seeds: int) -> dict[str, str]:
    """A line of claim_lines as the first page shows it; seeds: of the grid."""
    kind = next(kind for kind in KINDS if line["α"].startswith(kind))
    notes = [line["verdict"], *fewer(line["seeds"], seeds)]
    delta = line["Δ (95 % CI)"].partition(" (")[0]
    return {
        "claim": prefix + line["claim"],
        "printed (cells)": f"{line['printed']} ({line['from its cells']})".removesuffix(" ()").strip(),
        "place": f"{trained}, α {kind}",
        "verdict": line["verdict"] if line["verdict"] == "not testable" else f"{delta}: {', '.join(notes)}",
    }
