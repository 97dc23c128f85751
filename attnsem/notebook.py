"""Where a notebook runs, under papermill or in JupyterLab, and the command that runs one."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm

from attnsem.paper import SEMANTIC, Settings, changed

IN_JUPYTERLAB = "JPY_SESSION_NAME" in os.environ  # set for its kernels, not for papermill's


def bar(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """A tqdm bar in JupyterLab; nothing in batch, where it would fill the log."""
    return tqdm(items, title, total=total, leave=False, disable=not IN_JUPYTERLAB)


def command(settings: Settings) -> str:
    """What trains a stage with these settings."""
    of_stage = {1: (), 2: ("channels_per_label", "attention_objective")}
    names = of_stage.get(settings.stage, ("variant", "gate", *SEMANTIC))
    values = {"dataset": settings.dataset} | changed(settings, names)
    parameters = " ".join(f"-p {name} {value}" for name, value in values.items())
    return f"papermill 0{settings.stage}_train_stage{settings.stage}.ipynb out.ipynb {parameters}"
