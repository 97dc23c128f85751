"""Text semantics, the paper's future work: how like each other labels are by what text says of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError


def similarity(path: Path, labels: Sequence[str], seed: int = 0) -> np.ndarray:
    """(C, C) float32: the share that each other label has in what is like a label; rows sum to 1, or are 0.

    path: a .csv of similarities with the labels as header and first column, as data/text/wordnet.csv; any other file
    holds word vectors in word2vec's text format, whose cosines are taken. Below 0 counts as 0. MIRFlickr's stricter
    labels, `_r1`, are taken for the label itself.
    seed: above 0 the similarities belong to labels in another order, a control.
    Raises StudyError on a file that cannot be read, and on one that lacks a label.
    """
    words = [label.removesuffix("_r1") for label in labels]
    if not path.is_file():
        raise StudyError(f"there is no {path}; give a .csv of similarities or word vectors by -p similarity")
    try:
        found = _table(path) if path.suffix == ".csv" else _cosines(path, set(words))
    except (ValueError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is neither a .csv of similarities nor word2vec's text format ({error})") from error
    if missing := [word for word in words if word not in found.index or word not in found.columns]:
        raise StudyError(f"{path} has no {missing[0]!r}; add it, or leave out -p similarity")
    if seed:
        words = list(np.random.default_rng(seed).permutation(words))
    alike = found.loc[words, words].to_numpy(np.float32).clip(min=0)
    if not np.isfinite(alike).all():
        raise StudyError(f"{path} has similarities that are no finite numbers")
    np.fill_diagonal(alike, 0)
    total = alike.sum(1, keepdims=True)
    return np.divide(alike, total, out=np.zeros_like(alike), where=total > 0)


def _table(path: Path) -> pd.DataFrame:
    found = pd.read_csv(path, index_col=0)
    return found[~found.index.duplicated()].astype(float)


def _cosines(path: Path, words: set[str]) -> pd.DataFrame:
    """Of those words that the file has; a first line with two numbers, how many words and how long, is passed over."""
    vectors = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file):
            word, *values = line.split()
            if number == 0 and len(values) == 1:
                continue
            if word in words:
                vectors[word] = np.array(values, float)
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise ValueError("its vectors differ in length")
    table = pd.DataFrame(vectors).T.astype(float)
    unit = table.div(np.sqrt((table**2).sum(axis=1)), axis=0)
    return unit @ unit.T
