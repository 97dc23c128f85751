"""Label similarities from text: from a table, from word vectors, and in the targets of ỹ's own loss."""

import numpy as np
import pytest
import torch

from attnsem import StudyError
from attnsem.datasets import mirflickr, scenes, voc2007
from attnsem.datasets.similarity import similarity, softened
from attnsem.files import ROOT

WORDNET = ROOT / "data/text/wordnet.csv"
VECTORS = "3 2\ncat 1 0\ndog 3 4\nsky 0 -2\n"


@pytest.mark.parametrize("labels", [voc2007.LABELS, *mirflickr.LABELS.values(), scenes.LABELS])
def test_the_table_we_ship_has_every_label_and_is_symmetric(labels):
    found = similarity(WORDNET, labels)
    assert found.shape == (len(labels),) * 2 and not np.diag(found).any()
    assert np.isin(found.sum(1).round(5), (0, 1)).all()


def test_what_wordnet_says_is_alike():
    labels = list(voc2007.LABELS)
    found = similarity(WORDNET, labels)
    assert labels[found[labels.index("cat")].argmax()] == "dog"


def test_cosines_of_word_vectors(tmp_path):
    (tmp_path / "vectors.txt").write_text(VECTORS)
    found = similarity(tmp_path / "vectors.txt", ["cat", "dog", "sky"])
    assert np.allclose(found, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])  # cosines 0.6, 0 and -0.8, which counts as 0


def test_a_seed_gives_the_similarities_of_other_labels():
    plain, other = (similarity(WORDNET, voc2007.LABELS, seed) for seed in (0, 1))
    assert not np.allclose(plain, other)
    assert np.allclose(np.sort(plain.sum(0)), np.sort(other.sum(0)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("v.txt", "cat 1 0\n", "has no 'dog'"),
        ("v.txt", "cat 1 0\ndog one two\n", "neither"),
        ("v.txt", "cat 1 0\ndog 1\n", "differ in length"),
        ("t.csv", "label,cat\ncat,1\ndog,1\n", "has no 'dog'"),
        ("t.csv", "label,cat,dog\ncat,1,x\ndog,1,1\n", "neither"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(StudyError, match=says):
        similarity(tmp_path / name, ["cat", "dog"])


def test_softened_targets_by_hand():
    alike = torch.tensor([[0, 1.0, 0], [0.5, 0, 0.5], [0, 0, 0]])
    found = softened(torch.tensor([[1, 0, -1], [0, 1, 0]]), alike, 0.2)
    assert torch.allclose(found, torch.tensor([[0.8, 0.1, -1], [0.2, 0.8, 0]]))
