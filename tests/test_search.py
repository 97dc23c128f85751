"""The random search on val: what it draws, what it keeps, and where it goes on."""

import json
import shutil

import numpy as np
import pytest
import yaml

from attnsem import NotFiniteError, StudyError, stages
from attnsem.analysis import search
from attnsem.files import read_json
from attnsem.runs import Run

QUICK = {"dataset": "scenes", "batch_size": 64, "feature_cache": 1, "train_backbone": False, "seed": 3}


@pytest.fixture
def data(tmp_path, scenes_data):
    """A copy of the prepared data, to write features to."""
    return shutil.copytree(scenes_data, tmp_path / "data")


def test_draws_are_the_same_for_every_row_and_within_their_limits():
    draws = [search.draw(number) for number in range(200)]
    assert draws == [search.draw(number) for number in range(200)]
    assert [yaml.safe_load(json.dumps(draw)) for draw in draws] == draws  # as papermill reads them
    rates = np.array([draw["lr"] for draw in draws])
    assert 1e-3 <= rates.min() < 1.2e-3 and 0.08 < rates.max() <= 1e-1
    assert np.median(rates) == pytest.approx(1e-2, rel=0.4)
    assert {draw["epochs"] for draw in draws} == {2, 3, 4, 5, 6}
    assert all(draw["epochs"] / 2 <= draw["lr_step"] < draw["epochs"] for draw in draws)


def test_stage_4_draws_a_rate_alone_below_and_above_that_of_stage_1s_end(data, tmp_path):
    rates = [search.draw(number, 4) for number in range(5)]
    assert rates == [{"lr": lr} for lr in (1e-4, 1.25e-5, 8e-4, 1.56e-6, 6.4e-3)]
    assert [yaml.safe_load(json.dumps(rate)) for rate in rates] == rates
    call = {"runs": tmp_path, "data": data, "dataset": "scenes", "seed": 3, "epochs": 1}
    search.search(1, draws=0, **call | QUICK)
    choice = search.search(4, draws=2, variant="densenet", **call)
    tried = read_json(tmp_path / "val/scenes/densenet/stage4-draws.json")["draws"]
    assert [draw["lr"] for draw in tried] == [1e-4, 1.25e-5]
    assert choice == {"lr": max(tried, key=lambda draw: draw["mAP"])["lr"]}


def test_the_best_draw_on_val_is_chosen_and_stands_for_the_later_stages(data, tmp_path, monkeypatch):
    call = {"draws": 3, "runs": tmp_path, "data": data, **QUICK}
    choice = search.search(1, **call)
    tried = read_json(tmp_path / "val/scenes/densenet/stage1-draws.json")["draws"]
    best = max(tried, key=lambda draw: draw["mAP"])
    assert len(tried) == 3 and choice["lr"] == best["lr"] and choice["epochs"] == best["epochs"]
    assert choice == read_json(tmp_path / "val/scenes/densenet/stage1.json")
    kept = sorted(path.parts[-6] for path in (tmp_path / "val").glob("draw*/**/checkpoint.pt"))
    assert kept == [f"draw{tried.index(best)}"]
    manifest = read_json(tmp_path / "val/scenes/densenet/seed3/stage1/manifest.json")["parameters"]
    assert manifest["lr"] == best["lr"] and (manifest["train_split"], manifest["test_split"]) == ("train", "val")
    second = search.search(2, draws=0, runs=tmp_path, data=data, dataset="scenes", seed=3, epochs=1, feature_cache=1)
    assert second == {} and (tmp_path / "val/scenes/attention/seed3/stage2/checkpoint.pt").exists()
    monkeypatch.setattr(stages, "run_stage", lambda *args: pytest.fail("a complete draw is trained again"))
    assert search.search(1, **call) == choice


def test_of_fewer_draws_the_best_is_there_again(data, tmp_path, monkeypatch):
    """An earlier search, of more, deleted its checkpoint, for it had a better one: the last."""
    usual, call = search.draw, {"runs": tmp_path, "data": data, **QUICK}
    monkeypatch.setattr(search, "draw", lambda number, stage: usual(2 - number))
    last = search.search(1, draws=3, **call)
    assert last["lr"] == usual(0)["lr"]
    choice, run = search.search(1, draws=2, **call), Run(tmp_path / "val/scenes/densenet/seed3/stage1")
    assert run.manifest["parameters"]["lr"] == choice["lr"] != last["lr"] and run.state()


def test_a_draw_that_is_not_finite_is_told_and_passed_over(data, tmp_path, monkeypatch):
    usual = stages.train

    def train(stage, **parameters):
        if parameters["runs"].name != "draw1":
            raise NotFiniteError("the loss is not finite")
        return usual(stage, **parameters)

    monkeypatch.setattr(stages, "train", train)
    choice = search.search(1, draws=2, runs=tmp_path, data=data, **QUICK)
    draws = read_json(tmp_path / "val/scenes/densenet/stage1-draws.json")["draws"]
    assert draws[0]["mAP"] is None and choice["lr"] == draws[1]["lr"]
    with pytest.raises(StudyError, match="none of 1 draws of stage 1 has a finite loss"):
        search.search(1, draws=1, runs=tmp_path / "other", data=data, **QUICK)
