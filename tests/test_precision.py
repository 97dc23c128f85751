"""16-mixed: what the scaler of the loss does is no fault, goes on after an interruption, and is what is on record.

Fabric runs float16 on GPUs alone; here it has torch's scaler and autocast for the CPU.
"""

import shutil

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from attnsem import StudyError, losses, stages
from attnsem.backbones import Backbone
from attnsem.datasets import scenes
from attnsem.datasets.prepared import prepare

SIZES = {"train_size": 40, "image_size": 32}  # float16 is slow on a CPU
QUICK = {
    "dataset": "scenes",
    "epochs": 2,
    "lr_step": 1,
    "batch_size": 2,
    "precision": "16-mixed",
    "device": "cpu",
} | SIZES
TOO_LARGE = 2.0**24  # a loss of a few units times this is beyond float16


@pytest.fixture(scope="module")
def scenes_data(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    prepare(scenes.load(train=24, val=8, test=32), data=data, **SIZES)
    return data


@pytest.fixture
def scaled(monkeypatch):
    """Runs stages in float16 from a first scale; gives each run's scaler."""
    scalers = []

    def start(first_scale):
        def launched(*_, **__):
            scalers.append(torch.amp.GradScaler("cpu", init_scale=first_scale, growth_interval=5))
            fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scalers[-1]))
            fabric.launch()
            return fabric

        monkeypatch.setattr(stages, "launched", launched)
        return scalers

    return start


def test_a_gradient_too_large_for_its_scale_is_skipped_and_no_fault(tmp_path, scenes_data, scaled):
    scaled(TOO_LARGE)
    run = stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    assert run.history["loss_scale"].lt(TOO_LARGE).all() and run.history["loss"].iloc[1] < run.history["loss"].iloc[0]
    assert run.manifest["parameters"]["precision"] == "16-mixed"


def test_the_scaler_goes_on_where_it_was_interrupted(tmp_path, scenes_data, scaled, interrupted):
    scaled(TOO_LARGE)
    whole = stages.train(1, **QUICK, data=scenes_data, runs=tmp_path / "whole")
    with interrupted():
        stages.train(1, **QUICK, data=scenes_data, runs=tmp_path / "runs")
    scalers = scaled(TOO_LARGE)
    resumed = stages.train(1, **QUICK, data=scenes_data, runs=tmp_path / "runs")
    assert all(torch.equal(tensor, resumed.state()[key]) for key, tensor in whole.state().items())
    assert (resumed.folder / "history.csv").read_bytes() == (whole.folder / "history.csv").read_bytes()
    assert scalers[-1].state_dict() == scalers[0].state_dict() and scalers[0].get_scale() != TOO_LARGE


def never_finite(monkeypatch):
    """Every gradient, though no loss."""
    backward = Fabric.backward
    monkeypatch.setattr(Fabric, "backward", lambda self, loss: backward(self, loss * float("inf")))


@pytest.mark.parametrize(("epochs", "size", "step"), [(2, 1, 17), (1, 24, 1)], ids=["scale is 1", "no step taken"])
def test_gradients_that_are_never_finite_are_a_fault(tmp_path, scenes_data, scaled, monkeypatch, epochs, size, step):
    """The 17th step is the first with a scale of 1; two steps that are skipped leave the network as it was."""
    scaled(2.0**16)
    never_finite(monkeypatch)
    wanted = rf"not finite in epoch 1, step {step}, .*, or precision 32-true, and another folder by -p runs"
    with pytest.raises(StudyError, match=wanted):
        stages.train(1, **QUICK | {"batch_size": size, "epochs": epochs}, data=scenes_data, runs=tmp_path)


def test_a_loss_that_is_not_finite_is_a_fault_whatever_the_scale(tmp_path, scenes_data, scaled, monkeypatch):
    scaled(2.0**16)
    usual = losses.multilabel_loss
    monkeypatch.setattr(losses, "multilabel_loss", lambda *given, **named: usual(*given, **named) * float("nan"))
    with pytest.raises(StudyError, match="not finite in epoch 1, step 1,"):
        stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_16_mixed_where_float16_does_not_run(tmp_path, scenes_data, device):
    if device == "auto" and torch.accelerator.is_available():
        pytest.skip("auto is not the CPU here")
    with pytest.raises(StudyError, match="a cpu has no precision 16-mixed; give bf16-mixed or 32-true"):
        stages.train(1, **QUICK | {"device": device}, data=scenes_data, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_features_beyond_float16_are_not_cached(tmp_path, scenes_data, monkeypatch):
    data = shutil.copytree(scenes_data, tmp_path / "data")
    usual = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, images: usual(self, images) * 1e6)
    frozen = {"precision": "32-true", "train_backbone": False, "feature_cache": 1}
    with pytest.raises(StudyError, match="features of densenet_small are too large for float16; give feature_cache 0"):
        stages.train(1, **QUICK | frozen, data=data, runs=tmp_path / "runs")
    assert not list(data.glob("features/scenes/*.npy"))
