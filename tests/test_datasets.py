import csv
import hashlib
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.voc import DATASET_YEAR_DICT

from attnsem import StudyError
from attnsem.datasets import NAMES, load, mirflickr, publish_split, voc2007
from attnsem.datasets.archives import Archive
from attnsem.datasets.dataset import BOX_COLUMNS

SHARED = Path(__file__).parents[2] / "shared"


def needs(folder):
    return pytest.mark.skipif(not (SHARED / folder).is_dir(), reason=f"no real labels in {SHARED / folder}")


def pixel(path, size=(1, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def pixels(folder, names):
    """One JPEG of one pixel under many names, so that thousands take no time."""
    folder.mkdir(parents=True)
    pixel(folder / "first.jpg")
    for name in names:
        (folder / f"{name}.jpg").hardlink_to(folder / "first.jpg")
    (folder / "first.jpg").unlink()


def refused(*words, **given):
    """load() says all the words in its StudyError."""
    with pytest.raises(StudyError) as caught:
        load(**given)
    for word in words:
        assert word in str(caught.value), f"{word!r} not in {caught.value!s:.500}"


# VOC2007


def annotation(objects, size=(100, 200)):
    things = "".join(
        f"<object><name>{label}</name><part><name>head</name><bndbox><xmin>7</xmin></bndbox></part>"
        f"<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for label, box, difficult in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{things}</annotation>"


BOX = (1, 1, 100, 200)
VOC = {
    "train": {"000002": [("dog", BOX, 0), ("dog", (11, 51, 60, 150), 1)]},
    "val": {"000001": [("cat", BOX, 1), ("cat", BOX, 1), ("train", BOX, 0)]},
    "test": {"000003": [("cat", BOX, 0)], "000004": [("dog", BOX, 1)]},
}
LISTED = {
    ("dog", "000002"): 1,
    ("cat", "000001"): 0,
    ("train", "000001"): 1,
    ("cat", "000003"): 1,
    ("dog", "000004"): 0,
}


@pytest.fixture
def voc(tmp_path):
    """Four images in the official layout, with lists and annotations that agree."""
    root = tmp_path / "source/VOCdevkit/VOC2007"
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for split, images in VOC.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{image}\n" for image in images))
        for label in voc2007.LABELS:
            lines = (f"{image} {LISTED.get((label, image), -1):2d}\n" for image in images)
            (root / f"ImageSets/Main/{label}_{split}.txt").write_text("".join(lines))
        for image, objects in images.items():
            (root / f"Annotations/{image}.xml").write_text(annotation(objects))
    pixels(root / "JPEGImages", [image for images in VOC.values() for image in images])
    return root


def targets_of(dataset):
    """{(label, image): target} of all that are not absent."""
    return {(label, image): int(t) for label in dataset.labels for image, t in dataset.targets[label].items() if t}


VOC_TARGETS = {key: 1 if listed else -1 for key, listed in LISTED.items()}


@pytest.mark.parametrize("up", [0, 1, 2])
def test_voc_from_any_of_its_folders(voc, tmp_path, up):
    dataset = load("voc2007", source=[voc, *voc.parents][up], data=tmp_path)
    assert dataset.splits["train"] == ("000002",) and dataset.splits["test"] == ("000003", "000004")
    assert dataset.splits["trainval"] == ("000001", "000002")
    assert targets_of(dataset) == VOC_TARGETS
    assert dataset.targets.to_numpy().dtype == np.int8 and dataset.targets.shape == (4, 20)
    assert dataset.open("000003").size == (1, 1)
    assert list(dataset.boxes.columns) == BOX_COLUMNS
    # Pixels 11 to 60 of 100 are all those between a tenth and six tenths of the width.
    assert dataset.boxes.iloc[1].tolist() == ["000002", "dog", 0.1, 0.25, 0.6, 0.75, 1]
    assert dataset.boxes.iloc[0].tolist() == ["000002", "dog", 0, 0, 1, 1, 0]


def test_voc_from_lists_or_annotations_alone(voc, tmp_path):
    for path in (voc / "ImageSets/Main").glob("*_*.txt"):
        path.rename(tmp_path / path.name)
    assert targets_of(load("voc2007", source=voc, data=tmp_path)) == VOC_TARGETS
    (voc / "Annotations").rename(tmp_path / "Annotations")
    refused("neither Annotations nor all lists", name="voc2007", source=voc, data=tmp_path)
    for path in tmp_path.glob("*_*.txt"):
        path.rename(voc / "ImageSets/Main" / path.name)
    dataset = load("voc2007", source=voc, data=tmp_path)
    assert targets_of(dataset) == VOC_TARGETS and dataset.boxes.empty


def test_voc_lists_and_annotations_disagree(voc, tmp_path):
    (voc / "ImageSets/Main/dog_test.txt").write_text("000003 -1\n000004  1\n")
    refused("image 000004, label dog", "the list says 1", "Annotations -1", name="voc2007", source=voc, data=tmp_path)


def test_voc_missing_files(voc, tmp_path):
    given = {"name": "voc2007", "source": voc, "data": tmp_path}
    for image in ("000001", "000004"):
        (voc / f"JPEGImages/{image}.jpg").unlink()
    refused("2 of 4 images are missing", "000001.jpg", **given)
    (voc / "Annotations/000004.xml").unlink()
    refused("000004.xml is missing; unpack", **given)
    (voc / "ImageSets/Main/test.txt").unlink()
    refused("test.txt is missing", "VOCtest_06-Nov-2007.tar", **given)


def test_voc_image_twice_in_one_list(voc, tmp_path):
    (voc / "ImageSets/Main/test.txt").write_text("000003\n000004\n000003\n")
    refused("image 000003 is twice in test; list each image once", name="voc2007", source=voc, data=tmp_path)


def test_voc_unpacked_in_two_folders(voc, tmp_path):
    (tmp_path / "source/test/VOC2007/ImageSets").mkdir(parents=True)
    given = {"name": "voc2007", "source": tmp_path / "source", "data": tmp_path}
    refused("several copies", "copy one into the other if they are parts", **given)


def test_voc_image_in_two_splits(voc, tmp_path):
    for path in (voc / "ImageSets/Main").glob("*_*.txt"):
        path.unlink()
    (voc / "ImageSets/Main/val.txt").write_text("000001\n000003\n")
    refused("image 000003 is in two splits", name="voc2007", source=voc, data=tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "no element found"),
        ("<annotation>", "no element found"),
        ("<annotation/>", "an image of 0 x 0 pixels"),
        (annotation([]).replace("height>", "depth>"), "an image of 100 x 0 pixels"),
        (annotation([("unicorn", BOX, 0)]), "an object 'unicorn'"),
        (annotation([("dog", (1, 1, "wide", 9), 0)]), "could not convert string to float: 'wide'"),
        (annotation([("dog", BOX, 0)], size=(0, 0)), "an image of 0 x 0 pixels"),
        (annotation([], size=(500, "nan")), "an image of 500 x nan pixels"),
        ('<!DOCTYPE a [<!ENTITY x "ha">]><annotation>&x;</annotation>', "EntitiesForbidden"),
    ],
)
def test_voc_bad_annotation(voc, tmp_path, content, fault):
    (voc / "Annotations/000004.xml").write_text(content)
    refused("as a CSV (data/README.md)", name="voc2007", source=voc, data=tmp_path)
    refused(f"000004.xml is no VOC annotation ({fault}", name="voc2007", source=voc, data=tmp_path)


@needs("voc2007")
def test_voc_real_counts(tmp_path):
    """Present and difficult were counted in the lists by `grep -c " 1$"` and `" 0$"`, objects in boxes.csv."""
    root = tmp_path / "VOCdevkit/VOC2007"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets").symlink_to(SHARED / "voc2007/ImageSets")
    with open(SHARED / "voc2007/boxes.csv", newline="") as file:
        for image, rows in groupby(csv.DictReader(file), key=lambda row: row["image"]):
            rows = list(rows)
            objects = [(r["label"], [r[side] for side in BOX_COLUMNS[2:6]], r["difficult"]) for r in rows]
            size = rows[0]["width"], rows[0]["height"]
            (root / f"Annotations/{image}.xml").write_text(annotation(objects, size))
    pixels(root / "JPEGImages", [f"{number:06d}" for number in range(1, 9964)])
    dataset = load("voc2007", source=tmp_path, data=tmp_path / "data")
    sizes = {split: len(ids) for split, ids in dataset.splits.items()}
    assert sizes == {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952}
    for split, present, difficult in (("trainval", 7306, 607), ("test", 7013, 619)):
        targets = dataset.targets.loc[list(dataset.splits[split])].to_numpy()
        assert ((targets == 1).sum(), (targets == -1).sum()) == (present, difficult)
    assert dataset.boxes.difficult.value_counts().to_dict() == {0: 24640, 1: 5998}
    corners = dataset.boxes[BOX_COLUMNS[2:6]]
    assert corners.min().min() == 0 and corners.max().max() == 1


# MIRFlickr


def lay_out(folder, numbers, lists):
    pixels(folder / "mirflickr", [f"im{number}" for number in numbers])
    (folder / "annotations").mkdir()
    for label in mirflickr.LABELS["mirflickr38"]:
        (folder / f"annotations/{label}.txt").write_text("".join(f"{n}\n" for n in lists.get(label, [])))
    return folder


@pytest.fixture
def flickr(tmp_path):
    """30 images: 21 to 50, im50 without a label; 49 is in the strict list of people only; 7 is not there."""
    lists = {"sky": range(21, 49), "people": [7, 22], "people_r1": [22, 49], "water": [25_000]}
    return {"name": "mirflickr38", "source": lay_out(tmp_path / "part", range(21, 51), lists), "data": tmp_path}


def test_mirflickr_labels():
    """24 and 38 of the names of the lists, the strict ones behind."""
    short, long = mirflickr.LABELS["mirflickr24"], mirflickr.LABELS["mirflickr38"]
    assert (len(short), len(long)) == (24, 38) and long[:24] == short == tuple(sorted(short))
    assert long[24:] == tuple(sorted(long[24:])) and all(f"{s}_r1" in long or s in short for s in long[:24])
    assert {label.removesuffix("_r1") for label in long[24:]} < set(short)


def test_mirflickr_partial(flickr):
    refused("30 of 25000", "-p partial True", **flickr)
    dataset = load(**flickr, partial=True)
    assert (len(dataset.labels), dataset.images, len(dataset.targets)) == (38, "mirflickr", 30)
    assert dataset.targets["sky"].sum() == 28 and dataset.targets["water"].sum() == 0
    assert {image: int(t) for image, t in dataset.targets["people_r1"].items() if t} == {"im22": 1, "im49": 1}
    assert dataset.targets.loc["im50"].sum() == 0
    assert [len(dataset.splits[split]) for split in ("train", "val", "trainval", "test")] == [15, 3, 18, 12]
    notes = "\n".join(dataset.notes)
    for words in ("30 of 25000", "1 of 30 images have no label", "1 images have people_r1", "im49", "seed 0"):
        assert words in notes


def test_mirflickr_24_and_38_share_images_and_split(flickr):
    long, short = (load(**flickr | {"name": name}, partial=True) for name in ("mirflickr38", "mirflickr24"))
    assert short.splits == long.splits and short.images == long.images and short.name == "mirflickr24"
    assert short.fingerprint != long.fingerprint
    assert not any("people_r1" in note for note in short.notes)


def test_mirflickr_lists_as_windows_writes_them(flickr):
    path = flickr["source"] / "annotations/sky.txt"
    path.write_bytes(b"\xef\xbb\xbf21\r\n\r\n 23 \r\n")
    assert load(**flickr, partial=True).targets["sky"].sum() == 2


@pytest.mark.parametrize("line", ["dog", "0", "25001", "-3", "2.5", "1_0", "21 22", "\xff"])
def test_mirflickr_bad_line(flickr, line):
    (flickr["source"] / "annotations/sky.txt").write_bytes(b"21\n\n" + line.encode("latin-1") + b"\n")
    refused("sky.txt, line 3", **flickr, partial=True)


def test_mirflickr_missing_files(flickr):
    (flickr["source"] / "annotations/sky.txt").unlink()
    refused("sky.txt is missing", "MD5 none published", **flickr, partial=True)
    for path in (flickr["source"] / "mirflickr").iterdir():
        path.unlink()
    refused("-p source takes a folder of mirflickr25k.zip", **flickr, partial=True)
    pixel(flickr["source"] / "mirflickr/im4.jpg")
    refused("1 of 25000", "5 at least", **flickr, partial=True)
    refused("1 of 25000", "-p partial True", **flickr)


def test_mirflickr_split_is_the_stated_one():
    numbers = list(range(1, 25_001))
    drawn = np.random.default_rng(0).permutation(25_000) + 1
    splits = mirflickr.split(numbers)
    for split, part in {"val": drawn[:3000], "train": drawn[3000:15_000], "test": drawn[15_000:]}.items():
        assert splits[split] == tuple(f"im{number}" for number in np.sort(part))
    assert set(splits["trainval"]) == {*splits["train"], *splits["val"]} and len(splits["trainval"]) == 15_000


def test_another_split_of_mirflickr_has_arrays_of_its_own(flickr):
    one, other = (load(**flickr, partial=True, split_seed=seed) for seed in (0, 1))
    assert (one.images, other.images) == ("mirflickr", "mirflickr-split1") and one.fingerprint != other.fingerprint
    assert one.splits["test"] != other.splits["test"] and {*one.targets.index} == {*other.targets.index}
    refused("the split of voc2007 is given; leave out -p split_seed", name="voc2007", data=flickr["data"], split_seed=1)


@needs("mirflickr25k")
def test_mirflickr_real_counts(tmp_path):
    """`cat *.txt | sort -u | wc -l` gives 24,581 images with a label; the four odd ones are `comm`'s."""
    pixels(tmp_path / "mirflickr", [f"im{number}" for number in range(1, 25_001)])
    (tmp_path / "annotations").symlink_to(SHARED / "mirflickr25k/annotations")
    dataset = load("mirflickr38", source=tmp_path, data=tmp_path / "data")
    assert [len(dataset.splits[split]) for split in ("train", "val", "test")] == [12_000, 3_000, 10_000]
    lines = {label: (SHARED / f"mirflickr25k/annotations/{label}.txt").read_text() for label in dataset.labels}
    assert dataset.targets.sum().to_dict() == {label: len(set(text.split())) for label, text in lines.items()}
    assert "419 of 25000 images have no label; they are kept." in dataset.notes
    assert sum("im4252, im4262, im20392, im24768" in note for note in dataset.notes) == 1
    assert not any("Partial" in note for note in dataset.notes)


# The user's own CSV

OWN = """image,split,dog,cat
a.png,train,1,0
b.png,train,0,
deep/c.png,test,-1,1
d.png,test,0,0
"""
OWN_BOXES = "image,label,xmin,ymin,xmax,ymax\na.png,dog,0,5,10,20\n"


def own(folder, table=OWN, boxes=None):
    for name in ("a", "b", "deep/c", "d"):
        pixel(folder / f"{name}.png", size=(20, 40))
    (folder / "pets.csv").write_text(table)
    if boxes:
        (folder / "pets_boxes.csv").write_text(boxes)
    return {"name": str(folder / "pets.csv"), "data": folder}


def test_own_table(tmp_path):
    dataset = load(**own(tmp_path, boxes=OWN_BOXES))
    assert (dataset.name, dataset.images, dataset.labels) == ("pets", "pets", ("dog", "cat"))
    assert dataset.splits["trainval"] == dataset.splits["train"] == ("a.png", "b.png")
    assert dataset.splits["val"] == () and dataset.splits["test"] == ("deep/c.png", "d.png")
    assert dataset.targets.to_numpy().tolist() == [[1, 0], [0, -1], [-1, 1], [0, 0]]
    assert dataset.boxes.to_numpy().tolist() == [["a.png", "dog", 0, 0.125, 0.5, 0.5, 0]]
    assert dataset.notes == (
        "2 of 4 images have no label; they are kept.",
        "WARNING: no trainval image has a 1 for cat: it cannot be learnt.",
        "WARNING: no test image has a 1 for dog: its AP says nothing.",
    )
    assert dataset.open("deep/c.png").size == (20, 40)


def test_own_table_as_spreadsheets_and_pandas_write_it(tmp_path):
    given = own(tmp_path)
    content = "\ufeff" + OWN.replace("1,0", "1.0, 0.0").replace("b.png,train", "b.png,val").replace("\n", "\r\n")
    Path(given["name"]).write_bytes(content.encode())
    dataset = load(**given)
    assert dataset.targets.loc["a.png"].tolist() == [1, 0]
    assert dataset.splits["val"] == ("b.png",) and dataset.splits["trainval"] == ("a.png", "b.png")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image,", "picture,", ["no column 'image'"]),
        ("split,", "part,", ["no column 'split'"]),
        ("dog,cat", "dog,dog", ["line 1", "'dog'", "twice"]),
        ("dog,cat", "mAP,cat", ["line 1", "'mAP'", "rename"]),
        ("dog,cat", "d\u00e9,de\u0301", ["line 1", "twice"]),  # the same letter, as two systems write it
        ("image,", "im\u0430ge,", ["no column 'image'", "\\u0430"]),  # a Cyrillic letter that looks like ours
        ("dog,cat", "dog,cat, black", ["line 2: 4 cells under 5 column names", "quotes"]),
        ("dog,cat", "dog,cat,", ["line 1", "''", "empty"]),
        ("test,0,0", "test,0", ["line 5: 3 cells under 4"]),
        ("0,\n", "0\n", ["line 3: 3 cells under 4"]),
        ("a.png,train,1,0\n", '\n,,,\na.png,train,1,0\n\n"b.\npng",train,0,7\n', ["line 6, column cat: '7'"]),
        ("\nb.png", '\n"b.png', ["line 3", "quotes"]),
        (OWN, OWN.replace(",", "|"), ["line 1: '|' stands where a comma should", "commas or semicolons"]),
        (OWN, OWN.replace(",", ";").replace("split", "part"), ["no column 'image' but 'image;part;dog;cat'"]),
        (OWN, OWN.replace(",", ";").replace("1;0", "1,0"), ["line 2: 3 cells under 4 column names"]),
        ("train,0", "train,WAHR", ["line 3, column dog: 'WAHR'", "true and false"]),
        (OWN, OWN.replace(",", "\t"), ["line 1: '\\t' stands where a comma should"]),
        (",0", ",-1", ["line 2, column cat: '-1'", "0 for absent"]),
        (OWN, OWN.replace("1,0", "1,1").replace("0,0", "0,"), ["line 3, column cat: ''", "a 0 somewhere"]),
        ("b.png", "./a.png", ["line 3, column image: './a.png'", "once"]),
        ("b.png", "b\0.png", ["line 3, column image", "an image file"]),
        ("b.png", "b" * 999, ["line 3, column image: 'bbb", "an image file"]),
        ("train,0", "train,\u22121", ["line 3, column dog", "\\u2212"]),
        ("b.png,train", "b.png,trainval", ["line 3, column split", "'trainval'", "train, val or test"]),
        ("b.png,train", "b.png,", ["line 3, column split", "''"]),
        ("b.png,train,0", "b.png,train,2", ["line 3, column dog", "'2'", "1, 0, -1 or empty"]),
        ("-1,1", "-1,yes", ["line 4, column cat", "'yes'"]),
        ("d.png", "e.png", ["line 5, column image", "'e.png'"]),
        ("d.png", "deep", ["line 5, column image", "'deep'"]),
        ("b.png", "a.png", ["line 3, column image", "'a.png'", "once"]),
        ("test", "val", ["column split", "test"]),
        ("train", "test", ["column split", "train"]),
        ("d.png,test,0,0", "d.png,test,0,0,1", ["line 5: 5 cells under 4 column names"]),
        (OWN, "", ["no column 'image' but nothing"]),
        (OWN, "image,split\na.png,train\n", ["no label column"]),
    ],
)
def test_own_table_that_is_wrong(tmp_path, old, new, words):
    assert old in OWN
    refused("pets.csv", *words, **own(tmp_path, OWN.replace(old, new)))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",", ";"),  # Excel where a comma is the decimal point
        (",1", ",TRUE"),
        (",0", ",False"),
        (",0", ",0.0"),
        (",1", ";1,0"),
    ],
)
def test_own_table_as_excel_writes_it(tmp_path, old, new, end):
    """With its mark of UTF-8 in front, and a `;` from whatever it is; the boxes too."""
    expected = load(**own(tmp_path / "plain", boxes=OWN_BOXES))
    table = OWN.replace(old, new)
    if ";" in table:
        table = "\n".join(
            line.replace("1,0", "one").replace(",", ";").replace("one", "1,0") for line in table.split("\n")
        )
    given = own(tmp_path / "excel")
    Path(given["name"]).write_bytes(("\ufeff" + table.replace("\n", end)).encode())
    (tmp_path / "excel/pets_boxes.csv").write_bytes(
        ("\ufeff" + OWN_BOXES.replace(",", ";").replace("\n", end)).encode()
    )
    dataset = load(**given)
    assert dataset.targets.equals(expected.targets) and dataset.boxes.equals(expected.boxes)
    assert dataset.fingerprint == expected.fingerprint


def test_own_table_with_semicolons_may_have_commas_in_names(tmp_path):
    given = own(tmp_path, OWN.replace(",", ";").replace("cat", "cat, black"))
    assert load(**given).labels == ("dog", "cat, black")
    given = own(tmp_path, OWN.replace("cat", "cat;black"))
    assert load(**given).labels == ("dog", "cat;black")


LISTED_OWN = """image,split,labels
a.png,train,dog|cat
b.png,train,
deep/c.png,test,cat
d.png,test,traffic light|dog|dog|
"""


def named_targets(given):
    dataset = load(**given)
    return {image: {label for label in dataset.labels if row[label] == 1} for image, row in dataset.targets.iterrows()}


@pytest.mark.parametrize(
    ("old", "new"), [("|", "|"), ("|", " | "), ("|", ";"), ("\n", "\r\n"), ("dog|cat", '"dog|cat"'), ("dog", "1")]
)
def test_own_table_that_names_labels_in_one_column(tmp_path, old, new):
    dog = new if old == "dog" else "dog"
    assert named_targets(own(tmp_path, LISTED_OWN.replace(old, new))) == {
        "a.png": {dog, "cat"},
        "b.png": set(),
        "deep/c.png": {"cat"},
        "d.png": {"traffic light", dog},
    }


@pytest.mark.parametrize("between", [", ", ",", ",\n"])
def test_own_table_that_names_labels_with_commas(tmp_path, between):
    """In quotes in a table with commas, as they are in one with semicolons."""
    lines = ["image,split,labels", f'a.png,train,"dog{between}cat"', "b.png,train,", "d.png,test,traffic light"]
    known = {"a.png": {"dog", "cat"}, "b.png": set(), "d.png": {"traffic light"}}
    assert named_targets(own(tmp_path, "\n".join(lines))) == known
    lines = ["image;split;labels", f'a.png;train;"dog{between}cat"', "b.png;train;", "d.png;test;traffic light"]
    assert named_targets(own(tmp_path, "\n".join(lines).replace('"', '"' * ("\n" in between)))) == known


def test_own_table_that_names_labels_with_spaces_says_which_it_took(tmp_path):
    table = LISTED_OWN.replace("dog|cat", "dog  cat").replace("traffic light|dog|dog|", "traffic light dog")
    dataset = load(**own(tmp_path, table))
    assert dataset.labels == ("cat", "dog", "light", "traffic")
    assert dataset.targets.to_numpy().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1]]
    assert dataset.notes[:2] == (
        "1 of 4 images have no label; they are kept.",
        "The column labels names 4: cat, dog, light, traffic.",
    )


def test_own_table_with_more_columns_than_labels_has_a_label_of_that_name(tmp_path):
    assert load(**own(tmp_path, OWN.replace("dog,cat", "labels,cat"))).labels == ("labels", "cat")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("deep/c.png,test,cat", 'deep/c.png,test,"dog,cat"', ["line 4, column labels: 'dog,cat'", "'|' alone between"]),
        ("deep/c.png,test,cat", "deep/c.png,test,dog cat", ["line 4", "'dog cat'", "'|' between labels too"]),
        ("|dog|dog|", "|mAP", ["line 5", "other names than mAP"]),
        (
            LISTED_OWN,
            "image,split,labels\na.png,train,1\nb.png,test,0\n",
            ["line 2, column labels: '1'", "rename the column"],
        ),
        (
            LISTED_OWN,
            "image,split,labels\na.png,train,\nb.png,test,\n",
            ["line 2, column labels: ''", "names of labels"],
        ),
        ("dog|cat", "dog,cat", ["line 2: 4 cells under 3", "quotes"]),
        (LISTED_OWN, "image,split,labels\n", ["column split: train and test are both needed"]),
    ],
)
def test_own_table_whose_column_of_labels_is_wrong(tmp_path, old, new, words):
    assert old in LISTED_OWN
    refused("pets.csv", *words, **own(tmp_path, LISTED_OWN.replace(old, new)))


def test_own_table_in_another_encoding(tmp_path):
    given = own(tmp_path)
    Path(given["name"]).write_text(OWN, "utf-16")
    refused("pets.csv cannot be read as a CSV table in UTF-8", "save it as one", **given)


def test_own_table_says_where_an_ap_says_nothing(tmp_path):
    """A label that is on every test image has an AP of 100 whatever the network says."""
    notes = load(**own(tmp_path, OWN.replace("0,0", "1,1").replace("-1,1", "1,0"))).notes
    assert "WARNING: no test image has a 0 for dog: its AP says nothing." in notes


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",dog", ",horse", ["line 2, column label", "'horse'", "dog, cat"]),
        ("a.png", "z.png", ["line 2, column image", "'z.png'"]),
        ("ymax", "bottom", ["no column 'ymax'"]),
        (",20", ",high", ["line 2, column ymax", "'high'"]),
        (",20", ",41", ["line 2, column ymax", "'41'"]),
        (",0,", ",10,", ["line 2, column xmax", "'10'"]),
        (",0,", ",-1,", ["line 2, column xmin", "'-1'"]),
    ],
)
def test_own_boxes_that_are_wrong(tmp_path, old, new, words):
    assert old in OWN_BOXES
    refused("pets_boxes.csv", *words, **own(tmp_path, boxes=OWN_BOXES.replace(old, new)))


def test_own_boxes_difficult(tmp_path):
    boxes = OWN_BOXES.replace("ymax", "ymax,difficult")
    assert load(**own(tmp_path, boxes=boxes.replace("20\n", "20,1\n"))).boxes.difficult.tolist() == [1]
    refused("line 2, column difficult", **own(tmp_path, boxes=boxes.replace("20\n", "20,no\n")))


def test_own_table_may_not_share_folders_with_the_study(tmp_path):
    for stem in ("scenes", "mirflickr"):
        refused("rename", name=str(tmp_path / f"{stem}.csv"), data=tmp_path)


# All of them


def test_unknown_names(tmp_path):
    refused("'voc2008'", *NAMES, ".csv", "did you mean voc2007?", name="voc2008", data=tmp_path)
    refused("'imagenet'", "there are scenes", name="imagenet", data=tmp_path)
    refused("none.csv cannot be read", name=str(tmp_path / "none.csv"), data=tmp_path)


def test_options_that_would_be_ignored(tmp_path):
    refused("scenes takes no source", name="scenes", source=tmp_path, data=tmp_path)
    refused("pets.csv takes no source", **own(tmp_path), source=tmp_path)
    refused("voc2007 is not read in part", name="voc2007", data=tmp_path, partial=True)


@pytest.mark.parametrize(("name", "module"), [("voc2007", voc2007), ("mirflickr24", mirflickr)])
def test_nothing_there_and_no_server(tmp_path, monkeypatch, name, module):
    """What to fetch by hand is told from the real list; only the addresses are dead ones."""
    dead = [Archive(a.name, ((tmp_path / a.name).as_uri(),), a.md5) for a in module.ARCHIVES]
    monkeypatch.setattr(module, "ARCHIVES", dead)
    refused("no source answered", *(a.name for a in dead), "-p source PATH", name=name, data=tmp_path / "data")


def test_published_checksums():
    """VOC's as torchvision has them, and MIRFlickr's as its page prints it."""
    theirs = [DATASET_YEAR_DICT[year]["md5"] for year in ("2007", "2007-test")]
    assert [archive.md5 for archive in voc2007.ARCHIVES] == theirs
    assert [archive.md5 for archive in mirflickr.ARCHIVES] == ["A23D0A8564EE84CDA5622A6C2F947785".lower(), None]


def test_published_split(flickr, tmp_path):
    dataset = load(**flickr, partial=True)
    checksum = publish_split(dataset, tmp_path / "published")
    lists = [tmp_path / f"published/mirflickr_{split}.txt" for split in ("train", "val", "test")]
    assert [tuple(path.read_text().splitlines()) for path in lists] == [
        dataset.splits[split] for split in ("train", "val", "test")
    ]
    assert checksum == hashlib.sha256(b"".join(path.read_bytes() for path in lists)).hexdigest()
    assert publish_split(dataset, tmp_path / "published") == checksum


def test_fingerprint_tells_every_change(tmp_path):
    """Labels, a split, a target, a box and the size of an image; but not the folder they lie in."""

    def fingerprint(folder, **changed):
        return load(**own(tmp_path / folder, **{"boxes": OWN_BOXES} | changed)).fingerprint

    known = [
        fingerprint("same"),
        fingerprint("label", table=OWN.replace("cat", "cow")),
        fingerprint("split", table=OWN.replace("b.png,train", "b.png,val")),
        fingerprint("target", table=OWN.replace("b.png,train,0", "b.png,train,1")),
        fingerprint("box", boxes=OWN_BOXES.replace("10", "11")),
    ]
    given = own(tmp_path / "image", boxes=OWN_BOXES)
    pixel(tmp_path / "image/b.png", size=(200, 400))
    known.append(load(**given).fingerprint)
    assert len(set(known)) == len(known)
    assert fingerprint("elsewhere") == known[0]
