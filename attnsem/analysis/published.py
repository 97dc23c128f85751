"""The paper's printed numbers (data/published) and whether they agree with one another."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.files import ROOT

PRINTED = 0.05  # numbers are printed to a tenth of a point
PAIRS_OF_VOC = (
    *(("bottle", "person"), ("bicycle", "person"), ("diningtable", "pottedplant"), ("diningtable", "tvmonitor")),
)
PAIRS_OF_MIRFLICKR = (
    *(("female", "indoor"), ("food", "indoor"), ("animals", "indoor"), ("sky", "structures")),
    *(("sunset", "structures"), ("transport", "structures"), ("river", "sky"), ("clouds", "sky")),
)
OLDER = ("CNN-SVM", "CNN-RNN", "RLSD", "Very deep")  # Table 1's methods that are not the paper's own
NAMES = {"DenseNet": "baseline", "DenseNet+att": "att", "DenseNet+SE": "se", "Proposed": "proposed"}  # our variants
NAMES |= {"SEblock(1)+4Convs": "se1_conv4", "SEblock(1,3)+4Convs": "se13_conv4", "5SEblock+5Convs": "se5_conv5"}


def table(number: str) -> pd.DataFrame:
    """Percents of table "1" to "4" or "figure 3", nan where the text at hand has none: a row a method; columns are
    labels, in tables 3 and 4 data sets."""
    rows = read(ROOT / "data/published/tables.csv", "percent")
    rows = rows[rows["table"] == number]
    percents = rows.pivot(index="method", columns="label", values="percent")
    return percents.loc[rows["method"].unique(), rows["label"].unique()]


def read(path: Path, number: str) -> pd.DataFrame:
    """A file of published numbers, in the column `number`, where a cell may be empty; StudyError where it is none."""
    try:
        rows = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
        rows[number] = rows[number].astype(float)
        if rows[["table", "method", "label"]].isna().any(axis=None) or np.isinf(rows[number]).any():
            raise ValueError("a cell is empty, or infinite")
        repeated = rows.duplicated([*rows.columns.intersection(["table", "method", "label", "less", "source"])])
        if repeated.any():
            raise ValueError(f"line {repeated.idxmax() + 2} comes twice")
    except (OSError, ValueError, KeyError, IndexError) as error:  # pandas' own errors are ValueErrors
        raise StudyError(f"{path} is no table of published numbers ({error}); take it from the repository") from error
    return rows


def audit() -> pd.DataFrame:
    """Every mean, difference and count that the paper states, recomputed from its own printed values.

    Columns: where, what, printed, recomputed, and `adds up`: yes, "by rounding" where the printed values' own
    rounding could make up for it, no, or "values are missing".
    """
    return pd.DataFrame([*_means(), *_differences(), *_counts()])


def _row(where: str, what: str, printed: float, recomputed: float, slack: float) -> dict:
    """slack: by how much the rounding of the values may move what is recomputed from them."""
    gap = round(abs(printed - recomputed), 6)
    adds_up = "yes" if gap <= PRINTED else "by rounding" if gap <= PRINTED + slack else "no"
    adds_up = "values are missing" if pd.isna(recomputed) else adds_up
    return {"where": where, "what": what, "printed": printed, "recomputed": recomputed, "adds up": adds_up}


def _means() -> list[dict]:
    rows = []
    for number in ("1", "2"):
        printed = table(number)
        for method, values in printed.iterrows():
            labels, what = values.drop("mAP"), f"mAP of {method}"
            if len(missing := labels.index[labels.isna()]):
                mean = (len(labels) * values["mAP"] - labels.sum()) / len(missing)
                theirs = printed.loc["DenseNet", missing].mean()
                what += f" (the {len(missing)} missing would have a mean of {mean:.1f}, DenseNet's have {theirs:.1f})"
            rows.append(_row(f"table {number}", what, values["mAP"], labels.mean(skipna=False), PRINTED))
            if number == "2" and rows[-1]["adds up"] == "no":
                of_24 = labels[~labels.index.str.endswith("_r1")].mean()
                rows[-1]["what"] += f" (of the 24 labels without _r1: {of_24:.1f})"
    return rows


def _differences() -> list[dict]:
    stated = read(ROOT / "data/published/differences.csv", "stated")
    rows = []
    for one in stated.itertuples():
        printed = table(one.table)[one.label]
        what = f"{one.label}: {one.method} vs. {one.less}"
        rows.append(_row(one.source, what, one.stated, printed[one.method] - printed[one.less], 2 * PRINTED))
    cells = table("2").drop(columns="mAP").mean(axis=1)
    for method, printed in (("DenseNet", 0.8), ("AIACNN", 15.8)):
        what = f"mAP: Proposed vs. {method}, by the cells of the same 38 labels"
        rows.append(_row("section 3.3 text", what, printed, cells["Proposed"] - cells[method], 2 * PRINTED))
    for number in ("3", "4"):
        for dataset, other in (("voc2007", "1"), ("mirflickr38", "2")):
            printed, elsewhere = table(number).loc["Proposed", dataset], table(other).loc["Proposed", "mAP"]
            rows.append(_row(f"table {number}", f"Proposed on {dataset} as in table {other}", printed, elsewhere, 0))
    return rows


def audit_of_labels(targets: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """What the text says of the labels of a data set, by the annotations of its images: columns as of audit().

    targets: (N, C) of the images at hand, difficult labels as present. "5~7 labels an image" is checked by its 5; of
    labels that go together the lift, P(both) / (P(one) P(other)), is above 1, "no" two standard errors below.
    """
    present = pd.DataFrame(targets != 0, columns=[*labels])
    rows = []
    if {"structures", "plant_life"} <= {*labels}:
        mean = present.sum(axis=1).mean()
        rows.append(_row("section 3.3 text", f"labels an image, of {len(labels)}, at least", 5, mean, 0))
    for section, pairs in (("section 3.2 text", PAIRS_OF_VOC), ("section 3.3 text", PAIRS_OF_MIRFLICKR)):
        for one, other in (pair for pair in pairs if {*pair} <= {*present.columns[present.any()]}):
            both, chance = (present[one] & present[other]).sum(), present[one].sum() * present[other].mean()
            adds_up = "yes" if both > chance else "no" if both < chance - 2 * chance**0.5 else "not told"
            what = f"{one} and {other} go together ({both} images, {chance:.1f} by chance): lift above"
            rows.append(_row(section, what, 1, both / chance, 0) | {"adds up": adds_up})
    return pd.DataFrame(rows)


def _counts() -> list[dict]:
    """Section 3.2: 13 of 20 labels better than earlier methods."""
    printed = table("1").drop(columns="mAP")
    proposed, rows = printed.loc["Proposed"], []
    for rivals in (OLDER, (*OLDER, "DenseNet")):
        better = (proposed > printed.loc[list(rivals)].max()).sum()
        most = better + proposed.isna().sum()
        row = _row("section 3.2 text", f"labels on which Proposed is above {', '.join(rivals)}", 13, better, 0)
        row["what"] += f" ({better} of those printed; {most} at most, with the {proposed.isna().sum()} missing)"
        rows.append(row | {"adds up": "values are missing" if better <= 13 <= most else "no"})
    return rows
