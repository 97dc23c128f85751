import pytest

from attnsem.datasets import scenes
from attnsem.datasets.prepared import prepare

SIZES = {"train_size": 72, "image_size": 64}


@pytest.fixture(scope="session")
def scenes_data(tmp_path_factory):
    """A prepared `scenes` of 64 images; tests do not write to it."""
    data = tmp_path_factory.mktemp("data")
    prepare(scenes.load(train=24, val=8, test=32), data=data, **SIZES)
    return data
