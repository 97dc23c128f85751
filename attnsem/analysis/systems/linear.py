"""What systems on one vector an image share: one scikit-learn classifier a label, kept as tensors of its plane."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attnsem.analysis.systems.examples import Examples, learnable


def unit(vectors: np.ndarray) -> np.ndarray:
    """L2-normalised along the last axis, float32; a vector of zeros stays."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def moments(vectors: np.ndarray) -> dict[str, Tensor]:
    """Of training vectors (N, D), by which `standard` scales others; a number that is always the same stays so."""
    deviation = vectors.std(axis=0)
    return {
        "mean": torch.from_numpy(vectors.mean(axis=0)),
        "deviation": torch.from_numpy(np.where(deviation > 1e-6, deviation, 1).astype(np.float32)),
    }


def standard(state: dict[str, Tensor], vectors: np.ndarray) -> np.ndarray:
    """Of mean 0 and standard deviation 1 in training."""
    return (vectors - state["mean"].numpy()) / state["deviation"].numpy()


def planes(vectors: np.ndarray, train: Examples, classifier: Callable[[], object]) -> dict[str, Tensor]:
    """One linear classifier a label, on the images where its target is known: weight (C, D) and bias (C,).

    classifier: makes one with fit, coef_ and intercept_. Labels that cannot be learned have zeros.
    """
    weight, bias = np.zeros((len(train.labels), vectors.shape[1]), np.float32), np.zeros(len(train.labels), np.float32)
    for label in learnable(train):
        known = train.targets[:, label] >= 0
        model = classifier().fit(vectors[known], train.targets[known, label])
        weight[label], bias[label] = model.coef_[0], model.intercept_[0]
    return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}


def decision_values(state: dict[str, Tensor], vectors: np.ndarray) -> np.ndarray:
    """(N, C) signed distances, times the weight's norm."""
    return vectors @ state["weight"].numpy().T + state["bias"].numpy()
