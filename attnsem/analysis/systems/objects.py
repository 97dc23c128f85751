"""The objects of training images as their cached views have them, for systems that learn from boxes."""

import numpy as np
import torch
from torch import Tensor

from attnsem import StudyError
from attnsem.analysis.systems.examples import Examples
from attnsem.datasets.arrays import Views
from attnsem.datasets.features import VIEWS_SEED

CHOICES = ("auto", "with", "without")


def learns_from_boxes(examples: Examples, choice: str) -> bool:
    """choice: auto is with, where there are boxes. StudyError on an unknown one, and where there are no boxes to learn
    from."""
    if choice not in CHOICES:
        raise StudyError(f"parameter boxes must be one of {', '.join(CHOICES)}, not {choice!r}")
    if choice == "with" and examples.boxes.empty:
        name = examples.source.prepared.name
        raise StudyError(f"{name} has no boxes of its {examples.split} images; give -p boxes without")
    return choice != "without" and not examples.boxes.empty


class Objects:
    """examples: of training, whose views are crops of image_size pixels of images of train_size."""

    def __init__(self, examples: Examples):
        self.rows, settings = examples.features.rows, examples.settings
        self.side, self.seen = settings.train_size, settings.image_size
        key = (len(examples.features.views), self.side - self.seen, VIEWS_SEED)
        self.views = [Views.drawn(*key, view) for view in range(examples.views)]
        by_image = examples.boxes.groupby("image")[["xmin", "ymin", "xmax", "ymax"]]
        corners = {image: torch.tensor(table.to_numpy(np.float32)) for image, table in by_image}
        self.boxes = [corners.get(image, torch.zeros(0, 4)) for image in examples.ids]

    def of(self, image: int, view: int) -> Tensor:
        """(M, 4) corners as fractions of the view; without objects of which less than a pixel is seen."""
        views, row = self.views[view], self.rows[image]
        origin = torch.stack([views.left[row], views.top[row]]).repeat(2)
        boxes = ((self.boxes[image] * self.side - origin) / self.seen).clamp(0, 1)
        if views.flip[row]:
            boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
        return boxes[((boxes[:, 2:] - boxes[:, :2]) * self.seen >= 1).all(1)]
