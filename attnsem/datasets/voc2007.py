"""PASCAL VOC2007 in its official layout: VOCdevkit/VOC2007/{JPEGImages, ImageSets/Main, Annotations}."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import pandas as pd
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse

from attnsem import StudyError
from attnsem.datasets.archives import Archive, find, locate
from attnsem.datasets.dataset import BOX_COLUMNS, Dataset
from attnsem.datasets.images import of_files

TEXT = """
aeroplane bicycle bird boat bottle bus car cat chair cow
diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor
"""
LABELS = tuple(TEXT.split())
SPLITS = ("train", "val", "test")
ID = re.compile(r"\w[\w.-]*", re.ASCII)
LISTED = {"1": 1, "-1": 0, "0": -1}  # present, absent and difficult in the lists -> in Dataset

MIRRORS = ("https://pjreddie.com/media/files/", "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/")
CHECKSUMS = {  # MD5 and SHA-256
    "VOCtrainval_06-Nov-2007.tar": (
        "c52e279531787c972589f7e41ab4ae64",
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    ),
    "VOCtest_06-Nov-2007.tar": (
        "b6e924de25625d8de591ea690078ad9f",
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    ),
}
ARCHIVES = [Archive(name, tuple(mirror + name for mirror in MIRRORS), *sums) for name, sums in CHECKSUMS.items()]


def load(*, source: Path | None, data: Path) -> Dataset:
    """VOC2007 from `source`, else from data/voc2007, else downloaded.

    -1 where all objects of the label are difficult. Targets come from the lists <label>_<split>.txt and the
    annotations; StudyError where these disagree, or files are missing.
    """
    root = locate(_root, ARCHIVES, source, data / "voc2007")
    splits = {split: _ids(root, split) for split in SPLITS}
    ids = [image for split in SPLITS for image in splits[split]]
    boxes = read_boxes(root, ids)
    return of_files(
        {image: root / "JPEGImages" / f"{image}.jpg" for image in ids},
        name="voc2007",
        images="voc2007",
        labels=LABELS,
        splits=splits | {"trainval": tuple(sorted(splits["train"] + splits["val"]))},
        targets=_targets(root, ids, boxes),
        boxes=boxes,
    )


def _root(folder: Path) -> Path | None:
    return folder if (folder / "ImageSets").is_dir() else find(folder, "VOC2007/ImageSets")


def _ids(root: Path, split: str) -> tuple[str, ...]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.exists():
        raise StudyError(f"{path} is missing; unpack both {' and '.join(map(str, ARCHIVES))} there")
    return tuple(words[0] for words in read_list(path, 1))


def read_list(path: Path, columns: int) -> list[list[str]]:
    """The lines' words, an image id and perhaps LISTED's mark; StudyError on a line that is neither."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        words = line.split()
        if words and not (len(words) == columns and ID.fullmatch(words[0]) and set(words[1:]) <= set(LISTED)):
            expected = "an image id" if columns == 1 else f"an image id and one of {', '.join(LISTED)}"
            raise StudyError(
                f"{path}, line {number}: {line.strip()[:40]!r} is not {expected}; unpack the archives again"
            )
        rows.append(words)
    return [words for words in rows if words]


def read_boxes(root: Path, ids: list[str]) -> pd.DataFrame:
    """BOX_COLUMNS of all objects, empty without Annotations; StudyError on a file that is no annotation."""
    if not (root / "Annotations").is_dir():
        return pd.DataFrame(columns=BOX_COLUMNS)
    rows = [row for image in ids for row in _objects(root / "Annotations" / f"{image}.xml")]
    return pd.DataFrame(rows, columns=BOX_COLUMNS)


def _objects(path: Path) -> list[tuple]:
    try:
        root = parse(path).getroot()
        size = [float(root.findtext(f"size/{side}")) for side in ("width", "height")]
        return [(path.stem, *_object(thing, *size)) for thing in root.iterfind("object")]
    except (OSError, ParseError, DefusedXmlException, TypeError, ValueError, LookupError, ZeroDivisionError) as error:
        raise StudyError(f"{path} is missing or no VOC annotation ({error}); unpack the archives again") from error


def _object(thing: Element, width: float, height: float) -> tuple:
    """Label, corners as fractions, difficult. VOC counts pixels from 1 and includes the last."""
    if (label := thing.findtext("name")) not in LABELS:
        raise ValueError(f"unknown label {label!r}")
    xmin, ymin, xmax, ymax = (float(thing.findtext(f"bndbox/{side}")) for side in BOX_COLUMNS[2:6])
    corners = ((xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height)
    if not (0 <= corners[0] < corners[2] <= 1 and 0 <= corners[1] < corners[3] <= 1):
        raise ValueError(f"a {label} with the corners {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} in {width:g} x {height:g}")
    if (difficult := thing.findtext("difficult", "0").strip()) not in ("0", "1"):
        raise ValueError(f"difficult is {difficult[:20]!r}, not 0 or 1")
    return label, *corners, int(difficult)


def _targets(root: Path, ids: list[str], boxes: pd.DataFrame) -> pd.DataFrame:
    """(images, 20) int8 from the lists and, unless there are none, the boxes; the two must agree."""
    listed = _listed(root, ids)
    only_difficult = boxes.groupby(["image", "label"]).difficult.min().unstack()
    targets = (1 - 2 * only_difficult).reindex(index=ids, columns=LABELS).fillna(0) if len(boxes) else listed
    for row, column in np.argwhere(listed.notna() & (listed != targets))[:1]:
        raise StudyError(
            f"image {ids[row]}, label {LABELS[column]}: the list says {listed.iat[row, column]:.0f} and "
            f"Annotations {targets.iat[row, column]:.0f} (-1 difficult); unpack {root} again"
        )
    if targets.isna().any(axis=None):
        raise StudyError(f"{root} has neither Annotations nor all lists <label>_<split>.txt; unpack it again")
    return targets.astype(np.int8)


def _listed(root: Path, ids: list[str]) -> pd.DataFrame:
    """(images, 20) float, NaN where no list speaks of the image."""
    listed = {label: {} for label in LABELS}
    for label in LABELS:
        for path in (root / "ImageSets" / "Main" / f"{label}_{split}.txt" for split in SPLITS):
            rows = read_list(path, 2) if path.exists() else []
            listed[label] |= {image: LISTED[mark] for image, mark in rows}
    return pd.DataFrame({label: map(listed[label].get, ids) for label in LABELS}, ids, dtype=float)
