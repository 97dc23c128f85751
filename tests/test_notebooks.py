"""Every notebook under papermill, with the cells a user runs, on a tenth of `scenes`."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
from PIL import Image

from attnsem.datasets import read_image, scenes
from attnsem.files import ROOT
from tests.executed import execute

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPORT = ROOT / "notebooks/12_report.ipynb"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folders and executed notebooks, all below a folder with a space and a letter that is not ASCII."""
    home = tmp_path_factory.mktemp("my stüdy")
    (home / "photos").mkdir()
    scenes.draw("scene00003", seed=5).save(home / "photos/a.png")
    Image.new("L", (50, 30), 99).save(home / "photos/grey.jpg")
    (home / "photos/notes.txt").write_text("no image")
    places = {
        "tables": home / "runs/tables",
        "data": home / "data",
        "runs": home / "runs",
        "figures": home / "figures",
        "out": home / "predictions",
    }
    parameters = {"dataset": "scenes", "partial": True, "epochs": 1, "photos": str(home / "photos")}
    parameters |= {name: str(place) for name, place in places.items()}
    in_order, at_once = NOTEBOOKS[:5], NOTEBOOKS[5:]  # what reads the runs does not wait for one another
    notebooks = [execute(path.stem, home, parameters) for path in in_order]
    with ThreadPoolExecutor(2) as pool:
        notebooks += pool.map(lambda path: execute(path.stem, home, parameters), at_once)
    return home, {path.stem: notebook for path, notebook in zip(NOTEBOOKS, notebooks, strict=True)}


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shows_what_it_promises(study, path):
    executed = study[1][path.stem]
    data = [output.get("data", {}) for output in outputs(executed)]
    assert any("image/png" in shown for shown in data)
    last = data[-1]["text/plain"]
    for word in ("parameters", "git", "versions", "device", "data_fingerprint", "seconds", "peak_memory_gib", "seed"):
        assert f"'{word}'" in last
    assert not [o for o in outputs(executed) if o.get("name") == "stderr" and "Warning" in o["text"]]
    assert not [o for o in outputs(executed) if "axes are empty" in o.get("text", "")]


def test_the_committed_report_is_of_the_result_files(tmp_path):
    """Its tables and sentences; figures are not compared."""

    def said(notebook):
        return [
            output["data"] for output in outputs(notebook) if "data" in output and "image/png" not in output["data"]
        ]

    executed = execute(REPORT.stem, tmp_path, {"figures": str(tmp_path)})
    ours, theirs = said(executed), said(nbformat.read(REPORT, as_version=4))
    assert len(ours) > 10 and ours[:-1] == theirs[:-1], "make report"  # the last is the manifest


def test_leaves_figures_runs_and_predictions(study):
    home, _ = study
    charts = ("table1_differences.svg", "table2_differences.svg", "table3_differences.svg", "figure3.svg")
    for name in ("labels.svg", "examples.png", "attention_proposed_stage4.png", *charts):
        assert (home / "figures/scenes" / name).stat().st_size > 1000
    assert len(list((home / "runs/scenes").glob("*/seed0/stage?/learning_curves.svg"))) == 4
    measured = home / "runs/tables/scenes"
    for name in (
        "localisation_proposed_stage4",
        "squeeze_stage4",
        "agreement_stage4",
        "planted_stage4",
        "scale_stage4",
    ):
        assert len(pd.read_csv(measured / f"{name}.csv"))
    assert pd.read_csv(measured / "squeeze_stage4.csv", index_col=0).loc["proposed", "squeeze: sd over images"] < 1e-8
    table = pd.read_csv(home / "predictions/photos/probabilities.csv", index_col="image")
    assert list(table.index) == ["a.png", "grey.jpg"] and tuple(table.columns) == scenes.LABELS
    assert table.gt(0).all(axis=None) and table.lt(1).all(axis=None)
    assert read_image(home / "predictions/photos/grey.png").width > 500


def test_says_which_file_it_left_out(study):
    printed = "".join(output.get("text", "") for output in outputs(study[1]["11_predict"]))
    assert "left out" in printed and "notes.txt cannot be read as an image" in printed


@pytest.mark.parametrize("folder", [ROOT / "notebooks", Path("/")])
def test_the_users_command_from_any_folder(tmp_path, folder):
    """papermill 03_train_stage3.ipynb out.ipynb -p dataset mirflickr38: here its parent is missing."""
    notebook = "03_train_stage3.ipynb" if folder.name == "notebooks" else ROOT / "notebooks/03_train_stage3.ipynb"
    command = [sys.executable, "-m", "papermill", notebook, tmp_path / "out.ipynb", "-p", "dataset", "mirflickr38"]
    places = ["-p", "runs", tmp_path, "-p", "data", tmp_path / "data"]
    done = subprocess.run([*command, *places], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    told = done.stderr.partition("StudyError: stage 2 is not complete in ")[2].strip().splitlines()
    source, data = "out.ipynb -p dataset mirflickr38", f"-p data {tmp_path / 'data'}"
    commands = [f"papermill 0{n}_train_stage{n}.ipynb {source} -p seed 0 -p runs {tmp_path} {data}" for n in (1, 2)]
    assert told[0] == f"{tmp_path / 'mirflickr38/attention/seed0/stage2'}; run:"
    stand = [] if folder.name == "notebooks" else [f"cd {ROOT / 'notebooks'}"]
    assert told[1:] == [*stand, f"papermill 00_prepare_data.ipynb {source} {data}", *commands]


@pytest.mark.parametrize("watched", [True, False], ids=["stderr is a pipe into the notebook", "as on Windows"])
def test_papermill_by_hand_shows_lines_as_they_pass(tmp_path, watched):
    code = nbformat.v4.new_code_cell(
        "from attnsem.notebook import say_epoch\nsay_epoch({'epoch': 1, 'loss': 0.5}, 4, 21)"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[code]), tmp_path / "in.ipynb")
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}  # with it ipykernel has no pipe
    environment |= {} if watched else {"PYTEST_CURRENT_TEST": "1"}
    command = [sys.executable, "-m", "papermill", "-k", "python3", "in.ipynb", "out.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)  # bytes: \r is told from \n
    line = "epoch 1 of 4  loss 0.5  0:01:03 left\n"
    assert done.returncode == 0 and done.stderr.count(b"\r" + line.encode()) == 1
    assert outputs(nbformat.read(tmp_path / "out.ipynb", as_version=4))[0].text == line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_as_the_project_keeps_notebooks(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(bool(cell.outputs or cell.execution_count) <= (path == REPORT) for cell in code)
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} ") and "Reads" in notebook.cells[0].source
    assert "parameters" in notebook.cells[2].metadata.tags and len(code) > 3
    for parameter in papermill.inspect_notebook(path).values():
        assert parameter["help"] and parameter["inferred_type_name"] in ("str", "int", "float", "bool"), parameter


@pytest.mark.parametrize("path", NOTEBOOKS[1:5], ids=lambda path: path.stem)
def test_a_stage_is_a_short_walk_that_names_its_parameters_once(path):
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert sum(bool(line.strip()) for cell in code for line in cell.splitlines()) <= 51
    assert f"settings = check_parameters(In)\nrun = stages.train({path.stem[1]}, **settings)" in code
    before, _, after = code[1].partition("# what is changed less often\n")
    for name in ("dataset", "seed", "epochs", "lr", "batch_size", "device"):
        assert f"{name}: " in before and f"\n{name}: " not in after
    assert ("gate: " in before) == ("variant: " in before) == (path.stem[1] in "34")


def test_there_are_the_spines_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [
        "00",
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
        "10",
        "11",
        "12",
    ]
