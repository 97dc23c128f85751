"""Very deep: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
appendix B: VOC2007 by features of several scales and a linear SVM.

An image is shown to the backbone at several scales, as it is and flipped; the maps are averaged over positions, flips
and scales, L2-normalised, and one linear SVM a label stands on them (K numbers); C is chosen on val. `second` names
another backbone, with its weights, whose vectors are put beside the first's: `-p second vgg19` on a stage 1 of vgg16 is
the paper's fusion of its two networks.

Ours departs: images are square, as all of this study's, so that a scale is their side, a multiple of image_size; three
scales are the default where the paper has five, from 256 to 768 pixels, and none above 1, which only enlarges what is
stored; vectors are the mean of the last convolutional map, not of its second fully connected layer's 4,096. Training
images are whole, at the same scales, without crops. The paper leaves open C and how it was chosen.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from attnsem import StudyError, backbones
from attnsem.analysis.systems import cnn_svm
from attnsem.analysis.systems.examples import Examples, read
from attnsem.analysis.systems.linear import decision_values, unit
from attnsem.analysis.systems.task import Progress
from attnsem.datasets.features import made_once, short, state_checksum
from attnsem.datasets.storage import fill

SETTINGS = cnn_svm.SETTINGS | {"scales": "0.5 0.75 1", "second": "", "second_weights": "imagenet"}


space = cnn_svm.space


def sides(examples: Examples, scales: str) -> list[int]:
    """Of the images at each scale, in pixels. StudyError unless there are three different ones or more."""
    try:
        of_scales = sorted({round(examples.settings.image_size * float(scale)) for scale in scales.split()})
    except ValueError:
        of_scales = []
    if len(of_scales) < 3 or of_scales[0] < 32:
        raise StudyError(f'very_deep has scales {scales!r}; give three or more, of 32 pixels or more, as "0.5 0.75 1"')
    return of_scales


def pooled_at(examples: Examples, backbone: nn.Module, name: str, side: int) -> np.ndarray:
    """(N, K) float32 means over the positions of whole images of that side and of their mirror images; on the disk."""
    fabric, prepared, images = examples.source.fabric, examples.source.prepared, examples.images
    holder = "trainval" if examples.split == "train" else examples.split
    key = [name, state_checksum(backbone), images.sha256, side, fabric.strategy.precision.precision]
    target = prepared.folder / "features" / prepared.image_set / f"{holder}-{side}-whole-{short(key)}.npy"
    backbone.eval()

    @torch.inference_mode()
    def rows(start: int, stop: int, size: int = 16) -> np.ndarray:
        parts = []
        for first in range(start, stop, size):
            batch = torch.from_numpy(read(images.array.filename, first, min(first + size, stop))).to(fabric.device)
            batch = interpolate(batch.permute(0, 3, 1, 2).float() / 255, (side, side), mode="bilinear", antialias=True)
            with fabric.autocast():
                both = [backbone(view.clamp(0, 1)).float().mean((2, 3)) for view in (batch, batch.flip(3))]
            parts.append(torch.stack(both).mean(0).cpu())
        return torch.cat(parts).numpy()

    def make() -> None:
        shape = (len(images.array), rows(0, 1).shape[1])
        fill(target, shape, np.float32, rows, f"features of {shape[0]} images of {side} pixels")

    return np.array(made_once(fabric, target, make)[images.rows])


def vectors(examples: Examples, settings: dict) -> np.ndarray:
    """(N, K), or (N, K + K′) with a second backbone."""
    networks = {examples.settings.backbone: examples.source.backbone}
    if second := settings["second"]:
        networks[f"{second}, second"] = backbones.build(second, settings["second_weights"]).to(examples.device)
    of_sides = sides(examples, settings["scales"])
    parts = [sum(pooled_at(examples, net, name, side) for side in of_sides) for name, net in networks.items()]
    return unit(np.concatenate([unit(part) for part in parts], axis=1))


def fit(train: Examples, settings: dict, *, seed: int, progress: Progress) -> dict[str, Tensor]:
    return cnn_svm.svms(vectors(train, settings), train, settings, seed)


def scores(state: dict[str, Tensor], examples: Examples, settings: dict) -> np.ndarray:
    return decision_values(state, vectors(examples, settings))
