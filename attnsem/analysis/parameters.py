"""What a notebook begins and ends with: its parameters, as edited or as papermill changes them, and its manifest."""

import ast
import re
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, create_model

from attnsem import StudyError
from attnsem.paper import Settings, checked
from attnsem.runs import cost, environment

DECLARED = re.compile(r"(#.*\n)*\w+: (str|int|float|bool) = ")  # how a parameters' cell of ours begins
INJECTED = "# Parameters"  # and papermill's own
TYPES = {"str": str, "bool": bool, "int": Annotated[int, Field(ge=0)], "float": Annotated[float, Field(ge=0)]}
STARTED = time.monotonic()
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def declared(source: str) -> dict[str, ast.AnnAssign]:
    """What a parameters' cell says of each parameter."""
    return {line.target.id: line for line in ast.parse(source).body}


def check_parameters(cells: Sequence[str], **ranges: range) -> dict[str, object]:
    """A notebook's parameters, from the cell that people edit in JupyterLab and the one that papermill puts after it.

    cells: IPython's `In`, the sources of the cells executed so far; ranges: of what paper.Settings does not have.
    StudyError on a parameter that the notebook lacks, of another type or out of its range; papermill only warns.
    """
    place = max(number for number, cell in enumerate(cells) if DECLARED.match(cell))
    parameters = declared(cells[place])
    values = {name: line.value for name, line in parameters.items()}
    defaults = {name: ast.unparse(value) for name, value in values.items()}
    for line in ast.parse("".join(cell for cell in cells[place + 1 : place + 2] if cell.startswith(INJECTED))).body:
        if (name := line.targets[0].id) not in parameters:
            close = [f"did you mean {close!r}?" for close in get_close_matches(name, parameters, n=1)]
            hint = (close or [f"there are {', '.join(parameters)}"])[0]
            raise StudyError(f"this notebook has no parameter {name!r}; {hint}")
        values[name] = line.value
    types = {name: line.annotation.id for name, line in parameters.items()}
    model = {name: (type_of(name, types[name], optional=defaults[name] == "None"), ...) for name in types}
    values = {name: literal(name, value, types[name]) for name, value in values.items()}
    for name, value in values.items():
        if types[name] == "str" and not isinstance(value, str) and not (value is None and defaults[name] == "None"):
            remedy = f"text that looks like a number or None is given by -r {name} in place of -p {name}"
            raise StudyError(f"parameter {name} must be of type str, not {value!r}; {remedy}")
    for name, allowed in ranges.items():
        if type(values[name]) is int and values[name] not in allowed:
            raise StudyError(f"parameter {name} must be from {allowed[0]} to {allowed[-1]}, not {values[name]!r}")
    return checked(create_model("Parameters", __config__=STRICT, **model), values).model_dump()


def type_of(name: str, declared_type: str, *, optional: bool) -> object:
    """Type and range: paper.Settings' own where it has the name, else that of the cell, numbers 0 or more."""
    field = Settings.model_fields.get(name)
    kind = Annotated[field.annotation, *(field.metadata or [None])] if field else TYPES[declared_type]
    return kind | None if optional else kind


def literal(name: str, value: ast.expr, declared_type: str) -> object:
    try:
        return ast.literal_eval(value)
    except ValueError as error:  # papermill writes float('nan')
        raise StudyError(f"parameter {name} must be of type {declared_type}, not {ast.unparse(value)}") from error


def manifest(*, fingerprint: str | None = None, **parameters: object) -> dict:
    """What a notebook ends with: its parameters, environment, and cost since this file was imported."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in parameters.items()}
    passed = time.monotonic() - STARTED
    return {"parameters": values, "data_fingerprint": fingerprint, **environment(), **cost(passed)}
