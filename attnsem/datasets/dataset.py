"""The description that every data set gives, and what makes one of files."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from attnsem import StudyError
from attnsem.datasets.archives import Archive, names

SPLITS = ("train", "val", "test")
BOX_COLUMNS = ["image", "label", "xmin", "ymin", "xmax", "ymax", "difficult"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """C labels, N images."""

    name: str  # as given to the notebooks, e.g. "mirflickr38"
    images: str  # name of the image set; data sets with the same images (mirflickr24, mirflickr38) share arrays
    splits: dict[str, tuple[str, ...]]  # ids of "train", "val", "trainval" (the two together) and "test", in order
    targets: pd.DataFrame  # (N, C) int8, image ids and label names: 1 present, 0 absent, -1 difficult or unknown
    open: Callable[[str], Image.Image]  # id -> RGB image; raises StudyError on an unreadable one
    files: list[tuple[str, int]]  # (id, bytes) of the image files
    # BOX_COLUMNS, one row an object; corners as fractions of width and height, empty where there are none:
    boxes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BOX_COLUMNS))
    source: dict[str, str] = field(default_factory=dict)  # of the user's own: path and checksums of the table
    notes: tuple[str, ...] = ()  # sentences about what is unusual in this copy, for the reader of the notebooks

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.targets)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over labels, splits, targets, boxes to six decimals, and names and sizes of the files, unread."""
        tables = [table.to_csv(float_format="%.6f", lineterminator="\n") for table in (self.targets, self.boxes)]
        parts = [json.dumps([self.labels, self.splits]), *tables, json.dumps(sorted(self.files))]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def with_val_drawn(trainval: Sequence[str], test: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The splits of a data set whose official ones are two: default_rng(0) draws a fifth of `trainval` as val.

    Its permutation of the places in `trainval` begins with those of val; every split keeps the given order."""
    places = {*np.random.default_rng(0).permutation(len(trainval))[: len(trainval) // 5].tolist()}
    train = tuple(image for place, image in enumerate(trainval) if place not in places)
    val = tuple(image for place, image in enumerate(trainval) if place in places)
    return {"train": train, "val": val, "trainval": tuple(trainval), "test": tuple(test)}


def of_files(paths: dict[str, Path], **fields: object) -> Dataset:
    """A Dataset whose images are files, by id; StudyError where some are missing, or an image is in two splits."""
    if missing := [path for path in paths.values() if not path.is_file()]:
        raise StudyError(f"{len(missing)} of {len(paths)} images are missing, first {missing[0]}; put them there")
    for image in (ids := fields["targets"].index)[ids.duplicated()][:1]:
        places = [split for split in SPLITS if image in fields["splits"][split]]
        where = "in two splits" if len(places) > 1 else f"twice in {places[0]}"
        raise StudyError(f"image {image} is {where}; list each image once")
    files = [(image, path.stat().st_size) for image, path in paths.items()]
    return Dataset(open=lambda image: read_image(paths[image]), files=files, **fields)


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
        is_read = Path(path).suffix.lower() in Image.registered_extensions()
        remedy = "replace it" if is_read else f"convert it to JPEG, for Pillow reads no {Path(path).suffix!r}"
        raise StudyError(f"{path} cannot be read as an image ({error}); {remedy}") from error


def read_all(ids: Sequence[str], read: Callable[[str], object], others: Iterable[str]) -> dict:
    """What `read` gives, by image; where it raises StudyError, one that names all such images, of `others` too."""
    faults = {}

    def result(image: str) -> object:
        try:
            return read(image)
        except StudyError as error:
            faults[image] = error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(result, ids))
        if faults:
            list(pool.map(result, {*others} - {*ids}))
            first, *rest = sorted(faults)
            more = f", and as little can {len(rest)} others: {', '.join(rest)}" if rest else ""
            raise StudyError(f"{faults[first]}{more}")
    return dict(zip(ids, results, strict=True))


def read_lines(path: Path, pattern: str, meaning: str, archives: Sequence[Archive]) -> list[str]:
    """The lines of a list, without blank ones; StudyError on a missing file, and on a line without the `pattern`."""
    if not path.exists():
        raise StudyError(f"{path} is missing; unpack {names(archives)} there")
    lines = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not re.fullmatch(pattern, line, re.ASCII):
            raise StudyError(f"{path}, line {number}: {line[:40]!r} is not {meaning}; unpack {names(archives)} again")
    return [line for line in lines if line]
