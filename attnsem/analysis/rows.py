"""The named rows of the tables: which settings each stands for, and its runs."""

import json
import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from attnsem import StudyError, paper
from attnsem.files import rooted
from attnsem.paper import ALPHAS, CONTROLS, GATES, VARIANTS, Settings
from attnsem.runs import Run, complete_run

BASELINE, LONGER, POOLING = "baseline", "baseline, trained longer", "attention pooling"
REPAIR = "proposed, confidence gate, α fixed"  # chosen on VOC2007's val: CHOICES.md
STACKS = ("proposed", "se1_conv4", "se13_conv4", "se5_conv5")
PATHS = ("no_se", "se_after", "grouped")  # controls of SE and of the paths between labels
LEARNT = ("literal", "logits", "confidence")  # gates of which every reading of α is a row
TEXT = {"similarity": "data/text/wordnet.csv", "semantic_loss": 1.0}
TERMS = {  # what a term of a row's name stands for; any other is a variant. stage: where another than its table's
    BASELINE: {"variant": "densenet", "stage": 1},
    "trained longer": {"stage": 4},
    POOLING: {"variant": "attention_pooling"},
    **{f"{gate} gate": {"gate": gate} for gate in GATES},
    **{f"α {reading}": {"alpha": reading} for reading in ALPHAS},
    "stage 2 as printed": {"attention_objective": "literal"},
    "semantic loss": {"semantic_loss": 1.0},
    "out-of-fold baseline": {"baseline_folds": 5},
    **{f"{k} channels": {"channels_per_label": k} for k in (2, 4)},
    "asymmetric loss": {"loss": "asl"},
    "text similarity": TEXT,
    "text similarity shuffled": TEXT | {"similarity_seed": 1},
}


def of_gate(variant: str, gate: str, *terms: str) -> str:
    """A row's name; the literal gate, the paper's, has no term."""
    return ", ".join([variant, *([f"{gate} gate"] if gate != "literal" else []), *terms])


NAMES = {
    "paper": [BASELINE, *(name for name in VARIANTS if name != "densenet")],
    "gates": [f"{name}, {gate} gate" for gate in ("logits", "confidence") for name in ("att", *STACKS)],
    "readings of α": [
        *(of_gate("proposed", gate, f"α {name}") for gate in LEARNT for name in ALPHAS[1:] if name != "fixed"),
        *(f"{POOLING}, α {name}" for name in ALPHAS[1:]),
        *(f"{name}, α {reading}" for reading in ("warm-up", "fixed") for name in ("att", "se", *STACKS[1:])),
        *(of_gate("proposed", "literal", "α fixed"), of_gate("proposed", "logits", "α fixed")),
        *(of_gate("proposed", "literal", "stage 2 as printed", *term) for term in ((), ("α fixed",))),
    ],
    "controls": [
        *(POOLING, *(name for name in CONTROLS if name not in ("attention_pooling", "no_se", "se_after"))),
        "two_layer_fused, α fixed",
        *(of_gate(name, gate, "α fixed") for gate in ("literal", "confidence") for name in PATHS),
        *(f"{name}, confidence gate, α fixed" for name in ("att", "shuffled")),
        LONGER,
    ],
    "repairs": [
        *(REPAIR, *(f"proposed, {gate} gate, α fixed" for gate in ("signed", "pooled"))),
        *(of_gate("proposed", gate, "semantic loss") for gate in GATES if gate != "logits"),
        "proposed, confidence gate, out-of-fold baseline",
    ],
    "future work": [
        f"{REPAIR}, {term}"
        for term in ("2 channels", "4 channels", "semantic loss", "text similarity", "text similarity shuffled")
    ],
    "later losses": [f"{name}, asymmetric loss" for name in (BASELINE, REPAIR)],
}


def settings_in(name: str) -> dict[str, object]:
    """What the terms of a row's name stand for."""
    settings = {}
    for term in name.split(", "):
        settings |= TERMS.get(term, {"variant": term})
    return settings


GROUPS = {group: {name: settings_in(name) for name in names} for group, names in NAMES.items()}
ROWS = {name: row for rows in GROUPS.values() for name, row in rows.items()}  # whatever its group
FORMER = {  # words of rows' former names
    "repaired, shuffled": "shuffled, confidence gate, α fixed",
    **{"repaired": REPAIR, "densenet": BASELINE, "attended": POOLING, "held": "fixed", "longer": "trained longer"},
    **{"folds": "out-of-fold baseline", "own loss": "semantic loss", "text": "text similarity"},
}


def stages_of(row: dict, last: int) -> list[int]:
    """The stages that a row goes through in tables of what stage `last` leaves; none where it needs later ones."""
    end = row.get("stage", last)
    return [stage for stage in paper.VARIANT[row["variant"]].stages if stage <= end] if end <= last else []


def settings_of(row: dict, stage: int, **parameters: object) -> Settings:
    """Of a stage of a row."""
    return paper.settings(stage, **{name: value for name, value in row.items() if name != "stage"}, **parameters)


def choice_path(settings: Settings, runs: Path) -> Path:
    """Of what a search on val has chosen for a stage."""
    return Run.of(settings, runs / "val").folder.parents[1] / f"stage{settings.stage}.json"


def near(name: str) -> str:
    """ "; did you mean …?" for what is no row's name, or nothing."""
    renamed = re.sub("^(proposed, )?literal( gate)?, ", "proposed, ", name)
    for word, new in FORMER.items():
        renamed = renamed.replace(word, new) if new not in renamed else renamed
    renamed = re.sub(rf"\b({'|'.join(GATES)})\b(?! gate)", r"\1 gate", renamed)
    renamed = re.sub(r"^(\w+ gate)", r"proposed, \1", renamed)
    close = get_close_matches(renamed, ROWS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {'; '.join(ROWS)}"


def run_of_row(
    name: str, stage: int, *, dataset: str, seed: int = 0, runs: str | Path = "runs", data: str | Path = "data"
) -> Run:
    """The complete run of a row at a stage that it goes through, stage 1 for the baseline.

    name: of ROWS, or a run's folder below <runs>/<dataset>. StudyError where there is none.
    """
    if name in ROWS:
        settings = settings_of(ROWS[name], stage, dataset=dataset, seed=seed)
        return complete_run(settings, rooted(runs), dataset=dataset, data=data)
    run = Run(rooted(runs) / paper.name_of(dataset) / name / f"seed{seed}" / f"stage{stage}")
    if name in FORMER or not run.complete:
        raise StudyError(f"there is no row {name!r}, and no complete run in {run.folder}{near(name)}")
    if "system" in run.manifest:
        raise StudyError(f"{name} is another system, whose network is not this study's; give a row of the tables")
    return run


def runs_of_rows(names: Iterable[str], stage: int, **where: object) -> tuple[dict[str, Run], str]:
    """The complete runs of rows by name, and a line on the others: how many, and the command that runs them.

    where: dataset, seed and runs, as for run_of_row. StudyError on what is neither a row nor a run's folder.
    """
    complete, missing = {}, []
    for name in dict.fromkeys(names):
        try:
            complete[name] = run_of_row(name, stage, **where)
        except StudyError:
            if name not in ROWS:
                raise
            missing.append(name)
    total = len(missing) + len(complete)
    return complete, not_run_line(missing, total, where["dataset"], stage, [where["seed"]], where["runs"])


def not_run_line(names: list[str], total: int, dataset: str, stage: int, seeds: list[int], runs: str | Path) -> str:
    """A line on the rows of `total` that have not been run, with the command that runs them; none where all have."""
    lists = {"datasets": [dataset], "rows": names, "seeds": seeds}
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in lists.items()}
    values |= {"last": stage, "runs": json.dumps(str(runs), ensure_ascii=False)}
    config = " ".join(shlex.quote(f"{name}={value}") for name, value in values.items())
    command = f"in the project's folder: `snakemake --config {config}`"
    return f"{len(names)} of {total} rows have not been run; {command}" if names else ""
