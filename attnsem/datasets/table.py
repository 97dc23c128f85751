"""The user's own data: a CSV of the columns image, split and one a label, perhaps a `<stem>_boxes.csv`."""

from pathlib import Path

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.datasets.dataset import BOX_COLUMNS, SPLITS, Dataset, of_files, read_image

VALUES = {"1": 1, "0": 0, "-1": -1, "": -1, "1.0": 1, "0.0": 0, "-1.0": -1}  # pandas writes 1.0 beside empty cells


def load(path: Path) -> Dataset:
    """The data set named as the CSV's stem; StudyError names file, line and column.

    image: relative path, and the id. split: train, val (may be missing) or test. Labels: 1 present,
    0 absent, -1 or empty unknown. Boxes: image, label, corners in pixels from 0, maxima excluded, perhaps
    difficult, 0 or 1.
    """
    table = _read(path, ["image", "split"])
    labels = tuple(table.columns.drop(["image", "split"]))
    if not labels:
        raise StudyError(f"{path} has no label column beside image and split; add one a label")
    cells = table[list(labels)].apply(lambda column: column.map(VALUES))
    _refuse(path, table, cells.isna(), "1, 0, -1 or empty")
    paths = {image: path.parent / image for image in table.image}
    is_missing = table[["image"]].map(lambda image: not paths[image].is_file())
    _refuse(path, table, is_missing, f"an image file below {path.parent}")
    _refuse(path, table, table[["image"]].apply(pd.Series.duplicated), "each image once")
    _refuse(path, table, ~table[["split"]].isin(SPLITS), "train, val or test")
    splits = {split: tuple(table.image[table.split == split]) for split in SPLITS}
    if not (splits["train"] and splits["test"]):
        raise StudyError(f"{path}, column split: train and test are both needed, only val may be missing")
    splits["trainval"] = splits["train"] + splits["val"]
    targets = cells.astype(np.int8).set_axis(table.image.tolist())
    unlabelled = (targets != 1).all(axis=1).sum()
    notes = (f"{unlabelled} of {len(targets)} images have no label; they are kept.",) if unlabelled else ()
    name, boxes = path.stem, _boxes(path.with_name(f"{path.stem}_boxes.csv"), labels, paths)
    return of_files(paths, name=name, images=name, splits=splits, targets=targets, boxes=boxes, notes=notes)


def _read(path: Path, required: list[str]) -> pd.DataFrame:
    """All cells as stripped text."""
    try:
        rows = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise StudyError(f"{path} cannot be read as a CSV table in UTF-8 ({error})") from error
    rows = rows.fillna("").apply(lambda column: column.str.strip())
    names = rows.iloc[0].tolist()
    if missing := [name for name in required if name not in names]:
        raise StudyError(f"{path} has no column {missing[0]!r} but {', '.join(names)}; add it")
    if odd := [name for name in names if names.count(name) > 1 or not name]:
        raise StudyError(f"{path}, line 1: the column name {odd[0]!r} is empty or comes twice; rename it")
    return rows.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def _refuse(path: Path, table: pd.DataFrame, is_bad: pd.DataFrame, expected: str) -> None:
    """Raises StudyError for the first true cell of `is_bad`, which has some of the columns of `table`."""
    for row, column in np.argwhere(is_bad)[:1]:
        name = is_bad.columns[column]
        raise StudyError(f"{path}, line {row + 2}, column {name}: {table[name][row]!r}, expected {expected}")


def _boxes(path: Path, labels: tuple[str, ...], paths: dict[str, Path]) -> pd.DataFrame:
    """BOX_COLUMNS, corners as fractions of the upright image; empty where there is no such file."""
    if not path.exists():
        return pd.DataFrame(columns=BOX_COLUMNS)
    table = _read(path, BOX_COLUMNS[:-1])
    table["difficult"] = table.get("difficult", "0")
    _refuse(path, table, ~table[["image"]].isin(list(paths)), "an image of the main table")
    _refuse(path, table, ~table[["label"]].isin(labels), f"one of {', '.join(labels)}")
    _refuse(path, table, ~table[["difficult"]].isin(["0", "1"]), "0 or 1")
    corners = table[BOX_COLUMNS[2:6]].apply(pd.to_numeric, errors="coerce")
    sizes = {image: read_image(paths[image]).size for image in table.image.unique()}
    corners /= np.array([sizes[image] * 2 for image in table.image]).reshape(-1, 4)
    is_inside = (corners >= 0) & (corners <= 1)
    is_inside[["xmax", "ymax"]] &= corners[["xmax", "ymax"]].to_numpy() > corners[["xmin", "ymin"]].to_numpy()
    _refuse(path, table, ~is_inside, "pixels inside the image, each maximum above its minimum")
    return table[BOX_COLUMNS].assign(**corners, difficult=table.difficult.astype(int))
