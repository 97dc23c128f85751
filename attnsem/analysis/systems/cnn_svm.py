"""CNN-SVM: Razavian, Azizpour, Sullivan, Carlsson, "CNN features off-the-shelf", CVPR workshops 2014.

Pooled features (N, V, K), each view L2-normalised, the views of an image averaged and normalised again, one linear SVM
a label; scores are its decision values. C is chosen on val.

The paper leaves open C, the loss of the SVM (ours: liblinear's squared hinge) and the weight of the rarer class (ours:
equal). Ours departs: the features are the mean over a convolutional map, not OverFeat's first fully connected layer;
there are V stored crops and flips, where it has 16 crops and rotations, and the test image is one view; chosen is one C
for all labels.
"""

import numpy as np
from sklearn.svm import LinearSVC
from torch import Tensor

from attnsem.analysis.systems.descriptors import vectors
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.linear import decision_values, planes
from attnsem.analysis.systems.search import log_uniform
from attnsem.analysis.systems.task import Progress

SETTINGS = {"C": 1.0}


def space(random: np.random.Generator) -> dict[str, float]:
    return {"C": log_uniform(random, 1e-3, 1e2)}


def svms(rows: np.ndarray, train: Examples, settings: dict, seed: int) -> dict[str, Tensor]:
    """planes of linear SVMs on rows (N, D)."""
    return planes(rows, train, lambda: LinearSVC(C=settings["C"], random_state=seed, max_iter=10000))


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    return svms(vectors(train, "features"), train, settings, seed)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    return decision_values(state, vectors(examples, "features"))
