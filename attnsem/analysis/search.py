"""Random search of a stage's learning rate, epochs and weight decay on val (Bergstra and Bengio 2012).

`python -m attnsem.analysis.search 3 --draws 12 -p dataset voc2007 -p variant se`: the same draws for every row.
"""

import shutil
from pathlib import Path

import numpy as np

from attnsem import NotFiniteError, StudyError, stages
from attnsem.analysis.rows import choice_path
from attnsem.files import read_json, rooted, write_json
from attnsem.notebook import command_line
from attnsem.runs import Run

LR, WEIGHT_DECAY, EPOCHS = (1e-3, 1e-1), (1e-5, 1e-2), (2, 6)  # least and greatest
SPLITS = {"train_split": "train", "test_split": "val"}


def draw(number: int, stage: int = 3) -> dict[str, float | int]:
    """Log-uniform but for the epochs; the rate drops after half of them, as the paper's after 30 of our 60."""
    if stage == 4:  # the rate alone, 0.0001, an eighth, eight times: it has the longer baseline's epochs
        return {"lr": rounded(1e-4 * 8.0 ** ((number + 1) // 2 * (-1) ** number))}
    random = np.random.default_rng((number, 5))
    lr, weight_decay = (rounded(np.exp(random.uniform(*np.log(limits)))) for limits in (LR, WEIGHT_DECAY))
    epochs = int(random.integers(EPOCHS[0], EPOCHS[1] + 1))
    return {"lr": lr, "weight_decay": weight_decay, "epochs": epochs, "lr_step": -(-epochs // 2)}


def rounded(value: float) -> float:
    """To three digits, or to six where three leave no point, as 9e-05, which YAML takes for a text."""
    return float(f"{value:.3g}" if "." in f"{value:.3g}" else f"{value:.6g}")


def search(stage: int, *, draws: int, runs: str | Path = "runs", **parameters: object) -> dict:
    """Trains a stage on `train` by so many draws, below <runs>/val/draw<k>; the best has the greatest mAP on `val` at
    its last epoch. 0 draws: the parameters as they are.

    Writes below <runs>/val/<dataset>/<part> and returns what is chosen, stage<n>.json, {"lr": …, …}, as papermill's -f
    takes it; every draw, {"lr": …, …, "mAP": …, "alpha": …}, is in stage<n>-draws.json. The best run becomes that of
    <runs>/val, the parent of later stages' draws; other checkpoints are deleted. A draw whose loss is not finite has no
    mAP. Goes on after the last whole draw. StudyError where no draw is finite.
    """
    val = rooted(runs) / "val"
    splits = SPLITS if stage == 1 else {}
    tried, best, best_run = [], None, None  # without positives on val no mAP is better than none
    drawn = [draw(number, stage) for number in range(draws)] or [{}]

    def trained(number: int, changes: dict) -> Run:
        return stages.train(stage, runs=val / f"draw{number}", parents=val, **(splits | parameters | changes))

    for number, changes in enumerate(drawn):
        try:
            run = trained(number, changes)
        except NotFiniteError:
            tried.append(changes | {"mAP": None})
            continue
        last, mean_ap = run.history.iloc[-1], read_json(run.folder / "metrics.json")["mAP"]
        tried.append(changes | {"mAP": mean_ap} | ({"alpha": last["alpha"]} if "alpha" in last else {}))
        if best is None or (tried[-1]["mAP"] or 0) > (tried[best]["mAP"] or 0):
            best, best_run, run = number, run, best_run
        if run:
            run.checkpoint.unlink(missing_ok=True)
    if best is None:
        raise StudyError(f"none of {draws} draws of stage {stage} has a finite loss; give a smaller batch_size or data")
    if not best_run.checkpoint.exists():  # an earlier search, of more draws, has chosen another
        shutil.rmtree(best_run.folder)
        best_run = trained(best, drawn[best])
    target = Run.of(best_run.settings, val)
    shutil.copytree(best_run.folder, target.folder, dirs_exist_ok=True)
    path = choice_path(best_run.settings, val.parent)
    write_json(path.with_name(f"{path.stem}-draws.json"), {"draws": tried})
    write_json(path, drawn[best])
    return drawn[best]


if __name__ == "__main__":
    description = "Choose a stage's learning rate, epochs and weight decay on val."
    draws = (12, "how many settings to try; 0: those given")
    command_line(search, description, "stage", [*stages.TRAINED], draws=draws)
