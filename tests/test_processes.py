"""A stage on two CPU processes ends where one process ends at the same global batch."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch

from attnsem import stages
from attnsem.files import held
from attnsem.paper import settings
from attnsem.runs import complete_run

GIVEN = {"dataset": "scenes", "epochs": 2, "lr": 0.001, "lr_step": 1, "batch_size": 11} | {
    "precision": "32-true",
    "device": "cpu",
}


def two_processes(stage, **parameters):
    """The command as a user types it."""
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "attnsem.stages", str(stage), "--processes", "2", *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def data(tmp_path_factory, scenes_data):
    """A copy of the prepared data, to write features to."""
    return shutil.copytree(scenes_data, tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("alone")
    for stage in (1, 2, 3, 4):
        stages.train(stage, **GIVEN, data=data, runs=folder)
    return folder


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_curves_weights_and_scores_are_those_of_one_process(alone, tmp_path, data, stage):
    """24 images in batches of 11: the last has two, one for each process; all 32 test images are scored once."""
    runs = shutil.copytree(alone, tmp_path / "runs")
    shutil.rmtree(next(runs.glob(f"scenes/*/seed0/stage{stage}")))
    done = two_processes(stage, **GIVEN, data=data, runs=runs)
    assert done.returncode == 0, done.stderr
    one, two = (complete_run(settings(stage, dataset="scenes"), folder) for folder in (alone, runs))
    assert (one.manifest["processes"], two.manifest["processes"]) == (1, 2)
    curves = one.history.drop(columns="mAP"), two.history.drop(columns="mAP")  # one pair of 32 images may swap ranks
    pd.testing.assert_frame_equal(*curves, rtol=1e-4)
    assert two.state().keys() == one.state().keys()
    for key, tensor in one.state().items():
        assert torch.allclose(two.state()[key], tensor, rtol=1e-3, atol=1e-4), key
    for part in set(one.scores()) - {"ids", "labels"}:
        assert two.scores()[part] == pytest.approx(one.scores()[part], abs=1e-3), part


def test_all_processes_end_where_the_folder_is_held(tmp_path, data):
    with held(tmp_path / "scenes/densenet/seed0/stage1"):
        done = two_processes(1, **GIVEN, data=data, runs=tmp_path)
    assert done.returncode != 0 and "is being written by process" in done.stderr


def test_a_misspelt_parameter_is_one_sentence(tmp_path):
    done = two_processes(1, dataset="scenes", epoch=3, runs=tmp_path)
    assert done.returncode != 0 and done.stderr.startswith("unknown parameter 'epoch'; did you mean 'epochs'?")
