"""The study's figures of images, what lies in them and what attends to it; as in figures.py each returns a `Figure`.

Images are (H, W, 3) uint8. A box is (label, xmin, ymin, xmax, ymax), corners as fractions of width and height.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from attnsem.analysis.figures import COLOURS, FONT, WIDTH, name_rows, styled, subplots

HEAT = "plasma"
CHANNELS_SHOWN = 4
NOTE = "Heat: a label's channel of A, from 0 (clear) to its own peak (yellow). p: sigmoid of the logit."

Box = tuple[str, float, float, float, float]


class AttendedImage(NamedTuple):
    """A test image and the attention channels of its K true labels.

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
def example_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    boxes: Sequence[Sequence[Box]] | None = None,
    *,
    columns: int = 4,
) -> Figure:
    """A grid of images with their titles below, and each image's boxes over it if they are given."""
    rows = -(-len(images) // columns)
    figure, axes = subplots(rows, columns, height=rows * (WIDTH / columns + 0.45))
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for ax, image, title, found in zip(axes.flat, images, titles, boxes or [()] * len(images), strict=False):
        _show(ax, image)
        _draw_boxes(ax, image, found)
        ax.set_xlabel(textwrap.fill(title, int(WIDTH / columns * 14)))
    return figure


@styled
def attention_over_images(attended: Sequence[AttendedImage], title: str) -> Figure:
    """A row an image: the image with the boxes of its true labels, then the channel of each over it.

    Channels are upsampled bilinearly and drawn from 0 (clear) to their own greatest value, which is written
    below as a multiple of uniform attention, 1 / (h w).
    """
    shown = [range(min(len(item.labels), CHANNELS_SHOWN)) for item in attended]
    columns = 1 + max(map(len, shown))
    side = min(WIDTH / columns, 1.6)
    figure, axes = subplots(len(attended), columns, height=len(attended) * (side + 0.42) + 0.6)
    for ax in axes.flat:
        ax.axis("off")
    for row, item, channels in zip(axes, attended, shown, strict=True):
        _show(row[0], item.image)
        _draw_boxes(row[0], item.image, item.boxes)
        more = len(item.labels) - len(channels)
        row[0].set_xlabel(textwrap.shorten(item.id, 24) + (f"\n{more} more not shown" if more else ""))
        for ax, k in zip(row[1:], channels, strict=False):
            _overlay(ax, item.image, item.channels[k])
            ax.set_xlabel(f"{item.labels[k]}, p = {item.scores[k]:.2f}\n{_peak(item.channels[k])}")
    figure.suptitle(title, fontsize=FONT + 1)
    figure.supxlabel(NOTE, fontsize=FONT - 1)
    return figure


@styled
def predictions(image: np.ndarray, probabilities: pd.Series, title: str, *, most: int = 8) -> Figure:
    """An image beside the probabilities of its `most` likeliest labels."""
    figure, [[left, right]] = subplots(1, 2, height=2.6)
    _show(left, image)
    left.set_xlabel(title)
    likeliest = probabilities.sort_values(ascending=False)[:most]
    right.barh(range(len(likeliest)), likeliest, color=COLOURS[0])
    name_rows(right, likeliest.index)
    right.set_xlim(0, 1)
    right.set_xlabel("probability, sigmoid of the logit")
    return figure


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
    heat = Image.fromarray(np.float32(channel / max(channel.max(), 1e-12))).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    heat = np.asarray(heat)
    ax.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * heat.clip(0, 1))


@styled
def gallery(picked: dict[str, AttendedImage], title: str) -> Figure:
    """Images picked by rule: above each image with the boxes of one label, below that label's channel over it.

    picked: by rule, such as "best"; each with one label and channel. Drawn as in attention_over_images.
    """
    figure, axes = subplots(2, len(picked), height=2 * WIDTH / max(len(picked), 3) + 1.3)
    for [above, below], (rule, item) in zip(axes.T, picked.items(), strict=True):
        _show(above, item.image)
        _draw_boxes(above, item.image, item.boxes)
        above.set_title(rule)
        above.set_xlabel(textwrap.fill(f"{item.id}: {', '.join(item.true)}", 26))
        _overlay(below, item.image, item.channels[0])
        _draw_boxes(below, item.image, item.boxes)
        below.set_xlabel(f"{item.labels[0]}, p = {item.scores[0]:.2f}\n{_peak(item.channels[0])}")
    figure.suptitle(title, fontsize=FONT + 1)
    figure.supxlabel(NOTE, fontsize=FONT - 1)
    return figure


@styled
def all_channels(item: AttendedImage, title: str, *, columns: int = 7) -> Figure:
    """One image and the channels of all labels, drawn as in attention_over_images; true labels stand in bold."""
    count = len(item.labels) + 1
    rows = -(-count // columns)
    figure, axes = subplots(rows, columns, height=rows * (WIDTH / columns + 0.35) + 0.7)
    for ax in axes.flat:
        ax.axis("off")
    _show(axes.flat[0], item.image)
    _draw_boxes(axes.flat[0], item.image, item.boxes)
    axes.flat[0].set_xlabel(textwrap.shorten(item.id, 24))
    for ax, label, channel, score in zip(axes.flat[1:], item.labels, item.channels, item.scores, strict=False):
        _overlay(ax, item.image, channel)
        weight = "bold" if label in item.true else "normal"
        ax.set_xlabel(
            f"{label}\np = {score:.2f}, × {channel.max() * channel.size:.0f}", fontsize=FONT - 2, fontweight=weight
        )
    figure.suptitle(title, fontsize=FONT + 1)
    figure.supxlabel(f"{NOTE}\n×: its peak over uniform. Bold: true labels.", fontsize=FONT - 1)
    return figure


@styled
def one_channel(image: np.ndarray, maps: dict[str, np.ndarray], title: str, boxes: Sequence[Box] = ()) -> Figure:
    """One image and one label's maps (h, w) over it, by name: of several stages, or as several gates read it.

    What is below 0 is clear, as 0 is.
    """
    figure, axes = subplots(1, len(maps) + 1, height=WIDTH / (len(maps) + 1) + 1.0)
    _show(axes[0, 0], image)
    _draw_boxes(axes[0, 0], image, boxes)
    axes[0, 0].set_xlabel("image")
    for ax, (name, channel) in zip(axes[0, 1:], maps.items(), strict=True):
        _overlay(ax, image, channel)
        ax.set_xlabel(f"{name}\npeak {channel.max():.3g}", fontsize=FONT - 1)
    figure.suptitle(title, fontsize=FONT + 1)
    figure.supxlabel("Heat: from 0 (clear) to the map's own peak (yellow).", fontsize=FONT - 1)
    return figure


@styled
def average_channels(channels: np.ndarray, labels: Sequence[str], title: str, *, columns: int = 7) -> Figure:
    """The mean channel of each label (C, h, w), all on one scale that begins at 0; 1 is uniform attention."""
    rows = -(-len(labels) // columns)
    figure, axes = subplots(rows, columns, height=rows * (WIDTH / columns + 0.2) + 0.6)
    for ax in axes.flat:
        ax.axis("off")
    times = channels * channels[0].size
    for ax, label, channel in zip(axes.flat, labels, times, strict=False):
        drawn = ax.imshow(channel, cmap=HEAT, vmin=0, vmax=times.max())
        ax.set_title(label, fontsize=FONT - 1)
    figure.colorbar(drawn, ax=axes, label="attention, × uniform", shrink=0.8)
    figure.suptitle(title, fontsize=FONT + 1)
    return figure


def _peak(channel: np.ndarray) -> str:
    return f"peak {channel.max() * channel.size:.1f} × uniform"


def _overlay(ax: Axes, image: np.ndarray, channel: np.ndarray) -> None:
    _show(ax, _grey(image))
    _draw_channel(ax, image, channel)
