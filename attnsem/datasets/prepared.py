"""A data set whose images have been resized once to uint8 arrays (section 3.1), read without its source."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from attnsem import StudyError
from attnsem.datasets import NAMES, table
from attnsem.datasets.dataset import Dataset, read_all
from attnsem.datasets.storage import Images, fill, mapped, read_seal
from attnsem.files import held, read_json, rooted, write_json
from attnsem.notebook import argument, papermill
from attnsem.paper import is_table, name_of


def prepare(dataset: Dataset, *, data: Path, train_size: int, image_size: int) -> "Prepared":
    """Resizes trainval images to train_size and val and test images to image_size, both square (section 3.1).

    Bilinear with antialiasing, aspect ratio not kept. Goes on where it was interrupted; refuses arrays of another
    state of the source.
    """
    place, arrays = rooted(data) / "prepared" / dataset.name, rooted(data) / "arrays" / dataset.images
    with held(place), held(arrays):
        description = {
            "images": dataset.images,
            "labels": dataset.labels,
            "splits": dataset.splits,
            "targets": dataset.targets.to_csv(lineterminator="\n"),
            "boxes": dataset.boxes.to_csv(index=False, lineterminator="\n"),
            "source": dataset.source,
            "notes": dataset.notes,
            "fingerprint": dataset.fingerprint,
        }
        path = place / "dataset.json"
        if path.exists() and (earlier := read_json(path))["fingerprint"] != dataset.fingerprint:
            change = f"fingerprint {earlier['fingerprint'][:12]}, now {dataset.fingerprint[:12]}"
            remedy = f"delete it and {arrays}, or name another folder by -p data"
            if (other := earlier.get("source", {}).get("path")) and other != dataset.source["path"]:
                change, remedy = f"it was made of {other}", "rename one of the two tables, or give another -p data"
            raise StudyError(f"the source of {dataset.name} has changed since {place} was made ({change}); {remedy}")
        write_json(path, description)
        for split, size in (("trainval", train_size), ("val", image_size), ("test", image_size)):
            if dataset.splits[split]:
                resize(dataset, split, size, arrays)
    return Prepared.load(dataset.name, data)


def resize(dataset: Dataset, split: str, size: int, folder: Path) -> None:
    """One array (images, size, size, 3) beside the list of its ids; rows already done are kept."""
    ids, target = dataset.splits[split], folder / f"{split}-{size}.npy"
    listing = target.with_suffix(".json")
    if listing.exists():
        if read_json(listing)["ids"] != list(ids):
            raise StudyError(f"{target} holds other images than {dataset.name} now has; delete {folder}")
        return

    def row(image_id: str) -> np.ndarray:
        return np.asarray(dataset.open(image_id).resize((size, size), Image.Resampling.BILINEAR))

    def rows(start: int, stop: int) -> np.ndarray:
        return np.stack([*read_all(ids[start:stop], row, dataset.targets.index).values()])

    shape, title = (len(ids), size, size, 3), f"{dataset.images} {split} at {size} px"
    fill(target, shape, np.uint8, rows, title)
    write_json(listing, {"ids": list(ids), "sha256": read_seal(target)["sha256"]})


def source_path(dataset: str, data: str | Path) -> Path | None:
    """The user's own table: `dataset` is its path, or the name of what was prepared from it; else None."""
    path = rooted(data) / "prepared" / name_of(dataset) / "dataset.json"
    source = {"path": dataset} if is_table(dataset) else path.exists() and read_json(path).get("source")
    return rooted(source["path"]) if source else None


def check_source(dataset: str, data: str | Path) -> None:
    """StudyError where the user's own table is not, or no longer, what is prepared under its name. One that has moved,
    or is there no more, may go by its earlier path and by its name."""
    path, place = source_path(dataset, data), rooted(data) / "prepared" / name_of(dataset)
    if path and (place / "dataset.json").exists():
        description, now = read_json(place / "dataset.json"), table.source_of(path)
        source = {"path": now["path"]} | description.get("source", {})
        is_same = source == now if path.is_file() else source["path"] in (now["path"], str(path))
        if not is_same and not (path.is_file() and table.load(path).fingerprint == description["fingerprint"]):
            remedy = f"delete {place} and run 00_prepare_data again with {argument('dataset', str(path))}"
            remedy += ", if it is the same table, changed; else rename it, or give another -p data and -p runs"
            raise StudyError(f"{path} is not what {place} was prepared from, {source['path']} as it was; {remedy}")


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, read without its source.

    image_set: folder of its arrays; all_targets: (images, C) int8 by image id, 1 present, 0 absent, -1 difficult or
    unknown; boxes: one row an object, corners as fractions of width and height; the rest as in datasets.Dataset.
    """

    name: str
    folder: Path
    image_set: str
    labels: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    all_targets: pd.DataFrame
    boxes: pd.DataFrame
    notes: tuple[str, ...]
    fingerprint: str

    @classmethod
    def load(cls, dataset: str, data: str | Path) -> "Prepared":
        """dataset: its name, or the path of the user's own table, which must be the one that was prepared."""
        folder, name = rooted(data), name_of(dataset)
        path = folder / "prepared" / name / "dataset.json"
        if not path.exists():
            source = dataset if dataset in NAMES or is_table(dataset) else f"path/to/{name}.csv"
            place = {"data": str(folder)} if folder != rooted("data") else {}
            command = papermill("00_prepare_data", dataset=source, **place)
            raise StudyError(f"{name} is not prepared under {folder}; run: {command}")
        check_source(dataset, folder)
        description = read_json(path)
        labels = description["labels"]
        as_text = {"keep_default_na": False, "lineterminator": "\n"}  # whatever a label or an id is called
        cells = pd.read_csv(StringIO(description["targets"]), header=None, skiprows=1, dtype={0: str}, **as_text)
        return cls(
            name=name,
            folder=folder,
            image_set=description["images"],
            labels=tuple(labels),
            splits={split: tuple(ids) for split, ids in description["splits"].items()},
            all_targets=cells.iloc[:, 1:].astype(np.int8).set_axis(cells[0].tolist()).set_axis(labels, axis=1),
            boxes=pd.read_csv(StringIO(description["boxes"]), dtype={"image": str, "label": str}, **as_text),
            notes=tuple(description["notes"]),
            fingerprint=description["fingerprint"],
        )

    def ids(self, split: str) -> tuple[str, ...]:
        return self.splits[split]

    def targets(self, split: str) -> np.ndarray:
        return self.all_targets.loc[list(self.ids(split))].to_numpy(copy=True)

    def boxes_of(self, image_id: str) -> pd.DataFrame:
        return self.boxes[self.boxes["image"] == image_id]

    def images(self, split: str, size: int) -> Images:
        """The split's array at that size; `train` is read from `trainval`."""
        if not self.ids(split):
            raise StudyError(f"{self.name} has no {split} images; give some of its table the split {split}")
        holder = "trainval" if split == "train" else split
        path = self.folder / "arrays" / self.image_set / f"{holder}-{size}.npy"
        if not path.exists():
            remedy = f"with train_size and image_size so that {holder} images have {size} pixels"
            raise StudyError(f"there is no {path.name} of {self.name}; run 00_prepare_data.ipynb {remedy}")
        row_of = {image_id: row for row, image_id in enumerate(self.ids(holder))}
        rows = np.array([row_of[image_id] for image_id in self.ids(split)])
        return Images(mapped(path), rows, read_json(path.with_suffix(".json"))["sha256"])
