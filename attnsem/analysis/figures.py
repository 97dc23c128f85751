"""The study's figures: each function returns a `Figure` and neither shows nor saves it.

They do not go through pyplot, so that none stays open; a notebook that shows one says `%matplotlib inline`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnsem.files import write

WIDTH = 6.5  # inches, the text width of a page
FONT = 8  # points
DPI = 150
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^v<>PX"

STYLE = {"font.size": FONT, "axes.titlesize": FONT, "axes.axisbelow": True, "legend.frameon": False}
styled = rc_context(STYLE | {"text.parse_math": False})  # a label may have a $ in it


@styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss and, where the run has them, mAP and α over the epochs; a dotted line where lr drops.

    history: columns epoch, loss and, if there are any, lr, mAP (%) and alpha; nan is an epoch without.
    """
    names = {"loss": "training loss", "mAP": "mAP (%)", "alpha": "α, weight of y′ in eq. (9)"}
    names = {column: name for column, name in names.items() if column in history and history[column].any()}
    figure, axes = subplots(1, len(names), height=2.3)
    for ax, colour, (column, name) in zip(axes[0], COLOURS, names.items(), strict=False):
        points = history.dropna(subset=column)
        ax.plot(points["epoch"], points[column], marker=".", color=colour)
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _mark_lr_drops(ax, history)
    return figure


def _mark_lr_drops(ax: Axes, history: pd.DataFrame) -> None:
    if "lr" not in history:
        return
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
    figure, [[ax]] = subplots(1, 1, height=1 + 0.19 * table.shape[1])
    places = np.arange(table.shape[1])
    for i, (name, row) in enumerate(table.iterrows()):
        ax.plot(row, places + 0.5 * ((i + 0.5) / len(table) - 0.5), MARKERS[i % len(MARKERS)], markersize=4,
                color=COLOURS[i % len(COLOURS)], label=name if isinstance(name, str) else ", ".join(name))  # fmt: skip
    name_rows(ax, table.columns)
    ax.set(xlabel=xlabel)
    figure.suptitle(title, fontsize=FONT + 1)
    figure.legend(loc="outside lower center", ncols=min(len(table), 4))
    return figure


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="lightgrey", linewidth=0.5)
    for place in range(0, len(names), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="whitesmoke", zorder=0)


@styled
def label_columns(table: pd.DataFrame, title: str) -> Figure:
    """AP of every label (%) as grouped columns, as the paper's Figure 3. table: as in label_bars."""
    figure, [[ax]] = subplots(1, 1, height=3)
    width = 0.8 / len(table)
    for i, (name, row) in enumerate(table.iterrows()):
        ax.bar(np.arange(len(row)) + (i + 0.5) * width - 0.4, row, width, color=COLOURS[i % len(COLOURS)], label=name)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=90)
    ax.set(ylabel="AP (%); mAP is the mean", xlim=(-0.6, table.shape[1] - 0.4))
    ax.grid(axis="y", color="lightgrey", linewidth=0.5)
    figure.suptitle(title, fontsize=FONT + 1)
    figure.legend(loc="outside lower center", ncols=min(len(table), 4))
    return figure


@styled
def differences(
    table: pd.DataFrame, title: str, published: pd.Series | None = None, *, other: str = "baseline"
) -> Figure:
    """Δ mAP of rows to another one with their 95 % bootstrap intervals, and hollow marks for the paper's.

    table: rows are what is compared, columns Δ mAP, low and high, in points; published: points by the same names.
    """
    figure, ax = _intervals({"ours": table.rename(columns={"Δ mAP": "difference"})})
    if published is not None:
        ax.plot(published.reindex(table.index), range(len(table)), MARKERS[2], markersize=6, color=COLOURS[3],
                fillstyle="none", label="the paper's")  # fmt: skip
    ax.set_xlabel(f"Δ mAP vs. {other} (points), 95 % bootstrap interval")
    return _titled(figure, title)


@styled
def gains(tables: dict[str, pd.DataFrame], title: str, xlabel: str) -> Figure:
    """Several tables of differences with the same rows, as in `differences`, beside each other."""
    figure, ax = _intervals(tables)
    ax.set_xlabel(xlabel)
    return _titled(figure, title)


def _intervals(tables: dict[str, pd.DataFrame]) -> tuple[Figure, Axes]:
    rows = next(iter(tables.values())).index
    figure, [[ax]] = subplots(1, 1, height=1.1 + 0.19 * len(rows))
    ax.axvline(0, color="black", linewidth=0.8)
    for i, (name, table) in enumerate(tables.items()):
        places = np.arange(len(rows)) + 0.4 * ((i + 0.5) / len(tables) - 0.5)
        spread = [table["difference"] - table["low"], table["high"] - table["difference"]]
        ax.errorbar(table["difference"], places, xerr=spread, fmt=MARKERS[i], markersize=4, color=COLOURS[i],
                    capsize=2, label=name)  # fmt: skip
    name_rows(ax, rows)
    return figure, ax


def _titled(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, fontsize=FONT + 1)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def matrices(tables: dict[str, pd.DataFrame], title: str, *, rows: str, columns: str) -> Figure:
    """Label × label heat maps in one order, side by side, each on a scale of its own around 0; nan is grey.

    tables: (C, C), by what they show; rows, columns: what the labels of each stand for.
    """
    size = len(next(iter(tables.values())))
    figure, axes = subplots(1, len(tables), height=1.3 + WIDTH / len(tables))
    for i, (ax, (name, table)) in enumerate(zip(axes[0], tables.items(), strict=True)):
        most = np.nanmax(np.abs(table.to_numpy()), initial=1e-9)
        ax.set_facecolor("lightgrey")
        image = ax.imshow(table, cmap="RdBu_r", vmin=-most, vmax=most)
        ax.set_xticks(range(size), table.columns, rotation=90, fontsize=FONT - 2)
        ax.set_yticks(range(size), table.index if i == 0 else [""] * size, fontsize=FONT - 2)
        ax.set_xlabel(columns)
        if i == 0:
            ax.set_ylabel(rows)
        figure.colorbar(image, ax=ax, location="top", label=name, shrink=0.8)
    figure.suptitle(title, fontsize=FONT + 1)
    return figure


@styled
def agreement(log_lift: pd.DataFrame, influences: dict[str, pd.DataFrame], title: str) -> Figure:
    """A panel a row of the tables: how far a label's logit moves over the log2 lift of the pair, a point a pair.

    log_lift, influences: (C, C).
    """
    off = ~np.eye(len(log_lift), dtype=bool)
    columns = min(len(influences), 3)
    rows = -(-len(influences) // columns)
    figure, axes = subplots(rows, columns, height=1 + 1.7 * rows)
    for ax in axes.flat[len(influences) :]:
        ax.axis("off")
    for ax, (name, found) in zip(axes.flat, influences.items(), strict=False):
        ax.axhline(0, color="black", linewidth=0.5)
        ax.plot(log_lift.to_numpy()[off], found.to_numpy()[off], ".", markersize=3, color=COLOURS[0])
        ax.set_title(name)
        ax.set(xlabel="pair-specific log2 lift", ylabel="moved logit")
    figure.suptitle(title, fontsize=FONT + 1)
    return figure


@styled
def label_distribution(targets: pd.DataFrame) -> Figure:
    """Share of images that show each label (%). targets: a row a split, a column a label, in %."""
    figure, [[ax]] = subplots(1, 1, height=1 + 0.19 * targets.shape[1])
    for i, (name, row) in enumerate(targets.iterrows()):
        ax.plot(row, np.arange(targets.shape[1]), MARKERS[i], markersize=4, color=COLOURS[i], label=name)
    name_rows(ax, targets.columns)
    ax.set_xlim(left=0)
    ax.set_xlabel("images with the label (%)")
    figure.legend(loc="outside upper center", ncols=len(targets))
    return figure


@styled
def growth(table: pd.DataFrame, units: dict[str, str], machine: str) -> Figure:
    """Time and memory over the size of the work, both axes logarithmic; a dotted line is proportional to the size.

    table: rows with what, size, seconds and gib; units: what one time is of, for each `what`.
    """
    figure, axes = subplots(2, len(units), height=3.6)
    for column, (what, unit) in zip(axes.T, units.items(), strict=True):
        rows = table[table["what"] == what]
        for ax, values, name in zip(column, ("seconds", "gib"), (f"s {unit}", "GiB, peak"), strict=True):
            ax.loglog(rows["size"], rows[values], marker=".", color=COLOURS[0])
            first = rows.iloc[0]
            ax.loglog(rows["size"], first[values] * rows["size"] / first["size"], ":", color=COLOURS[-1])
            ax.set(xlabel=what, ylabel=name)
            ax.set_xticks(rows["size"], [str(size) for size in rows["size"]], rotation=45)
            ax.minorticks_off()
            ax.yaxis.set_major_formatter("{x:g}")
            for row in (rows.iloc[0], rows.iloc[-1]):
                place = (row["size"], row[values])
                ax.annotate(f"{row[values]:.2g}", place, (0, -11), textcoords="offset points", ha="center")
            ax.margins(x=0.2, y=0.35)
    figure.suptitle(f"Cost as work grows, {machine}; dotted: proportional", fontsize=FONT)
    return figure


def write_figure(path: Path, figure: Figure) -> None:
    """In the format of the path's suffix."""
    write(path, lambda partial: figure.savefig(partial, format=path.suffix[1:]))


def subplots(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """height: in inches, of the whole figure. The axes are (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    return figure, figure.subplots(rows, columns, squeeze=False)
