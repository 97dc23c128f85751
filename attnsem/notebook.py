"""Where a notebook runs: under papermill, or in JupyterLab."""

import os
import re
import shlex
from collections.abc import Iterable

from tqdm.auto import tqdm

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's
NUMBER = re.compile(r"[-+]?([\d_.]+(e[-+]?\d+)?|nan|inf(inity)?)|True|False|None", re.IGNORECASE)


def argument(name: str, value: object) -> str:
    """A parameter on papermill's command line, where text that it would take for a number or None goes by -r."""
    is_taken = isinstance(value, str) and NUMBER.fullmatch(value)
    return f"{'-r' if is_taken else '-p'} {name} {shlex.quote(str(value))}"


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)
