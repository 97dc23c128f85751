"""CHOICES' table of the readings of α, written from the result files: for each gate what each reading gives."""

import pandas as pd

from attnsem.analysis import tables
from attnsem.analysis.report import delta, order, places
from attnsem.analysis.rows import LEARNT, of_gate
from attnsem.paper import ALPHAS
from results.first_page import fewer, over_reference


def readings_of_alpha() -> pd.DataFrame:
    """Of `proposed` on photographs: a line a gate, grid and stage that has two readings, a column a reading.

    A cell: Δ mAP vs. baseline, after stage 4 the one trained as long, with its interval, and where α ends; 0: ŷ is y′.
    """
    lines = []
    for folder, dataset, stage in sorted((place for place in places() if place[1] != "scenes"), key=order):
        rows, _, differences = over_reference(folder, dataset, stage)
        for gate in LEARNT:
            names = [of_gate("proposed", gate, *([f"α {name}"] if name != "clamped" else [])) for name in ALPHAS]
            cells = {reading: cell(rows[name], differences) for reading, name in zip(ALPHAS, names, strict=True)}
            if sum(map(bool, cells.values())) > 1:
                where = f"{dataset}, {tables.backbone(rows, stage)}, after stage {stage}"
                lines.append({"gate": gate, "of": where, **cells, "grid": folder.name})
    return pd.DataFrame(lines).sort_values("gate", key=lambda gates: gates.map(LEARNT.index), kind="stable")


def cell(row: tables.Row, differences: pd.DataFrame) -> str:
    """Of readings_of_alpha."""
    if row.name not in differences.index:
        return ""
    line = differences.loc[row.name]
    if line["low"] == line["high"] == 0:
        return "0 (α 1)"
    ends = sorted(pd.read_csv(files[0].with_name("history.csv"))["alpha"].iloc[-1] for files in row.files)
    ends = dict.fromkeys(f"{alpha:.2f}" for alpha in (ends[0], ends[-1]))
    notes = [] if row.name.endswith("α fixed") else [f"α {' to '.join(ends)}"]
    return "; ".join([delta(line), *notes, *fewer(line["seeds"], 2)])
