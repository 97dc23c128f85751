"""The user's own data, from a small table to what a stage leaves: what could go wrong without a word."""

import numpy as np
import pytest
from PIL import Image

from attnsem import StudyError, stages
from attnsem.datasets import load
from attnsem.datasets.prepared import Prepared, prepare

SIZES = {"train_size": 40, "image_size": 32}
SMALL = {"backbone": "densenet_small", "weights": "none", "epochs": 1, "batch_size": 5, "device": "cpu"}
LABELS = ("red", "green", "blue")


def table(folder, labels=LABELS, *, names=None, seed=0, stem="labels", unlabelled=""):
    """A CSV with 20 JPEGs of 40 pixels, 12 in train, 3 in val and 5 in test."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{number:06}.jpg" for number in range(20)]
    targets = random.integers(0, 2, (20, len(labels)))
    targets[:2] = [[0], [1]]
    targets[15:17] = [[0], [1]]
    rows = [",".join(f'"{name}"' for name in ("image", "split", *labels))]
    for number, (name, row) in enumerate(zip(names, targets, strict=True)):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / name)
        split = "train" if number < 12 else "val" if number < 15 else "test"
        cells = [unlabelled] * len(labels) if unlabelled and split == "test" else row
        rows.append(",".join([f'"{name}"', split, *map(str, cells)]))
    path = folder / f"{stem}.csv"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def prepared(path, data):
    return prepare(load(str(path), data=data), data=data, **SIZES)


def trained(path, home, **changed):
    return stages.train(1, dataset=str(path), runs=home / "runs", data=home / "data", **SIZES, **SMALL | changed)


def test_two_tables_of_one_name_do_not_share_what_is_prepared(tmp_path):
    birds, cars = table(tmp_path / "birds"), table(tmp_path / "cars", ("taxi", "bus"), seed=1)
    prepared(birds, tmp_path / "data")
    with pytest.raises(StudyError, match=r"it was made of .*birds/labels.csv\); rename one of the two tables"):
        prepared(cars, tmp_path / "data")
    with pytest.raises(StudyError, match=r"cars/labels.csv is not what .* was prepared from, .*birds/labels.csv"):
        trained(cars, tmp_path)
    assert trained(birds, tmp_path).manifest["labels"] == list(LABELS)


def test_tables_of_the_same_words_with_other_images_are_two(tmp_path):
    birds, cars = table(tmp_path / "birds"), table(tmp_path / "cars")
    Image.new("RGB", (40, 40)).save(cars.parent / "000003.jpg")
    prepared(birds, tmp_path)
    with pytest.raises(StudyError, match="is not what"):
        Prepared.load(str(cars), tmp_path)


def test_a_table_that_has_changed_is_noticed_and_one_that_has_moved_is_the_same(tmp_path):
    path = table(tmp_path / "birds")
    known = prepared(path, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Prepared.load(str(path), tmp_path).fingerprint == known.fingerprint
    moved = path.parent.rename(tmp_path / "elsewhere") / path.name
    assert Prepared.load(str(moved), tmp_path).fingerprint == known.fingerprint
    assert Prepared.load(str(path), tmp_path).fingerprint == known.fingerprint
    with pytest.raises(StudyError, match="is not what"):
        Prepared.load(str(tmp_path / "brids/labels.csv"), tmp_path)
    moved.write_text(moved.read_text().replace("train,1,", "train,0,", 1))
    with pytest.raises(StudyError, match="run 00_prepare_data again"):
        Prepared.load(str(moved), tmp_path)


def test_a_table_that_is_not_prepared_is_asked_for_by_its_path(tmp_path):
    path = table(tmp_path / "my birds", stem="UP").rename(tmp_path / "my birds/UP.CSV")
    with pytest.raises(StudyError, match=r"-p dataset '.*my birds/UP.CSV'"):
        trained(path, tmp_path)
    with pytest.raises(StudyError, match=r"run: papermill 00_prepare_data.ipynb out.ipynb -p dataset path/to/UP.csv"):
        trained("UP", tmp_path)
    assert prepared(path, tmp_path / "data").name == "UP"
    table(tmp_path, stem="birds")
    with pytest.raises(StudyError, match=r"did you mean .*/birds.csv\?"):
        load(str(tmp_path / "birds"), data=tmp_path)
