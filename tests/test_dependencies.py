"""Label dependencies: co-occurrence by hand, gains where the company is, and stackers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from attnsem.analysis import dependencies

ABC = ("a", "b", "c")


def test_cooccurrence_by_hand():
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, -1, 1]])
    together = dependencies.cooccurrence(targets, ABC)
    assert together["count"].loc["a", "b"] == 1 and together["conditional"].loc["a", "b"] == 0.5
    assert (
        together["conditional"].loc["b", "a"] == 1
        and together["lift"].loc["a", "b"] == together["lift"].loc["b", "a"] == 2
    )
    assert together["lift"].loc["a", "c"] == 0
    assert dependencies.usual_company(together["phi"])["b"] == "a"
    assert set(dependencies.tree_order(together["phi"])) == set(ABC)


def test_stackers_find_what_is_in_the_other_logits_and_nothing_where_there_is_nothing():
    random = np.random.default_rng(0)
    targets = (random.random((3000, 3)) < 0.4).astype(int)
    targets[:, 1] = np.where(random.random(3000) < 0.95, targets[:, 0], 1 - targets[:, 0])
    logits = (4 * targets - 2 + random.normal(0, (0.5, 8, 2), (3000, 3))).astype(np.float32)
    half = slice(0, 1500), slice(1500, None)
    truth, scores = dependencies.stack([(logits[half[0]], targets[half[0]], logits[half[1]], targets[half[1]])])
    ap = {name: [average_precision_score(truth[:, c], part[:, c]) for c in range(3)] for name, part in scores.items()}
    for name in ("all logits, linear", "all logits, boosted trees", "true other labels, linear"):
        assert ap[name][1] > ap["own logit"][1] + 0.2
        assert abs(ap[name][2] - ap["own logit"][2]) < 0.02
    table = dependencies.gains(truth, scores)
    assert table.loc["own logit", "Δ mAP"] == 0 and table.loc["all logits, linear", "low"] > 5


def test_the_oracle_does_not_see_the_label_itself():
    inputs = dependencies.with_others(np.float32([[9, 8, 7]]), np.array([[1, -1, 0]]), 0)
    assert inputs.tolist() == [[9, 0.5, 0]]


class Scored(SimpleNamespace):
    """A row of two labels and one seed."""

    labels, seeds = ("a", "b"), ("seed0",)

    def __init__(self, targets, scores):
        self.logits, self.of = lambda: [(targets, scores)], lambda seeds: self


def test_gain_by_company_is_measured_on_the_images_with_it_and_without():
    """One row knows a where b is present, the other everywhere else nothing better."""
    random = np.random.default_rng(0)
    targets = (random.random((600, 2)) < 0.5).astype(int)
    noise = random.normal(size=(600, 2))
    knows = np.where(targets[:, [1]] == 1, 9.0 * targets, noise)
    rows = [Scored(targets, scores) for scores in (knows, noise)]
    gains = dependencies.gains_by_company(*rows, pd.Series({"a": "b"})).set_index(["label", "with"])
    assert gains.loc[("a", True), "low"] > 30 and gains.loc[("a", False), "Δ AP"] == 0
    targets[targets[:, 1] == 0, 0] = 0
    assert np.isnan(
        dependencies.gains_by_company(*rows, pd.Series({"a": "b"}))
        .set_index(["label", "with"])
        .loc[("a", False), "low"]
    )


def test_stackers_leave_labels_alone_that_have_too_little_to_learn_from():
    """Of a thousand labels most are so, and to fit them all took minutes."""
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(40, 3)), np.zeros((40, 3), int)
    targets[:5, 0], targets[:15, 1] = 1, 1
    _, scores = dependencies.stack([(logits, targets, logits, targets)])
    linear = scores["all logits, linear"]
    assert np.array_equal(linear[:, [0, 2]], logits[:, [0, 2]]) and not np.allclose(linear[:, 1], logits[:, 1])


def test_a_figure_by_company_has_the_labels_that_have_a_gain():
    columns = ["label", "company", "with", "Δ AP", "low", "high"]
    lines = [("a", "b", 1.0), ("c", "d", np.nan), ("mean of labels", "", 1.0)]
    table = [[label, company, side, gain, gain, gain] for label, company, gain in lines for side in (True, False)]
    sides = dependencies.company_sides(pd.DataFrame(table, columns=columns))
    assert {name: [*part.index] for name, part in sides.items()} == {
        "images with the company": ["a (b)", "mean of labels"],
        "images without": ["a (b)", "mean of labels"],
    }
