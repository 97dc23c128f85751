"""Label dependencies: co-occurrence by hand, influence of networks whose dependencies are built in, and stackers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from attnsem.analysis import dependencies, planted
from attnsem.analysis.attention import Channels
from attnsem.datasets import scenes
from attnsem.model import Network
from attnsem.paper import CONTROLS, VARIANTS

ABC = ("a", "b", "c")


def test_cooccurrence_by_hand():
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, -1, 1]])
    found = dependencies.cooccurrence(targets, ABC)
    assert found["count"].loc["a", "b"] == 1 and found["conditional"].loc["a", "b"] == 0.5
    assert found["conditional"].loc["b", "a"] == 1 and found["lift"].loc["a", "b"] == found["lift"].loc["b", "a"] == 2
    assert found["lift"].loc["a", "c"] == 0
    assert dependencies.usual_company(found["phi"])["b"] == "a"
    assert set(dependencies.order_of(found["phi"])) == set(ABC)


def test_adjusted_tells_a_channels_effect_from_the_company_that_is_in_its_images():
    """The logit of c follows whether b is in the image, whatever channel is changed; only b's channel moves a's."""
    random = np.random.default_rng(0)
    b = random.random(4000) < 0.5
    a = np.where(b, random.random(4000) < 0.9, random.random(4000) < 0.1)
    targets = np.stack([a, b, np.zeros(4000)], 1).astype(int)
    rows = [np.flatnonzero(targets[:, 0]), np.flatnonzero(targets[:, 1])]
    changed = np.repeat([0, 1], [len(part) for part in rows])
    targets = targets[np.concatenate(rows)]
    moved = np.stack([2.0 * (changed == 1), 0 * changed, 3.0 * targets[:, 1]], 1) + random.normal(
        0, 0.1, (len(changed), 3)
    )
    mean, low, high = dependencies.adjusted(moved, changed, targets, np.concatenate(rows))
    assert abs(mean[1, 0] - 2) < 0.1 and low[1, 0] > 1.8
    assert abs(mean[0, 2] - mean[1, 2]) < 0.1  # the plain means differ by 3 * (1 - 0.9)
    assert np.isnan(mean[2]).all() and high[1, 0] > mean[1, 0]


def test_pair_specific_takes_out_what_each_row_and_column_has_of_its_own():
    rows, columns = np.array([1.0, 5, 2, 0]), np.array([3.0, 0, 1, 7])
    plain = pd.DataFrame(rows[:, None] + columns)
    np.fill_diagonal(values := plain.to_numpy(copy=True), 99)
    left = dependencies.pair_specific(pd.DataFrame(values)).to_numpy()
    off = ~np.eye(4, dtype=bool)
    assert np.isnan(np.diag(left)).all() and np.allclose(left[off], 0)
    values[0, 1] += 4
    left = dependencies.pair_specific(pd.DataFrame(values)).to_numpy()
    assert np.nanargmax(np.abs(left)) == 1


def lift_of(size=12, seed=0):
    table = np.random.default_rng(seed).normal(size=(size, size))
    return pd.DataFrame(table + table.T)


def test_agreement_is_sure_of_a_copy_and_not_of_noise():
    lift = lift_of()
    same = dependencies.agreement(lift**3, lift)
    assert same["rank correlation"] > 0.999 and same["p"] < 0.01
    none = dependencies.agreement(lift_of(seed=5), lift)
    assert none["null low"] < none["rank correlation"] < none["null high"] and none["p"] > 0.05
    assert np.isnan(dependencies.agreement(lift * 0, lift)["p"])


def test_recovered_counts_planted_pairs():
    found = pd.DataFrame(np.zeros((3, 3)), ABC, ABC)
    found.loc["a", "b"], found.loc["c", "b"] = -5, 1
    edges = {frozenset("ab")}
    assert dependencies.recovered(found, edges)["precision"] == 1
    assert dependencies.recovered(found, {frozenset("bc")})["precision"] == 0
    assert np.isnan(dependencies.recovered(found * 0, edges)["precision"])


def test_stackers_find_what_is_in_the_other_logits_and_nothing_where_there_is_nothing():
    random = np.random.default_rng(0)
    targets = (random.random((3000, 3)) < 0.4).astype(int)
    targets[:, 1] = np.where(random.random(3000) < 0.95, targets[:, 0], 1 - targets[:, 0])
    logits = (4 * targets - 2 + random.normal(0, (0.5, 8, 2), (3000, 3))).astype(np.float32)
    half = slice(0, 1500), slice(1500, None)
    known, scores = dependencies.stacked([(logits[half[0]], targets[half[0]], logits[half[1]], targets[half[1]])])
    ap = {name: [average_precision_score(known[:, c], found[:, c]) for c in range(3)] for name, found in scores.items()}
    for name in ("all logits, linear", "all logits, boosted trees", "true other labels, linear"):
        assert ap[name][1] > ap["own logit"][1] + 0.2
        assert abs(ap[name][2] - ap["own logit"][2]) < 0.02
    table = dependencies.gains(known, scores)
    assert table.loc["own logit", "difference"] == 0 and table.loc["all logits, linear", "low"] > 5


def test_the_oracle_does_not_see_the_label_itself():
    inputs = dependencies.with_others(np.float32([[9, 8, 7]]), np.array([[1, -1, 0]]), 0)
    assert inputs.tolist() == [[9, 0.5, 0]]


@pytest.mark.parametrize("how", dependencies.INTERVENTIONS)
def test_interventions_change_one_channel_and_uniform_keeps_its_sum(how):
    part, other = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    changed = dependencies.intervene(part, other, 1, how)
    assert torch.equal(changed[:, [0, 2]], part[:, [0, 2]]) and not torch.equal(changed[:, 1], part[:, 1])
    if how == "uniform":
        assert torch.allclose(changed.sum((2, 3)), part.sum((2, 3)))


def test_scenes_planted_graph_is_in_the_lift_of_its_labels():
    vectors, probability = planted.exact_joint()
    draws = np.random.default_rng(0).choice(len(vectors), 4000, p=probability)
    lift = dependencies.cooccurrence(vectors[draws], scenes.LABELS)["lift"]
    edges = {frozenset((label, other)) for label, node in scenes.NETWORK.items() for other in node.company}
    found = dependencies.recovered(np.log(lift.clip(lower=0.01)), edges)
    assert found["precision"] > 0.7 > 0.3 > found["chance"]


class Trunk(torch.nn.Conv2d):
    channels, stride = 16, 8

    def __init__(self):
        super().__init__(3, self.channels, self.stride, self.stride)


def influence_of(variant, gate="confidence", how="removed"):
    torch.manual_seed(0)
    network = Network(backbone=Trunk(), labels=3, variant=(VARIANTS | CONTROLS)[variant], gate=gate).eval()
    prepared = type("", (), {"labels": ABC})
    targets = (torch.rand(200, 3) < 0.5).int().numpy()
    z, s = torch.randn(2, 200, 3, 4, 4)
    found = Channels(prepared, tuple("x" * 200), targets, z, s, z)
    return dependencies.influence(network, found, how)


@pytest.mark.parametrize("how", dependencies.INTERVENTIONS)
def test_without_a_semantic_part_no_channel_moves_another_labels_logit(how):
    mean = influence_of("attended", how=how).mean.to_numpy()
    off = ~np.eye(3, dtype=bool)
    assert np.abs(mean[off]).max() < 1e-6 and (how == "of another image" or np.abs(np.diag(mean)).min() > 1e-4)


@pytest.mark.parametrize("gate", ["literal", "logits", "confidence", "signed"])
def test_a_semantic_part_lets_channels_move_other_logits(gate):
    found = influence_of("proposed", gate)
    assert np.isfinite(found.mean.to_numpy()).all() and found.mean.to_numpy()[~np.eye(3, dtype=bool)].std() > 0
    assert found.weight == pytest.approx(0.52)
    assert (found.low <= found.mean).all(axis=None) and (found.mean <= found.high).all(axis=None)


def test_gain_by_company_is_measured_on_the_images_with_it_and_without(monkeypatch):
    """One row knows a where b is present, the other everywhere else nothing better."""
    random = np.random.default_rng(0)
    targets = (random.random((600, 2)) < 0.5).astype(int)
    noise = random.normal(size=(600, 2))
    knows = np.where(targets[:, [1]] == 1, 9.0 * targets, noise)
    monkeypatch.setattr(dependencies.tables, "logits", lambda files: (targets, files))
    rows = [SimpleNamespace(labels=["a", "b"], files=(scores,)) for scores in (knows, noise)]
    found = dependencies.by_company(*rows, pd.Series({"a": "b"})).set_index(["label", "with"])
    assert found.loc[("a", True), "low"] > 30 and found.loc[("a", False), "difference"] == 0
    targets[targets[:, 1] == 0, 0] = 0
    assert np.isnan(
        dependencies.by_company(*rows, pd.Series({"a": "b"})).set_index(["label", "with"]).loc[("a", False), "low"]
    )


def test_labels_that_never_or_always_occur_are_left_out():
    random = np.random.default_rng(0)
    targets = (random.random((300, 5)) < 0.4).astype(int)
    targets[:, 1], targets[:, 3] = 0, 1
    targets[:, 4] |= targets[:, 0]
    with np.errstate(all="raise", divide="ignore", invalid="ignore"):
        found = dependencies.cooccurrence(targets, tuple("abcde"))
    company = dependencies.usual_company(found["phi"])
    assert set(company.index) <= set("ace") and company["a"] == "e"
    lift = np.log2(found["lift"].clip(lower=0.1))
    agreed = dependencies.agreement(dependencies.pair_specific(lift), dependencies.pair_specific(lift))
    assert agreed["rank correlation"] == pytest.approx(1)
    assert set(dependencies.order_of(found["phi"])) == set("abcde")


def test_repeated_images_do_not_make_an_effect_surer():
    random = np.random.default_rng(0)
    targets = np.zeros((200, 3), int)
    targets[:, 0] = 1
    moved = random.normal(1, 1, (200, 3))
    changed, images = np.zeros(200, int), np.arange(200)
    once = dependencies.adjusted(moved, changed, targets, images)
    twice = dependencies.adjusted(*(np.concatenate([part, part]) for part in (moved, changed, targets, images)))
    assert np.allclose((once[2] - once[1])[0, 1:], (twice[2] - twice[1])[0, 1:])


def test_the_verdict_asks_for_more_than_a_control_shows():
    def row(rho, p, weight=0.52, control=False):
        return SimpleNamespace(weight=weight, control=control), {"rank correlation": rho, "p": p}

    rows = {"learned": row(0.8, 0.001), "less": row(0.3, 0.01), "idle": row(0.9, 0.001, 0), "none": row(0.9, 0.2)}
    rows |= {"shuffled": row(0.4, 0.01, control=True), "silent": row(np.nan, np.nan)}
    told = dict(line[3:].split("`: ") for line in dependencies.verdict(rows).split("\n") if line.startswith("- "))
    assert told["learned"].startswith("holds for ỹ (") and told["idle"].endswith("α is 1")
    assert told["less"].startswith("not shown") and told["none"].startswith("not shown")
    assert told["shuffled"].startswith("a control") and told["silent"].startswith("no label's channel")
