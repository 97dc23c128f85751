"""What a layer refuses of an epoch's smallest batch or of the images' size is said before anything is trained."""

import subprocess
import sys

import pytest
import torch

from attnsem import StudyError, stages
from attnsem.datasets import scenes
from attnsem.datasets.prepared import prepare
from attnsem.paper import settings

QUICK = {"dataset": "scenes", "epochs": 1, "batch_size": 5, "precision": "32-true", "device": "cpu"}
QUICK |= {"train_size": 8, "image_size": 8}  # densenet_small makes one position of them


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """21 images to train on: in batches of 5 the last has one."""
    folder = tmp_path_factory.mktemp("data")
    prepare(scenes.load(train=14, val=7, test=8), data=folder, train_size=8, image_size=8)
    return folder


def refusal(stage, images, **parameters):
    """The sentence, or "" where there is none."""
    chosen = settings(stage, dataset="scenes", **parameters)
    try:
        stages.refuse_sizes(stages.network_of(chosen, 3), chosen, images)
    except StudyError as error:
        return str(error)
    return ""


def test_a_last_batch_of_one_image_with_one_position(tmp_path, data):
    with pytest.raises(StudyError, match=r"the last batch of an epoch has one image \(.*\); give batch_size 6$"):
        stages.train(1, **QUICK, data=data, runs=tmp_path)
    assert not list(tmp_path.rglob("*.pt"))
    assert stages.train(1, **QUICK | {"batch_size": 6}, data=data, runs=tmp_path).complete


def test_a_last_batch_of_one_image_on_two_processes(tmp_path, data):
    words = [word for name, value in (QUICK | {"data": data, "runs": tmp_path}).items() for word in ("-p", name, value)]
    command = [sys.executable, "-m", "attnsem.stages", "1", "--processes", "2", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode and "has one image" in done.stderr and "give batch_size 6" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("images", "batch_size", "remedy"), [(21, 5, 6), (21, 10, 11), (3, 1, 3), (21, 20, 21), (25, 1, 5), (21, 6, None)]
)
def test_the_batch_size_that_is_named_leaves_no_single_image(images, batch_size, remedy):
    small = {"train_size": 8, "image_size": 8}
    told = refusal(1, images, batch_size=batch_size, **small)
    assert told.endswith(f"give batch_size {remedy}") if remedy else told == ""
    assert remedy is None or refusal(1, images, batch_size=remedy, **small) == ""


def test_a_single_image_where_there_is_more_than_one_position_is_no_fault():
    assert refusal(1, 21, batch_size=5) == ""


def test_a_fixed_batchnorm_takes_a_single_image():
    assert refusal(1, 21, batch_size=5, train_size=8, image_size=8, batchnorm="fixed") == ""


@pytest.mark.parametrize(
    ("backbone", "size", "fits"),
    [
        ("vgg11", 16, 32),
        ("inception_v3", 64, 96),
        ("test_maxvit", 64, 160),
        ("swin_tiny_patch4_window7_224", 448, 224),
        ("hrnet_w18_small", 65, 96),
    ],
)
def test_images_that_a_backbone_does_not_take(backbone, size, fits):
    told = refusal(1, 20, backbone=backbone, train_size=size, image_size=size)
    assert told.startswith(f"backbone {backbone} cannot take images of {size} pixels (")
    assert told.endswith(f"; prepare and train with image_size {fits}")
    assert refusal(1, 20, backbone=backbone, train_size=fits, image_size=fits) == ""


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_one_position_leaves_attention_nothing_to_choose(stage):
    told = refusal(stage, 20, backbone="resnet18", train_size=32, image_size=32)
    assert "its map has 1 × 1 positions); prepare and train with image_size 64" in told
    assert refusal(1, 20, backbone="resnet18", train_size=32, image_size=32) == ""


@pytest.mark.parametrize("body", ["x.permute(0, 2, 3, 1)", "x.flatten(2)", "x[:, :4]"])
def test_the_users_own_that_gives_no_map_of_its_channels(tmp_path, monkeypatch, body):
    module = f"own_{abs(hash(body))}"
    (tmp_path / f"{module}.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Conv2d):\n    channels = 6\n"
        f"    def forward(self, x):\n        x = super().forward(x)\n        return {body}\n"
        "def net():\n    return Net(3, 6, 16, 16)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    told = refusal(1, 20, backbone=f"{module}:net")
    assert "not (N, 6, h, w); mend what it returns, or its channels" in told


@pytest.mark.parametrize("stage", [1, 2, 4])
def test_the_trial_leaves_the_network_as_it_was(stage):
    chosen = settings(stage, dataset="scenes")
    network, other = stages.network_of(chosen, 3), stages.network_of(chosen, 3)
    stages.refuse_sizes(network, chosen, 20)
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in network.state_dict().items())
