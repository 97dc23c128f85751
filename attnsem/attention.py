"""What the attention channels see."""

from collections.abc import Sequence

import numpy as np

from attnsem import StudyError
from attnsem.arrays import Prepared
from attnsem.figures import AttendedImage
from attnsem.inference import best, outputs
from attnsem.model import Network


def chosen(prepared: Prepared, split: str, *, names: str, count: int, seed: int) -> list[str]:
    """Image ids: those named, with commas between, else `count` random ones that have a label.

    Raises StudyError on a name that the split does not have.
    """
    ids, wanted = prepared.ids(split), [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in ids]:
        raise StudyError(f"{prepared.name} has no {split} image {unknown[0]!r}; its ids are like {ids[0]!r}")
    labelled = np.flatnonzero((prepared.targets(split) == 1).any(axis=1))
    drawn = np.random.default_rng(seed).permutation(labelled)[:count]
    return wanted or [ids[row] for row in sorted(drawn)]


def attended(
    network: Network, prepared: Prepared, split: str, size: int, ids: Sequence[str], *, device: str = "auto"
) -> list[AttendedImage]:
    """For each image the channels, scores and boxes of its true labels. StudyError if the network has no channels."""
    rows = [prepared.ids(split).index(image_id) for image_id in ids]
    images = prepared.images(split, size).only(rows)
    output = outputs(network, images, device=device)
    if output.attention is None:
        raise StudyError("this network has no attention channels; choose a variant that has, such as proposed")
    parts = ids, images[np.arange(len(ids))].numpy(), output.attention.numpy(), best(output).sigmoid().numpy()
    found = []
    for image_id, image, channels, scores, targets in zip(*parts, prepared.targets(split)[rows], strict=True):
        true, boxes = targets == 1, prepared.boxes_of(image_id)[["label", "xmin", "ymin", "xmax", "ymax"]]
        labels, outlines = tuple(np.array(prepared.labels)[true]), tuple(boxes.itertuples(index=False, name=None))
        found.append(AttendedImage(image_id, image, labels, channels[true], scores[true], outlines))
    return found
