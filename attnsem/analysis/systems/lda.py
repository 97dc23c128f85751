"""LDA: linear discriminant analysis a label, as Huiskes, Thomee, Lew, "New trends and ideas in visual concept
detection", ACM MIR 2010, had it on MIRFlickr.

Vectors (N, D), low-level descriptors or pooled CNN features (`inputs`), standardised; the covariance is shrunk to the
mean of its diagonal, by scikit-learn; scores are the decision values. The share of the shrinkage is chosen on val.

The paper leaves open whether the covariance was regularised: with as many numbers as here it must be. It had other
descriptors (descriptors.py), and beside them the users' tags, which this study's data have not.
"""

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from attnsem.analysis.systems.descriptors import vectors
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.linear import decision_values, moments, planes, standard
from attnsem.analysis.systems.search import log_uniform
from attnsem.analysis.systems.task import Progress

SETTINGS = {"inputs": "descriptors", "shrinkage": 0.1}


def space(random: np.random.Generator) -> dict[str, float]:
    return {"shrinkage": log_uniform(random, 1e-3, 1)}


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    rows = vectors(train, settings["inputs"])
    state = moments(rows)
    lda = lambda: LinearDiscriminantAnalysis("lsqr", shrinkage=settings["shrinkage"])  # noqa: E731
    return state | planes(standard(state, rows), train, lda)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    return decision_values(state, standard(state, vectors(examples, settings["inputs"])))
