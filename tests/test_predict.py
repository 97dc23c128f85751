"""Photographs of anyone's: what is read, what is labelled, what is written where; and heads without their backbone."""

import re
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attnsem import StudyError, backbones, stages
from attnsem.analysis import predict
from attnsem.analysis.heads import Heads
from attnsem.analysis.pictures import with_jpegs
from attnsem.analysis.predict import Photographs, Predictions, Trained, picture_names, write_predictions
from attnsem.datasets import read_image, scenes
from attnsem.files import ROOT, read_arrays, read_json
from results.heads import write_heads

WEIGHTS = ROOT.parent / "shared/weights/densenet121.pth"
with_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no {WEIGHTS}")


def picture(path, size=(40, 20), colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture(scope="module")
def run(scenes_data, tmp_path_factory):
    """Stage 3 of a network whose backbone was frozen, its kernels float16's as a published file's may be."""
    home = tmp_path_factory.mktemp("frozen")
    backbone = backbones.build("densenet_small")
    state = backbone.trunk[0].state_dict() if isinstance(backbone.trunk, torch.nn.Sequential) else {}
    state = {f"features.{key}": value.half() if value.dim() == 4 else value for key, value in state.items()}
    torch.save(state, home / "weights.pth")
    places = {"dataset": "scenes", "runs": home / "runs", "data": scenes_data, "device": "cpu", "epochs": 1}
    stages.train(1, weights=str(home / "weights.pth"), train_backbone=False, **places)
    stages.train(2, feature_cache=1, **places)
    return stages.train(3, gate="confidence", alpha="fixed", feature_cache=1, precision="32-true", **places)


@pytest.fixture(scope="module")
def heads(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "scenes.npz"
    write_heads(run, path, row="proposed")
    return path


def weights_of(run):
    return str(run.folder.parents[4] / "weights.pth")


def test_heads_on_the_backbones_own_weights_are_the_network(run, heads):
    photographs = Photographs.examples(run.settings, "", 0)
    whole, halves = Trained.of_run(run, "proposed"), Trained.of_heads(heads, weights_of(run))
    expected, found = (predict.predict(trained, photographs, device="cpu") for trained in (whole, halves))
    assert np.allclose(expected.probabilities, found.probabilities, atol=0.01) and halves.labels == scenes.LABELS
    assert np.allclose(expected.attention, found.attention, atol=1e-3)
    assert {array.dtype.name for array in read_arrays(heads).values()} == {"float16"}
    assert not [name for name in read_arrays(heads) if "backbone" in name]
    manifest = read_json(heads.with_suffix(".json"))
    assert manifest["checkpoint_sha256"] == run.manifest["checkpoint_sha256"] and "conv0" in manifest["backbone"]


def test_heads_are_refused_on_other_weights_and_when_they_are_others(run, heads, tmp_path):
    with pytest.raises(StudyError, match=r"none weights of densenet_small are not those that scenes\.npz was trained"):
        Heads.of(heads).network("none")
    with pytest.raises(StudyError, match=r"there is no weight file nowhere\.pth"):
        Heads.of(heads).network("nowhere.pth")
    with pytest.raises(StudyError, match="there is no file of heads"):
        Heads.of(tmp_path / "no.npz")
    for source in (heads, heads.with_suffix(".json")):
        (tmp_path / source.name).write_bytes(source.read_bytes() + b" ")
    with pytest.raises(StudyError, match=r"is not the file that scenes\.json beside it names"):
        Heads.of(tmp_path / "scenes.npz")


def test_without_a_network_it_says_which_file_to_put_where(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: tmp_path)
    sentence = (
        r"voc2007\.npz needs the weights .*no route.*; go online, or put the file of https://\S+/densenet121-\w+\.pth"
    )
    with pytest.raises(
        StudyError, match=rf"{sentence} in {tmp_path}/checkpoints, or name it by -p weights PATH \(make"
    ):
        Heads.of(predict.HEADS).network()


def test_the_recorded_heads_are_small_and_say_what_they_reach():
    path = ROOT / predict.HEADS
    manifest = Heads.of(path).manifest
    assert path.stat().st_size < 10e6 and len(manifest["labels"]) == 20
    recorded = read_json(
        ROOT / "results/voc2007-densenet448/voc2007/proposed-confidence-alpha-fixed/seed0/stage3/metrics.json"
    )
    assert manifest["recorded_mAP"]["test"] == round(recorded["mAP"], 2)
    assert abs(manifest["mAP"]["test"] - recorded["mAP"]) < 0.05
    source = read_json(
        ROOT / "results/voc2007-densenet448/voc2007/proposed-confidence-alpha-fixed/seed0/stage3/manifest.json"
    )
    assert manifest["checkpoint_sha256"] == source["checkpoint_sha256"]


@with_weights
def test_photographs_are_labelled_without_training(tmp_path, monkeypatch):
    """With the file that torchvision publishes, under its name and key names, in the folder where torch looks."""
    state = torch.load(WEIGHTS, weights_only=True)
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    net = {old.sub(r"\1.\2", key): value.float() for key, value in state.items() if "num_batches" not in key}
    net |= {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(net, tmp_path / "hub/checkpoints/densenet121-a639ec97.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", "--device", "cpu", "--out", "out", "--figure", "all.svg"])
    predict.main()
    table = pd.read_csv(tmp_path / "out/examples/probabilities.csv", index_col="image")
    assert list(table.idxmax(axis=1)) == ["person", "cat", "motorbike", "diningtable"]
    assert table.max(axis=1).gt(0.7).all() and table.gt(0.5).sum(axis=1).max() == 2
    assert (tmp_path / "all.svg").stat().st_size < 500_000 and "image/jpeg" in (tmp_path / "all.svg").read_text()
    pictures = {path.relative_to(tmp_path / "out/examples").as_posix() for path in tmp_path.rglob("out/**/*.png")}
    names = [Path(name).stem for name in predict.EXAMPLES]
    assert pictures == {
        "attention.png",
        *(f"{name}.png" for name in names),
        *(f"channels/{name}.png" for name in names),
    }


RECORDED = {  # mean and standard deviation of torchvision's tensors, as PaddlePaddle/GraphNet lists those of its models
    "conv0.weight": (-0.0003748801536858082, 0.13130402565002441),
    "norm0.running_mean": (-0.006412121467292309, 0.05406166613101959),
    "norm0.running_var": (4.121304035186768, 7.055976390838623),
    "denseblock1.denselayer1.norm1.bias": (0.16552790999412537, 0.15012335777282715),
    "denseblock1.denselayer3.conv2.weight": (-0.0008570398786105216, 0.032253336161375046),
    "denseblock1.denselayer4.norm1.weight": (0.10510488599538803, 0.07735804468393326),
    "norm5.running_var": (0.005076163914054632, 0.003992283716797829),
    "norm5.weight": (0.9592667818069458, 0.9418938159942627),
}


@with_weights
def test_the_weights_of_the_runs_are_torchvisions():
    state = torch.load(WEIGHTS, weights_only=True)
    for name, recorded in RECORDED.items():
        tensor, is_kernel = state[f"features.{name}"].float(), "conv" in name
        assert (tensor.mean().item(), tensor.std().item()) == pytest.approx(recorded, rel=1e-4 if is_kernel else 1e-6)


def test_photographs_in_folders_within_are_taken_by_their_paths(tmp_path):
    for place in ("b.png", "day 1/a.png", "day 2/deep/a.png"):
        picture(tmp_path / place)
    photographs = Photographs.of(tmp_path, 32)
    assert photographs.names == ["b.png", "day 1/a.png", "day 2/deep/a.png"] and len(photographs) == 3
    assert photographs.title == tmp_path.name and Photographs.of(tmp_path / "b.png", 32).names == ["b.png"]
    assert Photographs.of(tmp_path / "b.png", 32).title == "b"


def test_relative_paths_start_at_the_shells_folder(tmp_path, monkeypatch):
    picture(tmp_path / "mine/a.png")
    monkeypatch.chdir(tmp_path)
    assert Photographs.of("mine", 32).names == ["a.png"] and Photographs.of(".", 32).title == tmp_path.name
    with pytest.raises(StudyError, match=f"there is no {tmp_path}/other; give a photograph"):
        Photographs.of("other", 32)


def predictions_of(photographs, attention=True):
    probabilities = pd.DataFrame([[0.9, 0.6, 0.05]] * len(photographs), photographs.names, ["cat", "dog", "cow"])
    return Predictions(
        photographs, "x", probabilities, np.full((len(photographs), 3, 2, 2), 0.25) if attention else None
    )


def test_each_call_has_a_folder_and_what_it_wrote_is_no_photograph(tmp_path, monkeypatch):
    """Also where it lies among the photographs."""
    picture(tmp_path / "party/a.jpg")
    (tmp_path / "party/notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path / "party")
    for name in ("party", "party-2"):
        photographs = Photographs.of(".", 32)
        folder = write_predictions(predictions_of(photographs), "out")
        assert folder == tmp_path / "party/out" / name and photographs.names == ["a.jpg"]
    where = predictions_of(photographs).where(folder)
    assert "left out" in where and "notes.txt cannot be read as an image" in where
    assert f"{tmp_path}/party/out/party has predictions, no photographs" in where
    assert where.splitlines()[-1] == f"probabilities.csv and pictures of 1 images are in {folder}"
    written = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.*"))]
    assert written == ["a.png", "channels/a.png", "probabilities.csv"]
    assert read_image(tmp_path / "party/a.jpg").size == (40, 20)


def test_a_photograph_is_shown_in_its_own_shape(tmp_path):
    picture(tmp_path / "wide.png", (1280, 320))
    photographs = Photographs.of(tmp_path, 32)
    assert photographs.original("wide.png").shape == (160, 640, 3)
    assert photographs[np.array([0])].shape == (1, 32, 32, 3)
    predictions = predictions_of(photographs)
    images = [ax.images[0].get_array().shape for ax in predictions.together().axes]
    assert images == [(160, 640, 3)] * 3
    (_, figure, _), *_ = predictions.pictures(3)
    assert [len(ax.images) for ax in figure.axes] == [1, 2, 2, 0]
    alone = [name for name, *_ in predictions_of(photographs, attention=False).pictures(3)]
    assert alone == ["wide.png"]


def test_pictures_have_names_of_their_own():
    names = ["party.jpg", "sea.JPG", "sea.png", "attention.jpg", "day 1/a.png", "000014", "v1.5", "../up.jpg"]
    expected = ["party", "sea.JPG", "sea.png", "attention.jpg", "day 1%2Fa", "000014", "v1.5", "..%2Fup"]
    assert list(picture_names(names).values()) == expected


def test_a_line_a_photograph_says_its_labels_or_the_likeliest(tmp_path):
    picture(tmp_path / "a.png")
    predictions = predictions_of(Photographs.of(tmp_path, 32))
    assert predictions.summary() == "a.png  cat 0.90, dog 0.60"
    assert predictions._replace(probabilities=predictions.probabilities / 2).summary() == "a.png  cat 0.45"
    assert list(predictions.shown("a.png")) == ["cat", "dog"]
    assert list(predictions._replace(probabilities=predictions.probabilities / 9).shown("a.png")) == ["cat"]


def test_examples_are_what_the_data_set_is_of(run):
    new = Photographs.examples(run.settings, "", 0)
    assert len(new) == 4 and new.original("scene00001").shape == (72, 72, 3)
    assert not np.array_equal(new.original("scene00001"), np.asarray(scenes.draw("scene00001")))
    shipped = Photographs.examples(run.settings.model_copy(update={"dataset": "voc2007"}), "", 0)
    assert shipped.names == predict.EXAMPLES and shipped.original("chelsea.png").shape == (300, 451, 3)


def test_a_network_that_is_not_trained_names_the_one_that_is(tmp_path):
    places = {"row": "proposed", "stage": 4, "seed": 0, "runs": tmp_path}
    with pytest.raises(
        StudyError, match=r"not complete (.|\n)*\nor, without training, give -p heads data/heads/voc2007\.npz"
    ):
        Trained.chosen(None, "imagenet", dataset="voc2007", **places)
    with pytest.raises(StudyError, match=r"not complete") as caught:
        Trained.chosen(None, "imagenet", dataset="scenes", **places)
    assert "heads" not in str(caught.value)


def test_photographs_in_an_svg_are_jpegs(tmp_path):
    figure = predictions_of(Photographs.of(picture(tmp_path / "a.png"), 32)).together()
    figure.savefig(tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("image/png") == 3 and with_jpegs(text).count("image/jpeg") == 3
    assert "image/png" not in with_jpegs(text)


def test_make_predict_is_the_same_functions():
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "analysis.predict" in line)
    options = {option for action in predict.parser()._actions for option in action.option_strings}
    assert {"--heads", "--weights", "--photos"} == {*re.findall(r"--\w+", line)} <= options
    assert "analysis.predict import Photographs" in (ROOT / "notebooks/11_predict.ipynb").read_text()
