"""Rows, differences and verdicts from score files that are written here, and checked by hand or by scikit-learn."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_score

from attnsem import StudyError
from attnsem.analysis import claims, published, report, tables
from attnsem.analysis.rows import REPAIR, ROWS, settings_of
from attnsem.files import checksum, read_arrays, read_json, write_arrays, write_json
from attnsem.runs import NAMED, Run
from results import first_page, pages, record
from tests import verify

LABELS = ["person", "bottle", "sky"]


def leave(folder, row, seed, quality, stage=3, **parameters):
    """A complete run of a row whose scores are the targets with noise."""
    random = np.random.default_rng(0)
    targets = (random.random((300, 3)) < 0.3).astype(np.int8)
    targets[:, 1] &= targets[:, 0]  # no bottle without a person
    targets[0] = -1
    settings = settings_of(ROWS[row], stage, dataset="scenes", seed=seed, **parameters)
    run = Run.of(settings, folder)
    noise = np.random.default_rng((seed, stage)).normal(size=targets.shape)
    scores = (quality * targets + noise).astype(np.float32)
    described = {"ids": np.arange(300).astype(str), "labels": np.array(LABELS), "targets": targets}
    write_arrays(run.folder / "scores.npz", described | {"scores": scores, "semantic": scores})
    of_readings = {f"{name} ignore": {"cat": 1.23456, "mAP": 1.23456} for name in ("none", "11-point")}
    write_json(run.folder / "metrics.json", {"mAP": 1.23456, "parts": {"semantic": 2.0}, "readings": of_readings})
    manifest = dict.fromkeys(NAMED) | {"parameters": settings.model_dump()}
    manifest["scores_sha256"] = checksum(run.folder / "scores.npz")
    write_json(run.folder / "manifest.json", manifest)
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2, 1], "mAP": [60.0, 50.0], "alpha": [0.5, 1]})
    history.to_csv(run.folder / "history.csv")
    return targets, scores


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        leave(folder, "baseline", seed, 1.0, stage=1)
        leave(folder, "proposed", seed, 2.0)
    leave(folder, "se", 0, 0.2)
    return folder


@pytest.fixture
def rows(runs):
    return tables.read_rows(runs, "scenes", 3)


def test_mean_and_spread_over_seeds(rows, tmp_path):
    expected = []
    for seed in (0, 1):
        targets, scores = leave(tmp_path, "proposed", seed, 2.0)
        counted = targets[:, 0] >= 0
        ap = [average_precision_score(targets[counted, c], scores[counted, c]) for c in range(3)]
        expected.append(100 * np.mean(ap))
    row = tables.mean_and_spread(rows.values()).loc[("paper", "proposed")]
    assert row["mAP"] == pytest.approx(np.mean(expected))
    assert row["sd of seeds"] == pytest.approx(np.std(expected, ddof=1)) and row["seeds"] == 2


def test_precision_recall_and_f1_are_means_over_seeds(rows):
    table = tables.precision_recall_f1(rows.values())
    assert {*table.index} == {"baseline", "proposed", "se", "two baselines, α fixed"}
    assert list(table.columns)[::6] == [("0.5", "CP"), ("top 3", "CP")]
    targets, logits = zip(*rows["proposed"].logits(), strict=True)
    overall = [precision_score(t[1:], s[1:] >= 0, average="micro") for t, s in zip(targets, logits, strict=True)]
    assert table.loc["proposed", ("0.5", "OP")] == pytest.approx(100 * np.mean(overall))
    assert overall[0] != overall[1]


def test_a_difference_is_over_the_seeds_that_both_have(rows):
    one = rows["proposed"].of({"seed0"})
    assert len(rows["proposed"].files) == 2 and len(one.files) == 1
    delta = tables.difference(one, rows["baseline"])
    own = one.ap()["mAP"].iloc[0] - rows["baseline"].ap()["mAP"].iloc[0]
    assert delta["Δ mAP"] == pytest.approx(own) and np.isnan(delta["sd of seeds"])


def test_rows_that_have_not_been_run_are_one_line_with_one_command(rows, runs):
    assert "proposed, logits gate" not in tables.mean_and_spread(rows.values()).index.get_level_values("row")
    line = report.not_run(rows, runs, "scenes", 3)
    own = [row for row in rows.values() if row.group != "other systems"]
    missing = sum(not row.files for row in own)
    assert missing < sum(not row.files for row in rows.values())
    assert line.startswith(
        f"{missing} of {len(own)} rows have not been run; in the project's folder: `snakemake --config "
    )
    assert '["scenes"]' in line and "last=3" in line and str(runs) in line and "cnn_svm" not in line.lower()
    assert "make grid GRID=grids/scenes.yaml" in report.not_run(rows, "results/scenes", "scenes", 3)


def test_sentences_say_what_the_intervals_say():
    moves = {(0.5, 0.2, 0.8): "gains +0.50", (-0.5, -0.8, -0.2): "loses -0.50", (0.5, -0.2, 1.2): "is not told from it"}
    moves[0, 0, 0] = "is the same to the last digit"
    for values, words in moves.items():
        row = pd.Series(values, index=["Δ mAP", "low", "high"])
        row["seeds"] = 2
        assert report.moved(row, 2).startswith(words) and "seeds" not in report.moved(row, 2)
        assert report.moved(row, 3).endswith(", 2 of 3 seeds)") or words == moves[0, 0, 0]


def test_claims_are_listed_by_verdict_and_shown_where_they_can_be_tested(rows):
    tested = claims.tested(rows, "scenes", 3)
    text = report.of_claims(tested)
    for verdict, claim in report.claims_shown(tested).set_index("verdict")["claim"].items():
        assert claim in next(line for line in text.splitlines() if line.startswith(f"- {verdict}"))
    lines = report.claim_lines(tested)
    assert not lines.isin(["nan", "+nan"]).any(axis=None) and (lines["trust"] == "little: too few seeds").any()


def test_a_claim_is_shown_for_each_kind_of_reading_of_alpha():
    """As written first; of readings of a kind the one that favours the claim most."""
    readings = {
        "": "not testable",
        ", α fixed": "supported",
        ", α warm-up": "contradicted",
        ", α sigmoid": "inconclusive",
    }
    lines = [
        ["it gains", "gains", f"proposed{name} vs. baseline", *[0.5] * 6, 0.02, word, 1.44]
        for name, word in readings.items()
    ]
    shown = report.claims_shown(pd.DataFrame(lines, columns=claims.COLUMNS))
    assert shown[["α", "verdict"]].to_numpy().tolist() == [
        ["in [0, 1]: sigmoid", "inconclusive"],
        ["fixed", "supported"],
    ]
    trust = report.claim_lines(shown.assign(seeds=3)).set_index("verdict")["trust"]
    assert trust["inconclusive"] == "open: 1.4 times narrower decides" and trust["supported"] == "fair"
    trust = report.claim_lines(shown.assign(seeds=3, shrink=np.inf)).set_index("verdict")["trust"]
    assert trust["inconclusive"] == "open: at the border"
    untested = [[*line[:-2], "not testable", np.nan] for line in lines[:2]]
    shown = report.claims_shown(pd.DataFrame(untested, columns=claims.COLUMNS))
    assert shown[["α", "verdict"]].to_numpy().tolist() == [["in [0, 1], fixed", "not testable"]]


def test_the_first_page_has_a_claims_verdict_and_what_is_particular_about_it():
    line = {"claim": "it gains", "α": "in [0, 1]: sigmoid", "printed": "+0.5", "from its cells": "", "seeds": 3}
    line |= {"Δ (95 % CI)": "+0.4 (+0.3 to +0.5)", "verdict": "supported", "trust": "fair"}
    place = {"claim": "x: it gains", "printed (cells)": "+0.5", "place": "frozen, α in [0, 1]"}
    assert first_page.claim_cell(line, "frozen", "x: ", 4) == place | {"verdict": "+0.4: supported, 3 seeds"}
    untested = {"verdict": "not testable", "α": "in [0, 1], fixed", "from its cells": "+0.6"}
    cell = first_page.claim_cell(line | untested, "frozen", "x: ", 3)
    assert cell == place | {"printed (cells)": "+0.5 (+0.6)", "verdict": "not testable"}


def test_the_first_page_says_where_a_gain_has_another_reading_of_alpha_or_fewer_seeds():
    line = {"Δ mAP": 0.15, "low": 0.1, "high": 0.2, "seeds": 1}
    assert (
        first_page.gain_cell(pd.Series(line, name="proposed, α sigmoid"), 2)
        == "+0.15 (+0.10 to +0.20), sigmoid, 1 seed"
    )
    assert first_page.gain_cell(pd.Series(line | {"seeds": 5}, name="proposed, α fixed"), 5) == "+0.15 (+0.10 to +0.20)"


def test_a_marked_part_of_a_page_is_written_anew_and_the_rest_kept():
    text = "before\n<!-- a -->\nold\n<!-- end of a -->\nafter <!-- b -->\n<!-- end of b -->"
    written = pages.with_parts(text, {"a": "new\n"})
    assert written == text.replace("old", "new") and pages.with_parts(written, {"a": "new\n"}) == written


def test_a_table_has_its_caption_and_nothing_where_there_is_no_number():
    table = pd.DataFrame(
        {"mAP": [71.400002, np.nan, -0.001], "seeds": [3, 1, 2], "<b>": ["a", "$", ""]}, ["one", "<two>", "x"]
    )
    shown = report.Captioned(table, "what & where")
    for text in (repr(shown), shown._repr_html_()):
        assert (
            "71.40" in text
            and "71.4000" not in text
            and "-0.0" not in text
            and "nan" not in text.lower()
            and "Styler at" not in text
        )
    assert "<two>" not in shown._repr_html_() and "what & where" in repr(shown)


def test_an_interrupted_run_is_no_row(runs, tmp_path):
    leave(tmp_path, "proposed", 0, 2.0)
    assert tables.read_rows(tmp_path, "scenes", 3)["proposed"].files
    next(tmp_path.rglob("manifest.json")).unlink()
    with pytest.raises(StudyError, match="has no complete run of scenes up to stage 3; name a folder"):
        tables.read_rows(tmp_path, "scenes", 3)
    leave(tmp_path, "baseline", 0, 1.0, stage=1)
    assert not tables.read_rows(tmp_path, "scenes", 3)["proposed"].files


def test_a_difference_has_the_interval_of_paired_resamples(rows):
    delta = tables.difference(rows["proposed"], rows["baseline"])
    assert delta["Δ mAP"] == pytest.approx(rows["proposed"].ap()["mAP"].mean() - rows["baseline"].ap()["mAP"].mean())
    assert delta["low"] < delta["Δ mAP"] < delta["high"]
    same = tables.difference(rows["proposed"], rows["proposed"])
    assert same["Δ mAP"] == same["low"] == same["high"] == same["sd of seeds"] == 0 and same["seeds"] == 2
    turned = tables.difference(rows["baseline"], rows["proposed"])
    assert (turned["low"], turned["high"]) == pytest.approx((-delta["high"], -delta["low"]))


def test_differences_name_both_rows(rows):
    table = tables.differences(rows.values(), rows["baseline"])
    assert table.index.name == "row" and set(table["vs."]) == {"baseline"} and "baseline" not in table.index
    assert list(table.columns) == ["Δ mAP", "low", "high", "sd of seeds", "seeds", "vs."]
    nothing = tables.differences([rows["baseline"]], rows["baseline"])
    assert nothing.empty and nothing.drop(columns=["vs.", "seeds"]).dtypes.eq("float64").all()


def test_the_backbone_is_named_beside_a_table(rows):
    assert tables.backbone(rows, 3) == "densenet_small trained in stage 1, 64 pixels"
    assert tables.backbone(rows, 4) == "densenet_small fine-tuned, 64 pixels"
    assert tables.backbone({"proposed": rows["proposed"]}, 3) == "densenet_small, 64 pixels"


def test_rows_made_of_other_rows_scores_are_weighted_as_eq_9(runs, tmp_path):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    y = [leave(tmp_path, "baseline", seed, 1.0, stage=1)[1] for seed in (0, 1)]
    att = [leave(tmp_path, "attention pooling", seed, 1.5, stage=2)[1] for seed in (0, 1)]
    rows = tables.read_rows(tmp_path, "scenes", 3)
    two, one, three = (rows[name].logits() for name in tables.FUSED)
    assert two[0][1] == pytest.approx(0.48 * y[0] + 0.52 * y[1], abs=1e-6)
    assert two[1][1] == pytest.approx(0.48 * y[1] + 0.52 * y[0], abs=1e-6)
    assert one[1][1] == pytest.approx(att[1], abs=1e-6)
    assert three[1][1] == pytest.approx(0.48 * y[1] + 0.26 * att[0] + 0.26 * att[1], abs=1e-6)
    assert not tables.read_rows(runs, "scenes", 3)["baseline and two ŷ_att, α fixed"].files


def test_draws_of_a_search_are_read_by_row(runs, tmp_path):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    draws = [{"lr": 0.1, "mAP": 80.0}, {"lr": 0.2, "mAP": None}, {"lr": 0.3, "mAP": 82.0, "alpha": 1.0}]
    write_json(tmp_path / "val/scenes/proposed/stage3-draws.json", {"draws": draws})
    table = tables.draws(tmp_path, "scenes", 3)
    assert set(table.index) == {"proposed"} and table["lr"].tolist() == [0.1, 0.2, 0.3]
    assert tables.best_so_far(table).loc["proposed"].tolist() == [80.0, 80.0, 82.0]
    assert tables.draws(runs, "scenes", 3).empty


def test_selection_shows_the_bias_of_picking_the_epoch_on_test(runs, tmp_path):
    leave(tmp_path, "proposed", 0, 2.0)
    leave(tmp_path / "val/lr0.02", "proposed", 0, 2.0)
    history = next((tmp_path / "val").rglob("history.csv"))
    pd.DataFrame({"epoch": [1, 2], "mAP": [40.0, 41.0]}).to_csv(history)
    row = tables.selection(tmp_path, "scenes", 3).loc["proposed"]
    assert row.tolist() == [50.0, 50.0, 60.0, 10.0]
    pd.DataFrame({"epoch": [1, 2, 3], "mAP": [40.0, 41.0, 42.0]}).to_csv(history)
    assert np.isnan(tables.selection(tmp_path, "scenes", 3).loc["proposed", "picked on val"])
    pd.DataFrame({"epoch": [1, 2], "mAP": [np.nan, np.nan]}).to_csv(history)
    assert tables.selection(tmp_path, "scenes", 3).empty
    assert tables.selection(runs, "scenes", 3).empty


def test_recording_keeps_the_scores_of_test_in_float16(runs, tmp_path):
    leave(runs / "val/lr0.02", "proposed", 0, 2.0, train_split="train", test_split="val")
    record.record(runs, "here", tmp_path)
    copy = Run(tmp_path / "here/scenes/proposed/seed0/stage3")
    full = Run(runs / "scenes/proposed/seed0/stage3")
    assert copy.scores()["scores"].dtype == np.float16 and "semantic" not in copy.scores()
    assert copy.scores()["scores"] == pytest.approx(full.scores()["scores"], rel=1e-3)
    of_readings = {"none ignore": {"cat": 1.2346, "mAP": 1.2346}, "11-point ignore": {"mAP": 1.2346}}
    assert read_json(copy.folder / "metrics.json") == {
        "mAP": 1.2346,
        "parts": {"semantic": 2.0},
        "readings": of_readings,
    }
    assert copy.manifest["scores_sha256"] == checksum(copy.folder / "scores.npz")
    assert copy.manifest["full_scores_sha256"] == full.manifest["scores_sha256"]
    assert not (tmp_path / "here/val/lr0.02/scenes/proposed/seed0/stage3/scores.npz").exists()
    assert (tmp_path / "here/val/lr0.02/scenes/proposed/seed0/stage3/history.csv").exists()


def test_equal_scores_are_recorded_once(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    first = tmp_path / "runs/scenes/densenet/seed0/stage1"
    for row in ("proposed", "se"):
        shutil.copy(first / "scores.npz", tmp_path / f"runs/scenes/{row}/seed0/stage3")
    arrays = read_arrays(first / "scores.npz")
    rounded = arrays | {"scores": arrays["scores"] + 0.01}  # by a GPU, in batches of another size, where α ends at 1
    write_arrays(tmp_path / "runs/scenes/se/seed0/stage3/scores.npz", rounded)
    arrays = read_arrays(tmp_path / "runs/scenes/densenet/seed1/stage1/scores.npz")
    below_1 = tmp_path / "runs/scenes/proposed/seed1/stage3"  # as alike, but its α is no 1
    write_arrays(below_1 / "scores.npz", arrays | {"scores": arrays["scores"] + 0.01})
    Run(below_1).history.assign(alpha=0.995).to_csv(below_1 / "history.csv")
    record.record(tmp_path / "runs", "here", tmp_path / "results")
    folder = tmp_path / "results/here/scenes"
    for row in ("proposed", "se"):
        run = Run(folder / row / "seed0/stage3")
        assert run.manifest["scores_of"] == "densenet/seed0/stage1" and not (run.folder / "scores.npz").exists()
        assert (run.scores()["scores"] == Run(folder / "densenet/seed0/stage1").scores()["scores"]).all()
        assert checksum(run.score_file) == run.manifest["scores_sha256"]
    assert (folder / "proposed/seed1/stage3/scores.npz").exists()
    rows = tables.read_rows(folder.parent, "scenes", 3)
    assert tables.difference(rows["se"], rows["baseline"])["Δ mAP"] == 0
    record.record(tmp_path / "runs", "here", tmp_path / "results")
    assert Run(folder / "se/seed0/stage3").manifest["scores_of"] == "densenet/seed0/stage1"
    record.record(runs, "here", tmp_path / "results")
    other = Run(folder / "se/seed0/stage3")
    assert (other.folder / "scores.npz").exists() and "scores_of" not in other.manifest


def test_a_run_does_not_lose_its_scores_where_the_one_that_keeps_them_is_recorded_anew(runs, tmp_path):
    stage = tmp_path / "runs/scenes/densenet/seed0/stage1"
    shutil.copytree(runs / "scenes/densenet/seed0/stage1", stage)
    shutil.copytree(stage, tmp_path / "runs/scenes/cnn_svm/seed0/stage1")
    record.record(tmp_path / "runs", "here", tmp_path / "results")
    keeper, other = (Run(tmp_path / f"results/here/scenes/{row}/seed0/stage1") for row in ("cnn_svm", "densenet"))
    before = other.scores()["scores"]
    assert other.manifest["scores_of"] == "cnn_svm/seed0/stage1"
    shutil.copy(runs / "scenes/se/seed0/stage3/scores.npz", tmp_path / "runs/scenes/cnn_svm/seed0/stage1")
    shutil.rmtree(tmp_path / "runs/scenes/densenet")
    record.record(tmp_path / "runs", "here", tmp_path / "results")
    assert (other.scores()["scores"] == before).all() and (keeper.scores()["scores"] != before).any()


def test_a_row_keeps_its_scores_where_the_stage_1_that_has_them_is_recorded_anew(runs, tmp_path):
    stage = tmp_path / "runs/scenes/densenet/seed0/stage1"
    shutil.copytree(runs / "scenes/densenet/seed0/stage1", stage)
    shutil.copytree(runs / "scenes/se/seed0/stage3", tmp_path / "runs/scenes/se/seed0/stage3")
    shutil.copy(stage / "scores.npz", tmp_path / "runs/scenes/se/seed0/stage3")
    record.record(tmp_path / "runs", "here", tmp_path / "results")
    row = Run(tmp_path / "results/here/scenes/se/seed0/stage3")
    before = row.scores()["scores"]
    assert row.manifest["scores_of"] == "densenet/seed0/stage1"
    shutil.copy(runs / "scenes/densenet/seed1/stage1/scores.npz", stage)
    shutil.rmtree(tmp_path / "runs/scenes/se")
    record.record(tmp_path / "runs", "here", tmp_path / "results")
    assert (row.scores()["scores"] == before).all() and "scores_of" not in row.manifest
    record.leave_out(row)
    assert not row.score_file.exists() and row.manifest["scores_left_out"]


def test_a_table_of_ones_own_has_no_claims_on_labels_of_the_papers_data():
    of_paper, own = ({claim.text for claim in claims.claims_of(name, [])} for name in ("mirflickr38", "mirflickr_mine"))
    assert any("section 3.3" in text for text in of_paper) and not any("section 3.3" in text for text in own)


def test_a_folder_without_complete_runs_is_not_recorded(tmp_path):
    with pytest.raises(StudyError, match="typo has no complete run"):
        record.record(tmp_path / "typo", "typo", tmp_path)


def test_a_run_that_is_made_anew_is_read_anew(tmp_path):
    _, before = leave(tmp_path, "baseline", 0, 1.0, stage=1)
    first = tables.read_rows(tmp_path, "scenes", 3)["baseline"]
    assert first.logits()[0][1] == pytest.approx(before)
    resamples = first.resamples()
    _, after = leave(tmp_path, "baseline", 0, 2.0, stage=1)
    second = tables.read_rows(tmp_path, "scenes", 3)["baseline"]
    assert second.logits()[0][1] == pytest.approx(after) and not np.array_equal(second.resamples(), resamples)


def test_hours_are_of_stages_without_the_searches_on_val(tmp_path):
    for place in ("voc2007/densenet", "val/voc2007/densenet", "val/draw0/voc2007/x", "more/val/voc2007/densenet"):
        write_json(tmp_path / place / "seed0/stage1/manifest.json", {"device": "cpu", "seconds": 3600})
    assert report.compute(tmp_path).values.tolist() == [["cpu", 1, 1.0]]


def test_a_run_is_recorded_under_todays_name_of_its_rows_folder(runs, tmp_path):
    name, former = "attention pooling, α fixed", tmp_path / "old/scenes/attended-alpha-fixed/seed0/stage3"
    leave(tmp_path / "old", name, 0, 1.5)
    (tmp_path / "old/scenes/attention_pooling-alpha-fixed").rename(former.parents[1])
    (former / "checkpoint.pt").write_bytes(b"weights")
    manifest = json.loads((former / "manifest.json").read_text().replace("attention_pooling", "attended"))
    write_json(former / "manifest.json", manifest | {"checkpoint_sha256": checksum(former / "checkpoint.pt")})
    record.record(tmp_path / "old", "old", tmp_path / "results")
    assert tables.read_rows(tmp_path / "results/old", "scenes", 3)[name].seeds == ["seed0"]
    assert list(verify.broken_checkpoints(tmp_path / "results", tmp_path / "old", "old")) == []


def test_systems_of_another_machine_are_in_more(runs, tmp_path):
    stage = runs / "scenes/densenet/seed0/stage1"
    shutil.copytree(stage, tmp_path / "more/scenes/cnn_svm/seed0/stage1")
    shutil.copytree(stage, tmp_path / "scenes/densenet/seed0/stage1")
    assert tables.read_rows(tmp_path, "scenes", 3)["CNN-SVM"].seeds == ["seed0"]
    shutil.copytree(stage, tmp_path / "more/val/draw0/scenes/densenet/seed0/stage1")
    record.record(tmp_path, "here", tmp_path / "results")
    folder = tmp_path / "results/here"
    recorded = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("scores.npz")}
    assert recorded == {"scenes/densenet/seed0/stage1", "more/scenes/cnn_svm/seed0/stage1"}  # and no draw
    shutil.copytree(stage, tmp_path / "scenes/cnn_svm/seed1/stage1")
    assert tables.read_rows(tmp_path, "scenes", 3)["CNN-SVM"].seeds == ["seed1"]


def test_differences_are_written_and_shown(runs, tmp_path):
    record.record(runs, "here", tmp_path)
    assert report.places(tmp_path) == [(tmp_path / "here", "scenes", 3)]
    pages.compare(tmp_path)
    rows = pages.rows_table(tmp_path)
    deltas = rows.set_index("row")["Δ mAP vs. baseline"]
    assert deltas["proposed"] > 0 > deltas["se"] and np.isnan(deltas["baseline"])
    (line,) = pages.grids_table(rows, tmp_path).to_dict("records")
    assert line["grid"] == "here" and line["rows"] == str(len(rows)) and line["proposed"].startswith("+")
    assert line[REPAIR] == "not run"
    equal = pd.Series({"Δ mAP vs. baseline": 0.0, "low": 0.0, "high": 0.0})
    assert pages.gained(equal) == "0 to the last digit"
    lines = report.claim_lines(report.compared(tmp_path / "here", "scenes", 3, "claims")).set_index("claim")
    assert lines.loc["SE and convolutions without attention hurt", "verdict"] == "supported"
    for name in ("differences", "claims"):
        written = (tmp_path / f"here/scenes/{name}-stage3.csv").read_text()
        assert all(len(digits) <= 4 for digits in re.findall(r"\d+\.(\d+)", written))
    here = tmp_path / "here/scenes"
    for name in ("densenet", "proposed-alpha-fixed"):
        shutil.copytree(here / "proposed/seed0/stage3", here / name / "seed1/stage4")
    assert report.places(tmp_path) == [(tmp_path / "here", "scenes", 3), (tmp_path / "here", "scenes", 4)]
    last = tables.read_rows(here.parent, "scenes", 4)
    assert tables.seeds(last) == ["1"] and not any(last[name].files for name in tables.FUSED)
    shutil.rmtree(here / "proposed-alpha-fixed")
    shutil.rmtree(here / "proposed")  # as a grid of other systems, which need only the baseline
    assert report.places(tmp_path) == [(tmp_path / "here", "scenes", 3)]
    shutil.rmtree(here / "se")
    assert report.places(tmp_path) == []


def test_published_numbers_are_the_papers():
    """Worked by hand from the printed tables."""
    assert published.table("1").loc["CNN-RNN", "train"] == 99.7 and published.table("1").shape == (6, 21)
    assert published.table("1").loc["Proposed"].isna().sum() == 6
    assert published.table("2").shape == (6, 39) and published.table("2").loc["LDA", "bird_r1"] == 50.0
    assert published.table("3").loc["DenseNet+SE"].tolist() == [89.7, 77.0]
    assert json.loads(published.table("4").to_json())["mirflickr38"]["5SEblock+5Convs"] == 78.1


def test_the_audit_finds_what_does_not_add_up():
    audit = published.audit().set_index("what")
    own = audit.loc["mAP of AIACNN (of the 24 labels without _r1: 62.4)"]
    assert own["recomputed"] == pytest.approx(59.7, abs=0.05) and own["adds up"] == "no"
    proposed = audit[audit.index.str.startswith("mAP of Proposed (of the 24 labels")]
    assert proposed["recomputed"].round(2).tolist() == [78.06]
    assert audit.loc["mAP of DenseNet"].iloc[0][["printed", "adds up"]].tolist() == [89.9, "by rounding"]
    table = audit.loc["diningtable: Proposed vs. DenseNet"]
    assert (table["printed"], round(table["recomputed"], 1), table["adds up"]) == (0.5, 1.5, "no")
    by_cells = audit[audit.index.str.contains("by the cells")]["recomputed"].round(2)
    assert by_cells.tolist() == [0.61, 18.31] and "figure 3" not in set(audit["where"])
    counted = audit[audit.index.str.startswith("labels on which Proposed")]
    assert counted["recomputed"].tolist() == [10, 8] and (counted["adds up"] == "values are missing").all()


def test_what_the_text_says_of_labels_is_checked_by_the_annotations():
    labels = ["animals", "indoor", "plant_life", "structures", "sky"]
    targets = np.array([[1, 0, 1, 1, 1], [1, 1, 0, 1, 1], [0, 1, 0, 0, 0], [0, 1, 0, 0, -1]])
    for times, told in ((40, "no"), (4, "not told")):  # a lift below 1, of many images and of few
        audit = published.audit_of_labels(np.repeat(targets, times, axis=0), labels).set_index("what")
        assert audit.loc["labels an image, of 5, at least", "recomputed"] == 11 / 4
        pair = audit.loc[f"animals and indoor go together ({times} images, {1.5 * times:.1f} by chance): lift above"]
        assert pair["recomputed"] == pytest.approx(0.25 / (0.5 * 0.75)) and pair["adds up"] == told
        sky = f"sky and structures go together ({2 * times} images, {1.5 * times:.1f} by chance): lift above"
        assert audit.loc[sky, "adds up"] == "yes"
    assert published.audit_of_labels(targets[:, :2], ["person", "sky"]).empty
