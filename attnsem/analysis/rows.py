"""The named rows of the tables: which settings each stands for, and its runs."""

from difflib import get_close_matches
from pathlib import Path

from attnsem import StudyError, paper
from attnsem.files import rooted
from attnsem.paper import CONTROLS, GATES, VARIANTS, Settings
from attnsem.runs import Run, complete_run

FIXED = {"alpha_min": paper.ALPHA, "alpha_max": paper.ALPHA}
REPAIR = "proposed, confidence gate, α fixed"  # chosen on VOC2007's val: CHOICES.md
REPAIRED = {"variant": "proposed", "gate": "confidence"} | FIXED
TEXT = {"similarity": "data/text/wordnet.csv", "semantic_loss": 1.0}
BASELINE, LONGER, POOLING = "baseline", "baseline, trained longer", "attention pooling"
GROUPS = {  # settings of each row; where a row ends with another stage than its table, that
    "paper": {
        BASELINE: {"variant": "densenet", "stage": 1},
        **{name: {"variant": name} for name in VARIANTS if name != "densenet"},
    },
    "gates": {
        f"{name}, {gate} gate": {"variant": name, "gate": gate}
        for gate in ("logits", "confidence")
        for name in ("att", "proposed", "se1_conv4", "se13_conv4", "se5_conv5")
    },
    "controls": {
        POOLING: {"variant": "attended"},
        **{name: {"variant": name} for name in CONTROLS if name != "attended"},
        f"{POOLING}, α fixed": {"variant": "attended"} | FIXED,
        **{f"{name}, α fixed": {"variant": name} | FIXED for name in ("two_layer_fused", "se")},
        "att, confidence gate, α fixed": REPAIRED | {"variant": "att"},
        "shuffled, confidence gate, α fixed": REPAIRED | {"variant": "shuffled"},
        LONGER: {"variant": "densenet", "stage": 4},
    },
    "repairs": {
        REPAIR: REPAIRED,
        **{
            f"proposed, {gate} gate, α fixed": {"variant": "proposed", "gate": gate} | FIXED
            for gate in ("literal", "logits", "signed", "pooled")
        },
        **{
            f"proposed, {gate} gate, semantic loss": {"variant": "proposed", "gate": gate, "semantic_loss": 1.0}
            for gate in GATES
            if gate != "logits"
        },
        "proposed, confidence gate, out-of-fold baseline": {"variant": "proposed", "gate": "confidence"}
        | {"baseline_folds": 5},
    },
    "future work": {
        **{f"{REPAIR}, {k} channels": REPAIRED | {"channels_per_label": k} for k in (2, 4)},
        f"{REPAIR}, semantic loss": REPAIRED | {"semantic_loss": 1.0},
        f"{REPAIR}, text similarity": REPAIRED | TEXT,
        f"{REPAIR}, text similarity shuffled": REPAIRED | TEXT | {"similarity_seed": 1},
    },
}
ROWS = {name: row for rows in GROUPS.values() for name, row in rows.items()}  # whatever its group
FORMER = {"densenet": BASELINE, "attended": POOLING, "repaired": REPAIR}  # words of rows' former names
FORMER |= {"held": "fixed", "longer": "trained longer", "own loss": "semantic loss", "text": "text similarity"}


def stages_of(row: dict, last: int) -> list[int]:
    """The stages that a row goes through in tables of what stage `last` leaves; none where it needs later ones."""
    end = row.get("stage", last)
    return [stage for stage in paper.VARIANT[row["variant"]].stages if stage <= end] if end <= last else []


def settings_of(row: dict, stage: int, **parameters: object) -> Settings:
    """Of a stage of a row."""
    return paper.settings(stage, **{name: value for name, value in row.items() if name != "stage"}, **parameters)


def near(name: str) -> str:
    """ "; did you mean …?" for what is no row's name, or nothing."""
    renamed = name
    for word, new in FORMER.items():
        renamed = renamed.replace(word, new)
    close = get_close_matches(renamed, ROWS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {'; '.join(ROWS)}"


def run_of_row(name: str, stage: int, *, dataset: str, seed: int = 0, runs: str | Path = "runs") -> Run:
    """The complete run of a row at a stage that it goes through, stage 1 for the baseline.

    name: of ROWS, or a run's folder below <runs>/<dataset>. StudyError where there is none.
    """
    if name in ROWS:
        return complete_run(settings_of(ROWS[name], stage, dataset=dataset, seed=seed), rooted(runs))
    run = Run(rooted(runs) / paper.name_of(dataset) / name / f"seed{seed}" / f"stage{stage}")
    if name in FORMER or not run.complete:
        raise StudyError(f"there is no row {name!r}, and no complete run in {run.folder}{near(name)}")
    return run
