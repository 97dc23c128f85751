"""The user's own data, from a small table to what a stage leaves: what could go wrong without a word."""

import json
import shlex

import numpy as np
import papermill
import pytest
from PIL import Image

from attnsem import StudyError, paper, stages
from attnsem.analysis.channels import Channels, image_ids, named
from attnsem.analysis.dependencies import cooccurrence
from attnsem.analysis.figures import file_name
from attnsem.analysis.localisation import Localisation
from attnsem.analysis.predict import Trained
from attnsem.analysis.rows import run_of_row
from attnsem.datasets import load, read_image
from attnsem.datasets.prepared import Prepared, check_source, prepare
from attnsem.datasets.similarity import similarity
from attnsem.files import ROOT
from attnsem.notebook import argument, command_line, value_of
from attnsem.runs import command
from tests.executed import execute

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
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / name, "jpeg")
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
    assert Prepared.load(path.stem, tmp_path).fingerprint == known.fingerprint  # its own place has no table any more
    moved.parent.rename(path.parent)
    with pytest.raises(StudyError, match="run 00_prepare_data again"):  # nor by its bare name
        Prepared.load(path.stem, tmp_path)


@pytest.mark.parametrize("changed", ["labels.csv", "labels_boxes.csv"])
@pytest.mark.parametrize("is_name", [True, False], ids=["by its name", "by its path"])
def test_a_changed_table_or_its_boxes_are_noticed(tmp_path, changed, is_name):
    path = table(tmp_path / "my birds")
    path.with_name("labels_boxes.csv").write_text("image,label,xmin,ymin,xmax,ymax\n000001.jpg,red,0,0,20,40\n")
    prepared(path, tmp_path / "data")
    dataset, file = "labels" if is_name else str(path), path.with_name(changed)
    before = file.read_text()
    file.write_text(before.replace(",red,0,", ",red,9,").replace('000000.jpg",train,0', '000000.jpg",train,1'))
    remedy = r"is not what .* run 00_prepare_data again with -p dataset '.*my birds/labels.csv'"
    with pytest.raises(StudyError, match=remedy):
        trained(dataset, tmp_path)
    file.write_text(before)
    trained(dataset, tmp_path)
    path.parent.rename(tmp_path / "elsewhere")
    trained(dataset, tmp_path)


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


def test_a_prepared_table_goes_by_its_bare_name_as_by_its_path(tmp_path):
    """In what reads the table, trains on it, and shows its runs; its defaults are the same."""
    path = table(tmp_path / "birds")
    known = prepared(path, tmp_path / "data")
    assert prepared("labels", tmp_path / "data").fingerprint == known.fingerprint
    run = trained("labels", tmp_path)
    assert trained(path, tmp_path).folder == run.folder and run.settings.dataset == "labels"
    for name in ("labels", str(path)):
        assert run_of_row("baseline", 1, dataset=name, runs=tmp_path / "runs").folder == run.folder
        assert "labels" in command(paper.settings(1, dataset=name)) and check_source(name, tmp_path / "data") is None


ODD = ["NA", "nan", "None", "null", "Unnamed: 0", "1", "1.0", "True", "index", "a", "a.1", "cat, black", "mean", "猫"]
ODD_IDS = ["NA", "nan", "null.jpg", "None", "000014", "14", "1e5", "True", "a,b.jpg", "a\nb.jpg", "a\rb.jpg"]


def test_labels_and_images_come_through_whatever_they_are_called(tmp_path):
    names = ODD_IDS + [f"{number}.jpg" for number in range(9)]
    path = table(tmp_path, ODD, names=names)
    source, known = load(str(path), data=tmp_path), prepared(path, tmp_path)
    assert known.labels == source.labels == tuple(ODD)
    assert known.all_targets.equals(source.targets) and list(known.all_targets) == ODD
    assert known.ids("train") == tuple(names[:12])
    assert Prepared.load(str(path), tmp_path).targets("test").shape == (5, len(ODD))


def test_boxes_come_through_whatever_their_labels_are_called(tmp_path):
    path = table(tmp_path, ["NA", "null"], names=["NA", *(f"{number}.jpg" for number in range(19))])
    path.with_name("labels_boxes.csv").write_text("image,label,xmin,ymin,xmax,ymax\nNA,null,0,0,20,40\n")
    assert prepared(path, tmp_path).boxes.iloc[0].tolist() == ["NA", "null", 0, 0, 0.5, 1, 0]


def test_similarities_come_through_whatever_their_labels_are_called(tmp_path):
    labels = ["NA", "null", "2021", "1.0", "True"]
    cells = np.eye(5) + 0.5
    rows = [["", *labels], *([label, *map(str, row)] for label, row in zip(labels, cells, strict=True))]
    (tmp_path / "alike.CSV").write_text("\r\n".join(map(",".join, rows)), "utf-8-sig")
    assert np.allclose(similarity(tmp_path / "alike.CSV", labels), (1 - np.eye(5)) / 4)


@pytest.mark.parametrize("name", ["2021", "1e5", "nan", "inf", "1_000", "True", "None", "000014"])
def test_what_papermill_takes_for_a_number_goes_as_it_is(name):
    assert argument("dataset", name) == f"-r dataset {name}"
    assert f"-r dataset {name}" in command(paper.settings(1, dataset=name))
    assert value_of("dataset", name) == (name if name != "None" else None)


def test_an_argument_that_has_a_space_is_in_quotes():
    assert argument("runs", "my runs") == "-p runs 'my runs'" and argument("seed", 3) == "-p seed 3"
    assert value_of("epochs", "3") == 3 and value_of("wait", "True") is True


def test_labels_are_named_with_commas_between_and_quotes_around_a_comma():
    assert named('NA, "cat, black" ,1', ["NA", "1", "cat, black"], "no") == ["NA", "cat, black", "1"]
    assert named("", ["a"], "no") == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("traffic light", "traffic light.png"),
        ("猫", "猫.png"),
        ("a/b", "a%2Fb.png"),
        ("/etc/passwd", "%2Fetc%2Fpasswd.png"),
        ("../up.jpg", "..%2Fup.jpg.png"),
        ("a:b*?", "a%3Ab%2A%3F.png"),
        ("CON", "%CON.png"),
        ("nul.jpg", "%nul.jpg.png"),
        ("common", "common.png"),
        ("a\\b\n", "a%5Cb%0A.png"),
    ],
)
def test_a_name_is_one_file_in_its_folder_on_every_system(name, file):
    assert file_name(name, ".png") == file


def test_a_long_name_is_short_and_still_its_own():
    names = {file_name("猫" * 200 + end, ".png") for end in "ab"}
    assert len(names) == 2 and all(len(name.encode()) < 130 for name in names)


@pytest.mark.parametrize("unlabelled", ["-1", "0"])
def test_an_unlabelled_test_split_is_predicted_and_says_why_it_is_not_judged(tmp_path, unlabelled):
    path = table(tmp_path, unlabelled=unlabelled)
    known = prepared(path, tmp_path / "data")
    for stage in (1, 2):
        parameters = SIZES | SMALL if stage == 1 else {"epochs": 1, "batch_size": 5, "device": "cpu"}
        places = {"dataset": str(path), "runs": tmp_path / "runs", "data": tmp_path / "data"}
        run = stages.train(stage, **places, **parameters)
        text = (run.folder / "metrics.json").read_text()
        assert json.loads(text, parse_constant=pytest.fail)["mAP"] is None
    assert len(image_ids(known, "test", count=3, seed=0)) == 3
    with pytest.raises(StudyError, match="no test image of labels shows a label, by which its channels could be"):
        Channels.of(run, tmp_path / "data", device="cpu")


def test_a_single_label_is_localised_and_depends_on_no_other(tmp_path):
    path = table(tmp_path, ["cat"])
    path.with_name("labels_boxes.csv").write_text("image,label,xmin,ymin,xmax,ymax\n000016.jpg,cat,0,0,20,40\n")
    prepared(path, tmp_path / "data")
    trained(path, tmp_path)
    places = {"dataset": str(path), "runs": tmp_path / "runs", "data": tmp_path / "data", "device": "cpu"}
    channels = Channels.of(stages.train(2, epochs=1, batch_size=5, **places), tmp_path / "data", device="cpu")
    assert len(Localisation.of(channels).overall)
    with pytest.raises(StudyError, match="cat is the only label"):
        cooccurrence(channels.targets, channels.labels)


def test_pictures_and_figures_stay_in_their_folders_whatever_the_table_names(tmp_path):
    """A table of a number's name, with images elsewhere and a test split without labels."""
    place = tmp_path / "my photos"
    path = table(place, ["a/b", "NA", "x"], stem="2021", unlabelled="-1")
    (place / "000015.jpg").rename(tmp_path / "up.jpg")
    text = path.read_text().replace("000015.jpg", "../up.jpg").replace("000016.jpg", f"{place}/000016.jpg")
    path.write_text(text)
    prepared(path, tmp_path / "data")
    trained(path, tmp_path)
    before = set(tmp_path.rglob("*"))
    parameters = {"dataset": str(path), "runs": str(tmp_path / "runs")}
    own = {"out": str(tmp_path / "out"), "data": str(tmp_path / "data"), "row": "baseline", "device": "cpu", "stage": 1}
    tables = {"figures": str(tmp_path / "out/figures"), "stage": 3}
    (tmp_path / "out").mkdir()
    for notebook, more in {"11_predict": own, "05_table1_voc2007": tables}.items():
        execute(notebook, tmp_path / "out", parameters | more)
    written = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert all(name == "out" or name.startswith("out/") for name in written)
    assert {"out/test images/..%2Fup.png", "out/figures/2021/table1_differences.svg"} <= written


def test_without_a_val_split_it_says_where_one_comes_from(tmp_path):
    path = table(tmp_path)
    path.write_text(path.read_text().replace(",val,", ",train,"))
    prepared(path, tmp_path / "data")
    with pytest.raises(StudyError, match="labels has no val images; give some of its table the split val"):
        trained(path, tmp_path, test_split="val", train_split="train")


def test_a_device_that_is_not_there_is_named(tmp_path, monkeypatch):
    path = table(tmp_path)
    prepared(path, tmp_path / "data")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for precision in ("auto", "32-true"):
        with pytest.raises(StudyError, match="there is no cuda device here; give -p device auto, or cpu"):
            trained(path, tmp_path, device="cuda", precision=precision)


@pytest.mark.parametrize("has_boxes", [False, True])
def test_all_unreadable_images_are_told_at_once(tmp_path, has_boxes):
    """Of all splits, also those behind the first bad one, and those that have no box."""
    path = table(tmp_path)
    if has_boxes:
        boxes = "image,label,xmin,ymin,xmax,ymax\n000003.jpg,red,0,0,20,40\n000011.jpg,red,0,0,20,40\n"
        path.with_name("labels_boxes.csv").write_text(boxes)
    for number in (3, 11, 13, 19):
        (tmp_path / f"{number:06}.jpg").write_text("<html>not found</html>")
    with pytest.raises(StudyError, match=r"000003.jpg cannot be read .* 3 others: 000011.jpg, 000013.jpg, 000019.jpg"):
        prepared(path, tmp_path / "data")


def test_all_unreadable_images_with_boxes_are_told_at_once(tmp_path):
    path = table(tmp_path)
    lines = [f"{number:06}.jpg,red,1,1,9,9" for number in (3, 4, 11)]
    path.with_name(f"{path.stem}_boxes.csv").write_text("\n".join(["image,label,xmin,ymin,xmax,ymax", *lines]) + "\n")
    for number in (3, 11):
        (tmp_path / f"{number:06}.jpg").write_text("<html>not found</html>")
    with pytest.raises(StudyError, match=r"000003.jpg cannot be read .* 1 others: 000011.jpg"):
        load(str(path), data=tmp_path)


def test_a_format_that_is_not_read_is_named(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(StudyError, match=r"convert it to JPEG, for Pillow reads no '\.HEIC'"):
        read_image(tmp_path / "a.HEIC")


def test_missing_images_are_counted(tmp_path):
    path = table(tmp_path)
    for number in (3, 11):
        (tmp_path / f"{number:06}.jpg").unlink()
    with pytest.raises(StudyError, match=r"line 5, column image: '000003.jpg', .* \(2 cells are so\)"):
        load(str(path), data=tmp_path)


def test_what_a_stage_lacks_is_named_in_commands_that_have_the_tables_path(tmp_path, monkeypatch):
    """And those alone: what is there is not made again."""
    monkeypatch.chdir(ROOT / "notebooks")
    table, given = tmp_path / "my birds.csv", {"data": tmp_path / "data", "runs": tmp_path / "runs"}
    source, data = f"out.ipynb -p dataset '{table}'", f"-p data {given['data']}"
    place = f"-p seed 3 -p runs {given['runs']} {data}"
    stage2 = f"papermill 02_train_stage2.ipynb {source} {place}"
    stage3 = f"papermill 03_train_stage3.ipynb {source} -p gate logits {place}"
    with pytest.raises(StudyError) as refused:
        stages.train(4, dataset=str(table), gate="logits", seed=3, **given)
    first = [f"papermill 00_prepare_data.ipynb {source} {data}", f"papermill 01_train_stage1.ipynb {source} {place}"]
    assert str(refused.value).splitlines()[1:] == [*first, stage2, stage3]
    for made in ("data/prepared/my birds/dataset.json", "runs/my birds/densenet/seed3/stage1/manifest.json"):
        (tmp_path / made).parent.mkdir(parents=True)
        (tmp_path / made).write_text("{}")
    with pytest.raises(StudyError) as refused:
        run_of_row("proposed, logits gate", 3, dataset=str(table), seed=3, **given)
    assert str(refused.value).splitlines()[1:] == [stage2, stage3]


def test_the_recipe_for_a_small_set_is_of_the_notebooks_parameters_and_trains(tmp_path):
    """With one epoch a stage; data/README.md has as many as it needs."""
    path = table(tmp_path / "birds", stem="birds")
    lines = [line for line in (ROOT / "data/README.md").read_text().splitlines() if line.startswith("papermill ")]
    stages_trained, places = [], {"data": tmp_path / "data", "runs": tmp_path / "runs"}
    for notebook, _, *words in (shlex.split(line)[1:] for line in lines):
        assert words[::3] == ["-p"] * (len(words) // 3)
        parameters = {name: value_of(name, value) for name, value in zip(words[1::3], words[2::3], strict=True)}
        assert parameters.keys() <= papermill.inspect_notebook(ROOT / "notebooks" / notebook).keys()
        if notebook.startswith("00"):
            sizes = {name: parameters[name] for name in SIZES}
            prepare(load(str(path), data=tmp_path), data=tmp_path / "data", **sizes)
        elif notebook.startswith("11"):
            row = {name: parameters[name] for name in ("row", "stage", "dataset")}
            trained = Trained.chosen(None, "imagenet", seed=0, runs=tmp_path / "runs", **row)
            assert trained.labels == LABELS and trained.settings.alpha == "fixed"
        else:
            stages_trained.append(int(notebook[:2]))
            stages.train(stages_trained[-1], device="cpu", **places, **parameters | {"epochs": 1})
    assert stages_trained == [1, 2, 3]


def test_a_command_line_has_a_data_set_and_takes_an_option_as_a_parameter_too(monkeypatch):
    calls = []
    monkeypatch.setattr("sys.argv", ["stages", "3", "-p", "processes", "2", "-p", "runs", "2021", "-p", "wait", "True"])
    command_line(lambda *stage, **rest: calls.append((stage, rest)), "", "stage", [1, 2, 3], processes=(1, ""))
    assert calls == [((3,), {"dataset": "scenes", "processes": 2, "runs": "2021", "wait": True})]
