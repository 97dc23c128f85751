"""MIRFlickr-25k: mirflickr/im1.jpg … im25000.jpg and mirflickr25k_annotations_v080/<label>.txt."""

from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.datasets.archives import Archive, find, locate
from attnsem.datasets.dataset import Dataset, of_files, read_lines

TEXT = """animals baby bird car clouds dog female flower food indoor lake male
night people plant_life portrait river sea sky structures sunset transport tree water
baby_r1 bird_r1 car_r1 clouds_r1 dog_r1 female_r1 flower_r1
male_r1 night_r1 people_r1 portrait_r1 river_r1 sea_r1 tree_r1"""
LABELS = {"mirflickr24": tuple(TEXT.split()[:24]), "mirflickr38": tuple(TEXT.split())}
IMAGES = 25_000
NUMBER = r"0*([1-9]\d{0,3}|1\d{4}|2[0-4]\d{3}|25000)"

MIRROR = "http://press.liacs.nl/mirflickr/mirflickr25k.v3b/"
MD5 = {"mirflickr25k.zip": "a23d0a8564ee84cda5622a6c2f947785", "mirflickr25k_annotations_v080.zip": None}
ARCHIVES = [Archive(name, (MIRROR + name,), md5) for name, md5 in MD5.items()]


def load(name: str, *, source: Path | None, data: Path, partial: bool, split_seed: int = 0) -> Dataset:
    """MIRFlickr-25k from `source`, else from data/mirflickr, else downloaded.

    name: mirflickr24, the potential labels, alphabetical; mirflickr38, those and then the 14 `<label>_r1`.
    partial: take the images there are; else StudyError where any of the 25,000 is missing."""
    images, annotations = locate(_folders, ARCHIVES, source, data / "mirflickr")
    names = {path.stem for path in images.glob("im*.jpg")}
    numbers = [number for number in range(1, IMAGES + 1) if f"im{number}" in names]
    if len(numbers) < (5 if partial else IMAGES):  # 5 still fill train, val and test
        remedy = f"add those of {ARCHIVES[0]}, " + ("5 at least" if partial else "or accept a part by -p partial True")
        raise StudyError(f"{images} has {len(numbers)} of {IMAGES} images; {remedy}")
    columns = {label: np.isin(numbers, read_list(annotations / f"{label}.txt")) for label in LABELS[name]}
    targets = pd.DataFrame(columns, [f"im{number}" for number in numbers], dtype=np.int8)
    paths, notes = {image: images / f"{image}.jpg" for image in targets.index}, tuple(_notes(targets, split_seed))
    splits, place = split(numbers, split_seed), f"mirflickr-split{split_seed}" if split_seed else "mirflickr"
    return of_files(paths, name=name, images=place, splits=splits, targets=targets, notes=notes)


def _folders(folder: Path) -> tuple[Path, Path] | None:
    images, annotations = find(folder, "im*.jpg"), find(folder, "animals.txt")
    return (images, annotations) if images and annotations else None


def read_list(path: Path) -> list[int]:
    """Image numbers, one a line; StudyError on a line that is none of 1 … 25,000."""
    lines = read_lines(path, NUMBER, f"an image number from 1 to {IMAGES}", ARCHIVES[1:])
    return [int(line.lstrip("0")) for line in lines]


def split(numbers: list[int], seed: int = 0) -> dict[str, tuple[str, ...]]:
    """3 : 2 into trainval and test, a fifth of trainval is val: of 25,000 12,000, 3,000 and 10,000.

    The paper's is not published. This one is default_rng(seed).permutation of the rising numbers: the
    first three fifths are trainval, the first fifth of those val; each is then sorted."""
    permutation = np.random.default_rng(seed).permutation(numbers)
    trainval, test = np.split(permutation, [len(permutation) * 3 // 5])
    val, train = np.split(trainval, [len(trainval) // 5])
    parts = {"train": train, "val": val, "trainval": trainval, "test": test}
    return {name: tuple(f"im{number}" for number in sorted(part)) for name, part in parts.items()}


def _notes(targets: pd.DataFrame, split_seed: int) -> list[str]:
    notes = [f"The paper's split is not published; this one is drawn from seed {split_seed}."]
    if len(targets) < IMAGES:
        notes.append(f"Partial: {len(targets)} of {IMAGES} images; the split is drawn over these.")
    notes.append(f"{(targets.sum(axis=1) == 0).sum()} of {len(targets)} images have no label; they are kept.")
    for label in targets.filter(like="_r1"):
        odd = targets.index[targets[label] > targets[label.removesuffix("_r1")]]
        if len(odd):
            notes.append(f"{len(odd)} images have {label}, but not the label without _r1: {', '.join(odd)}; kept so.")
    return notes
