import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pandas as pd
from PIL import Image

BOX_COLUMNS = ["image", "label", "xmin", "ymin", "xmax", "ymax", "difficult"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The description that every data set gives.

    name: as given to the notebooks, e.g. "mirflickr38".
    images: name of the image set; data sets with the same images (mirflickr24, mirflickr38) share prepared arrays.
    labels: the C label names, in the order of the columns of `targets`.
    splits: ids of "train", "val", "trainval" (the two together) and "test", in a fixed order.
    targets: (images, C) int8, indexed by image id: 1 present, 0 absent, -1 difficult or unknown.
    boxes: BOX_COLUMNS, one row an object; corners as fractions of width and height, empty where there are none.
    open: id -> RGB image; raises StudyError on an unreadable one.
    fingerprint: SHA-256 over labels, splits, targets, boxes, and names and sizes of the image files.
    notes: sentences about what is unusual in this copy of the data, for the reader of the notebooks.
    """

    name: str
    images: str
    labels: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    targets: pd.DataFrame
    open: Callable[[str], Image.Image]
    fingerprint: str
    boxes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BOX_COLUMNS))
    notes: tuple[str, ...] = ()


def fingerprint(
    labels: Iterable[str],
    splits: dict[str, tuple[str, ...]],
    targets: pd.DataFrame,
    boxes: pd.DataFrame,
    files: Iterable[tuple[str, int]] = (),
) -> str:
    """SHA-256 over the description, corners to six decimals, and (name, size) of the image files, unread."""
    digest = hashlib.sha256(json.dumps([list(labels), splits]).encode())
    for frame in (targets, boxes):
        digest.update(frame.to_csv(float_format="%.6f", lineterminator="\n").encode())
    digest.update(json.dumps(sorted(files)).encode())
    return digest.hexdigest()
