"""COCO's official files with images drawn by `scenes`, for tests: `python -m tests.coco_like FOLDER [TRAIN VAL]`."""

import json
import sys
from pathlib import Path

from attnsem.datasets import coco, scenes

# Category ids of COCO's 80 labels: those from 1 to 90 but the ten that its instances never had.
IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
STANDS_FOR = dict(
    zip(
        scenes.LABELS,
        ("person", "boat", "bench", "potted plant", "car", "kite", "bird", "clock", "dog", "cat"),
        strict=True,
    )
)


def instances(images: dict[str, int], objects: list[tuple], sides: tuple[int, int] = (100, 200)) -> dict:
    """What instances_<split><year>.json holds.

    images: {file name: id}; objects: (image id, category id, [x, y, width, height], iscrowd); sides: width, height.
    """
    return {
        "info": {"description": "COCO"},
        "licenses": [{"url": "http://creativecommons.org", "id": 1, "name": "licence"}],
        "images": [
            {"license": 1, "file_name": name, "coco_url": "", "height": sides[1], "width": sides[0], "id": number}
            for name, number in images.items()
        ],
        "annotations": [
            {
                "segmentation": {"counts": [3, 4], "size": [200, 100]} if crowd else [[1.5, 2.5, 3.5, 2.5, 3.5, 4.5]],
                "area": 9.5,
                "iscrowd": crowd,
                "image_id": image,
                "bbox": box,
                "category_id": category,
                "id": 900 + number,
            }
            for number, (image, category, box, crowd) in enumerate(objects)
        ],
        "categories": [
            {"supercategory": "thing", "id": number, "name": label}
            for number, label in zip(IDS, coco.LABELS, strict=True)
        ],
    }


def write(folder: Path, *, train: int, val: int) -> Path:
    """A folder as COCO 2014's archives unpack; ten of the 80 labels are shown, every ninth object is a crowd."""
    drawn = scenes.load(train=train - 1, val=1, test=val)
    (folder / "annotations").mkdir(parents=True)
    for split, part in {"train": "trainval", "val": "test"}.items():
        (folder / f"{split}2014").mkdir()
        images, objects = {}, []
        for number, image in enumerate(drawn.splits[part], 1):
            name = f"COCO_{split}2014_{number:012}.jpg"
            drawn.open(image).save(folder / f"{split}2014" / name, quality=95)
            images[name] = number
            for _, label, *corners, _ in drawn.boxes[drawn.boxes.image == image].itertuples(index=False):
                x, y, right, bottom = (scenes.SIDE * corner for corner in corners)
                category = IDS[coco.LABELS.index(STANDS_FOR[label])]
                objects.append((number, category, [x, y, right - x, bottom - y], int(len(objects) % 9 == 8)))
        text = json.dumps(instances(images, objects, (scenes.SIDE, scenes.SIDE)))
        (folder / f"annotations/instances_{split}2014.json").write_text(text)
    return folder


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]] or [40, 20]
    write(Path(sys.argv[1]), train=numbers[0], val=numbers[1])
