"""The study's notebooks on COCO's official files, as whoever has COCO on disk runs them; the images are generated."""

import pytest

from attnsem.files import read_json
from tests.coco_like import write
from tests.executed import execute

SMALL = {"backbone": "densenet_small", "weights": "none", "epochs": 1, "batch_size": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder, and what notebooks 00, 01 and 05 printed and showed, by their numbers."""
    home, shown = tmp_path_factory.mktemp("coco"), {}
    parameters = {"dataset": "coco2014", "source": str(write(home / "my coco", train=24, val=12))}
    parameters |= SMALL | {"train_size": 40, "image_size": 32, "stage": 3}
    parameters |= {name: str(home / name) for name in ("data", "runs", "figures")}
    for name in ("00_prepare_data", "01_train_stage1", "05_table1_voc2007"):
        cells = execute(name, home, parameters).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        shown[name[:2]] = "\n".join(one.get("text", "") or one.data.get("text/plain", "") for one in outputs)
    return home, shown


def test_its_data_are_prepared_and_described(study):
    home, shown = study
    assert "test is val2014" in shown["00"] and "labels are difficult (-1)" in shown["00"]
    description = read_json(home / "data/prepared/coco2014/dataset.json")
    assert len(description["labels"]) == 80 and len(description["splits"]["test"]) == 12
    assert all((home / "figures/coco2014" / name).exists() for name in ("labels.svg", "examples.png"))


def test_a_stage_leaves_its_precision_recall_and_f1(study):
    home, _ = study
    metrics = read_json(home / "runs/coco2014/densenet/seed0/stage1/metrics.json")["precision_recall_f1"]
    assert list(metrics) == ["0.5", "top 3"] and list(metrics["0.5"]) == ["CP", "CR", "CF1", "OP", "OR", "OF1"]


def test_a_table_shows_them(study):
    """And what the paper says of VOC's labels is not asked of labels that no image shows."""
    _, shown = study
    assert all(name in shown["05"] for name in ("CP", "CF1", "OF1", "top 3", "baseline"))
    assert "RuntimeWarning" not in shown["05"]
