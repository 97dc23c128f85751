"""Influence between labels, of networks whose dependencies are built in, and its agreement with lift."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from attnsem import StudyError
from attnsem.analysis import dependencies, influence, planted
from attnsem.analysis.channels import Channels
from attnsem.analysis.influence import Influence
from attnsem.datasets import scenes
from attnsem.model import Network
from attnsem.paper import CONTROLS, VARIANTS

ABC = ("a", "b", "c")


def test_adjusted_tells_a_channels_effect_from_the_company_that_is_in_its_images():
    """The logit of c follows whether b is in the image, whatever channel is changed; only b's channel moves a's."""
    random = np.random.default_rng(0)
    b = random.random(4000) < 0.5
    a = np.where(b, random.random(4000) < 0.9, random.random(4000) < 0.1)
    targets = np.stack([a, b, np.zeros(4000)], 1).astype(int)
    rows = [np.flatnonzero(targets[:, 0]), np.flatnonzero(targets[:, 1])]
    changed = np.repeat([0, 1], [len(part) for part in rows])
    targets = targets[np.concatenate(rows)]
    falls = np.stack([2.0 * (changed == 1), 0 * changed, 3.0 * targets[:, 1]], 1) + random.normal(
        0, 0.1, (len(changed), 3)
    )
    mean, low, high = influence.adjusted(falls, changed, targets, np.concatenate(rows))
    assert abs(mean[1, 0] - 2) < 0.1 and low[1, 0] > 1.8
    assert abs(mean[0, 2] - mean[1, 2]) < 0.1  # the plain means differ by 3 * (1 - 0.9)
    assert np.isnan(mean[2]).all() and high[1, 0] > mean[1, 0]


def test_pair_specific_takes_out_what_each_row_and_column_has_of_its_own():
    rows, columns = np.array([1.0, 5, 2, 0]), np.array([3.0, 0, 1, 7])
    plain = pd.DataFrame(rows[:, None] + columns)
    np.fill_diagonal(values := plain.to_numpy(copy=True), 99)
    specific = influence.pair_specific(pd.DataFrame(values)).to_numpy()
    off = ~np.eye(4, dtype=bool)
    assert np.isnan(np.diag(specific)).all() and np.allclose(specific[off], 0)
    values[0, 1] += 4
    specific = influence.pair_specific(pd.DataFrame(values)).to_numpy()
    assert np.nanargmax(np.abs(specific)) == 1


def lift_of(size=12, seed=0):
    table = np.random.default_rng(seed).normal(size=(size, size))
    return pd.DataFrame(table + table.T)


def test_agreement_is_sure_of_a_copy_and_not_of_noise():
    lift = lift_of()
    same = influence.agreement(lift**3, lift)
    assert same["rank correlation"] > 0.999 and same["p"] < 0.01
    none = influence.agreement(lift_of(seed=5), lift)
    assert none["null low"] < none["rank correlation"] < none["null high"] and none["p"] > 0.05
    assert np.isnan(influence.agreement(lift * 0, lift)["p"])


def test_recovery_counts_planted_pairs():
    table = pd.DataFrame(np.zeros((3, 3)), ABC, ABC)
    table.loc["a", "b"], table.loc["c", "b"] = -5, 1
    planted = {frozenset("ab")}
    assert influence.recovery(table, planted)["precision"] == 1
    assert influence.recovery(table, {frozenset("bc")})["precision"] == 0
    assert np.isnan(influence.recovery(table * 0, planted)["precision"])


@pytest.mark.parametrize("how", influence.INTERVENTIONS)
def test_interventions_change_one_channel_and_uniform_keeps_its_sum(how):
    part, other = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    changed = influence.intervene(part, other, 1, how)
    assert torch.equal(changed[:, [0, 2]], part[:, [0, 2]]) and not torch.equal(changed[:, 1], part[:, 1])
    if how == "uniform":
        assert torch.allclose(changed.sum((2, 3)), part.sum((2, 3)))


def test_scenes_planted_graph_is_in_the_lift_of_its_labels():
    vectors, probability = planted.exact_joint()
    draws = np.random.default_rng(0).choice(len(vectors), 4000, p=probability)
    lift = dependencies.cooccurrence(vectors[draws], scenes.LABELS)["lift"]
    edges = {frozenset((label, other)) for label, node in scenes.NETWORK.items() for other in node.company}
    recovery = influence.recovery(np.log(lift.clip(lower=0.01)), edges)
    assert recovery["precision"] > 0.7 > 0.3 > recovery["chance"]


class Trunk(torch.nn.Conv2d):
    channels, stride = 16, 8

    def __init__(self):
        super().__init__(3, self.channels, self.stride, self.stride)


def influence_of(variant, gate="confidence", how="removed", targets=None):
    torch.manual_seed(0)
    network = Network(backbone=Trunk(), labels=3, variant=(VARIANTS | CONTROLS)[variant], gate=gate).eval()
    prepared = type("", (), {"labels": ABC})
    targets = (torch.rand(200, 3) < 0.5).int().numpy() if targets is None else targets
    z, s = torch.randn(2, len(targets), 3, 4, 4)
    channels = Channels(prepared, tuple("x" * len(targets)), targets, z, s, z)
    return Influence.of(network, channels, how)


def test_labels_of_all_images_or_of_none_have_no_influence():
    with pytest.raises(StudyError, match="no label is in some test images and missing in others"):
        influence_of("proposed", targets=np.array([[1, 0, 1]]))


@pytest.mark.parametrize("how", influence.INTERVENTIONS)
def test_without_a_semantic_part_no_channel_moves_another_labels_logit(how):
    mean = influence_of("attention_pooling", how=how).mean.to_numpy()
    off = ~np.eye(3, dtype=bool)
    assert np.abs(mean[off]).max() < 1e-6 and (how == "of another image" or np.abs(np.diag(mean)).min() > 1e-4)


@pytest.mark.parametrize("gate", ["literal", "logits", "confidence", "signed"])
def test_a_semantic_part_lets_channels_move_other_logits(gate):
    one = influence_of("proposed", gate)
    assert np.isfinite(one.mean.to_numpy()).all() and one.mean.to_numpy()[~np.eye(3, dtype=bool)].std() > 0
    assert one.weight == pytest.approx(0.52)
    assert (one.low <= one.mean).all(axis=None) and (one.mean <= one.high).all(axis=None)


def test_labels_that_never_or_always_occur_are_left_out():
    random = np.random.default_rng(0)
    targets = (random.random((300, 5)) < 0.4).astype(int)
    targets[:, 1], targets[:, 3] = 0, 1
    targets[:, 4] |= targets[:, 0]
    with np.errstate(all="raise", divide="ignore", invalid="ignore"):
        together = dependencies.cooccurrence(targets, tuple("abcde"))
    company = dependencies.usual_company(together["phi"])
    assert set(company.index) <= set("ace") and company["a"] == "e"
    lift = np.log2(together["lift"].clip(lower=0.1))
    same = influence.agreement(influence.pair_specific(lift), influence.pair_specific(lift))
    assert same["rank correlation"] == pytest.approx(1)
    assert set(dependencies.tree_order(together["phi"])) == set("abcde")


def test_repeated_images_do_not_make_an_effect_surer():
    random = np.random.default_rng(0)
    targets = np.zeros((200, 3), int)
    targets[:, 0] = 1
    falls = random.normal(1, 1, (200, 3))
    changed, images = np.zeros(200, int), np.arange(200)
    once = influence.adjusted(falls, changed, targets, images)
    twice = influence.adjusted(*(np.concatenate([part, part]) for part in (falls, changed, targets, images)))
    assert np.allclose((once[2] - once[1])[0, 1:], (twice[2] - twice[1])[0, 1:])


def test_the_verdict_asks_for_more_than_a_control_shows():
    def row(rho, p, weight=0.52, is_control=False):
        return SimpleNamespace(weight=weight, is_control=is_control), {"rank correlation": rho, "p": p}

    rows = {"learned": row(0.8, 0.001), "less": row(0.3, 0.01), "idle": row(0.9, 0.001, 0), "none": row(0.9, 0.2)}
    rows |= {"shuffled": row(0.4, 0.01, is_control=True), "silent": row(np.nan, np.nan)}
    lines = influence.verdict(rows).split("\n")
    answers = dict(line[3:].split("`: ") for line in lines if line.startswith("- "))
    assert answers["learned"].startswith("supported for ỹ (") and answers["idle"].endswith("α is 1")
    assert answers["less"].startswith("inconclusive") and answers["none"].startswith("inconclusive")
    assert answers["shuffled"].startswith("a control") and answers["silent"].startswith("not testable: no label's")
