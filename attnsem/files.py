"""Files and folders: written whole or not at all, held by one process at a time, read without running code."""

import errno
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from attnsem import StudyError

ROOT = Path(__file__).resolve().parents[1]
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def rooted(path: str | Path) -> Path:
    """A path as the notebooks take it: relative ones start at the project's root, from whatever folder."""
    return ROOT / Path(path).expanduser()


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Writes by `save` under a temporary name in the same folder, then renames.

    StudyError, and nothing left, where the disk is full or the folder may not be written.
    """
    partial = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save(partial)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, also where torch says it in other words, as a StudyError that names the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or cause.errno not in REFUSALS:
            raise
        remedy = "make room or name another folder, and run the same command again, which goes on from what is there"
        raise StudyError(f"{path} cannot be written: {os.strerror(cause.errno).lower()}; {remedy}") from error


def write_json(path: Path, content: dict) -> None:
    write(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read ({error}); delete it and make it again") from error


def write_table(path: Path, table: pd.DataFrame, *, index: bool = True) -> None:
    """As CSV."""
    write(path, lambda partial: table.to_csv(partial, index=index, lineterminator="\n"))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    def save(partial: Path) -> None:
        with open(partial, "wb") as file:  # numpy would add .npz to a path
            np.savez_compressed(file, **arrays)

    write(path, save)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def write_tensors(path: Path, state: dict) -> None:
    import torch  # here and in load_tensors alone: what only reads results does without it

    def save(partial: Path) -> None:
        with open(partial, "wb") as file:  # torch keeps to itself why it cannot write a path
            torch.save(state, file)

    write(path, save)


def load_tensors(path: Path) -> dict:
    """A file of tensors by torch.load(weights_only=True), which runs no code; StudyError on any other."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(f"{path} is no file of plain tensors that torch can load ({reason})") from error
    if not isinstance(state, dict):
        raise StudyError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def checksum(path: Path) -> str:
    """SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder against other processes; the lock of a process that died is free again.

    wait: for the process that holds it, having said which, in place of a StudyError.
    """
    owner = folder / ".holder"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            holder = owner.read_text() if owner.exists() else "another process"
            sentence = f"{folder} is being written by {holder}"
            if not wait:
                raise StudyError(f"{sentence}; wait for it, or stop it") from error
            print(f"{sentence}; waiting for it", flush=True)
            lock.acquire()
        owner.write_text(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
