"""Localisation against boxes, on maps and boxes whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from attnsem.analysis import localisation
from attnsem.analysis.channels import Channels
from attnsem.analysis.localisation import Localisation

LABELS = ("cat", "dog")


def channels_of(z, boxes, targets, s=None):
    """boxes: (row, label, xmin, ymin, xmax, ymax, difficult)."""
    z = torch.tensor(z, dtype=torch.float32)
    n = len(z)
    names = ["image", "label", "xmin", "ymin", "xmax", "ymax", "difficult"]
    table = pd.DataFrame([(f"i{row}", *rest) for row, *rest in boxes], columns=names)
    prepared = SimpleNamespace(labels=LABELS, boxes=table, name="two", boxes_of=lambda i: table[table["image"] == i])
    ids = tuple(f"i{row}" for row in range(n))
    return Channels(prepared, ids, np.array(targets), z, torch.zeros_like(z) if s is None else s, z)


@pytest.fixture
def channels():
    """Two images, 4 x 4 positions. i0: cat at the upper left, its channel there; dog at the right, its channel left.
    i1: a cat and a difficult cat, the channel on the difficult one."""
    z = np.full((2, 2, 4, 4), -50.0)
    z[0, 0, 0, 0] = z[0, 1, 0, 0] = z[1, 0, 3, 3] = 0
    z[1, 1] = 0
    boxes = [
        (0, "cat", 0, 0, 0.5, 0.5, 0),
        (0, "dog", 0.75, 0, 1, 1, 0),
        (1, "cat", 0, 0, 0.25, 0.25, 0),
        (1, "cat", 0.75, 0.75, 1, 1, 1),
    ]
    return channels_of(z, boxes, [[1, 1], [1, 0]])


def test_pointing_game_and_difficult_boxes(channels):
    hits = localisation.pointing(channels.a, localisation.near_boxes(channels))
    assert np.array_equal(hits, [[1, 0], [0, np.nan]], equal_nan=True)


def test_a_near_miss_is_a_hit_within_the_tolerance():
    z = np.zeros((1, 2, 4, 4))
    z[0, 0, 0, 0] = 9  # points to (0.125, 0.125)
    for gap, hit in ((localisation.TOLERANCE - 0.005, 1), (localisation.TOLERANCE + 0.005, 0)):
        one = channels_of(z, [(0, "cat", 0.125 + gap, 0, 1, 1, 0)], [[1, 0]])
        assert localisation.pointing(one.a, localisation.near_boxes(one))[0, 0] == hit


def test_coverage_is_the_union_of_the_boxes_by_position():
    z = np.zeros((1, 2, 2, 2))
    one = channels_of(z, [(0, "cat", 0, 0, 0.5, 0.25, 0), (0, "cat", 0.25, 0, 0.75, 0.25, 0)], [[1, 0]])
    assert np.allclose(localisation.coverage(one)[0, 0], [[0.5, 0.25], [0, 0]])
    assert not localisation.coverage(one)[0, 1].any()


def test_share_inside(channels):
    covered = localisation.coverage(channels)
    inside = localisation.share_inside(channels.a, covered)
    assert np.allclose(inside, [[1, 0], [0, np.nan]], equal_nan=True, atol=1e-6)
    assert np.allclose(localisation.share_inside(torch.ones(2, 2, 4, 4), covered)[0], [0.25, 0.25])


def test_maps_of_one_cut_below_zero_and_are_uniform_where_nothing_is_left():
    maps = torch.tensor([[[[-1.0, 1], [3, 0]]], [[[-1.0, -1], [-1, 0]]]])
    assert np.allclose(localisation.with_sum_one(maps), [[[[0, 0.25], [0.75, 0]]], [[[0.25, 0.25], [0.25, 0.25]]]])


def test_another_labels_channel_is_another_labels(channels):
    assert torch.equal(localisation.compared_maps(channels)["another label's channel"], channels.a.flip(1))


def test_intervals_hold_the_mean_and_shrink_with_images():
    random = np.random.default_rng(0)
    few, many = (localisation.mean_and_interval(random.normal(3, 1, (n, 4)), over_labels=True) for n in (50, 5000))
    for interval in (few, many):
        assert interval["low"] < interval["mean"] < interval["high"]
    assert abs(many["high"] - many["low"] - 2 * 1.96 / np.sqrt(4 * 5000)) < 0.01
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 5


def test_examples_are_the_best_the_median_the_worst_and_a_random_one():
    rows = localisation.examples(np.array([0.1, np.nan, 0.9, 0.5, 0.4]))
    assert (rows["best"], rows["median"], rows["worst"]) == (2, 4, 0) and rows["random"] != 1


@pytest.mark.parametrize(
    ("intervals", "says"),
    [
        (((1, 3), (1, 3), (1, 3)), "label: supported.**"),
        (
            ((1, 3), (1, 3), (-1, 3)),
            "supported; that it points better than the plain classifier's activation is inconclusive",
        ),
        (((1, 3), (1, 3), (-3, -1)), "supported, but the plain classifier's activation points better"),
        (((1, 3), (-1, 3), (1, 3)), "label: inconclusive"),
        (((1, 3), (-3, -1), (1, 3)), "label: contradicted"),
    ],
)
def test_the_verdict_follows_the_intervals(intervals, says):
    rivals = ("another label's channel", "the label's average channel", "class activation of y′")
    rows = {
        (name, measure): {"mean": sum(interval) / 2, "low": interval[0], "high": interval[1]}
        for name, interval in zip(rivals, intervals, strict=True)
        for measure in ("pointing game", "share inside the boxes")
    }
    assert says in localisation.verdict(pd.DataFrame(rows).T)


def test_a_point_at_random_hits_as_often_as_positions_lie_near_boxes(channels):
    hits = Localisation.of(channels).hits["uniform"]
    assert np.allclose(hits, [[0.25, 0.25], [1 / 16, np.nan]], equal_nan=True)


def test_each_label_has_its_mean_and_interval(channels):
    table = Localisation.of(channels).of_labels
    assert table.loc["cat", "pointing game"] == 50 and table.loc["dog", "pointing game"] == 0
    assert table.loc["cat", "pointing game, low"] == 0 and table.loc["cat", "pointing game, high"] == 100
    assert table.loc["dog", "inside − area"] == pytest.approx(-25, abs=1e-3)
