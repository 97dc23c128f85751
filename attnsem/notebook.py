"""Where the study runs: in JupyterLab, under papermill, or from a shell; parameters there, and progress."""

import argparse
import ast
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta

from tqdm.auto import tqdm

from attnsem import StudyError
from attnsem.paper import Settings

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's
NUMBER = re.compile(r"[-+]?([\d_.]+(e[-+]?\d+)?|nan|inf(inity)?)|True|False|None", re.IGNORECASE)
TEXTS = {name for name, field in Settings.model_fields.items() if field.annotation is str}


def argument(name: str, value: object) -> str:
    """A parameter on papermill's command line, where text that it would take for a number or None goes by -r."""
    is_taken = isinstance(value, str) and NUMBER.fullmatch(value)
    return f"{'-r' if is_taken else '-p'} {name} {shlex.quote(str(value))}"


def papermill(notebook: str, **values: object) -> str:
    """The command that runs a notebook with these parameters."""
    return " ".join([f"papermill {notebook}.ipynb out.ipynb", *(argument(*pair) for pair in values.items())])


def value_of(name: str, text: str) -> object:
    """A parameter's value; text where that is its type, or where it is nothing else."""
    if text == "None" or name not in {*TEXTS, "runs", "data", "parents", "device"}:
        with suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
    return text


def command_line(call: Callable, description: str, what: str, choices: Sequence, **options: tuple[int, str]) -> None:
    """Calls it with one of the choices, whole numbers (options: their defaults and help) and parameters."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(what, type=type(choices[0]), choices=choices)
    parser.add_argument("-p", "-r", dest="parameters", action="append", nargs=2, default=[], metavar=("NAME", "VALUE"))
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    arguments = vars(parser.parse_args())
    arguments |= {name: value_of(name, value) for name, value in arguments.pop("parameters")}
    try:
        call(arguments.pop(what), **{"dataset": "scenes"} | arguments)
    except StudyError as error:
        sys.exit(str(error))


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
