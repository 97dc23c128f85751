"""Where a notebook runs: under papermill, or in JupyterLab."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)
