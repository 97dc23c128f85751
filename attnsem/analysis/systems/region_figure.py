"""Where RLSD looks: the regions that tell the labels of test images, over these."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torchvision.ops import box_iou

from attnsem import StudyError
from attnsem.analysis.pictures import Box, example_images
from attnsem.analysis.systems.examples import Examples
from attnsem.analysis.systems.rlsd import Regions, loaded
from attnsem.analysis.systems.task import Task, task
from attnsem.notebook import argument

LIKELY = 0.5  # probability from which on a label is shown; the likeliest is in any case
SAME = 0.3  # intersection over union


def regions_over_images(name: str = "rlsd", *, images: int = 8, device: str = "auto", **place: object) -> Figure:
    """The first test images with two labels or more, or with one, and on each the regions that tell its likely labels.

    name: of a system with regions; place: dataset, seed, runs and data, as task.task takes them. StudyError where its
    run is not complete.
    """
    job = task(name, {}, **place)
    if not job.run.complete:
        parameters = " ".join(argument(*pair) for pair in place.items())
        command = f"python -m attnsem.analysis.systems {name} {parameters}"
        raise StudyError(f"{job.run.folder} is not complete; run: {command}")
    parent = job.parent.settings
    examples = job.examples(job.fabric(device), parent.train_split, parent.test_split)[1]
    present = (examples.targets == 1).sum(1)
    rows = np.argsort(-np.minimum(present, 2), kind="stable")[:images]
    regions = regions_of(job, examples, rows)
    likely = [regions_told(Regions(*one), examples.labels) for one in zip(*regions, strict=True)]
    true = [", ".join(np.array(examples.labels)[examples.targets[row] == 1]) or "no label" for row in rows]
    titles = [f"{examples.ids[row]}: {labels}" for row, labels in zip(rows, true, strict=True)]
    return example_images(examples.images[rows].numpy(), titles, likely)


@torch.inference_mode()
def regions_of(job: Task, examples: Examples, rows: np.ndarray) -> Regions:
    """Of some images."""
    network = loaded(job.run.state(), examples, job.run.manifest["system"]["settings"])
    batch = examples.features.batch(rows, np.zeros_like(rows)).to(examples.device, torch.float32)
    return Regions(*(part.cpu() for part in network.regions(batch)[0]))


def regions_told(regions: Regions, labels: tuple[str, ...]) -> list[Box]:
    """Of one image: each region that tells a likely label, with the labels that it tells and their probabilities. What
    a region tells that overlaps a surer one by SAME or more is written at that one."""
    best, region = regions.logits.sigmoid().max(0)
    overlaps = box_iou(regions.boxes, regions.boxes)
    told: dict[int, list[str]] = {}
    for label in best.argsort(descending=True).tolist():
        if best[label] >= LIKELY or not told:
            own = int(region[label])
            place = next((other for other in told if overlaps[own, other] >= SAME), own)
            told.setdefault(place, []).append(f"{labels[label]} {best[label]:.2f}")
    return [("\n".join(words), *regions.boxes[region].tolist()) for region, words in told.items()]
