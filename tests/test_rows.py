"""The names of rows as people type them: what a former name is called now."""

import ast
import json
import shlex

import pytest

from attnsem import StudyError
from attnsem.analysis import rows
from attnsem.files import ROOT, write_json
from attnsem.runs import NAMED

FORMER = {
    "densenet": "baseline",
    "densenet, longer": "baseline, trained longer",
    "attended": "attention pooling",
    "attended, α held": "attention pooling, α fixed",
    "repaired": "proposed, confidence gate, α fixed",
    "repaired, shuffled": "shuffled, confidence gate, α fixed",
    "confidence, folds": "proposed, confidence gate, out-of-fold baseline",
    "literal, α held": "proposed, α fixed",
    "proposed, literal gate, α fixed": "proposed, α fixed",
    "confidence, own loss": "proposed, confidence gate, semantic loss",
    "repaired, text": "proposed, confidence gate, α fixed, text similarity",
    "proposed, logits": "proposed, logits gate",
}


def check_of_the_snakefile():
    """The Snakefile's own statement that refuses rows; snakemake itself takes seconds for each."""
    text = (ROOT / "Snakefile").read_text()
    start = text.index('for name in listed("rows"')
    return compile(ast.parse(text[start : text.index("\nROWS", start)]), "Snakefile", "exec")


@pytest.mark.parametrize(("former", "name"), FORMER.items())
def test_a_former_name_is_refused_with_todays(former, name, tmp_path):
    with pytest.raises(StudyError) as refused:
        rows.run_of_row(former, 3, dataset="scenes", runs=tmp_path)
    assert f"there is no row {former!r}" in str(refused.value) and f"did you mean {name!r}?" in str(refused.value)
    with pytest.raises(StudyError) as refused:
        exec(check_of_the_snakefile(), {"listed": lambda key, _: [former], "rows": rows, "StudyError": StudyError})
    assert str(refused.value) == f"there is no row {former!r}; did you mean {name!r}?"


@pytest.mark.parametrize("former", ["densenet", "attended"])
def test_a_former_name_is_refused_although_it_is_a_folder_of_runs(former, tmp_path):
    folder = tmp_path / "scenes" / former / "seed0/stage1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(StudyError, match="did you mean"):
        rows.run_of_row(former, 1, dataset="scenes", runs=tmp_path)


def test_another_systems_folder_is_no_row_of_the_studys_network(tmp_path):
    write_json(tmp_path / "scenes/cnn_svm/seed0/stage1/manifest.json", dict.fromkeys(NAMED) | {"system": {}})
    with pytest.raises(StudyError, match="cnn_svm is another system, whose network is not this study's"):
        rows.run_of_row("cnn_svm", 1, dataset="scenes", runs=tmp_path)


def test_one_name_in_a_grid_stands_without_brackets():
    text = (ROOT / "Snakefile").read_text()
    start = text.index("def listed(")
    place = {"config": {"datasets": "voc2007", "seeds": 0, "rows": ["se"]}}
    exec(text[start : text.index("\n\n\n", start)], place)
    names = [place["listed"](key, ["none"]) for key in ("datasets", "seeds", "rows", "systems")]
    assert names == [["voc2007"], [0], ["se"], ["none"]]


@pytest.mark.parametrize("name", rows.ROWS)
def test_a_rows_own_name_is_the_nearest_to_it(name):
    assert rows.near(name) == f"; did you mean {name!r}?"


def test_a_rows_settings_are_the_terms_of_its_name():
    assert rows.ROWS["proposed, confidence gate, α fixed, 2 channels"] == {
        "variant": "proposed",
        "gate": "confidence",
        "alpha": "fixed",
        "channels_per_label": 2,
    }
    assert rows.ROWS["baseline, trained longer"] == {"variant": "densenet", "stage": 4}


def test_rows_that_were_not_run_are_one_line_with_one_command(tmp_path):
    names = ["proposed", "proposed, α fixed", "proposed"]
    complete, line = rows.runs_of_rows(names, 4, dataset="scenes", seed=3, runs=tmp_path / "my runs")
    assert complete == {} and "\n" not in line and line.startswith("2 of 2 rows have not been run; ")
    snakemake, config, *values = shlex.split(line.partition(": ")[2].strip("`"))
    assert (snakemake, config) == ("snakemake", "--config")
    values = {name: json.loads(value) for name, _, value in (value.partition("=") for value in values)}
    assert values.pop("runs") == str(tmp_path / "my runs") and values.pop("last") == 4
    assert values == {"datasets": ["scenes"], "rows": ["proposed", "proposed, α fixed"], "seeds": [3]}
    with pytest.raises(StudyError, match=r"no row 'proposd'.*did you mean 'proposed'"):
        rows.runs_of_rows(["proposd"], 4, dataset="scenes", seed=0, runs=tmp_path)
