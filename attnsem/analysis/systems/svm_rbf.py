"""SVM with an RBF kernel a label, as Huiskes, Thomee, Lew 2010 had it on MIRFlickr beside LDA (lda.py).

Vectors (N, D) as there, standardised; the kernel exp(−γ |x − y|² / D) is computed once for all labels; scores are
decision values. C and γ are chosen on val, the same for all labels, which the paper leaves open. Ours departs: other
descriptors (descriptors.py), and no users' tags, which this study's data have not.
"""

import numpy as np
import torch
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from torch import Tensor

from attnsem.analysis.systems.descriptors import vectors
from attnsem.analysis.systems.examples import Examples, learnable
from attnsem.analysis.systems.linear import moments, standard
from attnsem.analysis.systems.search import log_uniform
from attnsem.analysis.systems.task import Progress

SETTINGS = {"inputs": "descriptors", "C": 10.0, "gamma": 1.0}


def space(random: np.random.Generator) -> dict[str, float]:
    return {"C": log_uniform(random, 0.1, 100), "gamma": log_uniform(random, 0.05, 5)}


def kernel(rows: np.ndarray, others: np.ndarray, settings: dict) -> np.ndarray:
    """(N, M) float32."""
    return rbf_kernel(rows, others, settings["gamma"] / rows.shape[1])


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    """State: support (N, D) the training vectors, weight (C, N) of each, 0 but for a label's support vectors."""
    rows = vectors(train, settings["inputs"])
    state = moments(rows)
    rows = standard(state, rows)
    alike = kernel(rows, rows, settings)
    weight, bias = np.zeros((len(train.labels), len(rows)), np.float32), np.zeros(len(train.labels), np.float32)
    for label in learnable(train):
        known = np.flatnonzero(train.targets[:, label] >= 0)
        svm = SVC(C=settings["C"], kernel="precomputed", cache_size=500)
        svm.fit(alike[np.ix_(known, known)], train.targets[known, label])
        weight[label, known[svm.support_]], bias[label] = svm.dual_coef_[0], svm.intercept_[0]
    tensors = {"support": rows, "weight": weight, "bias": bias}
    return state | {name: torch.from_numpy(array) for name, array in tensors.items()}


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    rows = standard(state, vectors(examples, settings["inputs"]))
    return kernel(rows, state["support"].numpy(), settings) @ state["weight"].numpy().T + state["bias"].numpy()
