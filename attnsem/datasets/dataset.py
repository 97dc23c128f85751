"""The description that every data set gives, and what makes one of files."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from attnsem import StudyError

BOX_COLUMNS = ["image", "label", "xmin", "ymin", "xmax", "ymax", "difficult"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set's images, labels, splits, targets and boxes.

    name: as given to the notebooks, e.g. "mirflickr38".
    images: name of the image set; data sets with the same images (mirflickr24, mirflickr38) share prepared arrays.
    labels: the C label names, in the order of the columns of `targets`.
    splits: ids of "train", "val", "trainval" (the two together) and "test", in a fixed order.
    targets: (images, C) int8, indexed by image id: 1 present, 0 absent, -1 difficult or unknown.
    boxes: BOX_COLUMNS, one row an object; corners as fractions of width and height, empty where there are none.
    open: id -> RGB image; raises StudyError on an unreadable one.
    files: (id, bytes) of the image files.
    notes: sentences about what is unusual in this copy of the data, for the reader of the notebooks.
    """

    name: str
    images: str
    labels: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    targets: pd.DataFrame
    open: Callable[[str], Image.Image]
    files: list[tuple[str, int]]
    boxes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BOX_COLUMNS))
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over labels, splits, targets, boxes to six decimals, and names and sizes of the files, unread."""
        digest = hashlib.sha256(json.dumps([self.labels, self.splits]).encode())
        for table in (self.targets, self.boxes):
            digest.update(table.to_csv(float_format="%.6f", lineterminator="\n").encode())
        digest.update(json.dumps(sorted(self.files)).encode())
        return digest.hexdigest()


def of_files(paths: dict[str, Path], **fields: object) -> Dataset:
    """A Dataset whose images are files, by id; StudyError where some are missing, or an image is in two splits."""
    if missing := [path for path in paths.values() if not path.is_file()]:
        raise StudyError(f"{len(missing)} of {len(paths)} images are missing, first {missing[0]}; put them there")
    ids = fields["targets"].index
    if not ids.is_unique:
        raise StudyError(f"image {ids[ids.duplicated()][0]} is in two splits; give each image one")
    sizes = [(image, path.stat().st_size) for image, path in paths.items()]
    return Dataset(open=lambda image: read_image(paths[image]), files=sizes, **fields)


def read_image(path: str | Path) -> Image.Image:
    """RGB, upright by its EXIF orientation; StudyError on a file that is no whole image, or a bomb."""
    try:
        with Image.open(path) as image:
            image.load()
            with suppress(Exception):  # broken EXIF says nothing about the pixels, which are whole
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits, which convert() would clip to 255
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise StudyError(f"{path} cannot be read as an image ({error}); replace it") from error


def read_lines(path: Path, is_valid: Callable[[str], object], meaning: str, archives: str) -> list[str]:
    """The lines of a list, without blank ones; StudyError on a missing file, and on a line that is not `meaning`."""
    if not path.exists():
        raise StudyError(f"{path} is missing; unpack {archives} there")
    lines = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not is_valid(line):
            raise StudyError(f"{path}, line {number}: {line[:40]!r} is not {meaning}; unpack {archives} again")
    return [line for line in lines if line]
