"""COCO 2014 and 2017 in their official layout: annotations/instances_<split><year>.json, train<year> and val<year>."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.datasets.archives import Archive, find, locate
from attnsem.datasets.dataset import BOX_COLUMNS, Dataset, of_files, with_val_drawn

TEXT = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush"""
LABELS = tuple(" ".join(TEXT.split()).split(", "))  # by rising category id
KEYS = ("images", "annotations", "categories")
FIELDS = {"id", "file_name", "width", "height", "image_id", "category_id", "bbox", "iscrowd", "name", *KEYS}

MIRROR = "http://images.cocodataset.org/"
SHA256 = {  # as torchvision's prototype data sets list them
    "zips/train2014.zip": "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    "zips/val2014.zip": "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    "annotations/annotations_trainval2014.zip": "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    "zips/train2017.zip": "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    "zips/val2017.zip": "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    "annotations/annotations_trainval2017.zip": "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
}
ARCHIVES = {
    f"coco{year}": [Archive(Path(p).name, (MIRROR + p,), None, sha256) for p, sha256 in SHA256.items() if year in p]
    for year in ("2014", "2017")
}


def load(name: str, *, source: Path | None, data: Path) -> Dataset:
    """COCO from `source`, else from data/<name>, else downloaded. name: coco2014 or coco2017.

    The labels of its test images are not public. As the field does, trainval is train<year> and test is val<year>;
    val is a fifth of trainval, drawn by dataset.with_val_drawn. Images without any object are left out, as ML-GCN's and
    ASL's code does (Query2Label's keeps them): 82,081 and 40,137 remain of 2014. A label whose objects in an image are
    all crowds (iscrowd) is difficult, -1; those count it as present. A crowd's box is difficult, as VOC's boxes are.
    StudyError on missing files, and on other labels."""
    year = name.removeprefix("coco")
    places = locate(lambda folder: _places(folder, year), ARCHIVES[name], source, data / name)
    parts = [read_instances(places["annotations"] / f"instances_{split}{year}.json") for split in ("train", "val")]
    boxes = pd.concat([part for _, part in parts], ignore_index=True)
    objects = boxes.groupby(["image", "label"]).difficult.min().unstack().reindex(columns=LABELS)
    shown = [[image for image in images if image in objects.index] for images, _ in parts]
    splits = with_val_drawn(*shown)
    targets = (1 - 2 * objects).reindex([*splits["train"], *splits["val"], *splits["test"]]).fillna(0)
    folders = zip((places["train"], places["val"]), shown, strict=True)
    paths = {image: folder / f"{image}.jpg" for folder, images in folders for image in images}
    has_area = (boxes.xmax > boxes.xmin) & (boxes.ymax > boxes.ymin)
    counts = {
        "images without any object are left out.": sum(len(images) for images, _ in parts) - len(targets),
        "labels are difficult (-1): all their objects in an image are crowds.": (targets == -1).to_numpy().sum(),
        "boxes have no area and are left out; their labels are kept.": (~has_area).sum(),
    }
    note = f"The labels of COCO's test images are not public: test is val{year}; val is a fifth of train{year}, drawn."
    notes = (note, *(f"{count} {what}" for what, count in counts.items() if count))
    fields = {"targets": targets.astype(np.int8), "boxes": boxes[has_area].reset_index(drop=True), "notes": notes}
    return of_files(paths, name=name, images=name, splits=splits, **fields)


def _places(folder: Path, year: str) -> dict[str, Path] | None:
    patterns = {"annotations": f"instances_val{year}.json", "train": f"train{year}/*.jpg", "val": f"val{year}/*.jpg"}
    places = {name: find(folder, pattern) for name, pattern in patterns.items()}
    return places if all(places.values()) else None


def read_instances(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Ids of all images (file names without .jpg), in order, and BOX_COLUMNS of all objects, cut to the image; crowds
    are difficult. StudyError on a file that is none of COCO's, in categories too."""
    try:
        tables = json.loads(path.read_bytes(), object_hook=_without_outlines)
        images, objects, categories = (pd.DataFrame.from_records(tables[key]) for key in KEYS)
        labels = categories.set_index("id").name.sort_index()
        if tuple(labels) != LABELS:
            raise ValueError(f"{len(labels)} categories, and not COCO's 80")
        images = images.set_index("id")
        images["image"] = [_id(name) for name in images.file_name]
        if not (images.index.is_unique and labels.index.is_unique and images.image.is_unique):
            raise ValueError("an id or a file name comes twice")
        objects = objects.reindex(columns=["image_id", "category_id", "bbox", "iscrowd"])
        of_object = images.loc[objects.image_id]
        x, y, width, height = np.array(objects.bbox.tolist(), dtype=float).reshape(-1, 4).T
        corners = np.stack([x, y, x + width, y + height], axis=1)
        corners /= of_object[["width", "height"] * 2].to_numpy(dtype=float)
        if not np.isfinite(corners).all() or not objects.iscrowd.isin([0, 1]).all():
            raise ValueError("a box that is no number, or an object whose iscrowd is neither 0 nor 1")
        boxes = pd.DataFrame(corners.clip(0, 1), columns=BOX_COLUMNS[2:6])
        boxes.insert(0, "image", of_object.image.to_numpy())
        boxes.insert(1, "label", labels.loc[objects.category_id].to_numpy())
        return images.image.tolist(), boxes.assign(difficult=objects.iscrowd.astype(int))
    except (OSError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        remedy = (
            "unpack annotations_trainval<year>.zip again, or give annotations of your own as a CSV (data/README.md)"
        )
        raise StudyError(f"{path} is missing or no list of COCO's instances ({error}); {remedy}") from error


def _without_outlines(fields: dict[str, Any]) -> dict[str, Any]:
    """Of each object of the file what is read here, so that the outlines take no memory."""
    return {name: value for name, value in fields.items() if name in FIELDS}


def _id(file_name: str) -> str:
    image = file_name.removesuffix(".jpg")
    if image == file_name or Path(image).name != image:
        raise ValueError(f"an image called {file_name!r:.60}")
    return image
