"""What a notebook needs to know of where it runs: under papermill, or in JupyterLab."""

import ast
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise

from tqdm.auto import tqdm

from attnsem import StudyError

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's
INJECTED = "# Parameters"  # how papermill's own cell begins


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)


def check_parameters(cells: Sequence[str]) -> None:
    """Raises StudyError on a parameter that the notebook does not have, or of another type, or below 0.

    papermill itself only warns. cells: IPython's `In`, the sources of the cells executed so far.
    """
    for declared, injected in pairwise(cells):
        if injected.startswith(INJECTED):
            known = {line.target.id: line for line in ast.parse(declared).body if isinstance(line, ast.AnnAssign)}
            for line in ast.parse(injected).body:
                check_parameter(line, known)


def check_parameter(line: ast.Assign, known: dict[str, ast.AnnAssign]) -> None:
    name = line.targets[0].id
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
        raise StudyError(f"this notebook has no parameter {name!r}{hint}")
    kind, text = known[name].annotation.id, ast.unparse(line.value)
    try:
        value = ast.literal_eval(line.value)
    except ValueError as error:  # papermill writes float('nan')
        raise StudyError(f"parameter {name} must be of type {kind}, not {text}") from error
    if value is None and ast.unparse(known[name].value) == "None":
        return
    kinds = {"int": {int}, "float": {int, float}, "str": {str}, "bool": {bool}}[kind]
    if type(value) not in kinds:
        raise StudyError(f"parameter {name} must be of type {kind}, not {text}")
    if kind in ("int", "float") and value < 0:
        raise StudyError(f"parameter {name} must be 0 or more, not {text}")


def assigned(source: str) -> list[str]:
    """Names that a cell of plain assignments sets."""
    targets = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
        elif isinstance(statement, ast.Assign):
            targets.extend(statement.targets)
    return [target.id for target in targets]
