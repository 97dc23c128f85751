"""The other systems beside the numbers that the paper prints of them: printed, measured on the same features, and how
much of the paper's lead over each is left. Needs no torch."""

import numpy as np
import pandas as pd

from attnsem.analysis import published, tables
from attnsem.analysis.report import FUSED_POOLING, PRINTED, delta
from attnsem.analysis.rows import BASELINE, REPAIR
from attnsem.analysis.systems import GROUP, SYSTEMS, System

METHOD = "proposed"
READINGS = {
    METHOD: "the method as printed, α clamped",
    PRINTED: "the method with α fixed",
    REPAIR: f"its repair ({REPAIR})",
}
BOUNDS = tables.DIFFERENCE[:3]  # Δ mAP, low and high
ASYMMETRIC = [f"{name}, asymmetric loss" for name in (BASELINE, REPAIR)]
RANKED = (BASELINE, METHOD, PRINTED, FUSED_POOLING, REPAIR, *ASYMMETRIC, *(each.name for each in SYSTEMS.values()))
NUMBERS = {"voc2007": ("1",), "mirflickr38": ("2", "figure 3"), "mirflickr24": ("2", "figure 3")}  # tables beside them
DATASETS = {"1": "voc2007", "2": "mirflickr38", "figure 3": "mirflickr24"}  # of the paper's tables


def printed_of(system: System, numbers: tuple[str, ...]) -> tuple[float, float]:
    """mAP (%) that the paper prints of a system in one of those tables, and its lead over it there; nan where none."""
    if not system.printed or system.printed[0] not in numbers:
        return np.nan, np.nan
    table, method = system.printed
    mean_ap = published.table(table)["mAP"]
    return mean_ap[method], mean_ap["Proposed"] - mean_ap[method]


def compared(rows: dict[str, tables.Row], *numbers: str, differences: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row a system that has been run, or that those tables of the paper print, by its name.

    Columns: printed, measured, and Δ mAP vs. the baseline with low and high; "printed lead" of the paper's method over
    the system and, for READINGS, lead, low and high as it was measured. In points, over the seeds that both have.
    differences: some that tables.differences has made, which are not made again.
    """
    known = {} if differences is None else {(line["row"], line["vs."]): line for _, line in differences.iterrows()}
    lines = {}
    for system in SYSTEMS.values():
        row, (printed, lead) = rows[system.name], printed_of(system, numbers)
        if not row.files and np.isnan(printed):
            continue
        mean_ap = row.ap()["mAP"].mean() if row.files else np.nan
        line = {("", "printed"): printed, ("", "measured"): mean_ap}
        others = {"vs. baseline": BASELINE} | {f"lead of {name}": name for name in READINGS}
        for title, other in others.items():
            delta, low, high = versus(row, rows[other], known.get((system.name, other)))
            bounds = (delta, low, high) if other == BASELINE else (-delta, -high, -low)
            line |= {(title, name): bound for name, bound in zip(BOUNDS, bounds, strict=True)}
        line |= {("", "printed lead"): lead}
        lines[system.name] = line
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(GROUP)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`compared` as notebooks show it: a difference and its interval in one cell."""
    columns = {name: table["", name] for name in ("printed", "measured")}
    columns |= {"Δ mAP vs. baseline (95 % CI)": deltas(table["vs. baseline"])}
    columns |= {"printed lead of the method": table["", "printed lead"]}
    columns |= {f"lead of {name} (95 % CI)": deltas(table[f"lead of {name}"]) for name in READINGS}
    return pd.DataFrame(columns)


def ranking(rows: dict[str, tables.Row], differences: pd.DataFrame) -> pd.DataFrame:
    """Rows of RANKED that have been run, the greatest mAP first: mAP (%), seeds, and Δ mAP with its 95 % interval vs.
    the baseline, the method and its repair, as far as `differences` (of tables.differences) has them."""
    ranked = tables.mean_and_spread(rows[name] for name in RANKED if rows[name].files).reset_index()
    ranked = ranked.set_index("row")[["mAP", "seeds"]].sort_values("mAP", ascending=False)
    for other in (BASELINE, PRINTED, REPAIR):
        if len(of_other := differences[differences["vs."] == other]):
            ranked[f"Δ mAP vs. {other} (95 % CI)"] = of_other.set_index("row").apply(delta, axis=1)
    return ranked.fillna("")


def readings_behind(row: tables.Row, number: str) -> pd.DataFrame:
    """By which reading of AP the paper may print its DenseNet in Table 1 or 2, by our `row`: the likeliest first.

    Columns: mAP (%) of the row's first seed; "mean gap", printed AP less ours, over labels, and "spread of the gaps",
    its standard deviation; "correlation" of printed AP and ours over labels, by which they are sorted. A better or
    worse network shifts and stretches AP, which leaves the correlation; a wrong reading changes which labels are hard.
    Empty where the row has not been run or its labels are not the paper's.
    """
    printed = published.table(number).loc["DenseNet"].drop("mAP")
    if not row.files or {*row.labels} != {*printed.index}:
        return pd.DataFrame()
    readings = row.readings()
    ours = readings[row.labels]
    columns = {"mean gap": (printed - ours).mean(axis=1), "spread of the gaps": (printed - ours).std(axis=1)}
    table = readings[["mAP"]].assign(**columns, correlation=ours.corrwith(printed, axis=1))
    return table.sort_values("correlation", ascending=False, kind="stable")


def deltas(table: pd.DataFrame) -> pd.Series:
    return table.apply(delta, axis=1).where(table["Δ mAP"].notna(), "")


def versus(row: tables.Row, other: tables.Row, known: pd.Series | None) -> tuple[float, ...]:
    """BOUNDS of a row's difference to another, made anew where it is not known; nan where no seed has both."""
    if known is None and not {*row.seeds} & {*other.seeds}:
        return (np.nan,) * len(BOUNDS)
    difference = tables.difference(row, other) if known is None else known
    return tuple(difference[name] for name in BOUNDS)


def lead_left(table: pd.DataFrame, dataset: str) -> str:
    """One paragraph, Markdown: how much of the printed lead over each system is left on the same features.

    Without the systems on low-level descriptors, which stand on no backbone.
    """
    if table.empty or table["", "printed lead"].isna().all():
        return "**The paper prints none of these systems here.**"
    by_name = {system.name: system for system in SYSTEMS.values()}
    told = table[table["", "printed lead"].notna()]
    told = told[[by_name[name].fixed.get("inputs") != "descriptors" for name in told.index]]  # they have no backbone
    measured = told[told["", "measured"].notna()]
    sentences = []
    for name, called in READINGS.items():
        leads = {system: line for system, line in measured.iterrows() if not np.isnan(line[f"lead of {name}", "Δ mAP"])}
        parts = [part_left(system, line["", "printed lead"], line[f"lead of {name}"]) for system, line in leads.items()]
        sentences += [f"For {called}: {'; '.join(parts)}."] if parts else []
    missing = [system for system in told.index if system not in measured.index]
    sentences = sentences or ["None of those that the paper prints has been run here, or no row of the method."]
    sentences += [f"Not run here: {'; '.join(missing)}."] if missing else []
    printed_on = list(dict.fromkeys(DATASETS[by_name[name].printed[0]] for name in told.index))
    if printed_on != [dataset]:
        sentences.append(f"The printed leads are those on {' and '.join(printed_on)}, the measured ones on {dataset}.")
    return f"**How much of the printed lead is left when the backbone is the same.** {' '.join(sentences)}"


def part_left(system: str, printed: float, lead: pd.Series) -> str:
    """Of a lead in points, printed and measured."""
    bounds = f"{lead['Δ mAP']:+z.1f} points, 95 % CI {lead['low']:+z.1f} to {lead['high']:+z.1f}"
    if lead["high"] < 0:
        left = f"none, for the system is ahead ({bounds})"
    elif lead["low"] <= 0:
        left = f"none that can be told from zero ({bounds})"
    elif printed <= 0:
        left = f"there is a lead ({bounds})"
    else:
        share = 100 * lead["Δ mAP"] / printed
        left = f"{share:.0f} % ({bounds})" if share <= 100 else f"more than all ({bounds})"
    return f"of {printed:+.1f} over {system}, {left}"
