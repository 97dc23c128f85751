"""A run's scores as tables: each part of the network, each stage, each label."""

from collections.abc import Sequence

import pandas as pd

from attnsem import metrics
from attnsem.runs import Run

PARTS = {"baseline": "y′", "attended": "ŷ_att", "semantic": "ỹ", "fused": "ŷ"}


def readings_of(run: Run) -> pd.DataFrame:
    """metrics.readings of what the stage trains."""
    scores = run.scores()
    return metrics.readings(scores["targets"], scores["scores"], scores["labels"])


def readings_of_parts(run: Run) -> dict[str, pd.DataFrame]:
    """By the part's sign in the paper."""
    scores = run.scores()
    parts = {sign: scores[part] for part, sign in PARTS.items() if part in scores}
    return {sign: metrics.readings(scores["targets"], part, scores["labels"]) for sign, part in parts.items()}


def parts_table(run: Run) -> pd.DataFrame:
    """mAP (%): a row a part of the network, the nine readings as columns (interpolation, difficult)."""
    return pd.DataFrame({sign: table["mAP"] for sign, table in readings_of_parts(run).items()}).T


def stages_table(runs: Sequence[Run]) -> pd.DataFrame:
    """mAP (%) of what each stage trains: a row a stage, columns as in parts_table."""
    return pd.DataFrame({f"stage {run.settings.stage}": readings_of(run)["mAP"] for run in runs}).T


def labels_table(run: Run) -> pd.DataFrame:
    """AP (%) of each label and mAP, not interpolated, difficult ignored: a row a part of the network."""
    return pd.DataFrame({sign: table.loc[("none", "ignore")] for sign, table in readings_of_parts(run).items()}).T


def as_markdown(table: pd.DataFrame) -> str:
    cells = table.map(lambda cell: f"{cell:.1f}" if isinstance(cell, float) else cell)
    return cells.to_markdown(index=False, tablefmt="github", disable_numparse=True, stralign=None) + "\n"
