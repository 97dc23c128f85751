"""Text semantics, the paper's future work: how like each other labels are by what text says of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

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
    try:
        as_text = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}  # whatever a label is called
        is_table = path.suffix.lower() == ".csv"
        table = pd.read_csv(path, index_col=0, **as_text) if is_table else _cosines(path, set(words))
        table = table[~table.index.duplicated()].astype(float)
    except OSError as error:
        raise StudyError(f"there is no {path}; give a .csv of similarities or word vectors by -p similarity") from error
    except (ValueError, AttributeError) as error:  # pandas raises the latter on a NUL alone
        raise StudyError(f"{path} is neither a .csv of similarities nor word2vec's text format ({error})") from error
    if missing := [word for word in words if word not in table.index or word not in table.columns]:
        raise StudyError(f"{path} has no {missing[0]!r}; add it, or leave out -p similarity")
    order = np.random.default_rng(seed).permutation(words) if seed else words
    similarities = table.loc[order, order].to_numpy(np.float32).clip(min=0)
    if not np.isfinite(similarities).all():
        raise StudyError(f"{path} has similarities that are no finite numbers")
    np.fill_diagonal(similarities, 0)
    totals = similarities.sum(1, keepdims=True)
    return similarities / np.where(totals > 0, totals, 1)


def softened(targets: Tensor, similarity: Tensor, share: float) -> Tensor:
    """Targets (N, C) with a share from the labels that are like those present; -1 stays.

    similarity: (C, C) of similarity().
    """
    present = targets.clamp(min=0).float()
    return torch.where(targets < 0, -1.0, (1 - share) * present + share * present @ similarity.T)


def _cosines(path: Path, words: set[str]) -> pd.DataFrame:
    """Of those words that the file has; millions of others, and the line that counts them, are passed over."""
    with open(path, encoding="utf-8-sig") as file:
        vectors = {word: np.array(values, float) for word, *values in map(str.split, file) if word in words}
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise ValueError("its vectors differ in length")
    table = pd.DataFrame(vectors, dtype=float)
    unit = table / np.sqrt((table**2).sum())
    return unit.T @ unit
