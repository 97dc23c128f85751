"""Prepared uint8 arrays: images resized once, memory-mapped, cropped and flipped as whole batches on the device."""

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from attnsem import StudyError
from attnsem.datasets.dataset import Dataset
from attnsem.files import checksum, held, read_json, rooted, write, write_json
from attnsem.notebook import bar

CHUNK = 64  # images between two records of progress


def prepare(dataset: Dataset, *, data: Path, train_size: int, image_size: int) -> "Prepared":
    """Resizes trainval images to train_size and val and test images to image_size, both square (section 3.1).

    Bilinear with antialiasing, aspect ratio not kept. Goes on where it was interrupted; refuses arrays of another
    state of the source.
    """
    folder = rooted(data)
    with held(folder / "prepared" / dataset.name), held(folder / "arrays" / dataset.images):
        description = {
            "images": dataset.images,
            "labels": dataset.labels,
            "splits": dataset.splits,
            "targets": dataset.targets.to_csv(lineterminator="\n"),
            "boxes": dataset.boxes.to_csv(index=False, lineterminator="\n"),
            "notes": dataset.notes,
            "fingerprint": dataset.fingerprint,
        }
        known = folder / "prepared" / dataset.name / "dataset.json"
        if known.exists() and (found := read_json(known)["fingerprint"]) != dataset.fingerprint:
            raise StudyError(
                f"the source of {dataset.name} has changed since {known.parent} was prepared (fingerprint "
                f"{found[:12]}, now {dataset.fingerprint[:12]}); delete it and {folder / 'arrays' / dataset.images}, "
                "or name another folder by -p data"
            )
        write_json(known, description)
        for split, size in (("trainval", train_size), ("val", image_size), ("test", image_size)):
            if dataset.splits[split]:
                resize(dataset, split, size, folder / "arrays" / dataset.images)
    return Prepared(dataset.name, folder)


def resize(dataset: Dataset, split: str, size: int, folder: Path) -> None:
    """One array (images, size, size, 3) beside the list of its ids; rows already done are kept."""
    ids, target = dataset.splits[split], folder / f"{split}-{size}.npy"
    listing = target.with_suffix(".json")
    if listing.exists():
        if read_json(listing)["ids"] != list(ids):
            raise StudyError(f"{target} holds other images than {dataset.name} now has; delete {folder}")
        return

    def row(image_id: str) -> np.ndarray:
        return np.asarray(dataset.open(image_id).resize((size, size), Image.Resampling.BILINEAR))

    shape, title = (len(ids), size, size, 3), f"{dataset.images} {split} at {size} px"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        fill(target, shape, np.uint8, lambda start, stop: np.stack(list(pool.map(row, ids[start:stop]))), title)
    write_json(listing, {"ids": list(ids), "sha256": read_json(sealed_by(target))["sha256"]})


def fill(target: Path, shape: tuple[int, ...], dtype: type, rows: Callable[[int, int], np.ndarray], title: str) -> None:
    """Fills a .npy file with rows(start, stop); if interrupted, the same call goes on after the last chunk."""
    if target.exists():
        return
    partial, progress = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.rows")
    target.parent.mkdir(parents=True, exist_ok=True)
    done = int(progress.read_text()) if progress.exists() and partial.exists() else 0
    if not done:
        reserve(partial, shape, dtype, title)
    array = np.lib.format.open_memmap(partial, "r+")
    for start in bar(range(done, shape[0], CHUNK), title):
        stop = min(start + CHUNK, shape[0])
        array[start:stop] = rows(start, stop)
        array.flush()
        write(progress, lambda file, stop=stop: file.write_text(str(stop)))
    seal(partial, target)
    partial.replace(target)
    progress.unlink(missing_ok=True)


def seal(path: Path, target: Path) -> str:
    """Writes beside `target` which bytes it is to hold: SHA-256, and the size and time by which that is known."""
    found = {"sha256": checksum(path), "size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
    write_json(sealed_by(target), found)
    return found["sha256"]


def sealed_by(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def as_sealed(path: Path) -> bool:
    """By size and time alone."""
    told, state = read_json(sealed_by(path)) if sealed_by(path).exists() else {}, path.stat()
    return (told.get("size"), told.get("mtime_ns")) == (state.st_size, state.st_mtime_ns)


def mapped(path: Path) -> np.ndarray:
    """A mapped array; StudyError where it is none, or not the one that was written.

    The bytes are looked at again where the file's size or time is not the sealed one.
    """
    remedy = "delete it, and it is made anew"
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise StudyError(f"{path} is no whole array ({error}); {remedy}") from error
    if not as_sealed(path):
        with held(path.parent, wait=True):
            known = sealed_by(path)
            if not as_sealed(path):
                if known.exists() and checksum(path) != read_json(known).get("sha256"):
                    raise StudyError(f"{path} is not the array that was written; {remedy}")
                seal(path, path)  # a copy, or of a version that sealed nothing
    return array


def reserve(partial: Path, shape: tuple[int, ...], dtype: type, title: str) -> None:
    """An empty array on the disk; StudyError, and no file, where there is no room for it."""
    size, free = math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(partial.parent).free
    print(f"{title}: {size / 2**30:.3g} GiB, {free / 2**30:.3g} GiB free", flush=True)
    try:
        if size > free:
            raise OSError(errno.ENOSPC, "the disk is full")
        np.lib.format.open_memmap(partial, "w+", dtype, shape).flush()
        if hasattr(os, "posix_fallocate"):  # a mapped page for which the disk has no block would end the process
            with open(partial, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StudyError(
            f"{title} needs {size / 2**30:.3g} GiB below {partial.parent}, where {free / 2**30:.3g} GiB are free; "
            "make room, name another disk by -p data, or ask for fewer views or smaller images"
        ) from error


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, read without its source."""

    name: str
    folder: Path

    @classmethod
    def load(cls, name: str, data: Path) -> "Prepared":
        prepared = cls(name, rooted(data))
        if not prepared.path.exists():
            raise StudyError(
                f"{name} is not prepared under {prepared.folder}; run: papermill 00_prepare_data.ipynb out.ipynb "
                f"-p dataset {name}"
            )
        return prepared

    @property
    def path(self) -> Path:
        return self.folder / "prepared" / self.name / "dataset.json"

    @cached_property
    def description(self) -> dict:
        return read_json(self.path)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.description["labels"])

    @property
    def fingerprint(self) -> str:
        return self.description["fingerprint"]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self.description["notes"])

    @cached_property
    def all_targets(self) -> pd.DataFrame:
        """(images, C) int8 by image id: 1 present, 0 absent, -1 difficult or unknown."""
        table = pd.read_csv(StringIO(self.description["targets"]), index_col=0, dtype={0: str})
        return table.astype(np.int8)

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """One row an object; corners as fractions of width and height."""
        return pd.read_csv(StringIO(self.description["boxes"]), dtype={"image": str, "label": str})

    def ids(self, split: str) -> tuple[str, ...]:
        return tuple(self.description["splits"][split])

    def targets(self, split: str) -> np.ndarray:
        return self.all_targets.loc[list(self.ids(split))].to_numpy()

    def boxes_of(self, image_id: str) -> pd.DataFrame:
        return self.boxes[self.boxes["image"] == image_id]

    def images(self, split: str, size: int) -> "Images":
        """The split's array at that size; `train` is read from `trainval`."""
        holder = "val" if split == "val" else "test" if split == "test" else "trainval"
        path = self.folder / "arrays" / self.description["images"] / f"{holder}-{size}.npy"
        if not path.exists():
            raise StudyError(
                f"there is no {path.name} of {self.name}; run 00_prepare_data.ipynb with train_size and image_size "
                f"so that {holder} images have {size} pixels"
            )
        rows = {image_id: row for row, image_id in enumerate(self.ids(holder))}
        return Images(
            array=mapped(path),
            rows=np.array([rows[image_id] for image_id in self.ids(split)]),
            sha256=read_json(path.with_suffix(".json"))["sha256"],
        )


@dataclass(frozen=True)
class Images:
    """Rows of a mapped array (images, S, S, 3) uint8, whose file has this checksum."""

    array: np.ndarray
    rows: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, indices: list[int]) -> "Images":
        return replace(self, rows=self.rows[indices])

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """(N, S, S, 3) uint8, read into memory."""
        rows = self.rows[indices]
        batch = np.empty((len(rows), *self.array.shape[1:]), np.uint8)
        for place in np.argsort(rows):  # reading in file order spares a disk its seeks
            batch[place] = self.array[rows[place]]
        return torch.from_numpy(batch)


@dataclass(frozen=True)
class Views:
    """Crops and flips of all images: top, left (images,) in pixels, flip (images,) bool (section 3.1)."""

    top: Tensor
    left: Tensor
    flip: Tensor

    @classmethod
    def drawn(cls, images: int, room: int, *key: int) -> "Views":
        """Depends on the key, (seed, stage, epoch) in training, and an image's index alone."""
        random = np.random.default_rng(key)
        top, left = random.integers(0, room + 1, (2, images))
        return cls(*map(torch.from_numpy, (top, left, random.random(images) < 0.5)))

    @classmethod
    def whole(cls, images: int) -> "Views":
        """Neither crop nor flip, as in testing."""
        zeros = torch.zeros(images, dtype=torch.long)
        return cls(zeros, zeros, zeros.bool())

    def of(self, batch: Tensor, indices: np.ndarray, size: int) -> Tensor:
        """(N, S, S, 3) uint8 on any device -> (N, 3, size, size) in [0, 1], channels last in memory."""
        found = torch.empty((len(batch), size, size, 3), device=batch.device)
        drawn = (part[indices].tolist() for part in (self.top, self.left, self.flip))
        for image, out, top, left, flip in zip(batch, found, *drawn, strict=True):
            crop = image[top : top + size, left : left + size]
            torch.div(crop.flip(1) if flip else crop, 255, out=out)
        return found.permute(0, 3, 1, 2)


def batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
