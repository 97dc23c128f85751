"""The user's own data: a CSV of the columns image, split and one a label, or labels; perhaps a `<stem>_boxes.csv`."""

import csv
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd

from attnsem import StudyError
from attnsem.datasets.dataset import BOX_COLUMNS, SPLITS, Dataset, of_files, read_all, read_image
from attnsem.files import checksum

VALUES = {"1": 1, "0": 0, "-1": -1, "": -1, "1.0": 1, "0.0": 0, "-1.0": -1}  # pandas writes 1.0 beside empty cells
VALUES |= {"true": 1, "false": 0, "1,0": 1, "0,0": 0, "-1,0": -1}  # in any case; 1,0 where a comma is the point
RESERVED = ("mAP", "labels_without_positives", "mean of labels")  # beside labels in tables of AP


def load(path: Path) -> Dataset:
    """The data set named as the CSV's stem; StudyError names file, line and column.

    image: relative path, and the id. split: train, val (may be missing) or test. Labels: 1 or true present,
    0 or false absent, -1 or empty unknown; or one column `labels` that names those present. Boxes: image, label,
    corners in pixels from 0, maxima excluded, perhaps difficult, 0 or 1.
    """
    table = _read(path, ["image", "split"])
    is_named = list(table.columns.drop(["image", "split"])) == ["labels"]
    cells = _named(path, table) if is_named else _marked(path, table)
    labels = tuple(cells)
    paths = {image: path.parent / image for image in table.image}
    is_missing = table[["image"]].map(lambda image: not os.path.isfile(paths[image]))
    _refuse(path, table, is_missing, f"an image file below {path.parent}")
    _refuse(path, table, table[["image"]].map(os.path.normpath).apply(pd.Series.duplicated), "each image once")
    _refuse(path, table, ~table[["split"]].isin(SPLITS), "train, val or test")
    splits = {split: tuple(table.image[table.split == split]) for split in SPLITS}
    if not (splits["train"] and splits["test"]):
        raise StudyError(f"{path}, column split: train and test are both needed, only val may be missing")
    splits["trainval"] = splits["train"] + splits["val"]
    targets = cells.astype(np.int8).set_axis(table.image.tolist())
    unlabelled = (targets != 1).all(axis=1).sum()
    notes = [f"{unlabelled} of {len(targets)} images have no label; they are kept."] if unlabelled else []
    notes += [
        f"The column labels names {len(labels)}: {', '.join(labels[:20])}{', …' * (len(labels) > 20)}."
    ] * is_named
    boxes, notes = _boxes(boxes_of(path), labels, paths), (*notes, *_warnings(splits, targets))
    fields = {"splits": splits, "targets": targets, "boxes": boxes, "source": source_of(path), "notes": notes}
    return of_files(paths, name=path.stem, images=path.stem, **fields)


def boxes_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_boxes.csv")


def source_of(path: Path) -> dict[str, str]:
    """Where the table lies, and SHA-256 of it and of its boxes, as far as there are files."""
    files = path, boxes_of(path)
    return {"path": str(path.resolve())} | {file.name: checksum(file) for file in files if file.is_file()}


def _read(path: Path, required: list[str]) -> pd.DataFrame:
    """All cells as stripped text, each row under the number of the line that it begins on; blank rows are left out."""
    lines, rows, line = [], [], 1
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = _reader(text, _separator(text, required))
        for row in reader:
            if any(map(str.strip, row)):
                lines.append(line)
                rows.append([cell.strip() for cell in row])
            line = reader.line_num + 1
    except csv.Error as error:
        raise StudyError(f"{path}, line {line}: {error}; close its quotes, and double a quote within quotes") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read as a CSV table in UTF-8 ({error}); save it as one") from error
    names = [normalize("NFC", name) for name in rows[0]] if rows else []
    if separator := next((sign for sign in "\t|" if len(names) == 1 and sign in names[0]), None):
        remedy = "save it with commas or semicolons"
        raise StudyError(f"{path}, line 1: {separator!r} stands where a comma should; {remedy}")
    if missing := [name for name in required if name not in names]:
        raise StudyError(
            f"{path} has no column {missing[0]!r} but {', '.join(map(_shown, names[:20])) or 'nothing'}; add it"
        )
    if odd := [name for name in names if names.count(name) > 1 or not name or name in RESERVED]:
        reason = "is this study's word for the mean" if odd[0] in RESERVED else "is empty or comes twice"
        raise StudyError(f"{path}, line {lines[0]}: the column name {_shown(odd[0])} {reason}; rename it")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(names):
            remedy = "add what is missing, or put a name with a comma in it into quotes"
            raise StudyError(f"{path}, line {line}: {len(row)} cells under {len(names)} column names; {remedy}")
    return pd.DataFrame(rows[1:], lines[1:], names, dtype=str)


def _reader(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)


def _separator(text: str, required: list[str]) -> str:
    """The comma, or Excel's semicolon where that alone gives the first line the required columns."""
    for sign in ",;":
        with suppress(csv.Error):  # told with its line when the rows are read
            header = next((row for row in _reader(text, sign) if any(map(str.strip, row))), [])
            if {*required} <= {name.strip() for name in header}:
                return sign
    return ","


def _marked(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """(images, labels) 1, 0 and -1 of a column a label."""
    labels = table.columns.drop(["image", "split"])
    if not len(labels):
        raise StudyError(f"{path} has no label column beside image and split; add one a label, or one called labels")
    cells = table[labels].apply(lambda column: column.str.casefold().map(VALUES))
    _refuse(path, table, cells.isna(), "1, 0, -1 or empty, or true and false")
    _refuse_other_codes(path, table, cells)
    return cells


def _named(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """(images, labels) 1 and 0 of the column `labels`, by name. A cell names its image's labels, `|`, `;`, a comma or
    else spaces between them; an empty one has none. StudyError where that may be read in two ways."""
    column = table[["labels"]]
    is_mark = column.map(lambda cell: cell.casefold() in VALUES)
    _refuse(
        path, table, is_mark & is_mark.all(axis=None), "names of labels; if it is a label itself, rename the column"
    )
    in_use = [sign for sign in "|;," if column.map(lambda cell, sign=sign: sign in cell).any(axis=None)]
    is_mixed = column.map(lambda cell: any(sign in cell for sign in in_use[1:]))
    _refuse(path, table, is_mixed, f"{(in_use or ' ')[0]!r} alone between labels, as elsewhere in the column")
    cells = column.map(lambda cell: {normalize("NFC", name.strip()) for name in cell.split(*in_use)} - {""})
    names = sorted(set().union(*cells.labels))
    is_joined = {name: len(name.split()) > 1 and {*name.split()} <= {*names} for name in names}
    expected = f"{(in_use or ' ')[0]!r} between labels too: each word of it is a label elsewhere"
    _refuse(path, table, cells.map(lambda cell: any(map(is_joined.get, cell))), expected)
    _refuse(path, table, cells.map(lambda cell: bool(cell & {*RESERVED})), f"other names than {', '.join(RESERVED)}")
    return pd.DataFrame({name: [int(name in cell) for cell in cells.labels] for name in names}, table.index)


def _refuse_other_codes(path: Path, table: pd.DataFrame, cells: pd.DataFrame) -> None:
    """Raises StudyError where -1 or an empty cell, which are unknown, seem to stand for absent."""
    is_minus = (cells == -1) & (table[cells.columns] != "") & (cells != -1).any(axis=1).to_numpy()[:, None]
    if (minus := is_minus.sum().sum()) > (zeros := (cells == 0).sum().sum()):
        expected = f"0 for absent: -1 is unknown, and there are {minus} of it and {zeros} 0; leave unknown cells empty"
        _refuse(path, table, is_minus, expected)
    is_open = (cells != 0).all() & (cells == -1).any()
    _refuse(path, table, (cells == -1) & is_open, "a 0 somewhere in this column, for absent; -1 and empty are unknown")


def _warnings(splits: dict[str, tuple[str, ...]], targets: pd.DataFrame) -> list[str]:
    """Of labels that a split shows everywhere, or nowhere."""
    sentences = []
    for split, effect in {"trainval": "it cannot be learnt", "test": "its AP says nothing"}.items():
        for value in (1, 0):
            labels = targets.columns[(targets.loc[list(splits[split])] != value).all()]
            names = ", ".join(labels[:20]) + ", …" * (len(labels) > 20)
            sentences += [f"WARNING: no {split} image has a {value} for {names}: {effect}."] if len(labels) else []
    return sentences


def _refuse(path: Path, table: pd.DataFrame, is_bad: pd.DataFrame, expected: str) -> None:
    """Raises StudyError for the first true cell of `is_bad`, which has some of the columns of `table`."""
    for row, column in np.argwhere(is_bad)[:1]:
        line, name = is_bad.index[row], is_bad.columns[column]
        more = f" ({count} cells are so)" if (count := is_bad.to_numpy().sum()) > 1 else ""
        cell = _shown(table.at[line, name])
        raise StudyError(f"{path}, line {line}, column {name}: {cell}, expected {expected}{more}")


def _shown(cell: str) -> str:
    """In quotes, and where a letter may only look like another one as its code too."""
    return repr(cell[:80]) + ("" if cell.isascii() else f" ({cell[:80]!a})")


def _boxes(path: Path, labels: tuple[str, ...], paths: dict[str, Path]) -> pd.DataFrame:
    """BOX_COLUMNS, corners as fractions of the upright image; empty where there is no such file."""
    if not path.exists():
        return pd.DataFrame(columns=BOX_COLUMNS)
    table = _read(path, BOX_COLUMNS[:-1])
    table["difficult"] = table.get("difficult", "0")
    table["label"] = [normalize("NFC", label) for label in table["label"]]
    _refuse(path, table, ~table[["image"]].isin(list(paths)), "an image of the main table")
    _refuse(path, table, ~table[["label"]].isin(labels), f"one of {', '.join(labels)}")
    _refuse(path, table, ~table[["difficult"]].isin(["0", "1"]), "0 or 1")
    corners = table[BOX_COLUMNS[2:6]].apply(pd.to_numeric, errors="coerce")
    sizes = read_all(table.image.unique().tolist(), lambda image: read_image(paths[image]).size, paths)
    corners /= np.array([sizes[image] * 2 for image in table.image]).reshape(-1, 4)
    is_inside = (corners >= 0) & (corners <= 1)
    is_inside[["xmax", "ymax"]] &= corners[["xmax", "ymax"]].to_numpy() > corners[["xmin", "ymin"]].to_numpy()
    _refuse(path, table, ~is_inside, "pixels inside the image, each maximum above its minimum")
    return table[BOX_COLUMNS].assign(**corners, difficult=table.difficult.astype(int)).reset_index(drop=True)
