"""The Snakefile: its plan, what it refuses before anything runs, and what one failed run leaves of the others."""

import io
import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from PIL import Image
from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake_interface_logger_plugins.common import LogEvent

from attnsem.analysis.search import draw
from attnsem.files import ROOT, write_json
from grids import execute, log

GRIDS = sorted((ROOT / "grids").glob("*.yaml"))
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # this Python's papermill is the first


@cache
def pool():
    """A process that has imported Snakemake and what the Snakefile imports, which takes seconds, to be forked."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=preload)


def preload():
    os.chdir(ROOT)
    os.environ["PATH"] = PATH
    for name in ("snakemake.cli", "grids.log", "attnsem.analysis.systems", "attnsem.datasets.prepared"):
        import_module(name)


def forked(arguments):
    """Exit code of Snakemake, in the project's folder with this Python's papermill, and all that it says."""
    with tempfile.TemporaryFile("w+") as said:
        if not (child := os.fork()):
            code = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                import_module("snakemake.cli").main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                with suppress(Exception):
                    sys.stdout.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return code, said.read()


def snakemake(*given, **config):
    pairs = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in config.items()]
    return pool().submit(forked, [*given, *(["--config", *pairs] if pairs else [])]).result()


def counts(told):
    """How many of each step, of a plan."""
    table = told.split("---\n")[1].split("\nall ")[0]
    return {words[0]: int(words[1]) for words in (re.split("  +", line) for line in table.splitlines())}


PREPARED = "00_prepare_data"
TRAINED = [f"{n:02}_train_stage{n}" for n in range(5)]
TABLES = {
    f"{name}": 1 for name in ("05_table1_voc2007", "06_table2_mirflickr", "07_table3_modules", "08_table4_se_conv")
}


def test_variants_gates_and_seeds_share_their_stages(tmp_path):
    code, told = snakemake(
        *("-n", "--configfile", "grids/scenes.yaml"),
        **{"runs": str(tmp_path), "systems": [], "rows": ["att", "proposed", "proposed, logits gate"]},
    )
    assert code == 0, told
    assert counts(told) == {PREPARED: 1, TRAINED[1]: 3, TRAINED[2]: 3, TRAINED[3]: 9} | TABLES


def test_settings_are_searched_on_val_before_the_seeds_are_trained(tmp_path):
    config = {"runs": str(tmp_path), "rows": ["proposed"], "last": 3, "seeds": [0, 1], "search": {3: 12}}
    searches = {f"search of stage{n}": 1 for n in (1, 2, 3)}
    code, told = snakemake("-n", **config)
    assert code == 0, told
    assert counts(told) == {PREPARED: 1, TRAINED[1]: 2, TRAINED[2]: 2, TRAINED[3]: 2} | TABLES | searches
    code, told = snakemake("-np", **config)
    assert code == 0, told
    draws = dict(re.findall(r"attnsem.analysis.search (\d) --draws (\d+) .*-p seed 2", told))
    assert draws == {"1": "0", "2": "0", "3": "12"}
    write_json(tmp_path / "earlier/scenes/proposed/stage3.json", draw(0))
    code, told = snakemake("-np", **config, choices=str(tmp_path / "earlier"))
    assert code == 0, told
    assert "analysis.search" not in told
    assert len(re.findall(r"03_train_stage3.* -f \S+/earlier/scenes/proposed/stage3.json", told)) == 2
    code, told = snakemake("-n", **config | {"rows": ["se"]}, choices=str(tmp_path / "earlier"))
    assert code != 0 and "earlier/scenes/se/stage3.json: stage 3 of se was not searched there" in told
    code, told = snakemake("-n", **config | {"search": {}}, choices=str(tmp_path / "earlier"))
    assert code != 0 and "choices are taken by the stages that search names, and it names none" in told
    (tmp_path / "earlier/scenes/proposed/seed1").mkdir()
    code, told = snakemake("-n", **config, choices=str(tmp_path / "earlier"))
    assert code != 0 and "seed 1 chooses settings on val" in told


def test_systems_stand_on_stage_1_and_have_as_many_draws(tmp_path):
    grid = {"runs": str(tmp_path), "rows": ["baseline"], "last": 3, "seeds": [0, 1], "search": {1: 0, 3: 12}}
    code, told = snakemake("-n", **grid, systems=["cnn_svm", "lda"])
    assert code == 0, told
    others = {"search of a system (other systems)": 2, "system (other systems)": 4}
    assert counts(told) == {PREPARED: 1, "search of stage1": 1, TRAINED[1]: 2} | TABLES | others
    code, told = snakemake("-np", **grid, systems=["cnn_svm", "lda"])
    commands = re.findall(r"analysis.systems (\w+)( --draws 12)? -p dataset scenes .*-p seed (\d)", told)
    trained = [(name, "", seed) for name in ("cnn_svm", "lda") for seed in "01"]
    assert sorted({*commands}) == sorted([("cnn_svm", " --draws 12", "2"), ("lda", " --draws 12", "2"), *trained])
    code, told = snakemake("-np", **grid, systems=["csra"], stage3="-p feature_cache 2")
    assert len(re.findall(r"analysis.systems csra .*-p feature_cache 2", told)) == 3
    code, told = snakemake("-n", **grid, systems=["csra"], choices=str(tmp_path))
    assert code and "leave out choices, or systems" in told
    code, told = snakemake("-n", **grid, systems=["cnn_sv"])
    assert code and "there is no system 'cnn_sv'; there are cnn_svm, " in told


def test_what_was_chosen_is_what_the_seeds_are_trained_with(tmp_path):
    code, told = snakemake("-np", runs=str(tmp_path / "my runs"), rows=["baseline"], last=3, search={1: 12})
    assert code == 0, told
    assert f"-p seed 0 -f '{tmp_path}/my runs/val/scenes/densenet/stage1.json'" in told


def test_the_plan_of_the_makefiles_command():
    """Snakemake started anew, as a user does, which takes seconds; the other tests fork one that is there."""
    command, environment = ["snakemake", "-n", "--configfile", "grids/scenes.yaml"], os.environ | {"PATH": PATH}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "03_train_stage3" in done.stdout + done.stderr, done.stderr


def test_folders_may_be_called_by_a_number():
    code, told = snakemake("study", "-np", "--configfile", "grids/study.yaml", runs=2021, data=2022)
    assert code == 0 and " -r runs 2021 -r data 2022 " in told, told


def birds(folder):
    """A table of twelve tiny images, and a grid's configuration that trains on it in a second."""
    table = folder / "my birds.csv"
    lines = [f"{k}.png,{'test' if k > 7 else 'val' if k > 5 else 'train'},{k % 2},{k // 2 % 2}" for k in range(12)]
    table.write_text("\n".join(["image,split,robin,wren", *lines]) + "\n")
    for k in range(12):
        Image.new("RGB", (40, 40), (20 * k, 0, 0)).save(folder / f"{k}.png")
    return table, {
        "datasets": [str(table)],
        "last": 3,
        "prepare": "-p train_size 40 -p image_size 32",
        "runs": str(folder / "my runs"),
        "data": str(folder / "my data"),
    }


SMALL = "-p backbone densenet_small -p weights none -p train_size 40 -p image_size 32 -p batch_size 3"


def test_other_parameters_and_a_changed_table_run_again(tmp_path):
    """And what does not stand on them does not; the lock of a killed study does not matter."""
    table, tiny = birds(tmp_path)
    tiny["rows"] = ["baseline"]
    given = "grid", "--omit-from", "table"
    lock = ROOT / ".snakemake/locks/7.output.lock"  # as a killed study leaves it
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(f"{tmp_path}/my runs/my birds/prepared\n")
    try:
        code, told = snakemake(*given, **tiny, stage1=f"{SMALL} -p epochs 1")
    finally:
        lock.unlink()
    assert code == 0, told
    code, told = snakemake(*given, "-n", **tiny, stage1=f"{SMALL} -p epochs 1")
    assert "Nothing to be done" in told
    code, told = snakemake(*given, "-n", **tiny, stage1=f"{SMALL} -p epochs 2")
    assert counts(told) == {TRAINED[1]: 1}
    named = tiny | {"datasets": ["my birds"]}
    code, told = snakemake(*given, "--until", "prepare", **named, stage1=f"{SMALL} -p epochs 1")
    assert code == 0, told
    table.write_text(table.read_text().replace("0.png,train,0", "0.png,train,1"))
    for changed in (named, tiny):
        code, told = snakemake(*given, **changed, stage1=f"{SMALL} -p epochs 1")
        assert code != 0 and "my birds has changed since" in told


@pytest.mark.parametrize(
    ("profile", "path"), [*(("default", path) for path in GRIDS), ("slurm", ROOT / "grids/voc2007.yaml")], ids=str
)
def test_every_grid_has_a_plan_here_and_the_papers_on_a_cluster(profile, path, tmp_path):
    given = "--profile", f"profiles/{profile}", "--configfile", str(path)
    code, told = snakemake("-n", *given, runs=str(tmp_path))
    assert code == 0, told
    assert counts(told)[PREPARED] >= 1 and len(told.splitlines()) < 30


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"stage3": "-p epoch 3"},
            "stage3: 03_train_stage3 has no parameter 'epoch'; there are dataset, seed, variant",
        ),
        ({"rows": ["proposal"]}, "there is no row 'proposal'; did you mean 'proposed'"),
        ({"search": {3: 12}, "seeds": [0, 1], "search_seed": 1}, "seed 1 chooses settings on val, so it cannot"),
    ],
)
def test_a_fault_of_the_grid_file_is_refused_before_anything_runs(config, words, tmp_path):
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
    *_, traceback = done.stderr.split("Traceback")
    assert len(traceback.splitlines()) < 36  # papermill's own
    sentence = "StudyError: this notebook has no parameter 'epoch'; did you mean 'epochs'?"
    assert traceback.strip().splitlines()[-2:] == ['Exception encountered at "In [4]":', sentence]
    cells = [cell for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells if cell.cell_type == "code"]
    assert [output.traceback for cell in cells for output in cell.outputs] == [[sentence]]


def test_a_failed_run_stops_its_branch_and_is_kept_to_be_read(tmp_path):
    """`confidence, folds` needs a backbone that stood still in stage 1, which it does not here."""
    tiny = birds(tmp_path)[1] | {"stage1": f"{SMALL} -p epochs 1", "stage2": "-p epochs 1"}
    tiny["stage3"] = "-p epochs 1 -p feature_cache 1"
    rows = ["baseline", "attention pooling", "proposed, confidence gate, out-of-fold baseline"]
    code, told = snakemake("grid", "--omit-from", "table", rows=rows, **tiny)
    assert code != 0
    runs = tmp_path / "my runs/my birds"
    assert {path.parts[-4] for path in runs.rglob("manifest.json")} == {"densenet", "attention", "attention_pooling"}
    failed = runs / "proposed-confidence-baseline_folds5/seed0/stage3/03_train_stage3.ipynb"
    assert str(failed) in told
    cells = [cell for cell in nbformat.read(failed, as_version=4).cells if cell.cell_type == "code"]
    assert "FAILED 03_train_stage3: baseline_folds needs a stage 1 that" in told
    assert f"\n  {failed}\n  {failed.with_suffix('.log')}\n" in told
    assert "Executing Cell" in failed.with_suffix(".log").read_text()
    lines = told.splitlines()
    assert lines[-1] == "1 of 5 steps failed; mend that, and the same command goes on from what is there"
    assert len(lines) < 20 and not [line for line in lines if re.search("Executing|WARNING|manifest|Touching", line)]
    for stage, part in enumerate(("densenet", "attention", "attention_pooling"), 1):
        assert [line for line in lines if re.match(rf"\d of 5  {TRAINED[stage]}: my birds, {part}, seed 0", line)]
        assert [line for line in lines if line.startswith(f"  {part} seed0 stage{stage}: epoch 1 of 1  loss ")]
    errors = [output.evalue for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert "baseline_folds needs" in errors[0]
    code, told = snakemake("grid", "-n", "--omit-from", "table", rows=rows[:2], **tiny)
    assert code == 0 and "Nothing to be done" in told


def test_warnings_of_a_notebook_are_shown():
    """What 00 prints of labels that a split shows nowhere; the other lines are in the log alone."""
    terminal = io.StringIO()
    record = logging.makeLogRecord({"msg": "birds\nWARNING: no test image has a 1 for wren: its AP says nothing.\n"})
    execute.Warnings(terminal).emit(record)
    assert terminal.getvalue() == "  WARNING: no test image has a 1 for wren: its AP says nothing.\n"


@pytest.mark.parametrize("seconds", [(100, 130, 160), ()])
def test_a_plan_says_how_long_by_what_has_run(seconds, tmp_path):
    for seed, took in enumerate(seconds):
        folder = tmp_path / f"birds/densenet/seed{seed}/stage1"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"seconds": took}))
    rule = SimpleNamespace(name="stage1")
    names = {"dataset": "birds", "part": "densenet"}
    job = SimpleNamespace(rule=rule, wildcards_dict=names | {"seed": "9"}, log=["01_train_stage1.ipynb"])
    other = SimpleNamespace(rule=SimpleNamespace(name="show"), wildcards_dict=names, log=[str(tmp_path / "11.ipynb")])
    table = log.plan([job, job, other], tmp_path)
    lines = [re.split("  +", line.strip()) for line in table.splitlines()]
    stage = ["01_train_stage1", "2", "2:10", "4:20"] if seconds else ["01_train_stage1", "2", "not known"]
    assert stage in lines and ["11", "1", "not known"] in lines
    total = "4:20, and 1 of unknown length" if seconds else "not known"
    assert ["all", "3", total] in lines


def test_what_took_hours_is_told_in_hours():
    assert [log.text_of(seconds) for seconds in (7, 605.4, 3599, 12_240)] == ["0:07", "10:05", "59:59", "3 h 24 min"]


def test_a_study_ends_with_its_headline(tmp_path):
    rows = {"baseline": (80.0, 82.0), "baseline, trained longer": (82.5, 82.5), "proposed": (84.0, 85.0)}
    paths = {name: [tmp_path / f"{name}{seed}.json" for seed in (0, 1)] for name in rows}
    for name, values in rows.items():
        for path, value in zip(paths[name], values, strict=True):
            path.write_text(json.dumps({"mAP": value}))
    told = "scenes, 2 seeds: proposed has 84.5 mAP, Δ +3.5 vs. baseline (81.0)"
    assert log.headline("scenes", paths) == f"{told}, Δ +2.0 vs. baseline, trained longer (82.5)"
    paths["proposed"][1].write_text(json.dumps({"mAP": None}))
    assert "proposed" not in log.headline("scenes", paths)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("a traceback\nStudyError: no stage 2; run:\ncd x\npapermill y\n", "no stage 2; run:\ncd x\npapermill y"),
        ("a traceback\nDeadKernelError: Kernel died\n", "DeadKernelError: Kernel died"),
        ("", "it said nothing"),
        (None, "it left no log"),
    ],
)
def test_a_failure_is_its_logs_last_sentence(said, sentence, tmp_path):
    executed = tmp_path / "03_train_stage3.ipynb"
    if said is not None:
        executed.with_suffix(".log").write_text(said)
    record = logging.makeLogRecord({"event": LogEvent.JOB_ERROR, "log": [str(executed)]})
    lines = log.Log(SimpleNamespace(dryrun=False), tmp_path, str, io.StringIO()).format(record)
    assert lines == f"FAILED 03_train_stage3: {sentence}\n  {executed}\n  {executed.with_suffix('.log')}"


def test_what_the_snakefile_refuses_is_its_sentence_and_routine_is_not_told(tmp_path):
    stream, workflow = io.StringIO(), SimpleNamespace(dryrun=False)
    told = log.Log(workflow, tmp_path, lambda: "the end", stream)
    traceback = (
        'StudyError in file "/x/Snakefile", line 1:\nthere is no row\n  File "/x/Snakefile", line 1, in <module>'
    )
    for message, level, more in (
        ("Building DAG of jobs...", logging.INFO, {}),
        ("Unlocked working directory.", logging.INFO, {}),
        ("the disk is slow", logging.WARNING, {}),
        (None, logging.INFO, {"event": LogEvent.PROGRESS}),
        (traceback, logging.ERROR, {"event": LogEvent.ERROR, "exception": "StudyError"}),
        (NOTHING_TO_BE_DONE_MSG, logging.INFO, {}),
    ):
        told.handle(logging.makeLogRecord({"msg": message, "levelno": level} | more))
    lines = ["Unlocked working directory.", "the disk is slow", "there is no row", NOTHING_TO_BE_DONE_MSG, "the end"]
    assert stream.getvalue().splitlines() == lines


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_kernel_that_dies_before_its_first_cell_is_started_once_more(deaths, tmp_path):
    """As one does whose port another program took in the meantime; what the first cell does wrong is not repeated."""
    start = (
        "import os, sys; from pathlib import Path; died = Path('died'); n = len(died.read_text())\n"
        f"if n < {deaths}: died.write_text('x' * (n + 1)); sys.exit(1)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', '-f', sys.argv[1]])"
    )
    kernel = {"argv": [sys.executable, "-c", start, "{connection_file}"], "display_name": "dies", "language": "python"}
    (tmp_path / "kernels/dies").mkdir(parents=True)
    write_json(tmp_path / "kernels/dies/kernel.json", kernel)
    (tmp_path / "died").write_text("")
    code = nbformat.v4.new_code_cell("open('ran', 'a').write('x')\nraise ValueError('its own')")
    nbformat.write(nbformat.v4.new_notebook(cells=[code]), tmp_path / "in.ipynb")
    command = [sys.executable, ROOT / "grids/execute.py", "in.ipynb", "out.ipynb", "-k", "dies"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "JUPYTER_PATH": str(tmp_path)})
    reason = "ValueError: its own" if deaths == 1 else "RuntimeError: Kernel died before replying to kernel_info"
    assert done.returncode == 1 and (tmp_path / "out.log").read_text().splitlines()[-1] == reason
    assert not (tmp_path / "ran").exists() if deaths == 2 else (tmp_path / "ran").read_text() == "x"


def test_epochs_go_to_the_terminal_and_all_else_to_the_log(tmp_path, capfd):
    with open(tmp_path / "log", "w", buffering=1) as file, execute.divided(file, "proposed seed0 stage3"):
        os.write(2, "\repoch 1 of 2  α 0.5\nTypeError: a warning\n".encode())
    assert (tmp_path / "log").read_text() == "TypeError: a warning\n"
    assert capfd.readouterr().err == "  proposed seed0 stage3: epoch 1 of 2  α 0.5\n"
