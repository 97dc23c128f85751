"""What a notebook needs to know of where it runs: under papermill, or in JupyterLab."""

import ast
import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from tqdm.auto import tqdm

from attnsem import StudyError, paper

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's
DECLARED = re.compile(r"\w+: (str|int|float|bool) = ")  # how a parameters' cell of ours begins
INJECTED = "# Parameters"  # and papermill's own


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)


def declared(source: str) -> dict[str, ast.AnnAssign]:
    """What a parameters' cell says of each parameter."""
    return {line.target.id: line for line in ast.parse(source).body}


def check_parameters(cells: Sequence[str], **ranges: range) -> None:
    """Raises StudyError on a parameter that the notebook lacks, of another type, below 0 or out of its range.

    It looks at the parameters' cell, which people edit in JupyterLab, and at the one that papermill puts after it;
    papermill itself only warns. cells: IPython's `In`, the sources of the cells executed so far.
    """
    place = max(number for number, cell in enumerate(cells) if DECLARED.match(cell))
    known = declared(cells[place])
    for name, line in known.items():
        check_parameter(name, line.value, known, ranges)
    injected = [cell for cell in cells[place + 1 : place + 2] if cell.startswith(INJECTED)]
    for line in ast.parse("".join(injected)).body:
        check_parameter(line.targets[0].id, line.value, known, ranges)


def check_parameter(name: str, given: ast.expr, known: dict[str, ast.AnnAssign], ranges: dict[str, range]) -> None:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
        raise StudyError(f"this notebook has no parameter {name!r}{hint}")
    kind, text = known[name].annotation.id, ast.unparse(given)
    try:
        value = ast.literal_eval(given)
    except ValueError as error:  # papermill writes float('nan')
        raise StudyError(f"parameter {name} must be of type {kind}, not {text}") from error
    if value is None and ast.unparse(known[name].value) == "None":
        return
    kinds = {"int": {int}, "float": {int, float}, "str": {str}, "bool": {bool}}[kind]
    if type(value) not in kinds:
        raise StudyError(f"parameter {name} must be of type {kind}, not {text}")
    if name in ranges and value not in ranges[name]:
        raise StudyError(f"parameter {name} must be from {ranges[name][0]} to {ranges[name][-1]}, not {text}")
    if kind in ("int", "float") and value < 0:
        raise StudyError(f"parameter {name} must be 0 or more, not {text}")


def command(settings: paper.Settings) -> str:
    """What trains a stage with these settings."""
    names = {1: (), 2: ("channels_per_label", "attention_objective")}.get(
        settings.stage, ("variant", "gate", *paper.SEMANTIC)
    )
    given = {"dataset": settings.dataset, **paper.changed(settings, names)}
    parameters = " ".join(f"-p {name} {value}" for name, value in given.items())
    return f"papermill 0{settings.stage}_train_stage{settings.stage}.ipynb out.ipynb {parameters}"
