"""The study's figures: each function returns a `Figure` and neither shows nor saves it.

They do not go through pyplot, so that none stays open; a notebook that shows one says `%matplotlib inline`.
Images are (H, W, 3) uint8. A box is (label, xmin, ymin, xmax, ymax), corners as fractions of width and height.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

WIDTH = 6.5  # inches, the text width of a page
FONT = 8  # points
DPI = 150
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^v<>PX"
HEAT = "plasma"
CHANNELS_SHOWN = 4

Box = tuple[str, float, float, float, float]
_styled = rc_context({"font.size": FONT, "axes.titlesize": FONT, "axes.axisbelow": True, "legend.frameon": False})


class AttendedImage(NamedTuple):
    """A test image and the attention channels of its K true labels.

    image: (H, W, 3) uint8; channels: (K, h, w), each with the sum 1; scores: (K,) probabilities.
    """

    id: str
    image: np.ndarray
    labels: tuple[str, ...]
    channels: np.ndarray
    scores: np.ndarray
    boxes: Sequence[Box] = ()


@_styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss and, where the run has them, mAP and α over the epochs; a dotted line where lr drops.

    history: columns epoch, loss and, if there are any, lr, mAP (%) and alpha; nan is an epoch without.
    """
    names = {"loss": "training loss", "mAP": "mAP (%)", "alpha": "α, weight of y′ in eq. (9)"}
    names = {column: name for column, name in names.items() if column in history and history[column].any()}
    figure, axes = _subplots(1, len(names), height=2.3)
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


@_styled
def label_bars(table: pd.DataFrame, title: str) -> Figure:
    """AP of every label (%), a mark for each row of the table.

    table: rows are what is compared (stages, variants, readings), columns the labels and `mAP`; nan is no mark.
    """
    table = table.drop(columns="labels_without_positives", errors="ignore")
    figure, [[ax]] = _subplots(1, 1, height=1 + 0.19 * table.shape[1])
    places = np.arange(table.shape[1])
    for i, (name, row) in enumerate(table.iterrows()):
        ax.plot(row, places + 0.5 * ((i + 0.5) / len(table) - 0.5), MARKERS[i % len(MARKERS)], markersize=4,
                color=COLOURS[i % len(COLOURS)], label=name if isinstance(name, str) else ", ".join(name))  # fmt: skip
    _name_rows(ax, table.columns)
    ax.set(xlabel="AP (%); mAP is the mean over the labels")
    figure.suptitle(title, fontsize=FONT + 1)
    figure.legend(loc="outside upper center", ncols=min(len(table), 4))
    return figure


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="lightgrey", linewidth=0.5)
    for place in range(0, len(names), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="whitesmoke", zorder=0)


@_styled
def label_columns(table: pd.DataFrame, title: str) -> Figure:
    """AP of every label (%) as grouped columns, as the paper's Figure 3. table: as in label_bars."""
    figure, [[ax]] = _subplots(1, 1, height=3)
    width = 0.8 / len(table)
    for i, (name, row) in enumerate(table.iterrows()):
        ax.bar(np.arange(len(row)) + (i + 0.5) * width - 0.4, row, width, color=COLOURS[i % len(COLOURS)], label=name)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=90)
    ax.set(ylabel="AP (%); mAP is the mean", xlim=(-0.6, table.shape[1] - 0.4))
    ax.grid(axis="y", color="lightgrey", linewidth=0.5)
    figure.suptitle(title, fontsize=FONT + 1)
    figure.legend(loc="outside lower center", ncols=min(len(table), 4))
    return figure


@_styled
def differences(table: pd.DataFrame, title: str, published: pd.Series | None = None) -> Figure:
    """Differences of mAP with their 95 % intervals, and hollow marks for the paper's.

    table: rows are what is compared, columns difference, low and high, in points; published: points by the same names.
    """
    figure, [[ax]] = _subplots(1, 1, height=1.1 + 0.19 * len(table))
    places = np.arange(len(table))
    spread = [table["difference"] - table["low"], table["high"] - table["difference"]]
    ax.axvline(0, color="black", linewidth=0.8)
    ax.errorbar(table["difference"], places, xerr=spread, fmt=MARKERS[0], markersize=4, color=COLOURS[0],
                capsize=2, label="measured, 95 % of resampled test sets")  # fmt: skip
    if published is not None:
        ax.plot(published.reindex(table.index), places, MARKERS[2], markersize=6, color=COLOURS[3],
                fillstyle="none", label="the paper's")  # fmt: skip
    _name_rows(ax, table.index)
    ax.set_xlabel(f"points of mAP, {table.index.name}")
    figure.suptitle(title, fontsize=FONT + 1)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@_styled
def label_distribution(targets: pd.DataFrame) -> Figure:
    """Share of images that show each label (%). targets: a row a split, a column a label, in %."""
    figure, [[ax]] = _subplots(1, 1, height=1 + 0.19 * targets.shape[1])
    for i, (name, row) in enumerate(targets.iterrows()):
        ax.plot(row, np.arange(targets.shape[1]), MARKERS[i], markersize=4, color=COLOURS[i], label=name)
    _name_rows(ax, targets.columns)
    ax.set_xlim(left=0)
    ax.set_xlabel("images with the label (%)")
    figure.legend(loc="outside upper center", ncols=len(targets))
    return figure


@_styled
def example_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    boxes: Sequence[Sequence[Box]] | None = None,
    *,
    columns: int = 4,
) -> Figure:
    """A grid of images with their titles below, and each image's boxes over it if they are given."""
    rows = -(-len(images) // columns)
    figure, axes = _subplots(rows, columns, height=rows * (WIDTH / columns + 0.45))
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for ax, image, title, found in zip(axes.flat, images, titles, boxes or [()] * len(images), strict=False):
        _show(ax, image)
        _draw_boxes(ax, image, found)
        ax.set_xlabel(textwrap.fill(title, int(WIDTH / columns * 14)))
    return figure


@_styled
def attention_over_images(attended: Sequence[AttendedImage], title: str) -> Figure:
    """A row an image: the image with the boxes of its true labels, then the channel of each over it.

    Channels are upsampled bilinearly and drawn from 0 (clear) to their own greatest value, which is written
    below as a multiple of uniform attention, 1 / (h w).
    """
    shown = [range(min(len(item.labels), CHANNELS_SHOWN)) for item in attended]
    columns = 1 + max(map(len, shown))
    side = min(WIDTH / columns, 1.6)
    figure, axes = _subplots(len(attended), columns, height=len(attended) * (side + 0.42) + 0.6)
    for ax in axes.flat:
        ax.axis("off")
    for row, item, channels in zip(axes, attended, shown, strict=True):
        _show(row[0], item.image)
        _draw_boxes(row[0], item.image, item.boxes)
        more = len(item.labels) - len(channels)
        row[0].set_xlabel(textwrap.shorten(item.id, 24) + (f"\n{more} more not shown" if more else ""))
        for ax, k in zip(row[1:], channels, strict=False):
            _show(ax, _grey(item.image))
            _draw_channel(ax, item.image, item.channels[k])
            peak = item.channels[k].max() * item.channels[k].size
            ax.set_xlabel(f"{item.labels[k]}, p = {item.scores[k]:.2f}\npeak {peak:.1f} × uniform")
    figure.suptitle(title, fontsize=FONT + 1)
    note = "Heat: a label's channel of A, from 0 (clear) to its own peak (yellow). p: sigmoid of the logit."
    figure.supxlabel(note, fontsize=FONT - 1)
    return figure


@_styled
def predictions(image: np.ndarray, probabilities: pd.Series, title: str, *, most: int = 8) -> Figure:
    """An image beside the probabilities of its `most` likeliest labels."""
    figure, [[left, right]] = _subplots(1, 2, height=2.6)
    _show(left, image)
    left.set_xlabel(title)
    likeliest = probabilities.sort_values(ascending=False)[:most]
    right.barh(range(len(likeliest)), likeliest, color=COLOURS[0])
    _name_rows(right, likeliest.index)
    right.set_xlim(0, 1)
    right.set_xlabel("probability, sigmoid of the logit")
    return figure


@_styled
def growth(table: pd.DataFrame, units: dict[str, str], machine: str) -> Figure:
    """Time and memory over the size of the work, both axes logarithmic; a dotted line is proportional to the size.

    table: rows with what, size, seconds and gib; units: what one time is of, for each `what`.
    """
    figure, axes = _subplots(2, len(units), height=3.6)
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


def _subplots(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """height: in inches, of the whole figure. The axes are (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image)
    ax.axis("on")
    ax.set(xticks=[], yticks=[])


def _draw_boxes(ax: Axes, image: np.ndarray, boxes: Sequence[Box]) -> None:
    height, width = image.shape[:2]
    for label, xmin, ymin, xmax, ymax in boxes:
        corner = (xmin * width - 0.5, ymin * height - 0.5)
        size = ((xmax - xmin) * width, (ymax - ymin) * height)
        for colour, line in (("black", 2), ("white", 1)):
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=line))
        ax.text(*corner, label, fontsize=FONT - 2, va="top", bbox={"facecolor": "white", "pad": 0.5, "linewidth": 0})


def _grey(image: np.ndarray) -> np.ndarray:
    """Without colours, which are the heat's."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def _draw_channel(ax: Axes, image: np.ndarray, channel: np.ndarray) -> None:
    """The channel's positions are evenly spread over the image, as the backbone's strides lay them."""
    height, width = image.shape[:2]
    heat = Image.fromarray(np.float32(channel / channel.max())).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.asarray(heat)
    ax.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * heat.clip(0, 1))
