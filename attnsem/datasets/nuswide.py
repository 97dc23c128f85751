"""NUS-WIDE in its official layout: ImageList, Groundtruth/TrainTestLabels, and Flickr, which holds the images."""

from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.datasets.archives import Archive, find, locate
from attnsem.datasets.dataset import Dataset, of_files, read_lines, with_val_drawn
from attnsem.files import write

TEXT = """airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer
coral cow dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house
lake leaf map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection
road rocks running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower
town toy train tree valley vehicle water waterfall wedding whales window zebra"""
LABELS = tuple(TEXT.split())
IMAGE = r"\w[\w .,&'()-]*[\\/]\w[\w-]*\.jpg", r"an image such as actor\0001_2124494179.jpg"
MARK = r"[01]", "0 or 1"
NAMED = 20  # images that are gone, in the note; a file has all

MIRROR = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/"
LISTS, MARKS = (Archive(name, (MIRROR + name,), None) for name in ("ImageList.zip", "Groundtruth.zip"))
ARCHIVES = [LISTS, MARKS, Archive("Flickr.zip", (), None)]


def load(*, source: Path | None, data: Path) -> Dataset:
    """NUS-WIDE from `source`, else from data/nuswide; its authors send the images, Flickr, to who asks for them.

    Trainval and test are its own two lists; val is a fifth of trainval, drawn by dataset.with_val_drawn. Images without
    any of the 81 labels are kept; those that are gone are left out, counted, and named in data/nuswide/gone.txt.
    StudyError on bad lists, lists of unequal length, and where no image of a list is there."""
    lists, marks, folder = locate(_places, ARCHIVES, source, data / "nuswide")
    parts, gone = [], []
    for split in ("Train", "Test"):
        path = lists / f"{split}Imagelist.txt"
        images = [line.replace("\\", "/").removesuffix(".jpg") for line in read_lines(path, *IMAGE, [LISTS])]
        columns = {label: read_marks(marks / f"Labels_{label}_{split}.txt", len(images)) for label in LABELS}
        is_there = np.array([(folder / f"{image}.jpg").is_file() for image in images], dtype=bool)
        if not is_there.any():
            raise StudyError(f"{folder} has none of the {len(images)} images of {path}; put them there")
        parts.append(pd.DataFrame(columns, images)[is_there])
        gone += [image for image, is_one in zip(images, ~is_there, strict=True) if is_one]
    targets = pd.concat(parts)
    if gone:
        write(data / "nuswide/gone.txt", lambda path: path.write_text("".join(f"{image}\n" for image in gone)))
    splits, notes = with_val_drawn(*(tuple(part.index) for part in parts)), tuple(_notes(targets, gone))
    paths = {image: folder / f"{image}.jpg" for image in targets.index}
    return of_files(paths, name="nuswide", images="nuswide", splits=splits, targets=targets, notes=notes)


def _places(folder: Path) -> tuple[Path, Path, Path] | None:
    patterns = ("TrainImagelist.txt", f"Labels_{LABELS[0]}_Train.txt", "Flickr")
    lists, marks, above = (find(folder, pattern) for pattern in patterns)
    return (lists, marks, above / "Flickr") if lists and marks and above else None


def read_marks(path: Path, images: int) -> np.ndarray:
    """(images,) int8 of a label, 0 or 1 a line; StudyError on anything else, and on another number of lines."""
    lines = read_lines(path, *MARK, [MARKS])
    if len(lines) != images:
        raise StudyError(f"{path} has {len(lines)} lines for {images} images; unpack {LISTS} and {MARKS} again")
    return np.array(lines, dtype=np.int8)


def _notes(targets: pd.DataFrame, gone: list[str]) -> list[str]:
    notes = ["NUS-WIDE has no list for val: it is a fifth of its train list, drawn."]
    if gone:
        names = ", ".join(gone[:NAMED]) + ", …" * (len(gone) > NAMED)
        count = f"{len(gone)} of {len(gone) + len(targets)}"
        notes.append(f"{count} images are gone and left out; nuswide/gone.txt in the data folder names all: {names}.")
    return [*notes, f"{(targets.sum(axis=1) == 0).sum()} of {len(targets)} images have no label; they are kept."]
