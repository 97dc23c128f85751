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

INJECTED = "# Parameters"  # how papermill's cell begins
TYPES = {"str": str, "bool": bool, "int": Annotated[int, Field(ge=0)], "float": Annotated[float, Field(ge=0)]}
STARTED = time.monotonic()
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def declared(source: str) -> dict[str, ast.AnnAssign]:
    """What a parameters' cell says of each parameter: its last value, and its type, which a literal has itself.

    Imports and calls are passed over; StudyError on any other line that is no `name: type = value`.
    """
    parameters = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.Import | ast.ImportFrom | ast.Expr | ast.Pass):
            continue
        target, kind = getattr(line, "targets", [getattr(line, "target", None)])[0], kind_of(line)
        name = getattr(target, "id", None)
        if name in parameters and isinstance(line, ast.Assign):
            kind = parameters[name].annotation.id
        if name is None or kind not in TYPES:
            remedy = f"write name: type = value, the type one of {', '.join(TYPES)}, or move it to another cell"
            raise StudyError(f"line {line.lineno} of the parameters' cell is {ast.unparse(line)[:80]!r}; {remedy}")
        parameters[name] = ast.AnnAssign(target, ast.Name(kind), line.value, simple=1)
    return parameters


def kind_of(line: ast.stmt) -> str | None:
    """Which of TYPES a line gives its name, by annotation or as a literal; None where it is no such line."""
    if isinstance(line, ast.AnnAssign) and line.value:
        words = re.findall(r"\w+", ast.unparse(line.annotation))  # as of `int | None`
        return next((word for word in words if word in TYPES), None)
    if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
        return "str" if line.value.value is None else type(line.value.value).__name__
    return None


def body(cell: str) -> list[ast.stmt]:
    """A cell's statements; none where it is no Python, as one with a magic is not."""
    try:
        return ast.parse(cell).body
    except SyntaxError:
        return []


def check_parameters(cells: Sequence[str], **ranges: range) -> dict[str, object]:
    """A notebook's parameters, from the cell that people edit in JupyterLab and the one that papermill puts after it.

    cells: IPython's `In`, the sources of the cells executed so far; ranges: of what paper.Settings does not have.
    StudyError on a parameter that the notebook lacks, of another type or out of its range; papermill only warns.
    """
    is_declaring = [any(isinstance(line, ast.AnnAssign) and kind_of(line) for line in body(cell)) for cell in cells]
    if True not in is_declaring:
        raise StudyError("no cell of parameters, of lines name: type = value, has been run; run it before this one")
    place = len(cells) - 1 - is_declaring[::-1].index(True)
    parameters, after = declared(cells[place]), "".join(cells[place + 1 : place + 2])
    values = {name: line.value for name, line in parameters.items()}
    defaults = {name: ast.unparse(value) for name, value in values.items()}
    is_injected = after.startswith(INJECTED)
    lines = [line for line in body(after) if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)]
    if is_injected or all(kind_of(line) for line in body(after)):  # papermill's cell, or a person's of values alone
        for line in lines:
            if (name := line.targets[0].id) in parameters:
                values[name] = line.value
            elif is_injected:
                close = [f"did you mean {close!r}?" for close in get_close_matches(name, parameters, n=1)]
                hint = (close or [f"there are {', '.join(parameters)}"])[0]
                raise StudyError(f"this notebook has no parameter {name!r}; {hint}")
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
