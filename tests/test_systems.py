"""The other systems: rows on the features of a stage 1, chosen on val, that leave run folders as stages do."""

import re
import shutil
import sys
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import nn
from torch.nn.functional import interpolate

from attnsem import NotFiniteError, StudyError, paper, stages
from attnsem.analysis import published, tables
from attnsem.analysis.rows import REPAIR
from attnsem.analysis.systems import SYSTEMS, System, aiacnn, comparison, gradient, module_of
from attnsem.analysis.systems.dbn import train_rbm
from attnsem.analysis.systems.descriptors import describe
from attnsem.analysis.systems.examples import learnable
from attnsem.analysis.systems.linear import decision_values, planes, unit
from attnsem.analysis.systems.search import search
from attnsem.analysis.systems.task import Progress, settings_of, task
from attnsem.analysis.systems.training import train
from attnsem.files import read_json, write_arrays, write_json
from attnsem.runs import NAMED, Run
from attnsem.training import seed_torch
from results.pages import recorded_stages
from results.record import record
from tests.verify import broken

ON_VAL = {"train_split": "train", "test_split": "val"}


@pytest.fixture(scope="session")
def place(tmp_path_factory, scenes_data):
    """Runs with a stage 1 on a tiny `scenes`, and one that has not seen val; the arguments of train and search."""
    runs = tmp_path_factory.mktemp("systems")
    where = {"dataset": "scenes", "data": scenes_data, "device": "cpu"}
    for folder, splits in ((runs, {}), (runs / "val", ON_VAL)):
        stages.train(1, runs=folder, epochs=1, **where, **splits)
    return where | {"runs": runs, "feature_cache": 2}


@pytest.fixture
def fresh(place, tmp_path):
    """The same stage 1s in a folder of its own, where no system has been run."""
    runs = tmp_path / "runs"
    for part in ("scenes/densenet", "val/scenes/densenet"):
        shutil.copytree(place["runs"] / part, runs / part)
    return place | {"runs": runs}


def test_a_system_leaves_a_run_like_any_other_row(place):
    run = train("cnn_svm", **place)
    manifest = run.manifest
    assert manifest["system"] == {"name": "cnn_svm", "feature_cache": 2, "settings": {"C": 1.0}}
    assert (
        manifest["parent_sha256"] == Run(place["runs"] / "scenes/densenet/seed0/stage1").manifest["checkpoint_sha256"]
    )
    row = tables.read_rows(place["runs"], "scenes", 3)["CNN-SVM"]
    assert "CNN-SVM" not in tables.selection(place["runs"], "scenes", 3).index  # it has no epochs
    scores = run.scores()
    ap = average_precision_score(scores["targets"][:, 0], scores["scores"][:, 0])
    assert row.ap().iloc[0, 0] == pytest.approx(100 * ap)
    assert read_json(run.folder / "metrics.json")["mAP"] == pytest.approx(row.ap()["mAP"].iloc[0])


def test_a_complete_system_is_not_trained_again(place, capsys, monkeypatch):
    run = train("cnn_svm", **place)
    monkeypatch.setattr(module_of("cnn_svm"), "fit", None)
    assert train("cnn_svm", **place) == run
    assert "scenes/cnn_svm/seed0/stage1 is complete" in capsys.readouterr().out
    with pytest.raises(StudyError, match=r"holds a run with C 1\.0, not 3\.0; delete that folder"):
        train("cnn_svm", own={"C": 3}, **place)
    with pytest.raises(StudyError, match="feature_cache 2, not 1"):
        train("cnn_svm", **place | {"feature_cache": 1})


def test_settings_are_chosen_on_val_and_then_taken(fresh):
    first = search("cnn_svm", draws=1, **fresh)
    choice = search("cnn_svm", draws=3, **fresh)
    folder = fresh["runs"] / "val/scenes/cnn_svm"
    draws = read_json(folder / "stage1-draws.json")["draws"]
    assert draws[0]["C"] == first["C"] and len(draws) == 3
    assert choice == {"C": max(draws, key=lambda draw: draw["mAP"])["C"]} == read_json(folder / "stage1.json")
    assert train("cnn_svm", **fresh).manifest["system"]["settings"] == choice


class Linear:
    """A system trained by epochs, as the modules of a package are."""

    SETTINGS = gradient.SETTINGS | {"epochs": 3}
    space = staticmethod(gradient.space)

    @staticmethod
    def fit(train, settings, *, seed, progress):
        seed_torch(seed)
        network = nn.Linear(train.pooled().shape[2], len(train.labels))
        return gradient.train(
            network, train, gradient.vectors(train.pooled(), train), settings, seed=seed, progress=progress
        )

    @staticmethod
    def scores(state, examples, settings):
        network = nn.Linear(*state["weight"].shape[::-1])
        return gradient.evaluate(network, state, examples, gradient.vectors(examples.pooled(), examples))


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setitem(sys.modules, "attnsem.analysis.systems.linear_by_epochs", Linear)
    monkeypatch.setitem(SYSTEMS, "by_epochs", System("by epochs", "linear_by_epochs"))


@pytest.mark.parametrize(("name", "own"), [("by_epochs", {}), ("dbn_cnn", {"epochs": 3, "rbm_epochs": 1, "lr": 0.005})])
def test_an_interrupted_system_ends_where_an_uninterrupted_one_does(name, own, fresh, linear, monkeypatch, tmp_path):
    whole = train(name, own=own, **fresh | {"runs": shutil.copytree(fresh["runs"], tmp_path / "uninterrupted")})
    assert whole.history["epoch"].tolist() == [1, 2, 3] and whole.history["loss"].is_monotonic_decreasing
    save = Progress.save

    def stopped(progress, row, state):
        save(progress, row, state)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "save", stopped)
        train(name, own=own, **fresh)
    with pytest.raises(StudyError, match="holds a run with epochs 3, not 4"):
        train(name, own=own | {"epochs": 4}, **fresh)
    resumed = train(name, own=own, **fresh)
    assert (resumed.scores()["scores"] == whole.scores()["scores"]).all()
    assert resumed.history.equals(whole.history) and not resumed.resume.exists()


def test_a_loss_that_is_not_finite_is_no_draw_and_loses_nothing(fresh, linear):
    with pytest.raises(StudyError, match="none of 2 draws of by_epochs has finite scores"):
        search("by_epochs", draws=2, own={"lr": 1e30}, **fresh)
    with pytest.raises(NotFiniteError, match="give a smaller lr than 1e"):
        train("by_epochs", own={"lr": 1e30, "epochs": 9}, **fresh)
    assert not (fresh["runs"] / "scenes/by_epochs/seed0/stage1/manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"own": {"c": 1.0}}, "cnn_svm has no parameter 'c'; there are C"),
        ({"own": {"C": "much"}}, "parameter C of cnn_svm must be of type float, not 'much'"),
        ({"own": {"C": -1.0}}, "parameter C of cnn_svm must be above 0, not -1.0"),
        ({"feature_cache": -1}, "parameter feature_cache must be 0 or more, not -1"),
        ({"seed": 7}, "not complete in .*seed7/stage1; run:\\n(cd .*\\n)?(papermill 00.*\\n)?papermill 01"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(place, arguments, sentence):
    with pytest.raises(StudyError, match=sentence):
        train("cnn_svm", **place | arguments)
    ranges = {"csra": ("epochs", 0, "above 0"), "aiacnn": ("dropout", 2.0, "0 or more, at most 1")}
    for name, (parameter, value, words) in ranges.items():
        with pytest.raises(StudyError, match=f"parameter {parameter} of {name} must be {words}, not {value}"):
            train(name, **place, own={parameter: value})
    with pytest.raises(StudyError, match=r"parameter heads of csra must be one of \[1, 2, 4, 6\], not 3"):
        train("csra", **place, own={"heads": 3})
    with pytest.raises(StudyError, match="there is no system 'svm'; there are cnn_svm, very_deep, cnn_rnn"):
        train("svm", **place)


def test_nothing_is_chosen_on_val_by_a_backbone_that_has_seen_it(fresh):
    shutil.rmtree(fresh["runs"] / "val")
    with pytest.raises(
        StudyError, match=r"has seen it; in notebooks run: papermill 01_train_stage1\.ipynb .*-p train_split"
    ):
        search("cnn_svm", draws=1, **fresh)
    manifest = fresh["runs"] / "scenes/densenet/seed0/stage1/manifest.json"
    content = read_json(manifest)
    content["parameters"]["train_backbone"] = False
    write_json(manifest, content)
    assert search("cnn_svm", draws=1, **fresh)


def known(targets):
    return SimpleNamespace(
        targets=np.array(targets),
        labels=("sun", "sea", "tree"),
        split="train",
        source=SimpleNamespace(prepared=SimpleNamespace(name="scenes")),
    )


def test_a_plane_is_learned_on_the_images_where_its_label_is_known(capsys):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 4)).astype(np.float32)
    targets = np.stack([vectors[:, 0] > 0, vectors[:, 1] > 0, np.zeros(60)], axis=1).astype(int)
    targets[40:, 0] = -1
    train = known(targets)
    state = planes(vectors, train, lambda: LinearSVC(C=1.0, random_state=0))
    alone = LinearSVC(C=1.0, random_state=0).fit(vectors[:40], targets[:40, 0])
    values = decision_values(state, vectors)
    assert values[:, 0] == pytest.approx(alone.decision_function(vectors), abs=1e-4)
    assert (values[:, 2] == 0).all() and "tree: never present in train" in capsys.readouterr().out
    with pytest.raises(StudyError, match="no label of scenes is both present and absent in train"):
        learnable(known(np.zeros((4, 3))))


FEW = {"hidden1": 16, "hidden2": 8, "rbm_epochs": 2, "hidden": 16, "epochs": 2, "batch_size": 8, "scales": "0.5 1 1.5"}


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "cnn_svm"])
def test_each_system_is_a_row(place, name):
    taken = {**module_of(name).SETTINGS}
    run = train(name, own={key: value for key, value in FEW.items() if key in taken}, **place)
    scores = run.scores()["scores"]
    assert scores.shape == run.scores()["targets"].shape and np.ptp(scores, axis=0).min() > 0
    assert ("epochs" in taken) == (run.folder / "history.csv").exists()
    rows = tables.read_rows(place["runs"], "scenes", 3)
    assert rows[SYSTEMS[name].name].seeds == ["seed0"]
    settings = module_of(name).space(np.random.default_rng(0))
    assert settings and {*settings} <= {*taken}


def imagined(vectors, targets):
    """Examples whose pooled features are the vectors, in one view."""
    train = known(targets)
    train.pooled = lambda: vectors[:, None].astype(np.float32)
    return train


def test_lda_finds_the_direction_of_two_normal_distributions():
    random = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.8, 0], [0.8, 1, 0], [0, 0, 1]]) * 0.01
    present = random.random((4000, 3)) < 0.5
    means = np.array([0.5, 0.5, 0.7]) + 0.05 * present[:, :1] * [1, 0, 0]
    vectors = unit(means + random.multivariate_normal(np.zeros(3), covariance, 4000))
    train = imagined(vectors, present.astype(int))
    lda = module_of("lda")
    settings = {"inputs": "features", "shrinkage": 0.0}
    state = lda.fit(train, settings, seed=0, progress=None)
    positive, negative = vectors[present[:, 0]], vectors[~present[:, 0]]
    within = (np.cov(positive.T) + np.cov(negative.T)) / 2
    direction = np.linalg.pinv(within, rcond=1e-4) @ (positive.mean(0) - negative.mean(0))
    ours = state["weight"][0].numpy() / state["deviation"].numpy()
    spread = vectors - vectors.mean(0)  # vectors of length 1 lie on a sphere: directions are compared on them
    assert np.corrcoef(spread @ ours, spread @ direction)[0, 1] > 0.99


def test_the_rbf_svm_is_scikit_learns_on_the_images_whose_label_is_known():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(80, 3)).astype(np.float32)
    targets = np.stack([vectors[:, 0] * vectors[:, 1] > 0, vectors[:, 2] > 0, vectors[:, 0] > 0], axis=1).astype(int)
    targets[50:, 0] = -1
    train = imagined(vectors, targets)
    svm, settings = module_of("svm_rbf"), {"inputs": "features", "C": 10.0, "gamma": 1.5}
    state = svm.fit(train, settings, seed=0, progress=None)
    rows = StandardScaler().fit_transform(unit(vectors))
    alone = SVC(C=10.0, gamma=0.5).fit(rows[:50], targets[:50, 0])
    assert svm.scores(state, train, settings)[:, 0] == pytest.approx(alone.decision_function(rows), abs=1e-3)


def test_a_boltzmann_machine_learns_which_units_go_together():
    torch.manual_seed(0)
    halves = torch.rand(400, 1).lt(0.5)
    x = torch.cat([halves.expand(-1, 6), ~halves.expand(-1, 6)], 1).float()
    layer = nn.Linear(12, 4)
    settings = {"rbm_epochs": 30, "rbm_lr": 0.05, "batch_size": 20}
    hidden = train_rbm(layer, x, settings, seed=0, is_gaussian=False)
    first, second = (hidden[part].mean(0) for part in (halves[:, 0], ~halves[:, 0]))
    assert (first - second).abs().max() > 0.9  # a hidden unit tells the two patterns apart
    assert hidden.shape == (400, 4) and not hidden.requires_grad


def test_descriptors_are_what_their_names_say():
    red = np.zeros((300, 200, 3), np.uint8)
    red[..., 0] = 255
    vector = describe(red)
    assert vector.shape == (648,) and vector[:128].max() == 1 and vector[:128].argmax() == 0 * 16 + 3 * 4 + 3
    lab = vector[128 : 128 + 48].reshape(16, 3)
    assert lab[0] / lab[0, 0] == pytest.approx(np.array([53.24, 80.09, 67.20]) / 53.24, abs=1e-3)
    assert (vector[224:548] == 0).all()  # no edge
    bars = np.tile((np.arange(128) // 16 % 2 * 255).astype(np.uint8)[None, :, None], (128, 1, 3))
    across, along = (describe(image)[224:548].reshape(-1, 9).sum(0) for image in (bars, bars.transpose(1, 0, 2)))
    assert across.argmax() != along.argmax()
    assert describe(bars)[:128] == pytest.approx(describe(bars.transpose(1, 0, 2))[:128])


def test_an_image_and_its_mirror_image_are_one_at_every_scale(place):
    job = task("very_deep", {}, **{key: value for key, value in place.items() if key != "device"})
    examples, _ = job.examples(job.fabric("cpu"), "train", "test")
    very_deep = module_of("very_deep")
    assert very_deep.sides(examples, "0.75 1 1.25") == [48, 64, 80]
    backbone = examples.source.backbone
    image = torch.from_numpy(examples.images.array[:1].copy()).permute(0, 3, 1, 2).float() / 255
    image = interpolate(image, (48, 48), mode="bilinear", antialias=True)
    with torch.no_grad():
        both = [backbone(view).mean((2, 3)) for view in (image, image.flip(3))]
    row = very_deep.pooled_at(examples, backbone, "densenet_small", 48)
    assert row[0] == pytest.approx(torch.stack(both).mean(0)[0].numpy(), abs=0.05)


def test_fewer_than_three_scales_are_refused(fresh):
    with pytest.raises(StudyError, match=r"very_deep has scales .1 1 2.; give three or more"):
        train("very_deep", own={"scales": "1 1 2"}, **fresh)


def test_two_backbones_are_put_beside_each_other(place):
    job = task("very_deep", {}, **{key: value for key, value in place.items() if key != "device"})
    _, examples = job.examples(job.fabric("cpu"), "train", "test")
    very_deep, settings = module_of("very_deep"), {"scales": "0.5 1 1.5", "second": "", "second_weights": "none"}
    one = very_deep.vectors(examples, settings)
    two = very_deep.vectors(examples, settings | {"second": "densenet_small"})
    assert two.shape[1] == 2 * one.shape[1]
    assert two[:, : one.shape[1]] == pytest.approx(one / np.sqrt(2), abs=1e-5)
    of_vgg = very_deep.vectors(examples, settings | {"second": "vgg19"})  # the paper's own, of random weights
    assert of_vgg.shape[1] == one.shape[1] + 512 and of_vgg[:, : one.shape[1]] == pytest.approx(two[:, : one.shape[1]])


def test_record_and_verify_take_systems_as_they_are(fresh, tmp_path):
    run = train("cnn_svm", **fresh)
    results = tmp_path / "results"
    record(fresh["runs"], "mine", results)
    assert list(broken(results)) == []
    stages_csv = pd.read_csv(StringIO(recorded_stages(results))).set_index("recorded in")
    line = stages_csv.loc["mine/scenes/cnn_svm/seed0/stage1"]
    assert line["other system"] == pytest.approx(read_json(run.folder / "metrics.json")["mAP"], abs=1)
    manifest = results / "mine/scenes/cnn_svm/seed0/stage1/manifest.json"
    write_json(manifest, read_json(manifest) | {"parent_sha256": "0" * 64})
    assert [sentence.partition(": ")[2] for sentence in broken(results)] == [
        f"was trained from another checkpoint than that of {results / 'mine/scenes/densenet/seed0/stage1'}"
    ]


def a_row(name, scores, targets, folder):
    files = []
    for seed, part in enumerate(scores):
        path = folder / name / f"seed{seed}" / "stage1" / "scores.npz"
        ids, labels = np.arange(len(targets)).astype(str), np.array(["sun", "sea"])
        write_arrays(path, {"ids": ids, "labels": labels, "targets": targets, "scores": part.astype(np.float32)})
        parameters = paper.settings(1, dataset="scenes", seed=seed).model_dump()
        write_json(path.with_name("manifest.json"), dict.fromkeys(NAMED) | {"parameters": parameters})
        files.append((path,))
    return tables.Row("", name, tuple(files))


@pytest.mark.parametrize("voters", [1, 5])
def test_the_voters_score_is_the_logit_of_their_mean_probability(voters):
    logits = torch.linspace(-8, 8, 12 * voters, dtype=torch.float64).reshape(4, voters, 3)
    assert torch.allclose(aiacnn.logit_of_mean(logits).sigmoid(), logits.sigmoid().mean(1))


def test_what_is_left_of_a_printed_lead_is_said_of_each_system(tmp_path):
    random = np.random.default_rng(0)
    targets = (random.random((300, 2)) < 0.4).astype(np.int8)
    good, middling = (targets + random.normal(scale=scale, size=(2, 300, 2)) for scale in (0.2, 0.6))
    rows = {system.name: tables.Row("", system.name) for system in SYSTEMS.values()}
    names = {"good": (REPAIR, "Very deep"), "middling": ("baseline", "proposed", "proposed, α fixed", "CNN-SVM")}
    rows |= {name: a_row(name, good, targets, tmp_path) for name in names["good"]}
    rows |= {name: a_row(name, middling, targets, tmp_path) for name in names["middling"]}
    table = comparison.compared(rows, "1")
    printed = {"CNN-SVM": 73.9, "Very deep": 89.7}
    for name, mean_ap in printed.items():  # of 90.4, data/published
        assert table.loc[name, ("", "printed lead")] == pytest.approx(90.4 - mean_ap)
        assert table.loc[name, ("", "measured")] == pytest.approx(rows[name].ap()["mAP"].mean())
    lead = table.loc["CNN-SVM", (f"lead of {REPAIR}", "Δ mAP")]
    assert lead == pytest.approx((rows[REPAIR].ap() - rows["CNN-SVM"].ap())["mAP"].mean())
    cell = comparison.shown(table).loc["CNN-SVM", f"lead of {REPAIR} (95 % CI)"]
    assert re.fullmatch(rf"{re.escape(f'{lead:+.2f}')} \(\+\d+\.\d\d to \+\d+\.\d\d\)", cell)
    text = comparison.lead_left(table, "scenes")
    assert "of +16.5 over CNN-SVM, none that can be told from zero (+0.0 points, 95 % CI +0.0 to +0.0)" in text
    assert "of +0.7 over Very deep, none, for the system is ahead" in text
    assert lead > 16.5 and f"of +16.5 over CNN-SVM, more than all ({lead:+.1f} points" in text
    assert text.endswith("The printed leads are those on voc2007, the measured ones on scenes.")
    rows |= {name: a_row(name, middling, targets, tmp_path) for name in ("LDA", "LDA, CNN features")}
    text = comparison.lead_left(comparison.compared(rows, "2"), "mirflickr38")
    assert "of +29.0 over LDA, CNN features, " in text and "over LDA, none" not in text
    assert "printed leads are those" not in text
    third = pd.Series({"Δ mAP": 0.64, "low": 0.2, "high": 1.1})
    assert comparison.part_left("RLSD", 1.9, third) == "of +1.9 over RLSD, 34 % (+0.6 points, 95 % CI +0.2 to +1.1)"
    known = [tables.differences([rows["CNN-SVM"]], rows[other]).reset_index() for other in ("baseline", REPAIR)]
    known[1]["Δ mAP"] = -5.0
    again = comparison.compared(rows, "1", differences=pd.concat(known)).loc["CNN-SVM"]
    assert again[f"lead of {REPAIR}", "Δ mAP"] == 5 and again["lead of proposed", "Δ mAP"] == 0
    columns = ["", "vs. baseline", "lead of proposed"]
    pd.testing.assert_frame_equal(again[columns].to_frame(), table.loc["CNN-SVM"][columns].to_frame())
    rows |= {"Very deep": tables.Row("", "Very deep")}
    assert "Very deep" in comparison.lead_left(comparison.compared(rows, "1"), "voc2007").split("Not run here:")[1]
    assert "prints none of these" in comparison.lead_left(comparison.compared(rows, "3"), "scenes")


def test_the_reading_behind_the_printed_numbers_is_told_from_a_better_or_worse_network():
    """One reading is the printed AP, shifted and stretched; the other has other labels for hard ones."""
    printed = published.table("1").loc["DenseNet"].drop("mAP")
    ap = {("11-point", "ignore"): 60 + printed / 3, ("none", "ignore"): pd.Series([*printed[::-1]], printed.index)}
    table = pd.DataFrame(ap).T.assign(mAP=50.0, labels_without_positives=0)
    row = SimpleNamespace(files=["scores"], labels=[*printed.index[::-1]], readings=lambda: table)
    behind = comparison.readings_behind(row, "1")
    assert [*behind.index] == [("11-point", "ignore"), ("none", "ignore")] and behind["correlation"].iloc[0] > 0.999
    assert behind["mean gap"].iloc[0] == pytest.approx((2 * printed / 3 - 60).mean())
    assert behind["spread of the gaps"].iloc[0] == pytest.approx((2 * printed / 3).std())
    assert comparison.readings_behind(row, "2").empty and comparison.readings_behind(tables.Row("", "x"), "1").empty


@pytest.mark.parametrize("name", ["cnn_svm", "lda_cnn", "svm_rbf_cnn", "dbn_cnn", "mvaiacnn"])
def test_few_images_rare_labels_and_one_label_lose_nothing(name):
    """Six images of 30 numbers; a label of one image, one of none and one of all but the last."""
    vectors = np.random.default_rng(0).normal(size=(6, 30))
    targets = np.array([[1, 0, 0, 0, 0, 0], [0] * 6, [1, 1, 1, 1, 1, -1]]).T
    module = module_of(name)
    settings = settings_of(name, {key: value for key, value in FEW.items() if key in module.SETTINGS})
    for labels in (3, 1):
        train = imagined(vectors, targets[:, :labels])
        train.labels, train.ids, train.views, train.device = train.labels[:labels], range(6), 1, torch.device("cpu")
        state = module.fit(train, settings, seed=0, progress=Progress())
        scores = module.scores(state, train, settings)
        assert scores.shape == (6, labels) and np.isfinite(scores).all()
        if "epochs" not in settings:
            assert scores[0, 0] > scores[1:, 0].max()
