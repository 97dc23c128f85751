"""Trains a system on the features of a complete stage 1.

The run folder is a stage's: checkpoint.pt with the system's tensors, history.csv where it trains by epochs,
metrics.json, scores.npz and manifest.json, whose `parameters` are those of the stage 1 it stands on, and whose `system`
says its name and own settings. Complete with the same settings it is not trained again; interrupted it goes on after
its last epoch; with others, other data or another stage 1 it is refused.
"""

import numpy as np

from attnsem import StudyError
from attnsem.analysis.systems import module_of
from attnsem.analysis.systems.task import Progress, Task, task
from attnsem.engine import Fabric, memory_given_back
from attnsem.files import held, write_tensors
from attnsem.runs import Run
from attnsem.stages import refuse_other, write_manifest, write_scores


@memory_given_back()
def train(name: str, *, device: str = "auto", own: dict[str, object] | None = None, **place: object) -> Run:
    """Trains and evaluates a system, or gives the complete run with the same settings; resumes if interrupted.

    place: dataset, seed, runs, data and feature_cache, as task.task takes them. own: settings, in place of those chosen
    on val. StudyError on other settings, data or another stage 1 than those of the folder's run, or another writer.
    """
    job = task(name, own or {}, **place)
    run = job.run
    if begun := run.origin:
        refuse_changed(run, begun, job.origin)
    if run.complete:
        print(f"{run.folder.relative_to(job.runs)} is complete")
        return run
    fabric = job.fabric(device)
    with held(run.folder):
        if not run.complete:  # another process may have been at the same
            train_and_write(job, run, fabric)
    return run


def train_and_write(job: Task, run: Run, fabric: Fabric) -> None:
    settings, module, progress = job.parent.settings, module_of(job.name), Progress.of(run, job.origin)
    train_split, test_split = job.examples(fabric, settings.train_split, settings.test_split)
    state = module.fit(train_split, job.settings, seed=job.seed, progress=progress)
    scores = np.asarray(module.scores(state, test_split, job.settings), np.float32)
    if not np.isfinite(scores).all():
        raise StudyError(f"scores of {job.name} are not finite; give other settings than {job.settings}")
    write_tensors(run.checkpoint, state)
    write_scores(run, job.prepared, settings, {"scores": scores})
    write_manifest(run, job.prepared, job.origin, progress.seconds, fabric)
    run.resume.unlink(missing_ok=True)


def refuse_changed(run: Run, begun: dict, origin: dict) -> None:
    """StudyError where a folder's run has other settings, data or stage 1 than the one asked for."""
    refuse_other(run, begun, origin)
    earlier, now = (
        one["system"]["settings"] | {"feature_cache": one["system"]["feature_cache"]} for one in (begun, origin)
    )
    for key in now:
        if earlier.get(key) != now[key]:
            remedy = "delete that folder, or give another one by -p runs"
            raise StudyError(f"{run.folder} holds a run with {key} {earlier.get(key)!r}, not {now[key]!r}; {remedy}")
