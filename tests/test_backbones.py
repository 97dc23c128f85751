import inspect
import re
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision

from attnsem import StudyError
from attnsem.backbones import IMAGENET, IN_HALVES, build, from_timm
from attnsem.datasets.weights import way_to_weights
from attnsem.files import ROOT

WEIGHTS = Path(__file__).parents[2] / "shared/weights"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def real(name):
    path = WEIGHTS / name
    return pytest.param(path, marks=pytest.mark.skipif(not path.exists(), reason=f"no {path}"))


@pytest.mark.parametrize(
    ("name", "channels", "stride", "layers"),
    [
        ("densenet121", 1024, 32, "classifier"),
        ("resnet18", 512, 32, "fc"),
        ("mobilenet_v2", 1280, 32, "classifier"),
        ("vgg11", 512, 32, None),
    ],
)
def test_torchvision_trunk_is_torchvisions_own(tmp_path, images, name, channels, stride, layers):
    """Pooled features through the network's own last layers give the network's own output."""
    net = torchvision.models.get_model(name).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = build(name, str(tmp_path / "net.pth")).eval()
    assert backbone.channels == channels
    with torch.inference_mode():
        features = backbone(images)
        assert features.shape == (2, channels, 64 // stride, 64 // stride)
        if layers:
            pooled = getattr(net, layers)(features.mean((2, 3)))
            assert torch.allclose(pooled, net((images - MEAN) / STD), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("googlenet", 64, "avgpool"),
        ("inception_v3", 96, "avgpool"),
        ("regnet_y_400mf", 64, "avgpool"),
        ("swin_t", 64, "avgpool"),
        ("swin_v2_t", 64, "avgpool"),
        ("maxvit_t", 224, "classifier.0"),
        ("shufflenet_v2_x0_5", 64, "fc"),
        ("mnasnet0_5", 64, "classifier.1"),
    ],
)
def test_features_are_what_torchvisions_own_pooling_is_given(tmp_path, name, size, layer):
    """`layer` is the pooling or, where that is no module, what comes after it."""
    images, inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)), []
    net = torchvision.models.get_model(name).eval()
    net.transform_input = True  # of Google's two, as it is with their ImageNet weights
    net.get_submodule(layer).register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = build(name, str(tmp_path / "net.pth")).eval()
    with torch.inference_mode():
        net((images - MEAN) / STD)
        features = backbone(images)
    assert features.shape[1] == backbone.channels == inputs[0].shape[1]
    given = features if inputs[0].dim() == 4 else features.mean((2, 3))
    assert (given - inputs[0]).abs().max() < 1e-4 * inputs[0].abs().max()


def test_statistics_are_those_of_torchvisions_weights():
    models, halves = torchvision.models, set()
    for name in models.list_models(models):
        statistics = models.get_model_weights(name).DEFAULT.transforms()
        takes_halves = "transform_input" in inspect.getsource(sys.modules[models.get_model_builder(name).__module__])
        if takes_halves or tuple(statistics.mean) != IMAGENET["mean"] or tuple(statistics.std) != IMAGENET["std"]:
            halves.add(name)
    assert halves == set(IN_HALVES)


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_mambaout", 96), ("mambaout_femto", 64), ("swin_tiny_patch4_window7_224", 224), ("hieradet_small", 64)],
)
def test_timms_channels_last(name, size):
    backbone = build(name).eval()
    net = backbone.trunk[0].net
    with torch.inference_mode():
        features = backbone(torch.full((2, 3, size, size), 0.7))
        rows = net.forward_features((torch.full((2, 3, size, size), 0.7) - backbone.mean) / backbone.std)
    assert features.shape == (2, backbone.channels, size // 32, size // 32) and backbone.channels == net.num_features
    assert torch.equal(features.permute(0, 2, 3, 1), rows)


def test_a_network_of_one_image_size():
    backbone = build("test_maxvit")  # 160 pixels
    assert backbone(torch.rand(2, 3, 160, 160)).shape == (2, 128, 5, 5)


def test_densenet_small(images):
    backbone = build("densenet_small")
    assert backbone(images).shape == (2, backbone.channels, 8, 8)


@pytest.mark.parametrize("path", [real("squeezenet1_1.pth")])
def test_real_squeezenet(path, images):
    backbone, net = build("squeezenet1_1", str(path)).eval(), torchvision.models.squeezenet1_1().eval()
    net.load_state_dict(torch.load(path, weights_only=True))
    with torch.inference_mode():
        assert torch.equal(backbone(images), net.features((images - MEAN) / STD))
    assert backbone.channels == 512


@pytest.mark.parametrize("path", [real("legacy_xception_to_block12.pth")])
def test_real_xception_has_the_papers_shape(path):
    backbone = build("legacy_xception", str(path)).eval()
    with torch.inference_mode():
        features = backbone(torch.rand(1, 3, 448, 448))
    assert features.shape == (1, 1024, 14, 14) and features.min() == 0
    assert backbone.mean.flatten().tolist() == backbone.std.flatten().tolist() == [0.5] * 3


def test_xception_is_cut_after_block12(images):
    net = timm.create_model("legacy_xception").eval()
    backbone = build("legacy_xception").eval()
    backbone.trunk.net.load_state_dict(
        {k: v for k, v in net.state_dict().items() if k in backbone.trunk.net.state_dict()}
    )
    seen = []
    net.block12.register_forward_hook(lambda module, inputs, output: seen.append(output.relu()))
    with torch.inference_mode():
        net((images - 0.5) / 0.5)
        assert torch.allclose(backbone(images), seen[0], atol=1e-5)


@pytest.mark.parametrize("name", ["densenet121", "legacy_xception_to_block12"])
def test_the_page_on_data_makes_the_weight_files_that_the_grids_name(name, made_by_the_page):
    """Its lines, run on torchvision's and timm's networks without their weights; the real file has the same tensors."""
    path = made_by_the_page / f"data/weights/{name}.pth"
    assert build(name.removesuffix("_to_block12"), str(path)).channels == 1024
    if (WEIGHTS / path.name).exists():
        ours, real_ones = (torch.load(file, weights_only=True) for file in (path, WEIGHTS / path.name))
        described = [{key: (part.shape, part.dtype) for key, part in state.items()} for state in (ours, real_ones)]
        assert described[0] == described[1]


@pytest.fixture(scope="module")
def made_by_the_page(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "data/weights").mkdir(parents=True)
    program = re.search(r"```python\n(.*?)```", (ROOT / "data/README.md").read_text(), re.DOTALL)[1]
    networks = {"densenet": torchvision.models.densenet121, "xception": timm.create_model}
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(home)
        patches.setattr(torchvision.models, "densenet121", lambda weights: networks["densenet"]())
        patches.setattr(timm, "create_model", lambda name, pretrained: networks["xception"](name))
        exec(program, {})
    return home


def test_timm_by_name(images):
    backbone = build("resnet10t")
    assert backbone(images).shape == (2, backbone.channels, 2, 2)


def test_the_users_own(tmp_path, monkeypatch, images):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Conv2d):\n    channels, mean, std = 6, (0, 0, 0), (1, 1, 1)\n"
        "def net():\n    return Net(3, 6, 16, 16)\n"
        "def bare():\n    return torch.nn.Conv2d(3, 6, 16)\n"
    )
    backbone = build("mine:net")
    assert backbone(images).shape == (2, 6, 4, 4)
    torch.save(backbone.trunk.state_dict(), tmp_path / "mine.pth")
    assert torch.equal(build("mine:net", str(tmp_path / "mine.pth"))(images), backbone(images))
    for name, word in (("mine:bare", "channels"), ("mine:other", "other"), ("nowhere:net", "nowhere"), (":", "Empty")):
        with pytest.raises(
            StudyError, match=f"{word}.*; give module:function of a module in the shell's folder or on PYTHONPATH"
        ):
            build(name)
    with pytest.raises(StudyError, match="mine:net has no ImageNet weights; give -p weights none"):
        build("mine:net", "imagenet")


def test_the_users_own_is_found_from_the_shells_folder(tmp_path, monkeypatch):
    (tmp_path / "from_here.py").write_text(
        "import torch\ndef net():\n    net = torch.nn.Conv2d(3, 6, 16, 16)\n    net.channels = 6\n    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    assert build("from_here:net").channels == 6


@pytest.mark.parametrize(
    ("name", "source", "way"),
    [
        (
            "resnet18",
            "torchvision.models.get_model",
            r"put the file of https://\S+/resnet18-f37072fd\.pth in {0}/check",
        ),
        ("legacy_xception", "timm.create_model", r"put the file of https://\S+/xception-43020ad28\.pth in {0}/check"),
        ("resnet10t", "timm.create_model", r"copy the folder models--timm--resnet10t\.c3_in1k of another machine's"),
    ],
)
def test_imagenet_weights_that_cannot_be_had(monkeypatch, tmp_path, name, source, way):
    def offline(*_, **__):
        raise URLError("no route\nto any host")

    monkeypatch.setattr(source, offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: tmp_path)
    ways = rf"go online, or {way.format(tmp_path)}.*, or give -p weights PATH of a local file, or -p weights none$"
    with pytest.raises(
        StudyError, match=rf"imagenet weights for backbone {name} cannot be had \(.*no route\S*; {ways}"
    ):
        build(name, "imagenet")


def test_a_file_is_put_where_the_message_says(monkeypatch, tmp_path, images):
    monkeypatch.setattr("torch.hub.get_dir", lambda: tmp_path)
    path = tmp_path / "checkpoints" / Path(re.search(r"/([^/]+\.pth)", way_to_weights("squeezenet1_1"))[1])
    path.parent.mkdir()
    net = torchvision.models.squeezenet1_1().eval()
    torch.save(net.state_dict(), path)
    with torch.inference_mode():
        assert torch.equal(build("squeezenet1_1", "imagenet").eval()(images), net.features((images - MEAN) / STD))


def test_timms_weights_are_from_imagenet_or_refused(monkeypatch):
    """tiny_vit's first tag is of ImageNet-22k, of which a network of 1,000 classes was made too; CLIP is neither."""
    created = []
    monkeypatch.setattr("timm.create_model", lambda name, **_: created.append(name) or timm.models.resnet18())
    for name in ("tiny_vit_5m_224", "resnet18", "resnet18.a2_in1k", "coatnet_3_rw_224", "resnet50_clip.openai"):
        from_timm(name, "imagenet")
    assert timm.get_pretrained_cfg("tiny_vit_5m_224").tag == "dist_in22k"
    assert created[0] == "tiny_vit_5m_224.dist_in22k_ft_in1k" and created[1].endswith("_in1k")
    assert created[2:] == ["resnet18.a2_in1k", "coatnet_3_rw_224.sw_in12k", "resnet50_clip.openai"]
    with pytest.raises(StudyError, match="weights of resnet50_clip are openai, not from ImageNet; give -p backbone"):
        build("resnet50_clip", "imagenet")


def test_densenets_old_key_names(tmp_path, images):
    """torchvision's published file still says norm.1 where its module says norm1."""
    net = torchvision.models.densenet121()
    old = {
        k.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in k
        else k: v
        for k, v in net.state_dict().items()
    }
    assert old.keys() != net.state_dict().keys()
    torch.save(old, tmp_path / "old.pth")
    backbone = build("densenet121", str(tmp_path / "old.pth")).eval()
    with torch.inference_mode():
        assert torch.allclose(backbone(images), net.eval().features((images - MEAN) / STD).relu(), atol=1e-5)


def test_weights_of_another_network(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(StudyError) as caught:
        build("squeezenet1_1", str(tmp_path / "resnet18.pth"))
    for words in ("resnet18.pth", "features.0.weight is missing", "conv1.weight is unexpected"):
        assert words in str(caught.value)


def test_weights_of_another_shape(tmp_path):
    state = torchvision.models.resnet18().state_dict() | {"layer1.0.conv1.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(StudyError, match=r"layer1\.0\.conv1\.weight has another shape"):
        build("resnet18", str(tmp_path / "odd.pth"))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_a_file_that_would_run_code(tmp_path):
    torch.save({"features.0.weight": Hostile(tmp_path / "was_here")}, tmp_path / "hostile.pth")
    with pytest.raises(StudyError, match=r"hostile\.pth is no file of plain tensors"):
        build("squeezenet1_1", str(tmp_path / "hostile.pth"))
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("densenet9", "none", "unknown backbone 'densenet9'"),
        ("squeezenet1_1", "nowhere.pth", r"no weight file nowhere\.pth"),
        ("densenet_small", "imagenet", "no ImageNet weights"),
        ("vit_b_16", "none", "vit_b_16 has no feature map"),
        ("test_vit", "none", "test_vit has no feature map"),
        ("coat_tiny", "none", "coat_tiny has no feature map"),
    ],
)
def test_what_cannot_be_had(name, weights, message):
    with pytest.raises(StudyError, match=message):
        build(name, weights)
