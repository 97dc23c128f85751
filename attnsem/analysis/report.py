"""What notebooks and pages say of results: tables with captions, sentences, and what has been compared before."""

import html
import zlib
from pathlib import Path

import pandas as pd

from attnsem import StudyError
from attnsem.analysis import claims, statistics, systems, tables
from attnsem.analysis.rows import BASELINE, LONGER, POOLING, REPAIR, not_run_line
from attnsem.files import ROOT, read_json, rooted
from attnsem.runs import Run

PRINTED = "proposed, α fixed"  # the printed gate, under the one reading of α in [0, 1] under which it does something
GROUPED, NO_SE = "grouped, confidence gate, α fixed", "no_se, confidence gate, α fixed"
FUSED_POOLING = f"{POOLING}, α fixed"
GAIN = {  # what the gain of the repair is made of: a row vs. another
    "the method with the printed gate, α fixed": (PRINTED, BASELINE),
    "the repair (proposed, confidence gate, α fixed)": (REPAIR, BASELINE),
    "y′ with ŷ_att and no semantic part, α fixed alike": (FUSED_POOLING, BASELINE),
    "ŷ_att alone": (tables.ATTENDED, BASELINE),
    "y′ with ŷ_att, over ŷ_att alone": (FUSED_POOLING, tables.ATTENDED),
    "y′ with two ŷ_att, over y′ with one": ("baseline and two ŷ_att, α fixed", FUSED_POOLING),
    "the repair over y′ with ŷ_att": (REPAIR, FUSED_POOLING),
    "the repair over its convolutions without a path between labels": (REPAIR, GROUPED),
    "paths between labels alone (no SE on either side)": (NO_SE, GROUPED),
    "SE alone": (REPAIR, NO_SE),
    "with the printed gate: paths between labels alone (no SE on either side)": ("no_se, α fixed", "grouped, α fixed"),
    "with the printed gate: SE alone": (PRINTED, "no_se, α fixed"),
    "two baselines, fused alike": ("two baselines, α fixed", BASELINE),
    "training the baseline longer": (LONGER, BASELINE),
}
TELLING = (  # rows of the report's figure, those of them that have been run
    *("proposed", "proposed, α warm-up", "proposed, α fixed", "proposed, α sigmoid", "proposed, α unbounded"),
    *("att", "se", "att, α fixed", "se, α fixed", REPAIR, NO_SE, GROUPED, "no_se, α fixed", "grouped, α fixed"),
    *(FUSED_POOLING, "baseline and two ŷ_att, α fixed", "two baselines, α fixed", LONGER),
)
BACKBONE = "densenet121"  # the paper's
KINDS = [*dict.fromkeys(claims.KINDS.values())]
FAVOUR = ("supported", "inconclusive", "contradicted", "not testable")


class Captioned:
    """A table as notebooks show it: a caption, numbers rounded, and nothing where there is no number."""

    def __init__(self, table: pd.DataFrame, caption: str, digits: int = 2, *, marked: bool = False) -> None:
        """marked: best and second best of each column coloured, as the paper's Table 1 has them."""
        self.table, self.caption, self.digits, self.marked = table, caption, digits, marked

    def _repr_html_(self) -> str:
        styled = self.table.style.set_uuid(f"{zlib.crc32(self.caption.encode()):x}").hide(names=True)
        styled = styled.set_caption(html.escape(self.caption))
        styled = tables.mark_best(styled) if self.marked else styled
        styled = styled.set_table_styles([{"selector": "caption", "props": "text-align: left; font-style: italic"}])
        styled = styled.format(self.cell, escape="html").format_index(escape="html").format_index(escape="html", axis=1)
        return f'<div style="overflow-x: auto">{styled.to_html()}</div>'

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.table.map(self.cell).to_string()}"

    def cell(self, value: object) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:z.{self.digits}f}"
        return str(value)


def places(results: Path = ROOT / "results") -> list[tuple[Path, str, int]]:
    """Recorded folder, data set and last stage, wherever there are three rows or more to compare."""
    ends = (3, "*/*/densenet/seed*/stage1"), (4, "*/*/proposed*/seed*/stage4")  # what a table after that stage needs
    paths = ((n, at.parents[2]) for n, end in ends for at in sorted(results.glob(end)))
    found = dict.fromkeys((at.parent, at.name, n) for n, at in paths if any(at.rglob("scores.npz")))
    return [place for place in found if sum(bool(row.files) for row in tables.read_rows(*place).values()) > 2]


def places_in(runs: str | Path) -> list[tuple[Path, str, int]]:
    """Of a folder of runs: the folder, each data set, and the last stage that `proposed` has been through there."""
    folder = rooted(runs)
    paths = sorted(folder.glob("*/proposed/seed*/stage[34]"), key=lambda path: path.name)
    last = {path.parents[2].name: int(path.name[-1]) for path in paths if Run(path).complete}
    if not last:
        raise StudyError(f"{folder} has no complete stage 3 of `proposed`; name a folder that has by -p runs")
    return [(folder, dataset, stage) for dataset, stage in last.items()]


def order(place: tuple[Path, str, int]) -> tuple:
    """By which places are sorted: the paper's backbone first, of those that with the most seeds, `scenes` last."""
    seeds = -len(tables.seeds(tables.read_rows(*place)))
    return place[1] == "scenes", not on_the_papers_backbone(*place), place[1] != "voc2007", seeds, place[0].name


def on_the_papers_backbone(folder: Path, dataset: str, stage: int) -> bool:
    return tables.backbone(tables.read_rows(folder, dataset, stage), stage).startswith(f"{BACKBONE} ")


def compared(folder: Path, dataset: str, stage: int, what: str) -> pd.DataFrame:
    """differences, gain or claims: as recorded, else from the score files, differences then vs. the baseline alone."""
    path = folder / dataset / f"{what}-stage{stage}.csv"
    if path.exists():
        return pd.read_csv(path)
    rows = tables.read_rows(folder, dataset, stage)
    if what == "claims":
        return claims.tested(rows, dataset, stage)
    table = parts_of_gain(rows) if what == "gain" else tables.differences(rows.values(), reference(rows))
    return table.reset_index()


def parts_of_gain(rows: dict[str, tables.Row]) -> pd.DataFrame:
    """Δ mAP of GAIN's pairs that have been run."""
    pairs = {what: [rows.get(name) for name in pair] for what, pair in GAIN.items()}
    both = {what: pair for what, pair in pairs.items() if all(pair) and {*pair[0].seeds} & {*pair[1].seeds}}
    table = {what: tables.difference(*pair) for what, pair in both.items()}
    return pd.DataFrame.from_dict(table, orient="index", columns=tables.DIFFERENCE).rename_axis("what").round(4)


def delta(row: pd.Series) -> str:
    return f"{row['Δ mAP']:+z.2f} ({row['low']:+z.2f} to {row['high']:+z.2f})"


def claim_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of claims.tested or claims_shown as a page shows them."""
    table = table.rename(columns={"Δ": "Δ mAP"})
    labels = table["claim"].str.extract(claims.MOST.replace("{}", r"(\d+)"), expand=False).astype(float)
    counts = table[["from its cells", "Δ mAP", "low", "high"]].add(labels / 2, axis=0).map("{:.1f}".format).astype(str)
    first, low, high, of = counts["Δ mAP"], counts["low"], counts["high"], labels.map(" of {:.0f}".format).astype(str)
    printed = {name: table[name].map("{:+.1f}".format).replace("+nan", "") for name in ("printed", "from its cells")}
    printed["from its cells"] = printed["from its cells"].where(
        labels.isna() | table["from its cells"].isna(), counts["from its cells"] + of
    )
    p = table["p"].map(lambda p: f"{p:.4f}" if abs(p - statistics.LEVEL) < 0.001 else f"{p:.3f}")
    p = p.replace({"nan": "", "0.000": "< 0.001"})
    intervals = table.apply(delta, axis=1).where(labels.isna(), first + of + " (" + low + " to " + high + ")")
    intervals = intervals.mask(table["verdict"] == "not testable", "0")
    table = table.assign(**printed, **{"Δ (95 % CI)": intervals, "p (Holm)": p, "trust": table.apply(trust, axis=1)})
    kind = ["α"] if "α" in table else []
    return table[["claim", *kind, *printed, "rows", "Δ (95 % CI)", "seeds", "p (Holm)", "verdict", "trust"]]


def trust(row: pd.Series) -> str:
    """How far to trust a verdict, in a few words."""
    if row["verdict"] == "not testable":
        return "rows rank alike"
    if row["seeds"] < 3:
        return "little: too few seeds"
    if row["verdict"] == "inconclusive":
        return f"open: {row['shrink']:.1f} times narrower decides" if row["shrink"] < 20 else "open: at the border"
    return "firm" if row["p"] < statistics.LEVEL / 10 else "fair"


def claims_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of claims.tested a line a claim and kind of reading of α, under that one of its readings that favours it most.

    After stage 4 vs. the baseline trained as long. Of readings with one verdict that is shown whose Δ is nearest to the
    claim; where none can be tested they are one line. α: the kind, and for one in [0, 1] the reading.
    """
    readings = table["rows"].str.extract(r", α ([\w-]+)", expand=False).fillna("clamped")
    ordered = table.assign(α=readings.map(claims.KINDS), reading=readings, favour=table["verdict"].map(FAVOUR.index))
    against = (table["Δ"] * table["kind"].map({"gains": -1, "loses": 1, "no gain": 1})).fillna(table["Δ"].abs())
    ordered, lines = ordered.assign(against=against), []
    for _, claim in ordered.groupby("claim", sort=False):
        longer = claim["rows"].str.endswith(LONGER)
        alike = claim[longer == longer.iloc[0]].sort_values(["favour", "against"], kind="stable")
        alike = alike.drop_duplicates("α").sort_values("α", key=lambda kinds: kinds.map(KINDS.index))
        if (alike["verdict"] == "not testable").all():
            alike = alike.head(1).assign(α=", ".join(alike["α"]), reading="")
        lines.append(alike)
    shown = pd.concat(lines or [ordered])
    named = shown["α"].where((shown["α"] != KINDS[0]) | (shown["reading"] == ""), shown["α"] + ": " + shown["reading"])
    return shown.assign(α=named).drop(columns=["favour", "against", "reading"])


def gain_lines(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"Δ mAP (95 % CI)": table.apply(delta, axis=1), "seeds": table["seeds"].astype(int)}
    return table[["what"]].assign(**columns)


def subject(rows: dict[str, tables.Row], dataset: str, stage: int) -> str:
    """What a table or figure is of: data set, backbone, pixels, stage and seeds."""
    seeds = tables.seeds(rows)
    counted = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    return f"{dataset}, {tables.backbone(rows, stage)}, after stage {stage}, {counted}"


def of_claims(table: pd.DataFrame) -> str:
    """Of the paper's claims, which are supported, contradicted and so on: a Markdown list. table: of claims.tested."""
    shown = claims_shown(table)
    if shown.empty:
        return "**None of the paper's claims can be tested: too few rows have been run.**"
    lines, texts = ["**The paper's claims, by how α is read:**\n"], shown["claim"] + " (α " + shown["α"] + ")"
    for verdict in FAVOUR:
        of_verdict = texts[shown["verdict"] == verdict]
        lines += [f"- {verdict}: {'; '.join(of_verdict)}"] if len(of_verdict) else []
    return "\n".join(lines)


def reference(rows: dict[str, tables.Row]) -> tables.Row:
    """What rows are compared with: the baseline, after stage 4 the one trained as long where it has been run."""
    return rows[LONGER] if LONGER in rows and rows[LONGER].files else rows[BASELINE]


def headline(rows: dict[str, tables.Row], differences: pd.DataFrame, of: str) -> str:
    """The baseline, the method as printed, its repair and the second opinion, in one paragraph."""
    other, seeds = reference(rows), len(tables.seeds(rows))
    table = differences[differences["vs."] == other.name].set_index("row")
    names = {"proposed": "the printed gate, α clamped,", PRINTED: "with α fixed it"}
    names |= {REPAIR: f"its repair ({REPAIR})", FUSED_POOLING: FUSED_POOLING}
    parts = [f"{called} {moved(table.loc[name], seeds)}" for name, called in names.items() if name in table.index]
    mean_ap = other.ap()["mAP"].mean()
    return f"**{of}:** the {other.name} has {mean_ap:.1f} mAP; {'; '.join(parts) or 'no other row has been run'}."


def moved(row: pd.Series, seeds: int) -> str:
    if row["Δ mAP"] == row["low"] == row["high"] == 0:
        return "is the same to the last digit, so that nothing is tested"
    verb = "gains" if row["low"] > 0 else "loses" if row["high"] < 0 else "is not told from it:"
    fewer = f", {row['seeds']:.0f} of {seeds} seeds" if row["seeds"] < seeds else ""
    return f"{verb} {row['Δ mAP']:+z.2f} points (95 % CI {row['low']:+z.2f} to {row['high']:+z.2f}{fewer})"


def not_run(rows: dict[str, tables.Row], runs: str | Path, dataset: str, stage: int) -> str:
    """How many rows have not been run, and the one command that runs them; other systems are not counted."""
    own = [row for row in rows.values() if row.group != systems.GROUP]
    missing, grid = [row.name for row in own if not row.files], ROOT / "grids" / f"{rooted(runs).name}.yaml"
    if missing and grid.exists():
        return f"{len(missing)} of {len(own)} rows are not run; `make grid GRID=grids/{grid.name}` runs those it names."
    return not_run_line(missing, len(own), dataset, stage, [int(seed) for seed in tables.seeds(rows)], runs)


def channels_and_dependencies(
    rows: dict[str, tables.Row], folder: Path, dataset: str, stage: int
) -> dict[str, pd.DataFrame]:
    """What notebooks 09 and 10 wrote of these rows' runs, by caption; nothing where they have not been run."""
    parts, gains, homes = {}, {}, (folder / dataset, folder / "tables" / dataset)
    named = {row.files[0][0].parents[2].name: name for name, row in rows.items() if row.files}
    paths = [path for home in homes for path in sorted(home.glob(f"*_stage{stage}.csv"))]
    for path in paths:
        table = pd.read_csv(path)
        if path.name.startswith("localisation_"):
            for name in ("pointing game", "inside − area"):
                bounds = table[[name, f"{name}, low", f"{name}, high"]].to_numpy()
                table[name] = [f"{mean:.1f} ({low:.1f} to {high:.1f})" for mean, low, high in bounds]
            parts["where the channels look (one seed; %, 95 % CI)"] = table[["maps", "pointing game", "inside − area"]]
        elif path.name.startswith("agreement_"):
            columns = ["row", "1 − α", "rank correlation", "p", "plain correlation", "plain p"]
            parts["influence of one label on another vs. lift (one seed; rank correlation over pairs)"] = table[columns]
        elif path.name.startswith("company_"):
            part, _, other = path.stem.removeprefix("company_").removesuffix(f"_stage{stage}").partition("_vs_")
            both = table[table["label"] == "mean of labels"].rename(columns={"Δ AP": "Δ mAP"}).apply(delta, axis=1)
            gains[f"{named.get(part, part)} vs. {other.replace('_', ' ')}"] = both.to_numpy()
        elif path.name.startswith("planted_"):
            columns = ["row", "precision", "average precision"]
            parts["planted pairs among the strongest influences (one seed)"] = table[columns]
        elif path.name.startswith("scale_"):
            table = table.iloc[:, :1].assign(**{"Δ mAP (95 % CI)": table.apply(delta, axis=1)})
            parts["what dependencies could bring (upper rows; one seed), and what was measured (all seeds)"] = table
    if gains:
        sides = ["in images with it", "in images without"]
        table = pd.DataFrame(gains, sides).T.rename_axis("Δ AP (95 % CI)").reset_index()
        parts["where a label's usual company is there, and where it is not, mean of labels (all seeds)"] = table
    return parts


def compute(folder: Path) -> pd.DataFrame:
    """Hours of training and evaluation, searches on val apart, that the manifests below a folder name, by device."""
    paths = sorted({*folder.rglob("stage?/manifest.json")} - {*folder.glob("**/val/**/manifest.json")})
    hours = [(manifest["device"], 1, manifest["seconds"] / 3600) for manifest in map(read_json, paths)]
    return pd.DataFrame(hours, columns=["device", "stages", "hours"]).groupby("device", as_index=False).sum()
