"""What is planted in `scenes`, exactly: how visible each object is, and what company tells of a label."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attnsem.datasets.scenes import LABELS, NETWORK, describe


def visibility(images: Iterable[str]) -> pd.DataFrame:
    """(images, C) int8, indexed by image id: 2 where the label's object is clear, 1 where faint, 0 where none."""
    rows = [{thing.label: 2 - thing.faint for thing in describe(image, seed=0)} for image in images]
    return pd.DataFrame([[row.get(label, 0) for label in LABELS] for row in rows], images, LABELS, np.int8)


def exact_joint() -> tuple[np.ndarray, np.ndarray]:
    """All label vectors (2^C, C), of 0 and 1, and the probability of each (2^C,)."""
    vectors = np.arange(2 ** len(LABELS))[:, None] >> np.arange(len(LABELS)) & 1
    probability = np.ones(len(vectors))
    for column, node in enumerate(NETWORK.values()):
        present = np.array(node.present)[vectors[:, [LABELS.index(label) for label in node.company]].sum(1)]
        probability *= np.where(vectors[:, column], present, 1 - present)
    return vectors, probability


def exact_posterior(clear: np.ndarray) -> np.ndarray:
    """P(label present | which objects are clearly seen): (N, C) bool -> (N, C), the best that company can tell."""
    vectors, probability = exact_joint()
    weight = np.tile(probability, (len(clear), 1))
    for column, node in enumerate(NETWORK.values()):
        seen = np.array([[1, node.faint], [0, 1 - node.faint]])  # P(not seen, seen | absent, present)
        weight *= seen[clear[:, column, None].astype(int), vectors[:, column]]
    return weight @ vectors / weight.sum(1, keepdims=True)
