"""The asymmetric loss against its published formula, and as a stage's setting."""

import json
import shutil

import numpy as np
import pytest
import torch

from attnsem import StudyError, stages
from attnsem.analysis.rows import ROWS, settings_of
from attnsem.losses import multilabel_loss
from attnsem.paper import before, part_of, settings
from attnsem.runs import command

QUICK = {"dataset": "scenes", "epochs": 1, "batch_size": 64, "feature_cache": 1, "train_backbone": False}


def published(logits, targets, gamma_neg, gamma_pos, clip):
    """Ben-Baruch et al. 2021, eq. (3), (5) to (7), number by number: L₊, L₋ and p_m; a difficult label has no loss."""
    total = 0.0
    for row, labels in zip(logits, targets, strict=True):
        for logit, label in zip(row, labels, strict=True):
            p = 1 / (1 + np.exp(-logit))
            p_m = max(p - clip, 0)
            if label == 1:
                total -= (1 - p) ** gamma_pos * np.log(p)
            elif label == 0:
                total -= p_m**gamma_neg * np.log(1 - p_m)
    return total / len(logits)


@pytest.mark.parametrize("asl", [(4, 0, 0.05), (4, 1, 0.05), (2, 2, 0), (0, 0, 0.2), (0.5, 0.5, 0.05), (0, 0, 0)])
def test_the_asymmetric_loss_is_the_published_one(asl):
    random = np.random.default_rng(0)
    logits, targets = random.normal(0, 4, (50, 7)), random.integers(-1, 2, (50, 7))
    loss = multilabel_loss(torch.from_numpy(logits), torch.from_numpy(targets), asl=asl)
    assert loss.item() == pytest.approx(published(logits, targets, *asl), rel=1e-5)
    timm = pytest.importorskip("timm.loss").AsymmetricLossMultiLabel(*asl, reduction="sum")
    known = targets >= 0
    theirs = timm(torch.from_numpy(logits[known]), torch.from_numpy(targets[known])).item() / len(logits)
    assert loss.item() == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("asl", [(4, 0, 0.05), (0.5, 0.5, 0.05), (1, 1, 0), (0.0, 0.0, 0.0)])
def test_its_gradient_is_finite_and_that_of_the_formula(asl):
    logits = torch.tensor([[0.0, 3, -3, -2.5, 200, -200, 0]] * 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1] * 7, [0] * 7, [-1] * 7])
    multilabel_loss(logits, targets, asl=asl).backward()
    assert logits.grad.isfinite().all() and not logits.grad[2].any()
    step = 1e-3
    for row, column in ((row, column) for row in (0, 1) for column in range(4)):
        moved = np.zeros((3, 7))
        moved[row, column] = step
        plain = logits.detach().numpy()
        up, down = (published(plain[:, :4] + sign * moved[:, :4], targets[:, :4].numpy(), *asl) for sign in (1, -1))
        assert logits.grad[row, column].item() == pytest.approx((up - down) / (2 * step), rel=1e-2, abs=2e-5)


def test_its_margin_leaves_easy_negatives_alone():
    logits = torch.tensor([[-3.0, -2.9]], requires_grad=True)  # p = 0.047 and 0.052
    multilabel_loss(logits, torch.zeros(1, 2), asl=(1, 0, 0.05)).backward()
    assert logits.grad[0, 0] == 0 < logits.grad[0, 1]


def test_a_row_is_trained_by_one_loss_and_its_folders_say_which():
    row = ROWS["proposed, confidence gate, α fixed, asymmetric loss"]
    last = settings_of(row, 3, dataset="voc2007", gamma_pos=1.0)
    parts = [part_of(last), part_of(before(last)), part_of(before(before(last)))]
    assert parts == [
        f"{part}-loss-asl-gamma_pos1" for part in ("proposed-confidence-alpha-fixed", "attention", "densenet")
    ]
    assert part_of(settings(1, dataset="voc2007", loss="bce", clip=0.05)) == "densenet"
    words = command(before(last)).split()
    assert words[:3] == ["papermill", "02_train_stage2.ipynb", "out.ipynb"]
    assert dict(zip(words[4::3], words[5::3], strict=True)) == {"dataset": "voc2007", "loss": "asl", "gamma_pos": "1.0"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "focal"}, "loss must be one of bce, asl, not 'focal'"),
        ({"gamma_neg": 2.0}, "parameter gamma_neg belongs to the asymmetric loss; give loss asl with it"),
        ({"loss": "asl", "gamma_neg": -1.0}, "gamma_neg must be 0 or more"),
        ({"loss": "asl", "clip": float("nan")}, "clip must be of type float"),
    ],
)
def test_wrong_parameters_of_the_loss_are_refused(given, message):
    with pytest.raises(StudyError, match=message):
        settings(1, dataset="voc2007", **given)


def test_a_run_recorded_before_there_was_a_choice_stands(tmp_path, scenes_data, monkeypatch):
    """A manifest without the loss is one of cross-entropy, and an asymmetric stage stands beside it."""
    data = shutil.copytree(scenes_data, tmp_path / "data")
    call = QUICK | {"data": data, "runs": tmp_path / "runs"}
    run = stages.train(1, **call)
    manifest = run.manifest
    for name in ("loss", "gamma_neg", "gamma_pos", "clip"):
        del manifest["parameters"][name]
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    asymmetric = stages.train(1, **call, loss="asl")
    assert asymmetric.folder.parts[-3] == "densenet-loss-asl"
    assert 0 < asymmetric.history["loss"].iloc[0] < run.history["loss"].iloc[0] / 2
    monkeypatch.setattr(stages, "run_stage", lambda *_: pytest.fail("a complete run is trained again"))
    assert stages.train(1, **call).manifest == manifest and run.settings.loss == "bce"
