"""Each function returns a Figure that draws, shows nothing, and says what it must say."""

import io
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attnsem.analysis import figures
from attnsem.analysis.figures import (
    differences,
    label_bars,
    label_columns,
    label_distribution,
    learning_curves,
    matrices,
    search,
    write_figure,
)
from attnsem.analysis.pictures import (
    AttendedImage,
    all_channels,
    attended_photographs,
    attention_over_images,
    average_channels,
    example_images,
    gallery,
    labelled_photograph,
)
from attnsem.analysis.report import Captioned
from benchmarks.growth import growth

IMAGE = np.zeros((32, 48, 3), np.uint8)
BOX = ("cat", 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def _nothing_stays_open():
    yield
    assert not plt.get_fignums()


def drawn(figure):
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")
    return figure


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


def test_learning_curves_show_what_the_history_has():
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "lr": [0.1, 0.1, 0.01], "mAP": [np.nan, 50, 60]})
    figure = drawn(learning_curves(history))
    assert [ax.get_ylabel() for ax in figure.axes] == ["training loss", "mAP (%)"]
    assert figure.axes[1].lines[0].get_xydata().tolist() == [[2, 50], [3, 60]]
    assert figure.axes[0].lines[-1].get_xdata() == [2.5, 2.5] and "lr 1e-02" in words(figure)
    assert [ax.get_ylabel() for ax in learning_curves(history[["epoch", "loss", "lr"]]).axes] == ["training loss"]
    assert len(learning_curves(history.assign(alpha=0.0)).axes) == 3


def test_label_bars_put_each_value_at_its_label():
    table = pd.DataFrame({"cat": [90.0, 80], "dog": [np.nan, 70], "mAP": [90.0, 75]}, ["y′", "ŷ"])
    ax = drawn(label_bars(table, "two")).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["cat", "dog", "mAP"]
    marks = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert np.array_equal(marks["ŷ"], [80, 70, 75]) and np.isnan(marks["y′"][1])


def test_label_distribution():
    figure = drawn(label_distribution(pd.DataFrame({"cat": [10.0, 11], "dog": [1.0, 2]}, ["trainval", "test"])))
    assert figure.axes[0].get_xlim()[0] == 0 and "test" in words(figure) and "(%)" in words(figure)


def test_example_images_draw_boxes_in_pixels():
    figure = drawn(example_images([IMAGE] * 5, ["a"] * 5, [[BOX], [], [], [], []]))
    box = next(patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (11.5, 15.5, 24, 16)
    assert not figure.axes[5].axison and figure.axes[4].axison


def test_attention_lies_where_the_channel_has_it():
    channel = np.zeros((4, 6))
    channel[3, 0], channel[0, 5] = 0.75, 0.25
    item = AttendedImage("000001", IMAGE, ("cat",), channel[None], np.array([0.9]), (BOX,))
    figure = drawn(attention_over_images([item], "title"))
    heat = figure.axes[1].images[1].get_array()
    assert heat.shape == IMAGE.shape[:2] and heat[-1, 0] == 1 and heat[0, -1] == pytest.approx(1 / 3)
    assert heat[0, 0] == 0
    for word in ("000001", "cat", "p = 0.90", "peak 18.0 × uniform", "from 0 (clear) to its own peak"):
        assert word in words(figure)


def test_attention_says_how_many_labels_it_leaves_out():
    item = AttendedImage("x", IMAGE, tuple("abcdef"), np.full((6, 2, 2), 0.25), np.zeros(6))
    assert "2 more not shown" in words(drawn(attention_over_images([item], "")))


def test_a_photographs_likeliest_labels_are_beside_its_channels():
    likeliest = pd.Series({"dog": 0.8, "cow": 0.5})
    alone = drawn(labelled_photograph(IMAGE, likeliest, "photo"))
    assert [text.get_text() for text in alone.axes[1].get_yticklabels()] == ["dog", "cow"]
    assert [bar.get_width() for bar in alone.axes[1].containers[0]] == [0.8, 0.5]
    item = AttendedImage("photo", IMAGE, ("dog",), np.full((1, 2, 2), 0.25), np.array([0.8]))
    figure = drawn(labelled_photograph(IMAGE, likeliest, "photo", item))
    assert [ax.get_xlabel() for ax in figure.axes] == ["photo", "attention: dog", "probability"]


def test_photographs_of_a_band_have_one_height():
    sizes = [(32, 48), (64, 32), (10, 100), (32, 32), (40, 40)]
    channel = np.full((1, 2, 2), 0.25)
    items = [
        AttendedImage(str(number), np.zeros((*size, 3), np.uint8), ("cat",), channel, np.array([0.5]))
        for number, size in enumerate(sizes)
    ]
    figure = drawn(attended_photographs(items, "title"))
    figure.draw_without_rendering()
    heights = [ax.get_window_extent().height for ax in figure.axes if ax.get_xlabel() in "0123"]
    assert len(figure.axes) == 10 and heights == pytest.approx([heights[0]] * 4, rel=0.02)


def test_growth_draws_time_and_memory_beside_what_is_proportional():
    rows = [("labels", 20, 1.0, 2.0), ("labels", 80, 3.0, 2.5), ("pixels", 64, 5.0, 1.0), ("pixels", 128, 20.0, 4.0)]
    table = pd.DataFrame(rows, columns=["what", "size", "seconds", "gib"])
    figure = drawn(growth(table, {"labels": "a step", "pixels": "an epoch"}, "cpu: one"))
    assert len(figure.axes) == 4 and "cpu: one" in words(figure)
    measured, proportional = figure.axes[0].lines
    assert list(measured.get_ydata()) == [1.0, 3.0] and list(proportional.get_ydata()) == [1.0, 4.0]
    assert [ax.get_ylabel() for ax in figure.axes] == ["s a step", "s an epoch", "GiB, peak", "GiB, peak"]


def test_differences_show_their_intervals_and_the_papers():
    table = pd.DataFrame({"Δ mAP": [0.5, -1], "low": [0.1, -2], "high": [0.8, 0.5]}, ["ours", "other"])
    figure = drawn(differences(table, "two", pd.Series({"ours": 0.9}), other="theirs"))
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["ours", "other"]
    bars = ax.containers[0].lines[2][0].get_segments()
    assert np.allclose([[ends[0][0], ends[1][0]] for ends in bars], [[0.1, 0.8], [-2, 0.5]])
    published = next(line for line in ax.lines if line.get_label() == "the paper's").get_xdata()
    assert published[0] == 0.9 and np.isnan(published[1])
    assert ax.get_xlabel() == "Δ mAP vs. theirs (points), 95 % bootstrap interval"


def test_a_dot_is_a_seed():
    table = pd.DataFrame({"Δ mAP": [0.5, -1], "low": [0.1, -2], "high": [0.8, 0.5]}, ["ours", "other"])
    seeds = pd.DataFrame({"seed0": [0.4], "seed1": [0.6]}, ["ours"])
    lines = drawn(differences(table, "two", seeds=seeds)).axes[0].lines
    dots = [line.get_xydata() for line in lines if line.get_marker() == "."]
    assert [[x for x, _ in part if np.isfinite(x)] for part in dots] == [[0.4], [0.6]]
    assert all(0 < part[0][1] < 0.5 for part in dots)  # between its row's middle and its end


def test_search_draws_the_best_so_far():
    ax = drawn(search(pd.DataFrame({1: [80.0, 70.0], 2: [81.0, 70.0]}, ["ours", "other"]), "two", "lr")).axes[0]
    assert ax.get_xlabel() == "draws of lr"
    assert {line.get_label(): list(line.get_ydata()) for line in ax.lines} == {"ours": [80, 81], "other": [70, 70]}


def test_an_empty_figure_is_told(tmp_path, capsys):
    table = pd.DataFrame({"Δ mAP": [0.5], "low": [0.1], "high": [0.8]}, ["ours"])
    lift = pd.DataFrame([[np.nan, 1.0], [2.0, np.nan]], ["a", "b"], ["a", "b"])
    bars = pd.DataFrame({"cat": [9.0], "mAP": [8.0]}, ["y"])
    full = [differences(table, ""), matrices({"lift": lift}, "", rows="", columns=""), label_columns(bars, "")]
    for figure in [*full, label_bars(bars, ""), example_images([IMAGE], ["a"], [[BOX]])]:
        write_figure(tmp_path / "full.png", figure)
    assert capsys.readouterr().out == ""
    for figure in (differences(table * np.nan, ""), label_bars(bars * np.nan, ""), label_columns(bars * np.nan, "")):
        write_figure(tmp_path / "bare.png", figure)
        assert capsys.readouterr().out == "bare.png: 1 of 1 axes are empty\n"


def test_label_columns_stand_side_by_side():
    table = pd.DataFrame({"cat": [90.0, 80], "mAP": [60.0, 75]}, ["y′", "ŷ"])
    ax = drawn(label_columns(table, "two")).axes[0]
    columns = [(round(bar.get_x() + bar.get_width() / 2, 6), bar.get_height()) for bar in ax.patches]
    assert columns == [(-0.2, 90), (0.8, 60), (0.2, 80), (1.2, 75)]


def test_a_share_has_no_negative_colours():
    tables = {"P": pd.DataFrame([[np.nan, 0.2], [0.8, np.nan]]), "lift": pd.DataFrame([[np.nan, 0.5], [2, np.nan]])}
    shares, lift = (ax.images[0] for ax in drawn(matrices(tables, "", rows="", columns="", shares=["P"])).axes[:2])
    assert shares.get_clim() == (0, 0.8) and lift.get_clim() == (-2, 2)
    lightness = [np.dot(shares.cmap(value)[:3], [0.3, 0.6, 0.1]) for value in np.linspace(0, 1, 9)]
    assert lightness == sorted(lightness, reverse=True) and shares.get_cmap().name != lift.get_cmap().name


def test_labels_and_file_names_are_text_and_nothing_else():
    name = r"$\frac{<b>&$"
    table = pd.DataFrame({name: [90.0], "mAP": [90.0]}, [name])
    assert name in words(drawn(label_bars(table, name)))
    item = AttendedImage(name, IMAGE, (name,), np.ones((1, 4, 6)) / 24, np.array([0.5]), [(name, 0, 0, 1, 1)])
    drawn(attention_over_images([item], name))
    html = Captioned(table, name, marked=True)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html


def test_letters_that_no_font_has_are_told_once_and_warned_of_never(monkeypatch, capsys):
    """DejaVu Sans, matplotlib's own, has no Chinese; it has Greek, and what the study itself writes."""
    figures.letters.cache_clear()
    figures.say_missing.cache_clear()
    monkeypatch.setattr(figures, "FONTS", ("none",))
    table = pd.DataFrame({"猫": [50.0], "αλφα": [60.0]}, ["ŷ"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(label_bars(table[["αλφα"]], "Δ"))
        assert not capsys.readouterr().out
        drawn(label_bars(table, ""))
        drawn(label_columns(table, ""))
    figures.letters.cache_clear()
    figures.say_missing.cache_clear()
    assert capsys.readouterr().out.count("no font for some of the letters") == 1


def test_a_font_that_has_the_letters_is_taken_where_there_is_one(monkeypatch, capsys):
    """DejaVu Sans Mono stands for one; no machine need have another."""
    figures.letters.cache_clear()
    monkeypatch.setattr(figures, "FONTS", ("none", "DejaVu Sans Mono"))
    figure = label_bars(pd.DataFrame({"猫": [50.0]}, ["ŷ"]), "")
    assert list(figures.letters()) == ["DejaVu Sans", "DejaVu Sans Mono"]
    assert figure.axes[0].get_yticklabels()[0].get_fontfamily() == ["DejaVu Sans", "DejaVu Sans Mono"]
    figures.letters.cache_clear()


def test_a_thousand_labels_are_drawn_as_many_as_can_be_told_apart():
    labels = tuple(f"label {number}" for number in range(1000))
    random = np.random.default_rng(0)
    item = AttendedImage("a", IMAGE, labels, random.random((1000, 2, 2)), random.random(1000), (), labels[-3:])
    figure = drawn(all_channels(item, ""))
    assert len(figure.axes) == 56 and "945 labels more" in words(figure)
    assert all(label in words(figure) for label in labels[-3:])
    figure = drawn(average_channels(item.channels, labels, "mean"))
    assert len(figure.axes) == 57 and "945 more not shown" in words(figure)
    side = pd.DataFrame(random.random((1000, 1000)), labels, labels)
    assert len(drawn(matrices({"lift": side}, "", rows="", columns="")).axes[0].get_xticklabels()) <= 60
    many = AttendedImage("a", IMAGE, labels[:1], item.channels[:1], item.scores[:1], (), labels)
    assert max(map(len, [words(drawn(gallery({"best": many}, "")))])) < 1000


def test_a_forest_has_a_column_a_data_set_and_leaves_out_what_was_not_run():
    table = pd.DataFrame({"Δ mAP": [1.0], "low": [0.5], "high": [1.5]}, ["a"])
    other = table.rename(index={"a": "b"}) + 1
    figure = drawn(figures.forest({"one": (table, table[["Δ mAP"]]), "two": (other, other[["Δ mAP"]])}, ["a", "b"]))
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    first, second = ([x for line in ax.lines for x in line.get_xdata() if x and np.isfinite(x)] for ax in figure.axes)
    assert {1.0} < {*first} and {2.0} < {*second} and 2.0 not in first
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() and figure.axes[0].get_xlim()[1] > 2.5
