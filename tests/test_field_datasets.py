"""COCO, VOC2012 and NUS-WIDE, of small files in the official formats that are written here."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
from torchvision.datasets.voc import DATASET_YEAR_DICT

from attnsem import StudyError
from attnsem.datasets import NAMES, coco, load, nuswide, voc2007, voc2012
from attnsem.datasets.archives import Archive
from attnsem.datasets.dataset import BOX_COLUMNS, with_val_drawn
from attnsem.datasets.prepared import Prepared, prepare
from attnsem.files import ROOT
from tests.coco_like import IDS, instances
from tests.test_datasets import annotation, pixels, refused, targets_of

DOG, CAT, TOOTHBRUSH = 18, 17, 90
BOX = [10, 50, 50, 100]
TRAIN = {f"COCO_train2014_{number:012}.jpg": number for number in (9, 25, 30, 36, 49, 61)}
VAL = {f"COCO_val2014_{number:012}.jpg": number for number in (42, 73)}
OBJECTS = [
    *((9, DOG, BOX, 0), (9, DOG, [0, 0, 100.01, 200], 1), (25, CAT, [20, 20, 30, 40], 1), (25, DOG, [5, 5, 5, 5], 0)),
    *((30, CAT, BOX, 0), (36, TOOTHBRUSH, [7, 7, 0, 3], 0), (49, DOG, BOX, 0)),
]


@pytest.fixture
def coco2014(tmp_path):
    """Six and two images, one of each without any object, as COCO's three archives unpack."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/instances_train2014.json").write_text(json.dumps(instances(TRAIN, OBJECTS)))
    (root / "annotations/instances_val2014.json").write_text(json.dumps(instances(VAL, [(73, CAT, BOX, 0)])))
    (root / "annotations/captions_val2014.json").write_text("{}")
    for folder, names in {"train2014": TRAIN, "val2014": VAL}.items():
        pixels(root / folder, [name.removesuffix(".jpg") for name in names])
    return root


def test_coco_labels_are_the_80_of_the_file_by_rising_id():
    assert len(coco.LABELS) == len(set(coco.LABELS)) == len(IDS) == 80
    assert [coco.LABELS[IDS.index(number)] for number in (1, 13, DOG, 67, 90)] == [
        *("person", "stop sign", "dog", "dining table", "toothbrush")
    ]


@pytest.mark.parametrize("place", ["coco", ""])
def test_coco_from_any_of_its_folders(coco2014, tmp_path, place):
    dataset = load("coco2014", source=tmp_path / place, data=tmp_path / "data")
    train = [name.removesuffix(".jpg") for name in TRAIN]
    assert dataset.labels == coco.LABELS and dataset.images == "coco2014"
    assert dataset.splits["trainval"] == tuple(train[:5]) and dataset.splits["test"] == ("COCO_val2014_000000000073",)
    assert len(dataset.splits["val"]) == 1 and {*dataset.splits["train"], *dataset.splits["val"]} == {*train[:5]}
    assert targets_of(dataset) == {
        ("dog", train[0]): 1,
        ("cat", train[1]): -1,
        ("dog", train[1]): 1,
        ("cat", train[2]): 1,
        ("toothbrush", train[3]): 1,
        ("dog", train[4]): 1,
        ("cat", "COCO_val2014_000000000073"): 1,
    }
    assert dataset.targets.to_numpy().dtype == np.int8 and dataset.targets.shape == (6, 80)
    assert dataset.open(train[0]).size == (1, 1)
    assert list(dataset.boxes.columns) == BOX_COLUMNS and len(dataset.boxes) == 7
    assert dataset.boxes.iloc[0].tolist() == [train[0], "dog", 0.1, 0.25, 0.6, 0.75, 0]
    assert dataset.boxes.iloc[1].tolist() == [train[0], "dog", 0, 0, 1, 1, 1]
    assert dataset.notes[0].startswith("The labels of COCO's test images are not public: test is val2014")
    assert dataset.notes[1:] == (
        "2 images without any object are left out.",
        "1 labels are difficult (-1): all their objects in an image are crowds.",
        "1 boxes have no area and are left out; their labels are kept.",
    )


def test_coco_2017_from_its_archives(coco2014, tmp_path):
    """The same with the names of 2017, whose images have numbers alone."""
    packed = tmp_path / "packed"
    packed.mkdir()
    for split, number in (("train", 9), ("val", 73)):
        image = f"{number:012}.jpg"
        text = json.dumps(instances({image: number}, [(number, DOG, BOX, 0)]))
        with zipfile.ZipFile(packed / f"{split}2017.zip", "w") as archive:
            archive.write(coco2014 / f"{split}2014/COCO_{split}2014_{image}", f"{split}2017/{image}")
        with zipfile.ZipFile(packed / "annotations_trainval2017.zip", "a") as archive:
            archive.writestr(f"annotations/instances_{split}2017.json", text)
    dataset = load("coco2017", source=packed, data=tmp_path / "data")
    assert (dataset.name, dataset.splits["train"], dataset.splits["test"]) == (
        *("coco2017", ("000000000009",), ("000000000073",)),
    )
    assert targets_of(dataset) == {("dog", "000000000009"): 1, ("dog", "000000000073"): 1}
    assert (
        load("coco2017", data=tmp_path / "data").fingerprint == dataset.fingerprint
    )  # without a source: what lies there
    (packed / "val2017.zip").unlink()
    refused("not there", "val2017.zip", name="coco2017", source=packed, data=tmp_path / "other")


def test_coco_missing_files(coco2014, tmp_path):
    given = {"name": "coco2014", "source": coco2014, "data": tmp_path / "data"}
    (coco2014 / "train2014/COCO_train2014_000000000025.jpg").unlink()
    refused("1 of 6 images are missing", "000025.jpg", **given)
    (coco2014 / "annotations/instances_train2014.json").unlink()
    refused("instances_train2014.json is missing", "annotations_trainval", **given)
    refused("train2017.zip", "-p source takes a folder of", **given | {"name": "coco2017"})


WRONG = {
    "not json": lambda tables: "{",
    "an array": lambda tables: [],
    "no categories": lambda tables: tables | {"categories": []},
    "another category": lambda tables: (
        tables | {"categories": [*tables["categories"][:-1], {"id": 90, "name": "comb"}]}
    ),
    "an object of no image": lambda tables: tables | {"images": tables["images"][:2]},
    "a file elsewhere": lambda tables: tables | {"images": [tables["images"][0] | {"file_name": "../up.jpg"}]},
    "an image twice": lambda tables: tables | {"images": [*tables["images"], tables["images"][0]]},
    "a box of three": lambda tables: tables | {"annotations": [tables["annotations"][0] | {"bbox": [1, 2, 3]}]},
    "a box of words": lambda tables: tables | {"annotations": [tables["annotations"][0] | {"bbox": list("abcd")}]},
    "a box that is no number": lambda tables: (
        tables | {"annotations": [tables["annotations"][0] | {"bbox": [0, 0, float("nan"), 1]}]}
    ),
    "an odd crowd": lambda tables: tables | {"annotations": [tables["annotations"][0] | {"iscrowd": 2}]},
    "no crowd": lambda tables: tables | {"annotations": [{"image_id": 9, "category_id": 1, "bbox": BOX}]},
}


@pytest.mark.parametrize("name", WRONG)
def test_coco_bad_annotations(coco2014, tmp_path, name):
    wrong = WRONG[name](instances(TRAIN, OBJECTS))
    text = wrong if isinstance(wrong, str) else json.dumps(wrong)
    (coco2014 / "annotations/instances_train2014.json").write_text(text)
    words = "instances_train2014.json is missing or no list of COCO's instances", "as a CSV (data/README.md)"
    refused(*words, name="coco2014", source=coco2014, data=tmp_path)


def test_the_field_counts_crowds_as_present_and_a_reading_of_difficult_does_too(coco2014, tmp_path):
    """ML-GCN's coco.py takes the category of every object, whatever its iscrowd."""
    dataset, text = (
        load("coco2014", source=coco2014, data=tmp_path),
        (coco2014 / "annotations/instances_train2014.json"),
    )
    tables = json.loads(text.read_text())
    theirs = {(one["image_id"], one["category_id"]) for one in tables["annotations"]}
    trainval = dataset.targets.loc[list(dataset.splits["trainval"])]
    ours = {(int(image[-12:]), IDS[place]) for image, row in trainval.iterrows() for place in np.flatnonzero(row)}
    assert ours == theirs


# VOC2012

IMAGES = {"train": [f"2008_{number:06}" for number in range(2, 12)], "val": ["2009_000001", "2011_003353"]}


@pytest.fixture
def voc(tmp_path):
    """Twelve images as VOC2012 lays them out, with the lists of one label and floats in annotations; beside VOC2007."""
    root = tmp_path / "VOCdevkit/VOC2012"
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    (tmp_path / "VOCdevkit/VOC2007/ImageSets").mkdir(parents=True)
    for split, images in IMAGES.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{image}\n" for image in images))
        (root / f"ImageSets/Main/dog_{split}.txt").write_text("".join(f"{image}  1\n" for image in images))
        for image in images:
            dogs = [("dog", (1, 1, 45.70000076293945, 200), 0), ("cat", (1, 1, 9, 9), 1)]
            (root / f"Annotations/{image}.xml").write_text(annotation(dogs))
    pixels(root / "JPEGImages", [*IMAGES["train"], *IMAGES["val"]])
    return root


def test_voc2012_tests_on_val(voc, tmp_path):
    dataset = load("voc2012", source=tmp_path, data=tmp_path / "data")
    assert dataset.name == dataset.images == "voc2012" and dataset.labels == voc2007.LABELS
    assert dataset.splits["trainval"] == tuple(IMAGES["train"]) and dataset.splits["test"] == tuple(IMAGES["val"])
    assert [len(dataset.splits[split]) for split in ("train", "val")] == [8, 2]
    assert (dataset.targets["dog"] == 1).all() and (dataset.targets["cat"] == -1).all()
    assert dataset.boxes.xmax.iloc[0] == pytest.approx(0.457) and len(dataset.boxes) == 24
    assert "test images are not public: test is its val" in dataset.notes[0]


def test_voc2012_refuses_the_images_of_another_year(voc, tmp_path):
    (voc / "ImageSets/Main/val.txt").write_text("000005\n")
    refused("lists 000005", "called like 2008_000002", name="voc2012", source=voc, data=tmp_path / "data")


def test_voc2012_lists_and_annotations_disagree_and_there_is_a_way_out(voc, tmp_path):
    listing = voc / "ImageSets/Main/dog_val.txt"
    listing.write_text(listing.read_text().replace("2009_000001  1", "2009_000001 -1"))
    given = {"name": "voc2012", "source": voc, "data": tmp_path / "data"}
    refused("2009_000001, label dog: the list says 0 and Annotations 1", "or delete its lists", **given)
    listing.unlink()
    assert load(**given).targets.loc["2009_000001", "dog"] == 1


# NUS-WIDE

LISTED = {
    "Train": [f"actor/{number:04}_21244941{number:02}" for number in range(1, 11)],
    "Test": ["zebra/0001_99", "zebra/0002_98"],
}


@pytest.fixture
def nus(tmp_path):
    """Twelve images, lists with backslashes as NUS-WIDE's are, and the 162 files of labels."""
    root = tmp_path / "NUS-WIDE"
    for folder in ("ImageList", "Groundtruth/TrainTestLabels"):
        (root / folder).mkdir(parents=True)
    for split, images in LISTED.items():
        lines = [image.replace("/", "\\") + ".jpg" for image in images]
        (root / f"ImageList/{split}Imagelist.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
        for label in nuswide.LABELS:
            marks = [int(label == "sky" and number % 2 == 0) for number, _ in enumerate(images)]
            path = root / f"Groundtruth/TrainTestLabels/Labels_{label}_{split}.txt"
            path.write_text("".join(f"{mark}\n" for mark in marks))
    for folder in ("actor", "zebra"):
        pixels(
            root / "Flickr" / folder,
            [image.split("/")[1] for image in [*LISTED["Train"], *LISTED["Test"]] if folder in image],
        )
    return {"name": "nuswide", "source": root, "data": tmp_path / "data"}


def test_nuswide(nus):
    dataset = load(**nus)
    assert len(dataset.labels) == len(set(dataset.labels)) == 81 and list(dataset.labels) == sorted(dataset.labels)
    assert dataset.splits["trainval"] == tuple(LISTED["Train"]) and dataset.splits["test"] == tuple(LISTED["Test"])
    assert len(dataset.splits["val"]) == 2 and dataset.boxes.empty
    shown = [*LISTED["Train"][::2], *LISTED["Test"][::2]]
    assert targets_of(dataset) == {("sky", image): 1 for image in shown}
    assert dataset.open("zebra/0002_98").size == (1, 1)
    assert dataset.notes[1:] == ("6 of 12 images have no label; they are kept.",)
    assert not (nus["data"] / "nuswide/gone.txt").exists()


def test_nuswide_counts_and_names_what_is_gone(nus):
    gone = [*LISTED["Train"][:2], LISTED["Test"][0]]
    for image in gone:
        (nus["source"] / f"Flickr/{image}.jpg").unlink()
    dataset = load(**nus)
    assert not {*gone} & {*dataset.targets.index} and len(dataset.targets) == 9
    assert targets_of(dataset) == {("sky", image): 1 for image in LISTED["Train"][2::2]}
    (note,) = (note for note in dataset.notes if "gone" in note)
    assert note.startswith("3 of 12 images are gone and left out") and note.endswith(f": {', '.join(gone)}.")
    assert (nus["data"] / "nuswide/gone.txt").read_text().split() == gone


def test_nuswide_names_all_that_is_gone_in_a_file_when_they_are_many(nus, monkeypatch):
    monkeypatch.setattr(nuswide, "NAMED", 2)
    for image in LISTED["Train"][:5]:
        (nus["source"] / f"Flickr/{image}.jpg").unlink()
    notes = "\n".join(load(**nus).notes)
    assert (
        f"5 of 12 images are gone and left out; nuswide/gone.txt in the data folder names all: {LISTED['Train'][0]}, "
        in notes
    )
    assert f"{LISTED['Train'][1]}, …." in notes and LISTED["Train"][2] not in notes
    assert len((nus["data"] / "nuswide/gone.txt").read_text().split()) == 5


def test_nuswide_missing_files(nus):
    for path in (nus["source"] / "Flickr/zebra").iterdir():
        path.unlink()
    refused("has none of the 2 images of", "TestImagelist.txt", **nus)
    labels = nus["source"] / "Groundtruth/TrainTestLabels/Labels_sky_Test.txt"
    labels.write_text("1\n")
    refused("Labels_sky_Test.txt has 1 lines for 2 images", "Groundtruth.zip", **nus)
    labels.unlink()
    refused("Labels_sky_Test.txt is missing", **nus)
    shutil.rmtree(nus["source"] / "Flickr")
    refused("holds no unpacked copy, and not there", "Flickr.zip", **nus)


@pytest.mark.parametrize("line", ["../x\\a.jpg", "..\\a.jpg", "/etc\\a.jpg", "actor\\a.png", "a.jpg", "a\\b\\c.jpg"])
def test_nuswide_bad_line(nus, line):
    path = nus["source"] / "ImageList/TestImagelist.txt"
    path.write_text(f"zebra\\0001_99.jpg\n{line}\n")
    refused("TestImagelist.txt, line 2", "is not an image such as actor\\0001_2124494179.jpg", **nus)


# All of them


def test_a_val_is_drawn_once_and_for_all():
    images = [f"{number}" for number in range(1000)]
    splits = with_val_drawn(images, ["a"])
    drawn = np.sort(np.random.default_rng(0).permutation(1000)[:200])
    assert splits["val"] == tuple(images[place] for place in drawn) and splits["trainval"] == tuple(images)
    assert splits["train"] == tuple(image for image in images if image not in splits["val"])


def test_published_checksums():
    """VOC2012's MD5 as torchvision has it; COCO's SHA-256 are whole."""
    assert [archive.md5 for archive in voc2012.ARCHIVES] == [DATASET_YEAR_DICT["2012"]["md5"]]
    for archives in coco.ARCHIVES.values():
        assert len(archives) == 3 and all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in archives)


@pytest.mark.parametrize("name", ["voc2012", "coco2014", "coco2017", "nuswide"])
def test_nothing_there_and_no_server(tmp_path, monkeypatch, name):
    module = {"voc2012": voc2012, "nuswide": nuswide}.get(name, coco)
    known = coco.ARCHIVES[name] if module is coco else module.ARCHIVES
    dead = [Archive(one.name, tuple((tmp_path / one.name).as_uri() for _ in one.urls), None) for one in known]
    monkeypatch.setattr(module, "ARCHIVES", {name: dead} if module is coco else dead)
    words = ["no source answered", *(one.name for one in dead), "-p source PATH"]
    refused(*words, *["Flickr.zip is on no public server"] * (name == "nuswide"), name=name, data=tmp_path / "data")


def test_what_is_not_theirs_is_refused(tmp_path):
    refused("coco2014 is not read in part", name="coco2014", data=tmp_path, partial=True)
    refused("the split of nuswide is given", name="nuswide", data=tmp_path, split_seed=1)
    refused("rename the file", name=str(tmp_path / "coco2014.csv"), data=tmp_path)
    refused("did you mean coco2014?", name="coco14", data=tmp_path)


def test_every_name_is_told_where_data_sets_are_named():
    """In the notebooks' parameters, and in data/README.md."""
    told = "scenes, voc2007/2012, mirflickr24/38, coco2014/2017, nuswide"
    families = [re.fullmatch("([a-z]+)(.*)", word).groups() for word in told.split(", ")]
    assert [stem + number for stem, numbers in families for number in numbers.split("/")] == [*NAMES]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))[:-1]:  # the last, the report, reads runs alone
        lines = json.loads(path.read_text())["cells"][2]["source"]
        assert any(f"# {told}, or the path" in line for line in lines if line.startswith("dataset: ")), path.name
    text = (ROOT / "data/README.md").read_text()
    assert all(f"`{name}`" in text for name in NAMES)


@pytest.mark.parametrize("name", ["coco2014", "voc2012", "nuswide"])
def test_they_are_prepared_and_read_again(request, tmp_path, name):
    source = request.getfixturevalue({"voc2012": "voc", "nuswide": "nus"}.get(name, name))
    source = source["source"] if name == "nuswide" else source
    dataset = load(name, source=source, data=tmp_path / "data")
    prepare(dataset, data=tmp_path / "data", train_size=8, image_size=4)
    known = Prepared.load(name, tmp_path / "data")
    assert known.fingerprint == dataset.fingerprint and known.notes == dataset.notes
    assert known.all_targets.equals(dataset.targets.rename_axis(index=None, columns=None))
    assert len(known.images("train", 8)) == len(dataset.splits["train"])
    with pytest.raises(StudyError, match="is not prepared"):
        Prepared.load("coco2017", tmp_path / "data")
