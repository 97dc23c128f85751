"""Tables from score files alone."""

from collections.abc import Sequence

import pandas as pd

from attnsem import metrics
from attnsem.runs import Run

PARTS = {"baseline": "y′", "attended": "ŷ_att", "semantic": "ỹ", "fused": "ŷ"}


def readings_of_parts(run: Run) -> dict[str, pd.DataFrame]:
    """metrics.readings of each part's logits, by its sign in the paper."""
    found = run.scores()
    targets, labels = found["targets"], found["labels"]
    return {sign: metrics.readings(targets, found[part], labels) for part, sign in PARTS.items() if part in found}


def parts_table(run: Run) -> pd.DataFrame:
    """mAP (%): a row a part of the network, the nine readings as columns (interpolation, difficult)."""
    return pd.DataFrame({sign: table["mAP"] for sign, table in readings_of_parts(run).items()}).T


def stages_table(runs: Sequence[Run]) -> pd.DataFrame:
    """mAP (%) of what each stage trains: a row a stage, the nine readings as columns (interpolation, difficult)."""
    rows = {}
    for run in runs:
        found = run.scores()
        rows[f"stage {run.settings.stage}"] = metrics.readings(found["targets"], found["scores"], found["labels"])[
            "mAP"
        ]
    return pd.DataFrame(rows).T


def labels_table(run: Run) -> pd.DataFrame:
    """AP (%) of each label and mAP, not interpolated, difficult ignored: a row a part of the network."""
    return pd.DataFrame({sign: table.loc[("none", "ignore")] for sign, table in readings_of_parts(run).items()}).T
