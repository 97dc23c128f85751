"""The study's figures of images, what lies in them and what attends to it; as in figures.py each returns a `Figure`.

Images are (H, W, 3) uint8. A box is (label, xmin, ymin, xmax, ymax), corners as fractions of width and height.
"""

import base64
import io
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from attnsem.analysis.figures import COLOURS, DPI, FONT, WIDTH, entitle, name_rows, styled, subplots

HEAT = "plasma"
COLUMNS = 7
CHANNELS_SHOWN = 4
PANELS_SHOWN = 55  # eight rows of COLUMNS with the image itself; a thousand take minutes and cannot be told apart
NOTE = "Heat: a label's channel of A, from 0 (clear) to its own peak (yellow). p: sigmoid of the logit."

Box = tuple[str, float, float, float, float]


class AttendedImage(NamedTuple):
    """A test image and the attention channels of K of its labels.

    image: (H, W, 3) uint8; channels: (K, h, w), each with the sum 1; scores: (K,) probabilities; true: the labels
    that the image shows, where `labels` are others.
    """

    id: str
    image: np.ndarray
    labels: tuple[str, ...]
    channels: np.ndarray
    scores: np.ndarray
    boxes: Sequence[Box] = ()
    true: tuple[str, ...] = ()


@styled
def example_images(images: Sequence[np.ndarray], titles: Sequence[str], boxes: Sequence[Sequence[Box]]) -> Figure:
    """A grid of images with their titles below, and each image's boxes over it."""
    columns = 4
    rows = -(-len(images) // columns)
    figure, axes = panels(rows, columns, rows * (WIDTH / columns + 0.45))
    for ax, image, title, own in zip(axes.flat, images, titles, boxes, strict=False):
        show(ax, image, own, textwrap.fill(textwrap.shorten(title, 160), int(WIDTH / columns * 14)))
    return figure


@styled
def attention_over_images(items: Sequence[AttendedImage], title: str) -> Figure:
    """A row an image: the image with the boxes of its true labels, then the channel of each over it.

    Channels are upsampled bilinearly and drawn from 0 (clear) to their own greatest value, which is written
    below as a multiple of uniform attention, 1 / (h w).
    """
    columns = 1 + min(max(len(item.labels) for item in items), CHANNELS_SHOWN)
    figure, axes = panels(len(items), columns, len(items) * (min(WIDTH / columns, 1.6) + 0.42) + 0.6, title, NOTE)
    for row, item in zip(axes, items, strict=True):
        more = len(item.labels) - CHANNELS_SHOWN
        show(row[0], item.image, item.boxes, textwrap.shorten(item.id, 24) + f"\n{more} more not shown" * (more > 0))
        for k, ax in enumerate(row[1 : len(item.labels) + 1]):
            show_channel(ax, item, k)
    return figure


@styled
def gallery(items: dict[str, AttendedImage], title: str) -> Figure:
    """Above each image with the boxes of one label, below that label's channel over it.

    items: by the rule that chose them, such as "best"; each with one label. Drawn as in attention_over_images.
    """
    figure, axes = panels(2, len(items), 2 * WIDTH / max(len(items), 3) + 1.3, title, NOTE)
    for [above, below], (rule, item) in zip(axes.T, items.items(), strict=True):
        told = textwrap.shorten(f"{item.id}: {', '.join(item.true)}", 160)
        show(above, item.image, item.boxes, textwrap.fill(told, 26))
        above.set_title(rule)
        show_channel(below, item, 0, item.boxes)
    return figure


@styled
def all_channels(item: AttendedImage, title: str) -> Figure:
    """One image and the channels of all labels, drawn as in attention_over_images; true labels stand in bold.

    Of more than PANELS_SHOWN labels those that are true, then the likeliest, in their order.
    """
    note = f"{NOTE}\n×: its peak over uniform." + " Bold: true labels." * bool(item.true)
    if (more := len(item.labels) - PANELS_SHOWN) > 0:
        order = np.lexsort([-item.scores, [label not in item.true for label in item.labels]])
        places = np.sort(order[:PANELS_SHOWN])
        labels = tuple(item.labels[place] for place in places)
        item = item._replace(labels=labels, channels=item.channels[places], scores=item.scores[places])
        note += f" {more} labels more, less likely ones, are not shown."
    rows = -(-(len(item.labels) + 1) // COLUMNS)
    height = WIDTH / COLUMNS * min(item.image.shape[0] / item.image.shape[1], 2)
    figure, axes = panels(rows, COLUMNS, rows * (height + 0.35) + 0.7, title, note)
    show(axes.flat[0], item.image, item.boxes, textwrap.shorten(item.id, 24))
    axes.flat[0].xaxis.label.set_fontsize(FONT - 2)
    for ax, label, channel, score in zip(axes.flat[1:], item.labels, item.channels, item.scores, strict=False):
        below = f"{label}\np = {score:.2f}, × {channel.max() * channel.size:.0f}"
        overlay(ax, item.image, channel, below)
        ax.xaxis.label.set(fontsize=FONT - 2, fontweight="bold" if label in item.true else "normal")
    return figure


@styled
def one_channel(image: np.ndarray, maps: dict[str, np.ndarray], title: str, boxes: Sequence[Box] = ()) -> Figure:
    """One image and one label's maps (h, w) over it, by name: of several stages, or as several gates read it.

    What is below 0 is clear, as 0 is.
    """
    note = "Heat: from 0 (clear) to the map's own peak (yellow)."
    figure, axes = panels(1, len(maps) + 1, WIDTH / (len(maps) + 1) + 1.0, title, note)
    show(axes[0, 0], image, boxes, "image")
    for ax, (name, channel) in zip(axes[0, 1:], maps.items(), strict=True):
        overlay(ax, image, channel, f"{name}\npeak {channel.max():.3g}")
        ax.xaxis.label.set_fontsize(FONT - 1)
    return figure


@styled
def average_channels(channels: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """The mean channel of each label (C, h, w), all on one scale that begins at 0; 1 is uniform attention.

    Of more than PANELS_SHOWN labels the first ones."""
    if (more := len(labels) - PANELS_SHOWN) > 0:
        labels, channels, title = labels[:PANELS_SHOWN], channels[:PANELS_SHOWN], f"{title} ({more} more not shown)"
    rows = -(-len(labels) // COLUMNS)
    figure, axes = panels(rows, COLUMNS, rows * (WIDTH / COLUMNS + 0.2) + 0.6, title)
    times = channels * channels[0].size
    for ax, label, channel in zip(axes.flat, labels, times, strict=False):
        heat = ax.imshow(channel, cmap=HEAT, vmin=0, vmax=times.max())
        ax.set_title(label, fontsize=FONT - 1)
    figure.colorbar(heat, ax=axes, label="attention, × uniform", shrink=0.8)
    return figure


@styled
def labelled_photograph(
    image: np.ndarray, likeliest: pd.Series, title: str, item: AttendedImage | None = None
) -> Figure:
    """A photograph beside the channels of some of its labels, if there are any, and its likeliest probabilities."""
    channels = len(item.labels) if item else 0
    widths = [1.2] * (1 + channels) + [0.8 if channels else 1.2]
    height = (WIDTH - 0.8) * widths[0] / sum(widths) * image.shape[0] / image.shape[1]
    figure = Figure(figsize=(WIDTH, min(max(height, 1.3), 5) + 0.6), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, 2 + channels, width_ratios=widths)
    show(axes[0], image, below=textwrap.shorten(title, 40))
    for k in range(channels):
        overlay(axes[1 + k], item.image, item.channels[k], f"attention: {item.labels[k]}")
    axes[-1].barh(range(len(likeliest)), likeliest, color=COLOURS[0])
    name_rows(axes[-1], likeliest.index)
    axes[-1].set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="probability")
    return figure


@styled
def attended_photographs(items: Sequence[AttendedImage], title: str) -> Figure:
    """Photographs side by side, four in a band and of one height in it, each above the channels of its labels, drawn
    as in attention_over_images."""
    bands = [items[first : first + 4] for first in range(0, len(items), 4)]
    deep = [1 + max(len(item.labels) for item in band) for band in bands]
    widths = [[item.image.shape[1] / item.image.shape[0] for item in band] for band in bands]
    spare = [max(4 - sum(ratios), 0.01) for ratios in widths]  # so that one photograph alone is no giant
    heights = [
        count * (WIDTH / (sum(ratios) + empty) + 0.25) for count, ratios, empty in zip(deep, widths, spare, strict=True)
    ]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout="constrained", dpi=DPI)
    entitle(figure, title)
    places = figure.add_gridspec(len(bands), 1, height_ratios=heights)
    for place, band, count, ratios, empty in zip(places, bands, deep, widths, spare, strict=True):
        grid = place.subgridspec(count, len(band) + 1, width_ratios=[*ratios, empty])
        for column, item in enumerate(band):
            show(figure.add_subplot(grid[0, column]), item.image, below=textwrap.shorten(item.id, 24))
            for k, label in enumerate(item.labels):
                ax = figure.add_subplot(grid[1 + k, column])
                overlay(ax, item.image, item.channels[k], f"{label}, p = {item.scores[k]:.2f}")
    figure.supxlabel(NOTE, fontsize=FONT - 1)
    return figure


def with_jpegs(svg: str) -> str:
    """An SVG file's text with its images as JPEG, a tenth of the size for photographs."""

    def smaller(match: re.Match) -> str:
        image, stream = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGBA"), io.BytesIO()
        white = Image.new("RGBA", image.size, "white")
        Image.alpha_composite(white, image).convert("RGB").save(stream, "jpeg", quality=88)
        return f'"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"'

    return re.sub(r'"data:image/png;base64,([^"]+)"', smaller, svg)


def panels(rows: int, columns: int, height: float, title: str = "", note: str = "") -> tuple[Figure, np.ndarray]:
    """As subplots, with axes that stay invisible until something is shown in them, and a note below them all."""
    figure, axes = subplots(rows, columns, height, title)
    for ax in axes.flat:
        ax.axis("off")
    if note:
        figure.supxlabel(note, fontsize=FONT - 1)
    return figure, axes


def show(ax: Axes, image: np.ndarray, boxes: Sequence[Box] = (), below: str = "") -> None:
    height, width = image.shape[:2]
    ax.imshow(image)
    ax.axis("on")
    ax.set(xticks=[], yticks=[], xlabel=below)
    for label, xmin, ymin, xmax, ymax in boxes:
        corner = (xmin * width - 0.5, ymin * height - 0.5)
        size = ((xmax - xmin) * width, (ymax - ymin) * height)
        for colour, line in (("black", 2), ("white", 1)):
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=line))
        ax.text(*corner, label, fontsize=FONT - 2, va="top", bbox={"facecolor": "white", "pad": 0.5, "linewidth": 0})


def show_channel(ax: Axes, item: AttendedImage, k: int, boxes: Sequence[Box] = ()) -> None:
    channel = item.channels[k]
    peak = f"peak {channel.max() * channel.size:.1f} × uniform"
    overlay(ax, item.image, channel, f"{item.labels[k]}, p = {item.scores[k]:.2f}\n{peak}", boxes)


def overlay(ax: Axes, image: np.ndarray, channel: np.ndarray, below: str, boxes: Sequence[Box] = ()) -> None:
    """The channel over the image without its colours, which are the heat's; positions are evenly spread over the
    image, as the backbone's strides lay them."""
    show(ax, np.asarray(Image.fromarray(image).convert("L").convert("RGB")), boxes, below)
    heat = Image.fromarray(np.float32(channel / max(channel.max(), 1e-12)))
    heat = np.asarray(heat.resize(image.shape[1::-1], Image.Resampling.BILINEAR))
    ax.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * heat.clip(0, 1))
