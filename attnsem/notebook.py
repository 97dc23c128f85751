"""Where a notebook runs: under papermill, or in JupyterLab."""

import os
import shlex
from collections.abc import Iterable

from tqdm.auto import tqdm

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's


def argument(name: str, value: object) -> str:
    """A parameter on papermill's command line, where text that it would take for a number or None goes by -r."""
    flag = "-p"
    if isinstance(value, str):
        try:
            float(value)
            flag = "-r"
        except ValueError:
            flag = "-r" if value in ("True", "False", "None") else "-p"
    return f"{flag} {name} {shlex.quote(str(value))}"


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)
