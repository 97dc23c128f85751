import os
from contextlib import contextmanager

import pytest
import torch

from attnsem import training
from attnsem.datasets import scenes
from attnsem.datasets.prepared import prepare

SIZES = {"train_size": 72, "image_size": 64}
torch.set_num_threads(1)  # two processes of pytest share the cores,
os.environ["OMP_NUM_THREADS"] = "1"  # and so do those that they start


@pytest.fixture(scope="session")
def scenes_data(tmp_path_factory):
    """A prepared `scenes` of 64 images; tests do not write to it."""
    data = tmp_path_factory.mktemp("data")
    prepare(scenes.load(train=24, val=8, test=32), data=data, **SIZES)
    return data


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupted(monkeypatch):
    """A context in which training stops after its first epoch."""
    epoch = training.train_epoch

    def stopped(*arguments):
        if arguments[-1] == 1:
            raise Interrupted
        return epoch(*arguments)

    @contextmanager
    def interrupted():
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(training, "train_epoch", stopped)
            yield

    return interrupted
