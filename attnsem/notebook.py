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


def refuse_misspelt(cells: Sequence[str]) -> None:
    """Raises StudyError on a parameter that the notebook does not have; papermill itself only warns.

    cells: IPython's `In`, the sources of the cells executed so far.
    """
    for declared, injected in pairwise(cells):
        if injected.startswith(INJECTED):
            known = assigned(declared)
            for name in assigned(injected):
                if name not in known:
                    close = get_close_matches(name, known, n=1)
                    hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
                    raise StudyError(f"this notebook has no parameter {name!r}{hint}")


def assigned(source: str) -> list[str]:
    """Names that a cell of plain assignments sets."""
    targets = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
        elif isinstance(statement, ast.Assign):
            targets.extend(statement.targets)
    return [target.id for target in targets]
