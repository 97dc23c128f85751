"""The Snakefile: its plan, what it refuses before anything runs, and what one failed run leaves of the others."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from attnsem.files import ROOT

GRIDS = sorted((ROOT / "grids").glob("*.yaml"))


def snakemake(*given, **config):
    """Runs it in the project's folder with this Python's papermill."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    pairs = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in config.items()]
    command = [sys.executable, "-m", "snakemake", *given, *(["--config", *pairs] if pairs else [])]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def counts(told):
    """Jobs by rule, of a plan."""
    lines = told.split("Job stats:")[1].split("total")[0].splitlines()
    return {words[0]: int(words[1]) for line in lines if len(words := line.split()) == 2 and words[1].isdigit()}


def test_variants_gates_and_seeds_share_their_stages(tmp_path):
    code, told = snakemake(
        *("-n", "--configfile", "grids/scenes.yaml"),
        **{"runs": str(tmp_path), "systems": [], "rows": ["att", "proposed", "proposed, logits gate"]},
    )
    assert code == 0, told
    assert counts(told) == {"prepare": 1, "stage1": 3, "stage2": 3, "stage3": 9, "table": 4, "grid": 1}


def test_settings_are_searched_on_val_before_the_seeds_are_trained(tmp_path):
    code, told = snakemake("-np", runs=str(tmp_path), rows=["proposed"], last=3, seeds=[0, 1], search={3: 12})
    assert code == 0, told
    assert counts(told) == {"prepare": 1, "search": 3, "stage1": 2, "stage2": 2, "stage3": 2, "table": 4, "grid": 1}
    draws = dict(re.findall(r"attnsem.analysis.search (\d) --draws (\d+) .*-p seed 2", told))
    assert draws == {"1": "0", "2": "0", "3": "12"}


def test_systems_stand_on_stage_1_and_have_as_many_draws(tmp_path):
    grid = {"runs": str(tmp_path), "rows": ["baseline"], "last": 3, "seeds": [0, 1], "search": {1: 0, 3: 12}}
    code, told = snakemake("-np", **grid, systems=["cnn_svm", "lda"])
    assert code == 0, told
    rules = {"prepare": 1, "search": 1, "stage1": 2, "search_system": 2, "system": 4, "table": 4, "grid": 1}
    assert counts(told) == rules
    commands = re.findall(r"analysis.systems (\w+)( --draws 12)? -p dataset scenes .*-p seed (\d)", told)
    trained = [(name, "", seed) for name in ("cnn_svm", "lda") for seed in "01"]
    assert sorted({*commands}) == sorted([("cnn_svm", " --draws 12", "2"), ("lda", " --draws 12", "2"), *trained])
    code, told = snakemake("-n", **grid, systems=["cnn_sv"])
    assert code and "there is no system 'cnn_sv'; there are cnn_svm, " in told


def test_what_was_chosen_is_what_the_seeds_are_trained_with(tmp_path):
    code, told = snakemake("-np", runs=str(tmp_path / "my runs"), rows=["baseline"], last=3, search={1: 12})
    assert code == 0, told
    assert f"-p seed 0 -f '{tmp_path}/my runs/val/scenes/densenet/stage1.json'" in told


def test_other_parameters_and_a_changed_table_run_again(tmp_path):
    """And what does not stand on them does not; the lock of a killed study does not matter."""
    table = tmp_path / "my birds.csv"
    lines = [f"{k}.png,{'test' if k > 7 else 'val' if k > 5 else 'train'},{k % 2},{k // 2 % 2}" for k in range(12)]
    table.write_text("\n".join(["image,split,robin,wren", *lines]) + "\n")
    for k in range(12):
        Image.new("RGB", (40, 40), (20 * k, 0, 0)).save(tmp_path / f"{k}.png")
    small = "-p backbone densenet_small -p weights none -p train_size 40 -p image_size 32 -p batch_size 3"
    tiny = {"datasets": [str(table)], "rows": ["baseline"], "last": 3, "prepare": "-p train_size 40 -p image_size 32"}
    tiny |= {"runs": str(tmp_path / "my runs"), "data": str(tmp_path / "my data")}
    given = "grid", "--omit-from", "table"
    lock = ROOT / ".snakemake/locks/7.output.lock"  # as a killed study leaves it
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(f"{tmp_path}/my runs/my birds/prepared\n")
    try:
        code, told = snakemake(*given, **tiny, stage1=f"{small} -p epochs 1")
    finally:
        lock.unlink()
    assert code == 0, told
    code, told = snakemake(*given, "-n", **tiny, stage1=f"{small} -p epochs 1")
    assert "Nothing to be done" in told
    code, told = snakemake(*given, "-n", **tiny, stage1=f"{small} -p epochs 2")
    assert counts(told) == {"stage1": 1, "grid": 1} or counts(told) == {"stage1": 1}
    table.write_text(table.read_text().replace("0.png,train,0", "0.png,train,1"))
    code, told = snakemake(*given, **tiny, stage1=f"{small} -p epochs 1")
    assert code != 0 and "my birds has changed since" in told


@pytest.mark.parametrize(
    ("profile", "path"), [*(("default", path) for path in GRIDS), ("slurm", ROOT / "grids/voc2007.yaml")], ids=str
)
def test_every_grid_has_a_plan_here_and_the_papers_on_a_cluster(profile, path, tmp_path):
    given = "--profile", f"profiles/{profile}", "--configfile", str(path)
    code, told = snakemake("-n", "--quiet", "rules", *given, runs=str(tmp_path))
    assert code == 0, told
    assert counts(told)["grid"] == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"stage3": "-p epoch 3"},
            "stage3: 03_train_stage3 has no parameter 'epoch'; there are dataset, seed, variant",
        ),
        ({"rows": ["proposal"]}, "there is no row 'proposal'; did you mean 'proposed'"),
    ],
)
def test_a_misspelt_name_is_refused_before_anything_runs(config, words, tmp_path):
    code, told = snakemake(runs=str(tmp_path), **config)
    assert code != 0 and words in told
    assert not list(tmp_path.iterdir())


def test_papermill_by_hand_refuses_a_misspelt_parameter(tmp_path):
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/03_train_stage3.ipynb",
        tmp_path / "out.ipynb",
        "-p",
        "epoch",
        "3",
    ]
    done = subprocess.run([*command, "-p", "runs", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "StudyError: this notebook has no parameter 'epoch'; did you mean 'epochs'?" in done.stderr


def test_a_failed_run_stops_its_branch_and_is_kept_to_be_read(tmp_path):
    """`confidence, folds` needs a backbone that stood still in stage 1, which it does not here."""
    tiny = {f"stage{n}": "-p epochs 1 -p batch_size 64" for n in (1, 2, 3)} | {"prepare": "-p partial True"}
    tiny |= {"runs": str(tmp_path / "my runs"), "data": str(tmp_path / "my data"), "last": 3}
    rows = ["baseline", "attention pooling", "proposed, confidence gate, out-of-fold baseline"]
    code, told = snakemake("grid", "--omit-from", "table", rows=rows, **tiny)
    assert code != 0
    runs = tmp_path / "my runs/scenes"
    assert {path.parts[-4] for path in runs.rglob("manifest.json")} == {"densenet", "attention", "attention_pooling"}
    failed = runs / "proposed-confidence-baseline_folds5/seed0/stage3/03_train_stage3.ipynb"
    assert str(failed) in told
    cells = [cell for cell in nbformat.read(failed, as_version=4).cells if cell.cell_type == "code"]
    errors = [output.evalue for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert "baseline_folds needs" in errors[0]
    code, told = snakemake("grid", "-n", "--omit-from", "table", rows=rows[:2], **tiny)
    assert code == 0 and "Nothing to be done" in told
