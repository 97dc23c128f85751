"""A trained network on images: the prepared ones, or anyone's photographs."""

import numpy as np
import torch

from attnsem.arrays import Images
from attnsem.datasets.photographs import Photographs
from attnsem.engine import launched, memory_given_back
from attnsem.runs import Run
from attnsem.stages import load
from attnsem.training import LOGITS, Split, evaluate


@memory_given_back()
def outputs(run: Run, images: Images | Photographs, *, device: str = "auto") -> dict[str, np.ndarray]:
    """What a run's network makes of whole images: logits (N, C) of each part that it has, by its name in model.Output,
    and `attention` (N, C, h, w) where it has any."""
    fabric = launched(device, precision="32-true")
    network = load(run).to(fabric.device, memory_format=torch.channels_last)
    split = Split(images, torch.zeros(len(images)), run.settings)
    return evaluate(fabric, network, split, (*LOGITS, "attention"))
