"""Arrays on disk: filled in steps that survive an interruption, memory-mapped, known to be those that were written."""

import errno
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attnsem import StudyError
from attnsem.files import checksum, held, read_json, write, write_json
from attnsem.notebook import bar

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 64  # rows between two records of progress


@dataclass(frozen=True)
class Images:
    """Rows of a mapped array (images, S, S, 3) uint8, whose file has this checksum."""

    array: np.ndarray
    rows: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(N, S, S, 3) uint8, read into memory."""
        rows = self.rows[indices]
        batch = np.empty((len(rows), *self.array.shape[1:]), np.uint8)
        for place in np.argsort(rows):  # reading in file order spares a disk its seeks
            batch[place] = self.array[rows[place]]
        return batch

    def __getitem__(self, indices: np.ndarray) -> "Tensor":
        from torch import from_numpy  # here alone: who only prepares images does without

        return from_numpy(self.pixels(indices))


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
    write_json(seal_of(target), {"sha256": checksum(partial)} | size_and_time(partial))
    del array  # Windows renames no file that is mapped
    partial.replace(target)
    progress.unlink(missing_ok=True)


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
        need = f"{title} needs {size / 2**30:.3g} GiB below {partial.parent}, where {free / 2**30:.3g} GiB are free"
        remedy = "make room, name another disk by -p data, or ask for fewer views or smaller images"
        raise StudyError(f"{need}; {remedy}") from error


def seal_of(path: Path) -> Path:
    """Says which bytes a file is to hold: SHA-256, and the size and time by which that is known."""
    return path.with_name(f"{path.name}.json")


def size_and_time(path: Path) -> dict[str, int]:
    return {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}


def mapped(path: Path) -> np.ndarray:
    """A mapped array; StudyError where it is none, or not the one that was written.

    The bytes are looked at again where the file's size or time is not the sealed one.
    """
    remedy = "delete it, and it is made anew"
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise StudyError(f"{path} is no whole array ({error}); {remedy}") from error
    if not is_sealed(path):
        with held(path.parent, wait=True):
            if not is_sealed(path):  # by the process that was waited for
                if read_seal(path).get("sha256") not in (None, sha256 := checksum(path)):
                    raise StudyError(f"{path} is not the array that was written; {remedy}")
                write_json(seal_of(path), {"sha256": sha256} | size_and_time(path))  # a copy, or from before seals
    return array


def is_sealed(path: Path) -> bool:
    """By size and time alone."""
    return size_and_time(path).items() <= read_seal(path).items()


def read_seal(path: Path) -> dict:
    return read_json(seal_of(path)) if seal_of(path).exists() else {}
