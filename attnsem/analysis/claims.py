"""What the paper claims, what it prints for it, and tests of it on runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd

from attnsem.analysis import published, statistics, tables
from attnsem.analysis.rows import BASELINE, LONGER
from attnsem.analysis.tables import Row

READINGS = ("", ", α warm-up", ", α fixed", ", α sigmoid", ", α unbounded")  # of a claim's rows; KINDS: of α there
KINDS = dict.fromkeys(("clamped", "warm-up", "sigmoid"), "in [0, 1]") | {"fixed": "fixed", "unbounded": "unbounded"}
MOST = "most of {} labels gain"  # whose Δ counts labels in a run, how many more than half
SHOWS = 0.05  # points; a smaller gain is none in the paper's one digit
COLUMNS = ["claim", "kind", "rows", "printed", "from its cells", "Δ", "low", "high", "seeds", "p", "verdict", "shrink"]


@dataclass(frozen=True)
class Claim:
    """A statement on Δ AP of a row vs. another.

    kind, size: of statistics.p_values; labels: whose mean AP it is about, all without; most: that more than half of the
    labels gain SHOWS or more; constant: the row adds the same to all images up to stage 3, so its AP cannot differ.
    """

    text: str
    row: str
    other: str = BASELINE
    kind: str = "gains"
    size: float = SHOWS
    labels: tuple[str, ...] = ()
    most: bool = False
    constant: bool = False

    def statistic(self, labels: list[str]) -> Callable[[np.ndarray], np.ndarray]:
        """Of the labels' Δ AP (…, C): its mean, or by how many more than half of the labels gain."""
        if self.most:
            return lambda delta: (delta >= SHOWS).sum(axis=-1) - delta.shape[-1] / 2
        places = [labels.index(label) for label in self.labels or labels]
        return lambda delta: np.nanmean(delta[..., places], axis=-1)

    def printed(self, dataset: str) -> float:
        """Δ mAP (points) as Tables 3 and 4 print it; nan where they do not."""
        rows = pd.concat([published.table(number) for number in ("3", "4")]).rename(index=published.NAMES)
        rows = rows.groupby(level=0).first()
        if dataset not in rows or self.labels or self.most or not {self.row, self.other} <= {*rows.index}:
            return np.nan
        return rows.loc[self.row, dataset] - rows.loc[self.other, dataset]

    def of_cells(self, dataset: str) -> float:
        """What the cells of Tables 1 and 2 give for the claim; nan where they do not, or some are missing."""
        if dataset not in CELLS or (self.row, self.other) != ("proposed", BASELINE):
            return np.nan
        cells = published.table(CELLS[dataset]).drop(columns="mAP")
        delta = (cells.loc["Proposed"] - cells.loc["DenseNet"])[[*(self.labels or cells.columns)]]
        statistic = replace(self, labels=()).statistic([*delta.index])
        return np.nan if delta.isna().any() else float(statistic(delta.to_numpy()))


CELLS = {"voc2007": "1", "mirflickr38": "2"}


def claims_of(dataset: str, person: list[str]) -> list[Claim]:
    """person: labels that often come with person. A gain is of the size that the paper prints, in Table 3 for the whole
    method and in the cells of Tables 1 and 2 for some labels, and where it prints none of SHOWS."""
    size = stated_gain(dataset)
    claims = [
        Claim("attention alone changes little", "att", kind="little", constant=True),
        Claim("SE and convolutions without attention hurt", "se", kind="loses"),
        Claim(f"the whole method gains {size or ''}".strip(), "proposed", size=size or SHOWS),
        Claim("a fifth SE block and convolution do not help", "se5_conv5", "proposed", "no gain"),
        Claim("SE1 and SE3 are better than SE1 alone", "se13_conv4", "se1_conv4"),
        Claim(MOST, "proposed", size=0, most=True),
    ]
    of_voc = published.PAIRS_OF_VOC if dataset == "voc2007" else ()
    of_mirflickr = published.PAIRS_OF_MIRFLICKR if dataset in ("mirflickr24", "mirflickr38") else ()
    named = {
        "labels that often come with person gain": person,
        "bottle, bicycle and person gain": chain(*of_voc[:2]),
        "table, plant and tv gain": chain(*of_voc[2:]),
        "labels that go together (section 3.3) gain": chain(*of_mirflickr),
    }
    for text, labels in named.items():
        claim = Claim(text, "proposed", labels=tuple(dict.fromkeys(labels)))
        if not np.isnan(printed := claim.of_cells(dataset)):
            claim = replace(claim, text=f"{text} {printed:.1f}", size=printed)
        claims += [claim] if claim.labels else []
    return claims


def stated_gain(dataset: str) -> float:
    """Points of mAP that Table 3 prints for the whole method over DenseNet; 0 of other data sets."""
    return round(np.nan_to_num(Claim("", "proposed").printed(dataset)), 1)


def tested(rows: dict[str, Row], dataset: str, stage: int) -> pd.DataFrame:
    """COLUMNS of every claim under every reading of α that has been run: Δ in points, of MOST in labels more than half;
    p after Holm over this table, of an inconclusive claim the smaller, with how many times narrower is enough."""
    table, p, freedom = [], [], []
    for claim, reading in lines(rows, stage, dataset):
        row, other = (name if name in (BASELINE, LONGER) else name + reading for name in (claim.row, claim.other))
        if row not in rows or other not in rows or not {*rows[row].seeds} & {*rows[other].seeds}:
            continue
        labels = rows[row].labels
        estimate, by_seed = tables.estimated(rows[row], rows[other], claim.statistic(labels))
        untested = claim.constant and stage < 4
        p.append((np.nan, np.nan) if untested else statistics.p_values(estimate, claim.kind, claim.size))
        freedom.append(estimate.freedom)
        low, high = estimate.interval
        if claim.most:  # a normal interval knows no bounds, and a count has them
            low, high = np.clip((low, high), -len(labels) / 2, len(labels) / 2)
        stated = claim.text.format(len(labels)), claim.kind, f"{row} vs. {other}", claim.printed(dataset)
        table.append([*stated, claim.of_cells(dataset), estimate.value, low, high, len(by_seed)])
    tests = np.isfinite(p).sum()
    adjusted = statistics.holm(pd.Series(np.ravel(p), dtype=float)).to_numpy().reshape(-1, 2)
    for line, before, (wrong, right), of in zip(table, p, adjusted, freedom, strict=True):
        verdict = statistics.verdict(wrong, right)
        shown = {"supported": wrong, "contradicted": right}.get(verdict, min(wrong, right))
        line += [shown, verdict, statistics.shrink(min(before), of, tests) if verdict == "inconclusive" else np.nan]
    return pd.DataFrame(table, columns=COLUMNS)


def lines(rows: dict[str, Row], stage: int, dataset: str) -> list[tuple[Claim, str]]:
    """The claims with the readings of α they are tested under. After stage 4 the baseline is the one trained as long;
    a stated gain is tested vs. stage 1's as well."""
    claims = claims_of(dataset, tables.company("person", rows[BASELINE]))
    if stage == 4 and LONGER in rows and rows[LONGER].files:
        longer = [replace(claim, other=LONGER) for claim in claims if claim.other == BASELINE]
        claims = longer + [claim for claim in claims if claim.other != BASELINE or claim.size > SHOWS]
    return [(claim, reading) for claim in claims for reading in READINGS]
