"""Chooses a system's settings on val, with as many draws as any other row has (attnsem.analysis.search)."""

from types import ModuleType

import numpy as np

from attnsem import NotFiniteError, StudyError, metrics
from attnsem.analysis.systems import module_of
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.task import Progress, choice_of, settings_of, task
from attnsem.engine import memory_given_back
from attnsem.files import held, read_json, write_json


@memory_given_back()
def search(
    name: str, *, draws: int, device: str = "auto", own: dict[str, object] | None = None, **place: object
) -> dict[str, object]:
    """Trains a system on `train` by so many draws of its space; chosen is the one with the best mAP on `val`.

    Writes every draw, with its mAP, to <runs>/val/<dataset>/<system>/stage1-draws.json, and what is chosen, which
    `train` takes, to stage1.json there. Goes on after the last whole draw. own, place: as of `train`; own is not drawn.
    StudyError where no draw is finite, and where draws of another stage 1 or other data are there.
    """
    own = own or {}
    job = task(name, own, is_on_val=True, **place)
    path = choice_of(name, job.prepared.name, job.runs)
    drawn, module = path.with_name("stage1-draws.json"), module_of(name)
    with held(path.parent, wait=True):
        kept = read_json(drawn) if drawn.exists() else {"draws": [], "origin": job.origin}
        if kept["origin"] != job.origin:
            raise StudyError(
                f"{drawn} was made with other settings, data or stage 1; delete {path.parent} to search anew"
            )
        if len(kept["draws"]) < draws:
            train_split, val_split = job.examples(job.fabric(device), "train", "val")
        for number in range(len(kept["draws"]), draws):
            changes = {key: value for key, value in module.space(random_of(number)).items() if key not in own}
            mean_ap = mean_ap_of(module, train_split, val_split, settings_of(name, changes | own), job.seed)
            kept["draws"].append(changes | {"mAP": mean_ap})
            print(f"draw {number}: {kept['draws'][-1]}", flush=True)
            write_json(drawn, kept)
        finite = [draw for draw in kept["draws"][:draws] if draw["mAP"] is not None]
        if not finite and (job.prepared.targets("val") == 1).any():
            raise StudyError(
                f"none of {draws} draws of {name} has finite scores; give other settings by -p, or other data"
            )
        best = max(finite, key=lambda draw: draw["mAP"]) if finite else kept["draws"][0]
        choice = {key: value for key, value in best.items() if key != "mAP"} | own
        write_json(path, choice)
    return choice


def mean_ap_of(module: ModuleType, train: Examples, val: Examples, settings: dict, seed: int) -> float | None:
    """mAP (%) on val; None where loss or scores are not finite, or no label has a positive there."""
    try:
        state = module.fit(train, settings, seed=seed, progress=Progress())
    except NotFiniteError:
        return None
    scores = np.asarray(module.scores(state, val, settings), np.float32)
    mean_ap = 100 * metrics.mean_average_precision(val.targets, scores) if np.isfinite(scores).all() else np.nan
    return None if np.isnan(mean_ap) else mean_ap


def random_of(number: int) -> np.random.Generator:
    """Of a draw: the same for every data set and seed."""
    return np.random.default_rng((number, 5))


def log_uniform(random: np.random.Generator, least: float, greatest: float) -> float:
    """To three digits."""
    return float(f"{np.exp(random.uniform(np.log(least), np.log(greatest))):.3g}")
