import pytest

from attnsem import StudyError
from attnsem.analysis.rows import ROWS, settings_of, stages_of
from attnsem.paper import part_of, settings


def test_defaults_are_the_papers():
    paper = settings(1, dataset="voc2007")
    assert (paper.lr, paper.lr_step, paper.lr_drop, paper.momentum) == (0.001, 30, 0.1, 0.9)
    assert (paper.weight_decay, paper.batch_size, paper.train_size, paper.image_size) == (0.0005, 24, 512, 448)
    assert (paper.backbone, paper.weights, paper.gate, paper.train_split) == (
        "densenet121",
        "imagenet",
        "literal",
        "trainval",
    )


def test_none_is_the_default_of_the_data_set():
    assert settings(2, dataset="scenes", epochs=None, lr=None) == settings(2, dataset="scenes")
    assert settings(2, dataset="scenes").backbone == "densenet_small"
    assert settings(2, dataset="scenes", lr=1).lr == 1.0
    assert settings(1, dataset="my/own set.csv").dataset == "own set"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "unknown parameter 'epoch'; did you mean 'epochs'"),
        ({"frobnicate": 3}, "unknown parameter 'frobnicate'$"),
        ({"epochs": "3"}, "epochs must be of type int, not '3'"),
        ({"epochs": True}, "epochs must be of type int, not True"),
        ({"epochs": 0}, "epochs must be above 0, not 0"),
        ({"lr": -0.1}, "lr must be above 0"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"variant": "proposal"}, "variant must be one of densenet, att, se, proposed"),
        ({"gate": "open"}, "gate must be one of literal, logits, confidence, signed, pooled, not 'open'"),
        ({"test_split": "trainval"}, "test_split must be one of val, test"),
        ({"train_size": 300}, "train_size 300 is smaller than the crop, image_size 448"),
        ({"baseline_folds": 1}, "baseline_folds must be 0, or 2 or more"),
        ({"alpha": "held"}, "alpha must be one of clamped, sigmoid, unbounded, warm-up, fixed, not 'held'"),
        ({"variant": "grouped", "gate": "pooled"}, "variant grouped has a channel for each label"),
        ({"semantic_loss": -1.0}, "semantic_loss must be 0 or more"),
        ({"variant": "se"}, "variant se has no stage 2, only 1, 3, 4"),
    ],
)
def test_wrong_parameters_are_refused(given, message):
    with pytest.raises(StudyError, match=message):
        settings(2, dataset="voc2007", **given)


def test_wrong_stage():
    with pytest.raises(StudyError, match="stage must be one of 1, 2, 3, 4, not 5"):
        settings(5, dataset="scenes")


def test_every_row_has_a_folder_of_its_own():
    for last in (3, 4):
        named = [row for row in ROWS.values() if stages_of(row, last)]
        folders = [
            (part_of(settings_of(row, stages_of(row, last)[-1], dataset="scenes")), stages_of(row, last)[-1])
            for row in named
        ]
        assert len(set(folders)) == len(folders)


def test_stages_of_a_row():
    assert stages_of(ROWS["baseline"], 4) == [1] and stages_of(ROWS["proposed"], 3) == [1, 2, 3]
    assert stages_of(ROWS["baseline, trained longer"], 4) == [1, 4]
    assert stages_of(ROWS["baseline, trained longer"], 3) == []


def test_a_folder_names_what_is_not_the_papers():
    settings = settings_of(ROWS["proposed, confidence gate, α fixed"], 3, dataset="voc2007")
    assert part_of(settings) == "proposed-confidence-alpha-fixed"


def test_manifests_of_earlier_runs_are_read():
    limits = {"alpha_min": 0.48, "alpha_max": 0.48}
    assert settings(3, dataset="voc2007", **limits) == settings(3, dataset="voc2007", alpha="fixed")
    assert settings(3, dataset="voc2007", alpha_min=0.0, alpha_max=1.0).alpha == "clamped"
    assert settings(3, dataset="voc2007", variant="attended").variant == "attention_pooling"
    with pytest.raises(StudyError, match="unknown parameter 'alpha_min'"):
        settings(3, dataset="voc2007", alpha_min=0.2, alpha_max=0.7)


def test_stage_2_as_printed_has_folders_of_its_own():
    rows = ("proposed", "proposed, stage 2 as printed")
    for stage in (2, 3):
        folders = {part_of(settings_of(ROWS[name], stage, dataset="voc2007")) for name in rows}
        assert len(folders) == 2
