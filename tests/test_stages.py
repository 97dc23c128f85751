"""The four stages on a tiny `scenes`: what learns, what stands still, and what interruption and tampering do."""

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnsem import StudyError, backbones, metrics, model, stages, training
from attnsem.analysis.results import labels_table, parts_table, stages_table
from attnsem.datasets import scenes
from attnsem.datasets.features import Features
from attnsem.datasets.prepared import Prepared, prepare
from attnsem.files import ROOT, checksum, held
from attnsem.paper import settings
from attnsem.runs import complete_run, lineage

QUICK = {"dataset": "scenes", "epochs": 2, "lr_step": 1, "batch_size": 8, "feature_cache": 0} | {
    "precision": "32-true",
    "device": "cpu",
}
ARRAYS = {"trainval": 72, "test": 64}  # pixels


@pytest.fixture(scope="module")
def runs(tmp_path_factory, scenes_data):
    """The four stages of `proposed`, trained once."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in (1, 2, 3, 4):
        stages.train(stage, **QUICK, data=scenes_data, runs=folder)
    return folder


@pytest.fixture
def train(tmp_path, runs, scenes_data):
    """Trains a stage in a copy of the four, without that stage unless it is to be kept."""
    folder = tmp_path / "runs"

    def train(stage, *, keep=False, **changed):
        if not folder.exists():
            shutil.copytree(runs, folder)
        if not keep:
            for path in folder.glob(f"scenes/*/seed0/stage{stage}"):
                shutil.rmtree(path)
        return stages.train(stage, **QUICK | {"data": scenes_data, "runs": folder} | changed)

    return train


def run_of(runs, stage):
    return complete_run(settings(stage, dataset="scenes"), runs)


def state_of(runs, stage):
    return run_of(runs, stage).state()


STANDS = {2: ("backbone.", "classifier."), 3: ("backbone.", "classifier.", "attention."), 4: ()}


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_frozen_weights_and_statistics_stay_bit_for_bit(runs, stage):
    before, after = state_of(runs, stage - 1), state_of(runs, stage)
    frozen = {key for key in before if key.startswith(STANDS[stage])}
    assert any("running_mean" in key for key in frozen) or not frozen
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    unused = "attention.confidence."  # ŷ does not depend on S unless the gate is `confidence`
    learnt = [key for key in after if key not in frozen and key in before and not key.startswith(unused)]
    assert all(not torch.equal(before[key], after[key]) for key in learnt)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_a_run_leaves_what_the_contract_names(runs, scenes_data, stage):
    run = run_of(runs, stage)
    names = {path.name for path in run.folder.iterdir()} - {".lock"}
    assert names == {"checkpoint.pt", "history.csv", "metrics.json", "scores.npz", "manifest.json"}
    assert list(run.history["epoch"]) == [1, 2] and run.history["loss"].gt(0).all()
    wanted = {
        "parameters",
        "git",
        "versions",
        "device",
        "data_fingerprint",
        "parent_sha256",
        "seconds",
        "peak_memory_gib",
    }
    assert wanted <= run.manifest.keys()
    arrays = {name: checksum(scenes_data / f"arrays/scenes/{name}-{size}.npy") for name, size in ARRAYS.items()}
    assert run.manifest["arrays_sha256"] == arrays
    assert ("alpha" in run.history) == (stage > 2)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_scores_are_those_of_the_checkpoint_and_give_the_metrics(runs, scenes_data, stage):
    run, prepared = run_of(runs, stage), Prepared.load("scenes", scenes_data)
    found, network = run.scores(), stages.load(run)
    with torch.inference_mode():
        images = prepared.images("test", 64)[np.arange(32)].permute(0, 3, 1, 2).float() / 255
        output = network(images)
    scored = getattr(output, stages.scored_part(run.settings)).numpy()
    assert found["scores"] == pytest.approx(scored, abs=1e-4)
    assert tuple(found["ids"]) == prepared.ids("test") and tuple(found["labels"]) == prepared.labels
    assert (found["targets"] == prepared.targets("test")).all()
    kept = json.loads((run.folder / "metrics.json").read_text())
    assert kept["mAP"] == pytest.approx(100 * metrics.mean_average_precision(found["targets"], found["scores"]))
    assert len(kept["readings"]) == 9


def test_stage_2_has_stage_1s_baseline_and_stage_4_its_own(runs):
    baselines = [run_of(runs, stage).scores()["baseline"] for stage in (1, 2, 3, 4)]
    assert baselines[1] == pytest.approx(baselines[0], abs=1e-4)
    assert baselines[2] == pytest.approx(baselines[0], abs=1e-4)
    assert np.abs(baselines[3] - baselines[0]).max() > 1e-3


def test_tables_come_from_score_files(runs):
    last = run_of(runs, 4)
    table = stages_table(lineage(last, runs))
    assert list(table.index) == ["stage 1", "stage 2", "stage 3", "stage 4"] and table.shape[1] == 9
    assert list(parts_table(last).index) == ["y′", "ŷ_att", "ỹ", "ŷ"]
    found = last.scores()
    ap = metrics.average_precision(found["targets"], found["semantic"])
    assert labels_table(last).loc["ỹ", list(found["labels"])].to_numpy() == pytest.approx(100 * ap, nan_ok=True)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_an_interrupted_stage_ends_bit_for_bit_like_another(runs, train, interrupted, stage):
    with interrupted():
        train(stage)
    resumed, whole = train(stage, keep=True), run_of(runs, stage)
    for key, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[key]), key
    assert (resumed.folder / "history.csv").read_bytes() == (whole.folder / "history.csv").read_bytes()
    assert (resumed.scores()["scores"] == whole.scores()["scores"]).all()


def test_a_complete_stage_is_not_run_again(train, capsys):
    first = train(1).manifest
    capsys.readouterr()
    assert train(1, keep=True).manifest == first
    assert "is complete" in capsys.readouterr().out


def test_another_parameter_is_refused(train):
    with pytest.raises(StudyError, match=r"holds a run with lr 0\.02, not 0\.5; delete that folder"):
        train(1, keep=True, lr=0.5)


def test_automatic_precision_takes_that_of_the_run_there_is(train, monkeypatch):
    monkeypatch.setattr(stages, "fastest_precision", lambda device: "bf16-mixed")
    assert train(1, keep=True, precision="auto").settings.precision == "32-true"
    assert train(1, precision="auto").settings.precision == "bf16-mixed"
    with pytest.raises(StudyError, match="holds a run with precision 'bf16-mixed', not '32-true'"):
        train(1, keep=True)


def test_a_compiled_network_learns_what_another_does(train, own_data):
    """On cached features, so that the attention is compiled and the backbone, which takes a minute, is not."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    cached = {"epochs": 1, "feature_cache": 1, "data": own_data}
    compiled, plain = train(2, compile=True, **cached), train(2, **cached)
    assert compiled.history["loss"].iloc[0] == pytest.approx(plain.history["loss"].iloc[0], rel=1e-3)


def test_what_stage_1_has_decided_is_refused_later(train):
    with pytest.raises(
        StudyError, match=r"stage 2 inherits difficult 'ignore' from .*stage1, not 'positive'; leave it"
    ):
        train(2, difficult="positive")
    train(2, difficult="ignore")


def test_a_changed_parent_is_refused(train):
    train(1, lr=0.5)
    with pytest.raises(StudyError, match="its parent stage has changed since"):
        train(2, keep=True)


@pytest.mark.parametrize("is_complete", [True, False], ids=["complete", "interrupted"])
def test_an_overwritten_weights_file_is_refused_and_one_that_is_gone_is_not_asked_for(
    train, interrupted, tmp_path, is_complete
):
    path, other = tmp_path / "one/small.pth", tmp_path / "other/small.pth"
    for file in (path, other):
        file.parent.mkdir()
        torch.save(backbones.densenet_small().state_dict(), file)
    if is_complete:
        train(1, weights=str(path))
    else:
        with interrupted():
            train(1, weights=str(path))
    with pytest.raises(StudyError, match=r"the file weights has SHA-256 .*, but .*stage1 was trained with"):
        train(1, keep=True, weights=str(other))
    run = train(1, keep=True, weights=str(path))
    assert run.manifest["weights_sha256"] == checksum(path)
    path.unlink()
    assert train(1, keep=True, weights=str(path)).folder == run.folder


def test_an_overwritten_similarity_file_is_refused(train, tmp_path):
    path = shutil.copy(ROOT / "data/text/wordnet.csv", tmp_path / "alike.csv")
    text = {"gate": "confidence", "semantic_loss": 1.0, "similarity": str(path)}
    train(3, **text)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(StudyError, match="the file similarity has SHA-256"):
        train(3, keep=True, **text)


def test_a_resume_state_of_other_parameters_is_refused(train, monkeypatch):
    monkeypatch.setattr(stages, "write_scores", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(1)
    monkeypatch.undo()
    with pytest.raises(StudyError, match=r"holds a run with momentum 0\.9, not 0\.8"):
        train(1, keep=True, momentum=0.8)


@pytest.mark.parametrize(
    ("stage", "changed", "words"),
    [
        (2, {"seed": 7}, ["stage 1 is not complete", "01_train_stage1.ipynb", "-p dataset scenes -p seed 7"]),
        (3, {"seed": 7}, ["stage 2 is not complete", "02_train_stage2.ipynb"]),
        (4, {"gate": "logits"}, ["stage 3 is not complete", "-p gate logits -p seed 0 -p runs"]),
    ],
)
def test_a_missing_parent_names_notebook_and_parameters(train, stage, changed, words):
    with pytest.raises(StudyError) as caught:
        train(stage, **changed)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_later_stage_takes_what_the_run_decided_in_stage_1(train):
    train(1, test_split="val", difficult="negative", lr=0.01)
    later = train(2, epochs=1).settings
    assert (later.test_split, later.difficult) == ("val", "negative")
    assert (later.lr, later.epochs, later.stage) == (0.02, 1, 2)


def test_variants_share_stages(train, runs):
    run = train(3, variant="se1_conv4", gate="confidence")
    assert run.folder.parts[-3:] == ("se1_conv4-confidence", "seed0", "stage3")
    assert run.manifest["parent_sha256"] == run_of(runs, 2).manifest["checkpoint_sha256"]
    se = train(3, variant="se", keep=True)
    assert se.manifest["parent_sha256"] == run_of(runs, 1).manifest["checkpoint_sha256"]


def test_the_literal_objective_leaves_the_attention_as_it_was(train):
    """Nothing but weight decay moves conv_att: with none, its weights stay what they were drawn."""
    run = train(2, attention_objective="literal", weight_decay=0.0)
    assert run.folder.parts[-3] == "attention-literal"
    drawn, trained = stages.network_of(run.settings, 10).state_dict(), run.state()
    weights = [
        key for key in trained if key.startswith("attention.conv_att") and key.endswith(("0.weight", "2.weight"))
    ]
    assert len(weights) == 3
    assert all((drawn[key] - trained[key]).abs().max() < 1e-7 for key in weights)
    assert (drawn["semantic.classifier.fc.bias"] - trained["semantic.classifier.fc.bias"]).abs().max() > 1e-4


def test_a_tampered_or_lost_checkpoint_is_refused(train, runs):
    run = train(1)
    content = bytearray(run.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    run.checkpoint.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StudyError, match=r"checkpoint\.pt is not the file its manifest names"):
            train(2)
        run.checkpoint.unlink(missing_ok=True)


def test_a_resume_state_that_would_run_code_is_refused(train, tmp_path):
    run = train(1)
    run.folder.joinpath("manifest.json").unlink()
    torch.save({"network": Path}, run.resume)
    with pytest.raises(StudyError, match=r"resume\.pt is no file of plain tensors"):
        train(1, keep=True)


def test_a_checkpoint_of_another_state_of_the_data_is_refused(tmp_path, runs):
    other = tmp_path / "data"
    prepare(scenes.load(seed=1, train=8, val=4, test=8), data=other, train_size=72, image_size=64)
    with pytest.raises(StudyError, match="was trained on another state of scenes"):
        stages.train(2, **QUICK | {"epochs": 1}, data=other, runs=runs)


def test_data_that_is_not_prepared(tmp_path):
    with pytest.raises(StudyError, match=r"scenes is not prepared .* run: papermill 00_prepare_data\.ipynb"):
        stages.train(1, **QUICK, data=tmp_path, runs=tmp_path)


def hold(folder, ready, stop):
    with held(folder):
        ready.set()
        stop.wait()


def test_a_folder_that_another_process_writes_to(tmp_path, scenes_data):
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    folder = tmp_path / "scenes/densenet/seed0/stage1"
    other = context.Process(target=hold, args=(folder, ready, stop))
    other.start()
    assert ready.wait(60)
    try:
        with pytest.raises(StudyError, match="stage1 is being written by process"):
            stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    finally:
        stop.set()
        other.join()


@pytest.fixture
def own_data(tmp_path, scenes_data):
    """A copy of the prepared data, without features that other tests wrote."""
    return shutil.copytree(scenes_data, tmp_path / "data", ignore=shutil.ignore_patterns("features"))


def written(data):
    return {path: path.stat().st_mtime_ns for path in data.glob("features/scenes/*.npy")}


def test_cached_features_are_those_of_the_backbone(train, runs, own_data):
    whole, cached = run_of(runs, 2), train(2, feature_cache=2, data=own_data)
    difference = np.abs(cached.scores()["baseline"] - whole.scores()["baseline"]).max()
    assert 0 < difference < 2e-2  # float16
    files = written(own_data)
    assert len(files) == 2
    train(3, feature_cache=2, data=own_data, keep=True, gate="logits")
    with_maps = written(own_data)
    assert files.items() < with_maps.items() and len(with_maps) == 4
    train(3, feature_cache=2, data=own_data, keep=True, gate="signed")
    assert written(own_data) == with_maps


def test_a_linear_classifier_on_frozen_features(train, own_data):
    run = train(1, train_backbone=False, feature_cache=1, data=own_data)
    drawn, trained = stages.network_of(run.settings, 10).state_dict(), run.state()
    assert all(torch.equal(drawn[key], trained[key]) for key in drawn if key.startswith("backbone."))
    assert not torch.equal(drawn["classifier.fc.weight"], trained["classifier.fc.weight"])


@pytest.mark.parametrize("batchnorm", ["batch", "fixed"])
def test_statistics_of_a_backbone_that_is_trained(train, batchnorm):
    run = train(1, batchnorm=batchnorm)
    drawn, trained = stages.network_of(run.settings, 10).state_dict(), run.state()
    kept = [torch.equal(drawn[key], trained[key]) for key in drawn if key.startswith("backbone.") and "running" in key]
    assert kept and (all(kept) if batchnorm == "fixed" else not any(kept))
    assert not torch.equal(drawn["backbone.trunk.0.conv0.weight"], trained["backbone.trunk.0.conv0.weight"])


def test_a_loss_that_is_not_finite_stops_the_stage(train):
    with pytest.raises(
        StudyError, match=r"loss or gradient of stage 1 is not finite in epoch 1, step \d, with .*smaller lr"
    ):
        train(1, lr=1e30)


def test_evaluation_on_val_and_every_epoch(train):
    run = train(1, train_split="train", test_split="val", evaluate_every=1)
    assert len(run.scores()["ids"]) == 8
    assert run.history["mAP"].iloc[-1] == pytest.approx(json.loads((run.folder / "metrics.json").read_text())["mAP"])


def test_history_is_written_each_epoch(train, monkeypatch):
    seen, saved = [], training.save
    monkeypatch.setattr(
        training, "save", lambda *args: (saved(*args), seen.append(len(pd.read_csv(args[2].folder / "history.csv"))))
    )
    train(1)
    assert seen == [1, 2]


def test_a_loss_of_its_own_trains_the_semantic_part_where_alpha_is_1(train, monkeypatch):
    """With α fixed at 1, ŷ = y′ gives the semantic part no gradient; its own loss does."""
    monkeypatch.setattr(model, "ALPHA", 1.0)
    fixed = {"variant": "two_layer_fused", "alpha": "fixed", "weight_decay": 0.0}
    starved, fed = train(3, **fixed), train(3, **fixed, semantic_loss=1.0, keep=True)
    drawn = stages.network_of(starved.settings, 10).state_dict()["semantic.fc.weight"]
    assert torch.equal(starved.state()["semantic.fc.weight"], drawn)
    assert not torch.equal(fed.state()["semantic.fc.weight"], drawn)
    assert fed.folder != starved.folder and "semantic_loss1" in fed.folder.parts[-3]


@pytest.mark.parametrize(
    ("reading", "stays"), [("clamped", [False, False]), ("warm-up", [True, False]), ("fixed", [True, True])]
)
def test_alpha_stays_at_its_start_for_as_long_as_its_reading_says(train, reading, stays):
    history = train(3, alpha=reading, epochs=2, lr=0.05, weight_decay=0.5).history
    assert [alpha == pytest.approx(0.48) for alpha in history["alpha"]] == stays


def test_folds_need_a_backbone_that_stood_still_and_a_cache(train, own_data):
    with pytest.raises(StudyError, match="baseline_folds needs a feature_cache"):
        train(3, baseline_folds=2)
    with pytest.raises(StudyError, match="baseline_folds needs a stage 1 that trained its classifier alone"):
        train(3, baseline_folds=2, feature_cache=1, data=own_data)


def test_out_of_fold_logits_do_not_know_the_images_own_label():
    """Turning one image's labels changes what others are given, not the logits of its own fold."""
    torch.manual_seed(0)
    views = torch.randn(30, 2, 6, 1, 1).numpy().astype(np.float16)
    features, targets = Features(views, np.arange(30)), torch.randint(0, 2, (30, 3))
    first = settings(1, dataset="scenes", epochs=3, train_backbone=False, batch_size=8)
    before = training.out_of_fold(features, targets, first, folds=3)
    turned = targets.clone()
    turned[4] = 1 - turned[4]
    after = training.out_of_fold(features, turned, first, folds=3)
    changed = (before != after).flatten(1).any(1)
    assert before.shape == (30, 2, 3) and not changed[4] and 0 < changed.sum() <= 20


def test_maps_take_out_of_fold_logits_for_training_images_alone():
    views = np.zeros((4, 2, 6, 1, 1), np.float32)
    unseen = torch.arange(16.0).reshape(4, 2, 2)
    rows = Features(views, np.arange(4), of="maps", baseline=unseen).batch(np.array([3, 1]), np.array([1, 0]))
    assert rows[:, :2, 0, 0].tolist() == [[14, 15], [4, 5]] and not rows[:, 2:].any()


def test_parents_may_be_in_another_folder(train, runs, scenes_data, tmp_path):
    run = stages.train(3, **QUICK | {"epochs": 1}, data=scenes_data, runs=tmp_path / "other", parents=runs)
    assert run.manifest["parent_sha256"] == run_of(runs, 2).manifest["checkpoint_sha256"]
    with pytest.raises(StudyError, match="stage 2 is not complete in"):
        stages.train(3, **QUICK | {"seed": 3}, data=scenes_data, runs=tmp_path / "other", parents=runs)


def test_a_backbone_alone_may_have_stage_4_too(train):
    run = train(4, variant="densenet")
    assert run.folder.parts[-3:] == ("densenet", "seed0", "stage4")
    assert run.scores()["scores"] == pytest.approx(run.scores()["baseline"])


def test_groups_of_channels_and_label_similarities_train_and_are_told_apart(train):
    second = train(2, keep=True, channels_per_label=2)
    assert second.folder.parents[1].name == "attention-channels_per_label2"
    third = train(3, channels_per_label=2, gate="confidence")
    assert third.manifest["parent_sha256"] == second.manifest["checkpoint_sha256"]
    text = {"gate": "confidence", "semantic_loss": 1.0, "similarity": "data/text/wordnet.csv"}
    plain, soft, shuffled = (
        train(3, keep=True, **given)
        for given in (text | {"similarity": ""}, text, text | {"similarity_seed": 1, "similarity_weight": 0.3})
    )
    assert soft.folder.parents[1].name == "proposed-confidence-semantic_loss1-similarity-wordnet"
    assert soft.manifest["similarity_sha256"] and plain.manifest["similarity_sha256"] is None
    assert (
        soft.settings.similarity == "wordnet.csv"
        and soft.folder == type(soft).of(soft.settings, soft.folder.parents[3]).folder
    )
    scores = [run.scores()["semantic"] for run in (plain, soft, shuffled)]
    assert not np.allclose(scores[0], scores[1]) and not np.allclose(scores[1], scores[2])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"similarity": "data/text/wordnet.csv"}, "give it a semantic_loss"),
        ({"similarity": "no.txt", "semantic_loss": 1.0}, "there is no"),
        ({"channels_per_label": 0}, "channels_per_label must be above 0"),
    ],
)
def test_refuses_similarities_and_groups_that_are_none(train, given, says):
    with pytest.raises(StudyError, match=says):
        train(3, **given)
