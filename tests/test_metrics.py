from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from attnsem import StudyError
from attnsem.analysis.statistics import bootstrap
from attnsem.metrics import (
    DIFFICULT,
    INTERPOLATIONS,
    average_precision,
    mean_average_precision,
    precision_recall_f1,
    readings,
)


def column(values):
    return np.asarray(values)[:, None]


def ap_of(targets, scores, **reading):
    return average_precision(column(targets), column(scores), **reading)[0]


def random_case(seed, *, images=300, labels=7, levels=None):
    """Targets with difficult ones, and scores: all different, or with ties among a few levels."""
    g = np.random.default_rng(seed)
    targets = g.choice([0, 1, -1], p=[0.75, 0.15, 0.1], size=(images, labels)).astype(np.int8)
    noise = g.integers(levels, size=targets.shape) if levels else g.normal(size=targets.shape)
    return targets, targets + noise


def each_label(targets, scores, difficult):
    """Binary targets and scores, label by label, after the reading of difficult."""
    for t, s in zip(targets.T, scores.T, strict=True):
        if difficult == "ignore":
            yield t[t != -1], s[t != -1]
        else:
            yield np.where(t == -1, int(difficult == "positive"), t), s


def devkit(targets, scores, interpolation):
    """VOCevalcls.m (VOC2007) and VOCap.m (VOC2010) as loops, in exact fractions; for scores without ties."""
    hits, recall, precision = 0, [], []
    for rank, image in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i]), start=1):
        hits += int(targets[image])
        recall.append(Fraction(hits, int(targets.sum())))
        precision.append(Fraction(hits, rank))
    if interpolation == "11-point":
        best = [max(p for p, r in zip(precision, recall, strict=True) if r * 10 >= t) for t in range(11)]
        return float(sum(best) / 11)
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    return float(sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall))))


@pytest.mark.parametrize("difficult", DIFFICULT)
@pytest.mark.parametrize("levels", [None, 2, 9])
def test_without_interpolation_is_scikit_learns(difficult, levels):
    targets, scores = random_case(1, levels=levels)
    expected = [average_precision_score(t, s) for t, s in each_label(targets, scores, difficult)]
    assert average_precision(targets, scores, difficult=difficult) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("difficult", DIFFICULT)
@pytest.mark.parametrize("interpolation", ["11-point", "all-point"])
def test_interpolated_is_the_devkits(interpolation, difficult):
    targets, scores = random_case(2)
    expected = [devkit(t, s, interpolation) for t, s in each_label(targets, scores, difficult)]
    ap = average_precision(targets, scores, interpolation=interpolation, difficult=difficult)
    assert ap == pytest.approx(expected, abs=1e-12)


# Ranked + - - + +: precision 1, 1/2, 1/3, 1/2, 3/5 at recall 1/3, 1/3, 1/3, 2/3, 1.
# none: (1 + 1/2 + 3/5) / 3. The monotone precision is 1 to recall 1/3 and 3/5 beyond.
# 11-point: 1 at t = 0, 0.1, 0.2, 0.3 and 3/5 at the other seven. all-point: (1 + 3/5 + 3/5) / 3.
@pytest.mark.parametrize(
    "interpolation, expected", [("none", 2.1 / 3), ("11-point", (4 + 7 * 0.6) / 11), ("all-point", 2.2 / 3)]
)
def test_worked_by_hand(interpolation, expected):
    ap = ap_of([1, 0, 0, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.5], interpolation=interpolation)
    assert ap == pytest.approx(expected, abs=1e-15)


# Ranked d + - + with d difficult.
# ignore:   + - +    precision 1, 1/2, 2/3:      (1 + 2/3) / 2
# negative: - + - +  precision 0, 1/2, 1/3, 1/2: (1/2 + 1/2) / 2
# positive: + + - +  precision 1, 1, 2/3, 3/4:   (1 + 1 + 3/4) / 3
@pytest.mark.parametrize("difficult, expected", [("ignore", 5 / 6), ("negative", 0.5), ("positive", 2.75 / 3)])
def test_difficult_three_ways(difficult, expected):
    assert ap_of([-1, 1, 0, 1], [4, 3, 2, 1], difficult=difficult) == pytest.approx(expected, abs=1e-15)


# A tie of one positive and one negative at the top, then + : thresholds at precision 1/2 (recall 1/2) and
# 2/3 (recall 1). none: (1/2 + 2/3) / 2; interpolated: 2/3 everywhere. Broken by file order, the devkit
# would say 5/6 or 7/12 without interpolation.
@pytest.mark.parametrize("interpolation, expected", [("none", 7 / 12), ("11-point", 2 / 3), ("all-point", 2 / 3)])
def test_a_tie_is_one_threshold(interpolation, expected):
    for tied in ([1, 0], [0, 1]):
        assert ap_of([*tied, 1], [2, 2, 1], interpolation=interpolation) == pytest.approx(expected, abs=1e-15)


# Ten positives, the third followed by 27 negatives: precision 1 to recall 3/10 and at most 10/37 beyond.
# The devkit's t = 0.3 still takes the 1; 3 * 0.1 in floats is greater than 3 / 10 and would miss it.
def test_eleven_points_are_compared_exactly():
    ap = ap_of([1] * 3 + [0] * 27 + [1] * 7, -np.arange(37), interpolation="11-point")
    assert ap == pytest.approx((4 + 7 * 10 / 37) / 11, abs=1e-15)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_no_positive_one_and_only_positives(interpolation):
    assert np.isnan(ap_of([0, 0, 0], [1, 2, 3], interpolation=interpolation))
    assert ap_of([1, 1, 1], [1, 1, 3], interpolation=interpolation) == 1.0
    assert ap_of([0, 1, 0, 0], [4, 3, 2, 1], interpolation=interpolation) == pytest.approx(0.5)


def test_a_label_that_is_only_difficult_has_no_positives_unless_they_count():
    assert np.isnan(ap_of([-1, -1, 0], [3, 2, 1], difficult="ignore"))
    assert np.isnan(ap_of([-1, -1, 0], [3, 2, 1], difficult="negative"))
    assert ap_of([-1, -1, 0], [3, 2, 1], difficult="positive") == 1.0


def test_order_of_images_does_not_matter():
    targets, scores = random_case(3, levels=5)
    shuffled = np.random.default_rng(0).permutation(len(targets))
    labels = [f"label{i}" for i in range(7)]
    table = readings(targets, scores, labels)
    assert table.equals(readings(targets[shuffled], scores[shuffled], labels))
    assert table.equals(readings(targets, scores.astype(np.float32), labels))


def test_mean_leaves_out_labels_without_positives():
    targets, scores = np.array([[1, 0, 0], [0, 0, 1]]), np.array([[1, 1, 1], [0, 0, 0]])
    assert mean_average_precision(targets, scores) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(mean_average_precision(targets[:, 1:2], scores[:, 1:2]))


def test_readings_are_nine_in_percent_and_tell_what_they_leave_out():
    targets, scores = random_case(4, labels=3)
    targets[:, 1] = np.minimum(targets[:, 1], 0)
    table = readings(targets, scores, ["bus", "cat", "dog"])
    assert list(table.columns) == ["bus", "cat", "dog", "mAP", "labels_without_positives"]
    assert list(table.index) == [(i, d) for i in INTERPOLATIONS for d in DIFFICULT]
    for (interpolation, difficult), row in table.iterrows():
        ap = average_precision(targets, scores, interpolation=interpolation, difficult=difficult)
        assert row[["bus", "cat", "dog"]].to_numpy() == pytest.approx(100 * ap, nan_ok=True)
        assert row["mAP"] == pytest.approx(100 * np.nanmean(ap))
        assert row["labels_without_positives"] == (0 if difficult == "positive" else 1)


@pytest.mark.parametrize(
    "targets, scores, message",
    [
        ([[1], [0]], [[0.5], [np.nan]], "1 of 2 scores are not finite"),
        ([[1], [0]], [[0.5], [-np.inf]], "1 of 2 scores are not finite"),
        ([[1], [0]], [[0.5, 0.1]], "shape"),
        ([1, 0], [0.5, 0.1], "shape"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "not empty"),
        ([[1], [2]], [[0.5], [0.1]], "found"),
    ],
)
def test_refuses_what_is_not_scores_and_targets(targets, scores, message):
    with pytest.raises(StudyError, match=message):
        average_precision(np.array(targets), np.array(scores))


def test_refuses_unknown_readings_and_a_wrong_number_of_names():
    with pytest.raises(StudyError, match="12-point"):
        ap_of([1, 0], [1, 2], interpolation="12-point")
    with pytest.raises(StudyError, match="drop"):
        ap_of([1, 0], [1, 2], difficult="drop")
    with pytest.raises(StudyError, match="2 label names for 1"):
        readings(column([1, 0]), column([1, 2]), ["a", "b"])


# CP, CR, CF1, OP, OR, OF1


def harmonic(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def label_by_label(targets, logits, predicted):
    """scikit-learn on one label at a time, of the images where it is known; and on all such pairs in one row."""
    pairs = [(t[t != -1] == 1, p[t != -1]) for t, p in zip(targets.T, predicted.T, strict=True)]
    shown = [pair for pair in pairs if pair[0].any()]
    cp = np.mean([precision_score(*pair, zero_division=0) for pair in shown])
    cr = np.mean([recall_score(*pair) for pair in shown])
    joined = [np.concatenate(part) for part in zip(*pairs, strict=True)]
    overall = [score(*joined, zero_division=0) for score in (precision_score, recall_score, f1_score)]
    return [100 * value for value in (cp, cr, harmonic(cp, cr), *overall)]


def likeliest(targets, logits, most):
    """Of each image, one by one, the `most` labels with the highest probability among those known and above a half."""
    predicted = np.zeros(targets.shape, dtype=bool)
    for image, (t, s) in enumerate(zip(targets, logits, strict=True)):
        known = sorted((label for label in range(len(t)) if t[label] != -1), key=lambda label: (-s[label], label))
        predicted[image, [label for label in known[:most] if 1 / (1 + np.exp(-s[label])) >= 0.5]] = True
    return predicted


NAMES = ["CP", "CR", "CF1", "OP", "OR", "OF1"]


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize(("labels", "seed"), [(1, 0), (2, 1), (7, 2), (20, 3)])
def test_precision_recall_and_f1_are_scikit_learns_label_by_label(labels, seed, levels):
    targets, scores = random_case(seed, labels=labels, levels=levels)
    logits = scores - (1 if levels else 0.5)
    table = precision_recall_f1(targets, logits)
    assert list(table.index) == ["0.5", "top 3"] and list(table.columns) == NAMES
    for name, most in {"0.5": labels, "top 3": 3}.items():
        expected = label_by_label(targets, logits, likeliest(targets, logits, most))
        assert table.loc[name].tolist() == pytest.approx(expected, abs=1e-10)
    assert (labels <= 3) == table.loc["0.5"].equals(table.loc["top 3"])


# Three images, four labels; the logits of the first image are all above a half, of the third none.
#   targets 1 1 0 0   predicted 1 1 1 1   top 3 (by logit) 1 1 1 0
#           0 1 0 0             0 1 1 0                    0 1 1 0
#           1 0 0 1             0 0 0 0                    0 0 0 0
# Label by label, predicted: precision 1/1, 2/2, -, 0/1 and recall 1/2, 2/2, -, 0/1; the third has no positive. Top 3:
# the fourth is never predicted, and its precision 0 as well. Over all: 3 of 6 right, 3 of 5 found; top 3: 3 of 5.
def test_precision_recall_and_f1_worked_by_hand():
    targets = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]])
    logits = np.array([[4.0, 3.0, 2.0, 1.0], [-1.0, 0.0, 1.0, -2.0], [-1.0, -1.0, -1.0, -1.0]])
    table = precision_recall_f1(targets, logits) / 100
    assert table.loc["0.5"].tolist() == pytest.approx([2 / 3, 0.5, 4 / 7, 0.5, 0.6, 6 / 11])
    assert table.loc["top 3"].tolist() == pytest.approx([2 / 3, 0.5, 4 / 7, 0.6, 0.6, 0.6])


def test_a_label_that_is_never_predicted_has_the_precision_0_and_stays_in_the_mean():
    """As in ML-GCN's util.py, which divides by 1 then."""
    targets, logits = np.array([[1, 1], [0, 1]]), np.array([[1.0, -1.0], [-1.0, -1.0]])
    assert precision_recall_f1(targets, logits).loc["0.5"].tolist() == pytest.approx([50, 50, 50, 100, 100 / 3, 50])
    nothing = precision_recall_f1(targets, np.full((2, 2), -1.0))
    assert (nothing == 0).all(axis=None)


def test_a_difficult_label_is_left_out_and_takes_no_place_among_the_three():
    """Also where it is the likeliest; ML-GCN's code counts it as absent."""
    targets, logits = np.array([[-1, 1, 1, 1, 0]]), np.array([[9.0, 3.0, 2.0, 1.0, 0.5]])
    assert precision_recall_f1(targets, logits).loc["top 3"].tolist() == [100] * 6
    assert precision_recall_f1(targets, logits).loc["0.5", "OP"] == 75


def test_without_a_positive_there_is_no_precision_and_no_recall():
    table = precision_recall_f1(np.array([[0, -1], [0, 0]]), np.ones((2, 2)))
    assert table.shape == (2, 6) and table.isna().all(axis=None)


def test_precision_recall_and_f1_refuse_what_is_none():
    with pytest.raises(StudyError, match="not finite"):
        precision_recall_f1(column([1, 0]), column([1, np.nan]))


@pytest.mark.parametrize("levels", [None, 4])
def test_bootstrap_is_scikit_learn_on_the_drawn_images(levels):
    targets, scores = random_case(1, levels=levels)
    resamples = bootstrap(targets, scores, resamples=70, seed=5)
    random = np.random.default_rng(5)
    for row in resamples:
        draw = random.integers(0, len(targets), len(targets))
        expected = [average_precision_score(t, s) for t, s in each_label(targets[draw], scores[draw], "ignore")]
        assert row == pytest.approx(expected)


def test_bootstrap_draws_the_same_images_for_two_models():
    targets, scores = random_case(2)
    assert (bootstrap(targets, scores, resamples=9) == bootstrap(targets, 3 * scores + 1, resamples=9)).all()
    assert (bootstrap(targets, scores, resamples=9) != bootstrap(targets, scores, resamples=9, seed=1)).any()
