"""Where a notebook runs: under papermill, or in JupyterLab."""

import os
import re
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

from tqdm.auto import tqdm

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's
NUMBER = re.compile(r"[-+]?([\d_.]+(e[-+]?\d+)?|nan|inf(inity)?)|True|False|None", re.IGNORECASE)


def argument(name: str, value: object) -> str:
    """A parameter on papermill's command line, where text that it would take for a number or None goes by -r."""
    is_taken = isinstance(value, str) and NUMBER.fullmatch(value)
    return f"{'-r' if is_taken else '-p'} {name} {shlex.quote(str(value))}"


def papermill(notebook: str, **values: object) -> str:
    """The command that runs a notebook with these parameters."""
    return " ".join([f"papermill {notebook}.ipynb out.ipynb", *(argument(*pair) for pair in values.items())])


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)


def say_epoch(row: dict[str, float], epochs: int, seconds: float) -> None:
    """Prints a line on an epoch; papermill's kernel also on papermill's terminal, over its bar. seconds: so far."""
    values = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
    left = timedelta(seconds=round(seconds / row["epoch"] * (epochs - row["epoch"])))
    print(line := f"epoch {row['epoch']} of {epochs}  {values}" + (f"  {left} left" if left else ""), flush=True)
    if "ipykernel" in sys.modules and not IN_JUPYTERLAB:
        for stream in (sys.stderr, sys.__stderr__):  # the second is a pipe into the notebook, but not on Windows
            with suppress(OSError):  # it has no file, or nobody reads it any more
                terminal = stream.fileno()
                os.write(terminal, f"\r{chr(27) + '[K' if os.isatty(terminal) else ''}{line}\n".encode())
                break
