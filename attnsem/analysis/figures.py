"""The study's figures: each function returns a `Figure` and neither shows nor saves it.

They do not go through pyplot, so that none stays open; a notebook that shows one says `%matplotlib inline`.
"""

import hashlib
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from attnsem.files import write

WIDTH = 6.5  # inches, the text width of a page
FONT = 8  # points
DPI = 150
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^v<>PX"
NAMES_SHOWN = 60  # along a side of a matrix; of more labels every second, third …
LONGEST = 100  # bytes of a name in a file's, of 255 that systems have for the whole
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)

FONTS = (  # for letters that matplotlib's own lacks: the first one here that has a letter draws it
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans"),
    *("Noto Sans Arabic", "Geeza Pro", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Hebrew"),
    *("Arial Unicode MS", "Segoe UI", "Tahoma", "Droid Sans Fallback", "Unifont"),
)
STYLE = {"font.size": FONT, "axes.titlesize": FONT, "axes.axisbelow": True, "legend.frameon": False}
STYLE |= {"text.parse_math": False}  # a label may have a $ in it


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorates what draws a figure: with STYLE, and fonts for its letters; says once where there are none."""

    @wraps(draw)
    def drawn(*arguments: object, **named: object) -> Figure:
        with rc_context(STYLE | {"font.family": list(letters())}):
            figure = draw(*arguments, **named)
        words = "".join(text.get_text() for text in figure.findobj(Text))
        if not words.isascii() and any(letter.isprintable() for letter in {*words} - set().union(*letters().values())):
            say_missing()
        return figure

    return drawn


@cache
def letters() -> dict[str, set[str]]:
    """Which letters each font has, of those of FONTS that this machine has, after matplotlib's own."""
    names = {font.name for font in font_manager.fontManager.ttflist}
    paths = {name: font_manager.findfont(name) for name in ("DejaVu Sans", *FONTS) if name in names}  # upright, regular
    return {name: {*map(chr, font_manager.get_font(path).get_charmap())} for name, path in paths.items()}


@cache
def say_missing() -> None:
    """Once, in place of matplotlib's warning of every letter."""
    warnings.filterwarnings("ignore", message=".*missing from font")
    sentence = "This machine has no font for some of the letters here, which figures show as boxes; install one such as"
    print(f"{sentence} {FONTS[0]}.")


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss and, where the run has them, mAP and α over the epochs; a dotted line where lr drops.

    history: columns epoch, loss and, if there are any, lr, mAP (%) and alpha; nan is an epoch without.
    """
    names = {"loss": "training loss", "mAP": "mAP (%)", "alpha": "α, weight of y′ in eq. (9)"}
    names = {column: name for column, name in names.items() if column in history and history[column].notna().any()}
    figure, axes = subplots(1, len(names), 2.3)
    for ax, colour, (column, name) in zip(axes[0], COLOURS, names.items(), strict=False):
        points = history.dropna(subset=column)
        ax.plot(points["epoch"], points[column], marker=".", color=colour)
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _mark_lr_drops(ax, history)
    return figure


def _mark_lr_drops(ax: Axes, history: pd.DataFrame) -> None:
    dropped = history[history["lr"] < history["lr"].shift() / 2]
    for epoch, rate in zip(dropped["epoch"], dropped["lr"], strict=True):
        ax.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
        ax.annotate(f"lr {rate:.0e}", (epoch - 0.5, 1), xycoords=("data", "axes fraction"), rotation=90,
                    xytext=(2, -2), textcoords="offset points", va="top", color="dimgrey")  # fmt: skip


@styled
def label_bars(table: pd.DataFrame, title: str, xlabel: str = "AP (%); mAP is the mean over the labels") -> Figure:
    """A value of every label, AP (%) unless xlabel names another, a mark for each row of the table.

    table: rows are what is compared (stages, variants, readings), columns the labels and `mAP`; nan is no mark.
    """
    table = table.drop(columns="labels_without_positives", errors="ignore")
    figure, ax = _rows(table.columns)
    for i, (name, row) in enumerate(table.iterrows()):
        ax.plot(row, _places(row, i, len(table), 0.5), MARKERS[i % len(MARKERS)], markersize=4,
                color=COLOURS[i % len(COLOURS)], label=name)  # fmt: skip
    ax.set(xlabel=xlabel)
    return _titled(figure, title, min(len(table), 4))


@styled
def label_distribution(targets: pd.DataFrame) -> Figure:
    """Share of images that show each label (%). targets: a row a split, a column a label, in %."""
    figure = label_bars(targets, "", "images with the label (%)")
    figure.axes[0].set_xlim(left=0)
    return figure


@styled
def label_columns(table: pd.DataFrame, title: str) -> Figure:
    """AP of every label (%) as grouped columns, as the paper's Figure 3. table: as in label_bars."""
    figure, [[ax]] = subplots(1, 1, 3)
    for i, (name, row) in enumerate(table.iterrows()):
        ax.bar(_places(row, i, len(table), 0.8), row, 0.8 / len(table), color=COLOURS[i % len(COLOURS)], label=name)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=90, fontsize=min(FONT, 380 / table.shape[1]))
    ax.set(ylabel="AP (%); mAP is the mean", xlim=(-0.6, table.shape[1] - 0.4))
    ax.grid(axis="y", color="lightgrey", linewidth=0.5)
    return _titled(figure, title, min(len(table), 4))


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="lightgrey", linewidth=0.5)
    for place in range(0, len(names), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="whitesmoke", zorder=0)


def _rows(names: Sequence[str], margin: float = 1) -> tuple[Figure, Axes]:
    figure, [[ax]] = subplots(1, 1, margin + 0.19 * len(names))
    name_rows(ax, names)
    return figure, ax


def _places(values: Sequence, i: int = 0, count: int = 1, spread: float = 0) -> np.ndarray:
    """Where the i-th of `count` series of values stands, each value beside those of the other series."""
    return np.arange(len(values)) + spread * ((i + 0.5) / count - 0.5)


@styled
def differences(
    table: pd.DataFrame,
    title: str,
    published: pd.Series | None = None,
    *,
    seeds: pd.DataFrame | None = None,
    other: str = "baseline",
) -> Figure:
    """Δ mAP of rows to another one with their 95 % bootstrap intervals, a dot a seed, and hollow marks for the paper's.

    table: rows are what is compared, columns Δ mAP, low and high, in points; seeds: points of each seed, a column a
    seed; published: points by the same names.
    """
    figure, ax = _intervals({"ours": table})
    for i, (_, values) in enumerate([] if seeds is None else seeds.reindex(table.index).items()):
        ax.plot(values, np.arange(len(table)) + 0.28, ".", markersize=3, color="dimgrey", label=None if i else "a seed")
    if published is not None:
        ax.plot(published.reindex(table.index), range(len(table)), MARKERS[2], markersize=6, color=COLOURS[3],
                fillstyle="none", label="the paper's")  # fmt: skip
    ax.set_xlabel(f"Δ mAP vs. {other} (points), 95 % bootstrap interval")
    return _titled(figure, title)


@styled
def forest(panels: dict[str, tuple[pd.DataFrame, pd.DataFrame]], rows: Sequence[str]) -> Figure:
    """Δ mAP vs. the baseline of the same rows, a column a data set, with 95 % intervals and a dot a seed.

    panels: by title, differences (columns Δ mAP, low, high) and those of each seed (a column a seed), in points.
    """
    figure, axes = subplots(1, len(panels), 1.2 + 0.19 * len(rows), sharex=True)
    figure.set_figwidth(max(WIDTH, 2.4 + 1.5 * len(panels)))
    for ax, (title, (table, seeds)) in zip(axes[0], panels.items(), strict=True):
        name_rows(ax, rows if ax is axes[0, 0] else [""] * len(rows))
        ax.axvline(0, color="black", linewidth=0.8)
        table = table.reindex(rows)
        point, places = table["Δ mAP"], np.arange(len(rows))
        errors = [point - table["low"], table["high"] - point]
        ax.errorbar(point, places, xerr=errors, fmt=MARKERS[0], markersize=4, color=COLOURS[0], capsize=2)
        for _, values in seeds.reindex(rows).items():
            ax.plot(values, places + 0.3, ".", markersize=3, color="dimgrey")
        ax.set(title=title)
    ax.set_xlim(left=min(ax.get_xlim()[0], -0.3))  # of all
    figure.supxlabel("Δ mAP vs. baseline (points), 95 % interval; small dots: seeds; blank: not run", fontsize=FONT)
    return figure


@styled
def gains(tables: dict[str, pd.DataFrame], title: str, xlabel: str) -> Figure:
    """Several tables of differences with the same rows, as in `differences`, beside each other."""
    figure, ax = _intervals(tables)
    ax.set_xlabel(xlabel)
    return _titled(figure, title)


@styled
def search(table: pd.DataFrame, title: str, of: str) -> Figure:
    """Best mAP on val (%) of the first 1, 2, … draws of a search: a line a row, one for rows that are alike in the two
    digits that a table shows. table: of tables.best_so_far; of: what is drawn."""
    alike = table.round(2).groupby([*table.columns], sort=False, dropna=False).groups
    figure, [[ax]] = subplots(1, 1, 2.6 + 0.2 * len(alike), title)
    for i, names in enumerate(alike.values()):
        name, best = textwrap.fill("; ".join(names), 62), table.loc[names[0]]
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 3}
        ax.plot(best.index, best, drawstyle="steps-post", linewidth=0.8, label=name, **style)
    ax.set(xlabel=f"draws of {of}", ylabel="best mAP on val (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2, fontsize=FONT - 2)
    return figure


def _intervals(tables: dict[str, pd.DataFrame]) -> tuple[Figure, Axes]:
    """tables: with the same rows; the first column is drawn, from low to high."""
    figure, ax = _rows(next(iter(tables.values())).index, 1.1)
    ax.axvline(0, color="black", linewidth=0.8)
    for i, (name, table) in enumerate(tables.items()):
        point = table.iloc[:, 0]
        ax.errorbar(point, _places(point, i, len(tables), 0.4), xerr=[point - table["low"], table["high"] - point],
                    fmt=MARKERS[i], markersize=4, color=COLOURS[i], capsize=2, label=name)  # fmt: skip
    return figure, ax


def _titled(figure: Figure, title: str, legend_columns: int = 2) -> Figure:
    entitle(figure, title)
    figure.legend(loc="outside lower center", ncols=legend_columns)
    return figure


@styled
def matrices(
    tables: dict[str, pd.DataFrame], title: str, *, rows: str, columns: str, shares: Sequence[str] = ()
) -> Figure:
    """Label × label heat maps in one order, side by side, each on a scale of its own around 0; nan is grey.

    tables: (C, C), by what they show; rows, columns: what the labels of each stand for; shares: those of the tables
    that cannot be negative, whose scale begins at 0.
    """
    figure, axes = subplots(1, len(tables), 1.5 + WIDTH / len(tables), title)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        most = np.nanmax(np.abs(table.to_numpy()), initial=1e-9)
        ax.set_facecolor("lightgrey")
        colours = {"cmap": "Blues", "vmin": 0} if name in shares else {"cmap": "RdBu_r", "vmin": -most}
        image = ax.imshow(table, vmax=most, **colours)
        places = range(0, len(table), -(-len(table) // NAMES_SHOWN))
        names = table.index[places] if ax is axes[0, 0] else [""] * len(places)
        ax.set_xticks(places, table.columns[places], rotation=90, fontsize=FONT - 2)
        ax.set_yticks(places, names, fontsize=FONT - 2)
        ax.set(xlabel=columns, ylabel=rows if ax is axes[0, 0] else "")
        figure.colorbar(image, ax=ax, location="top", label=name, shrink=0.8)
    return figure


@styled
def agreement(lift: pd.DataFrame, influences: dict[str, pd.DataFrame], title: str) -> Figure:
    """A panel a row of the tables: how far a label's logit moves over the log2 lift of the pair, a point a pair.

    lift, influences: (C, C), pair-specific.
    """
    pairs = ~np.eye(len(lift), dtype=bool)
    columns = min(len(influences), 3)
    rows = -(-len(influences) // columns)
    figure, axes = subplots(rows, columns, 1 + 1.7 * rows, title)
    for ax in axes.flat[len(influences) :]:
        ax.axis("off")
    for ax, (name, influence) in zip(axes.flat, influences.items(), strict=False):
        ax.axhline(0, color="black", linewidth=0.5)
        ax.plot(lift.to_numpy()[pairs], influence.to_numpy()[pairs], ".", markersize=3, color=COLOURS[0])
        ax.set(title=textwrap.fill(name, 28), xlabel="pair-specific log2 lift", ylabel="fall of the logit")
    return figure


def file_name(name: str, suffix: str) -> str:
    """A name, such as a label or an image's id, as that of one file on any system; what may not be is written as %.

    Names that Windows reserves begin with %, and long ones end in a checksum.
    """
    plain = re.sub(r'[<>:"/\\|?*%\x00-\x1f]|^ | $', lambda sign: f"%{ord(sign[0]):02X}", name)
    plain = "%" * bool(RESERVED.match(plain)) + plain
    if len(plain.encode()) > LONGEST:
        plain = f"{plain.encode()[:LONGEST].decode(errors='ignore')}%{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return plain + suffix


def write_figure(path: Path, figure: Figure) -> None:
    """In the format of the path's suffix; says so where an axis shows nothing."""
    write(path, lambda partial: figure.savefig(partial, format=path.suffix[1:]))
    if count := sum(ax.axison and not shows_marks(ax) for ax in figure.axes):
        print(f"{path.name}: {count} of {len(figure.axes)} axes are empty")


def shows_marks(ax: Axes) -> bool:
    """Whether a finite point of a line lies inside the axes, or they have a finite bar, image or collection."""
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    lines = [line.get_xydata().T for line in ax.lines if line.get_transform() == ax.transData]
    inside = [((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).any() for x, y in lines]
    bars = [bar for bars in ax.containers if isinstance(bars, BarContainer) for bar in bars]
    sizes = [(bar.get_width(), bar.get_height()) for bar in bars]
    bounds = [collection.get_datalim(ax.transData).bounds for collection in ax.collections]
    images = [image.get_array() for image in ax.images]
    return any(inside) or any(np.isfinite(part).all() for part in sizes + bounds) or any(map(any_finite, images))


def any_finite(image: np.ndarray) -> bool:
    return bool(np.isfinite(np.ma.filled(image, np.nan) if image.dtype.kind == "f" else image).any())


def subplots(rows: int, columns: int, height: float, title: str = "", **shared: bool) -> tuple[Figure, np.ndarray]:
    """height: in inches, of the whole figure; shared: sharex, sharey. The axes are (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    entitle(figure, title)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def entitle(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(textwrap.fill(title, int(15 * figure.get_figwidth())), fontsize=FONT + 1)
