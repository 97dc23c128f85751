"""PASCAL VOC2007 in its official layout: VOCdevkit/VOC2007/{JPEGImages, ImageSets/Main, Annotations}."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np
import pandas as pd
from defusedxml.ElementTree import parse

from attnsem import StudyError
from attnsem.datasets.archives import Archive, find, locate
from attnsem.datasets.dataset import BOX_COLUMNS, SPLITS, Dataset, of_files, read_lines

TEXT = """aeroplane bicycle bird boat bottle bus car cat chair cow
diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"""
LABELS = tuple(TEXT.split())
MARKS = {"1": 1, "-1": 0, "0": -1}  # present, absent and difficult in the lists -> in Dataset
ID = r"\w[\w.-]*"
LINES = {1: (ID, "an image id"), 2: (rf"{ID}\s+(1|-1|0)", f"an image id and one of {', '.join(MARKS)}")}

MIRRORS = ("https://pjreddie.com/media/files/", "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/")
MD5 = ("c52e279531787c972589f7e41ab4ae64", "b6e924de25625d8de591ea690078ad9f")
SHA256 = (
    "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
)
ARCHIVES = [
    Archive(name, tuple(mirror + name for mirror in MIRRORS), *checksums)
    for name, *checksums in zip(("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"), MD5, SHA256, strict=True)
]


def load(*, source: Path | None, data: Path) -> Dataset:
    """VOC2007 from `source`, else from data/voc2007, else downloaded; -1 where all objects of the label are difficult.

    Targets come from the lists <label>_<split>.txt and the annotations; StudyError where these disagree, or files
    are missing."""
    root = locate(partial(find_root, name="VOC2007"), ARCHIVES, source, data / "voc2007")
    lists = root / "ImageSets" / "Main"
    splits = {split: tuple(image for (image,) in read_list(lists / f"{split}.txt", 1)) for split in SPLITS}
    splits["trainval"] = tuple(sorted(splits["train"] + splits["val"]))
    return of_root(root, splits, name="voc2007")


def find_root(folder: Path, name: str) -> Path | None:
    return folder if (folder / "ImageSets").is_dir() else find(folder, f"{name}/ImageSets")


def of_root(root: Path, splits: dict[str, tuple[str, ...]], **fields: object) -> Dataset:
    """The images of train, val and test in an official layout, as `load` describes them. fields: of Dataset."""
    ids = [image for split in SPLITS for image in splits[split]]
    boxes = read_boxes(root, ids)
    targets = _targets(root, _listed(root / "ImageSets" / "Main", ids), boxes)
    paths = {image: root / "JPEGImages" / f"{image}.jpg" for image in ids}
    return of_files(paths, images=fields["name"], splits=splits, targets=targets, boxes=boxes, **fields)


def read_list(path: Path, columns: int, archives: Sequence[Archive] = ARCHIVES) -> list[list[str]]:
    """The lines' words, an image id and perhaps one of MARKS; StudyError on a line that is neither."""
    return [line.split() for line in read_lines(path, *LINES[columns], archives)]


def read_boxes(root: Path, ids: list[str]) -> pd.DataFrame:
    """BOX_COLUMNS of all objects, empty without Annotations; StudyError on a file that is no annotation."""
    folder = root / "Annotations"
    rows = [row for image in ids for row in _objects(folder / f"{image}.xml")] if folder.is_dir() else []
    return pd.DataFrame(rows, columns=BOX_COLUMNS)


def _objects(path: Path) -> list[tuple]:
    """BOX_COLUMNS, corners as fractions. VOC counts pixels from 1 and includes the last."""
    rows = []
    try:
        root = parse(path).getroot()
        width, height = (float(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
        if not (width > 0 and height > 0):
            raise ValueError(f"an image of {width:g} x {height:g} pixels")
        for element in root.iterfind("object"):
            label, difficult = element.findtext("name"), element.findtext("difficult", "0").strip()
            xmin, ymin, xmax, ymax = (float(element.findtext(f"bndbox/{side}")) for side in BOX_COLUMNS[2:6])
            corners = ((xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height)
            is_inside = 0 <= corners[0] < corners[2] <= 1 and 0 <= corners[1] < corners[3] <= 1
            if label not in LABELS or difficult not in ("0", "1") or not is_inside:
                place = f"corners {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} in {width:g} x {height:g}"
                raise ValueError(f"an object {label!r:.20}, difficult {difficult!r:.20}, {place}")
            rows.append((path.stem, label, *corners, int(difficult)))
    except (OSError, ParseError, TypeError, ValueError, LookupError) as error:
        fault = f"no VOC annotation ({error})" if path.exists() else "missing"
        raise StudyError(f"{path} is {fault}; unpack it again, or give your own as a CSV (data/README.md)") from error
    return rows


def _listed(lists: Path, ids: list[str]) -> pd.DataFrame:
    """(images, 20) float, NaN where no list speaks of the image."""
    columns = {}
    for label in LABELS:
        paths = (lists / f"{label}_{split}.txt" for split in SPLITS)
        marks = dict(row for path in paths if path.exists() for row in read_list(path, 2))
        columns[label] = [MARKS.get(marks.get(image)) for image in ids]
    return pd.DataFrame(columns, ids, dtype=float)


def _targets(root: Path, listed: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """(images, 20) int8 from the lists and, unless there are none, the boxes; the two must agree."""
    only_difficult = boxes.groupby(["image", "label"]).difficult.min().unstack()
    ids = list(listed.index)  # a list keeps the index's name, which recorded fingerprints were taken with
    targets = (1 - 2 * only_difficult).reindex(index=ids, columns=LABELS).fillna(0) if len(boxes) else listed
    for row, column in np.argwhere(listed.notna() & (listed != targets))[:1]:
        opinions = f"the list says {listed.iat[row, column]:.0f} and Annotations {targets.iat[row, column]:.0f}"
        remedy = f"unpack {root} again, or delete its lists <label>_<split>.txt to go by Annotations alone"
        raise StudyError(f"image {ids[row]}, label {LABELS[column]}: {opinions} (-1 difficult); {remedy}")
    if targets.isna().any(axis=None):
        raise StudyError(f"{root} has neither Annotations nor all lists <label>_<split>.txt; unpack it again")
    return targets.astype(np.int8)
