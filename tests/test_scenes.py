"""`scenes`: the same on any machine, with the dependencies it says it has, and not to be told from company alone."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from attnsem import StudyError
from attnsem.analysis import planted
from attnsem.datasets import scenes
from attnsem.datasets.scenes import LABELS
from attnsem.files import ROOT


@pytest.fixture(scope="module")
def seen():
    """visibility() of 6,000 scenes."""
    return planted.visibility([f"scene{number:05d}" for number in range(6000)])


def test_drawn_alike_on_any_machine():
    """Pixels of three scenes against a digest that is kept with the project: integer arithmetic only."""
    digest = hashlib.sha256()
    for image in ("scene00001", "scene00777", "scene03500"):
        digest.update(scenes.draw(image).tobytes())
    assert digest.hexdigest() == "2b4b329a96e69385b69f22e329e0d73a7f445505ee911454a2c6c68b81c873b9"


def test_an_image_depends_on_seed_and_number_only():
    image = np.asarray(scenes.draw("scene00012"))
    scenes.draw("scene00011")
    assert (np.asarray(scenes.draw("scene00012")) == image).all()
    assert not (np.asarray(scenes.draw("scene00012", seed=1)) == image).all()
    small, large = scenes.load(train=10, val=5, test=5), scenes.load(train=20, val=5, test=5)
    assert small.splits["test"] == large.splits["test"] and small.splits["val"] == large.splits["val"]
    assert small.fingerprint != large.fingerprint != scenes.load(seed=1, train=20, val=5, test=5).fingerprint


def test_description_agrees_with_itself():
    dataset = scenes.load(train=30, val=10, test=10)
    assert dataset.targets.shape == (50, len(LABELS)) and set(np.unique(dataset.targets)) == {0, 1}
    assert set(dataset.splits["trainval"]) == set(dataset.splits["train"]) | set(dataset.splits["val"])
    boxed = set(zip(dataset.boxes.image, dataset.boxes.label, strict=True))
    assert boxed == {(image, label) for image, row in dataset.targets.iterrows() for label in LABELS if row[label]}
    corners = dataset.boxes[["xmin", "ymin", "xmax", "ymax"]]
    assert corners.ge(0).all(axis=None) and corners.le(1).all(axis=None)
    assert (dataset.boxes.xmax > dataset.boxes.xmin).all() and (dataset.boxes.ymax > dataset.boxes.ymin).all()
    assert dataset.open("scene00001").size == (72, 72)


def planted_pairs() -> pd.DataFrame:
    """One row an edge of the network: label, company, exact P(label | company) and P(label | no company)."""
    vectors, probability = planted.exact_joint()
    present = pd.DataFrame(vectors == 1, columns=LABELS)
    rows = []
    for label, company in ((label, company) for label, node in scenes.NETWORK.items() for company in node.company):
        masks = present[company], ~present[company]
        rows.append((label, company, *(np.average(present[label][mask], weights=probability[mask]) for mask in masks)))
    return pd.DataFrame(rows, columns=["label", "company", "with_company", "without_company"])


def test_planted_dependencies_are_in_the_labels(seen):
    """Frequencies of 6,000 scenes against the exact probabilities, within five standard errors."""
    present = seen > 0
    for row in planted_pairs().itertuples():
        for given, exact in ((present[row.company], row.with_company), (~present[row.company], row.without_company)):
            found = present.loc[given, row.label]
            assert abs(found.mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / len(found)), row


def test_faint_objects_are_as_many_as_stated_and_company_is_not_certain(seen):
    for label, node in scenes.NETWORK.items():
        there = seen.loc[seen[label] > 0, label]
        assert abs((there == 1).mean() - node.faint) < 0.04
    pairs = planted_pairs()
    assert ((pairs.with_company < 0.9) & (pairs.without_company > 0.02)).all()


def test_company_tells_of_what_is_faint_but_not_of_the_control(seen):
    """AP of the exact posterior against that of plain sight, over all labels: the room for dependencies."""
    clear, present = (seen == 2).to_numpy(), (seen > 0).to_numpy()
    posterior = planted.exact_posterior(clear).round(9)  # so that what is equal is a tie
    gain = {
        label: average_precision_score(present[:, c], posterior[:, c])
        - average_precision_score(present[:, c], clear[:, c])
        for c, label in enumerate(LABELS)
    }
    assert all(gain[label] > 0.05 for label in ("boat", "fence", "lamp", "kite", "bird"))
    assert abs(gain["tree"]) < 0.01


def test_a_model_that_leans_on_company_alone_is_caught(seen):
    """Predicting each label from the others' presence only is far worse than looking."""
    present, clear = (seen > 0).to_numpy(), (seen == 2).to_numpy()
    for label in ("boat", "fence", "cloud"):
        c = LABELS.index(label)
        blind = clear.copy()
        blind[:, c] = False
        alone = average_precision_score(present[:, c], planted.exact_posterior(blind)[:, c])
        both = average_precision_score(present[:, c], planted.exact_posterior(clear)[:, c])
        assert both - alone > 0.05


def test_a_faint_object_leaves_next_to_no_trace():
    """Against the same scene with the object left out, the noise of the drawing is larger than the object."""
    faint = [thing for number in range(40) for thing in scenes.describe(f"scene{number:05d}") if thing.faint]
    canvas = np.full((72, 72, 3), 128)
    for thing in faint:
        before = canvas.copy()
        scenes._paint(canvas, thing, mirrored=False, tint=np.zeros(3, int))
        assert 0 < np.abs(canvas - before).max() <= 5
        canvas = before


def test_bad_requests():
    with pytest.raises(StudyError, match="no seed is negative"):
        scenes.load(seed=-1)
    with pytest.raises(StudyError, match="scenes has no image 'cat'"):
        scenes.draw("cat")


def test_the_page_on_data_states_the_planted_probabilities():
    """data/README.md's table against the network that draws the labels."""
    table = re.search(
        r"\| label \| P\(label given its company\) \|\n.*\n((?:\|.*\n)+)", (ROOT / "data/README.md").read_text()
    )
    stated = dict(re.findall(r"\| (\w+) \| (.*) \|", table[1]))
    assert set(stated) == {label for label, node in scenes.NETWORK.items() if node.company} | {"tree"}
    exact = {(row.label, row.company): (row.with_company, row.without_company) for row in planted_pairs().itertuples()}
    for label, text in stated.items():
        numbers, company = [float(number) for number in re.findall(r"0\.\d+", text)], scenes.NETWORK[label].company
        assert all(other in text for other in company)
        if len(company) == 1:
            ways = dict(re.findall(r"(with|without)\b[^,]* (0\.\d+)", text))
            assert [float(ways[way]) for way in ("with", "without")] == pytest.approx(exact[label, company[0]])
        elif company:
            none, one, both = scenes.NETWORK[label].present
            assert "exactly one" in text and numbers == [one, none] and none == both
        else:
            assert numbers == list(scenes.NETWORK[label].present)
