"""PASCAL VOC2012 in its official layout, which is that of VOC2007 in VOCdevkit/VOC2012."""

import re
from functools import partial
from pathlib import Path

from attnsem import StudyError
from attnsem.datasets.archives import Archive, locate
from attnsem.datasets.dataset import Dataset, with_val_drawn
from attnsem.datasets.voc2007 import find_root, of_root, read_list

MIRRORS = ("https://pjreddie.com/media/files/", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/")
NAME, MD5 = "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"
SHA256 = "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"
ARCHIVES = [Archive(NAME, tuple(mirror + NAME for mirror in MIRRORS), MD5, SHA256)]
NOTE = "The labels of VOC2012's test images are not public: test is its val, and val is a fifth of its train, drawn."


def load(*, source: Path | None, data: Path) -> Dataset:
    """VOC2012 from `source`, else from data/voc2012, else downloaded; labels and boxes as in voc2007.load.

    The labels of its test images are not public. Here test is its val, trainval its train, and val a fifth of that,
    drawn by dataset.with_val_drawn. StudyError as from voc2007.load, and where the ids are not those of VOC2012."""
    root = locate(partial(find_root, name="VOC2012"), ARCHIVES, source, data / "voc2012")
    lists = root / "ImageSets" / "Main"
    train, val = (tuple(i for (i,) in read_list(lists / f"{split}.txt", 1, ARCHIVES)) for split in ("train", "val"))
    if other := [image for image in train + val if not re.fullmatch(r"20\d\d_\d{6}", image)]:
        raise StudyError(f"{lists} lists {other[0]}, and VOC2012's images are called like 2008_000002; unpack {NAME}")
    return of_root(root, with_val_drawn(train, val), name="voc2012", notes=(NOTE,))
