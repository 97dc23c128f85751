"""What a notebook is given is checked before it does anything."""

import pytest

from attnsem import StudyError
from attnsem.analysis.parameters import check_parameters

DECLARED = 'seed: int = 0  # of the run\nepochs: int = None\nlr: float = 0.1\nname: str = "scenes"\nfull: bool = False'


def given(text):
    cells = ["", "%matplotlib inline", DECLARED, f"# Parameters\n{text}\n", "check_parameters(In)"]
    check_parameters(cells, epochs=range(1, 100))


@pytest.mark.parametrize(
    "text", ["seed = 3", "epochs = None", "lr = 1", 'name = "a\'b\\\\c ü"', "full = True", "", "lr = 1e-05"]
)
def test_what_fits(text):
    given(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sede = 3", "no parameter 'sede'; did you mean 'seed'"),
        ("verbose = True", "there are seed, epochs, lr, name, full"),
        ('seed = "3"', "seed must be of type int, not '3'"),
        ("seed = 1.5", "seed must be of type int"),
        ("seed = True", "seed must be of type int"),
        ("name = 14", "name must be of type str, not 14; .* given by -r name"),
        ("name = None", "name must be of type str, not None; .* given by -r name"),
        ("seed = None", "seed must be of type int"),
        ("seed = -1", "seed must be 0 or more"),
        ("lr = -0.1", "lr must be above 0"),
        ("lr = float('nan')", "lr must be of type float, not float"),
        ("lr = float('inf')", "lr must be of type float"),
        ("name = 3", "name must be of type str"),
        ('full = "yes"', "full must be of type bool"),
        ("epochs = 0", "epochs must be from 1 to 99, not 0"),
        ("epochs = [1]", "epochs must be of type int"),
    ],
)
def test_what_does_not(text, says):
    with pytest.raises(StudyError, match=says):
        given(text)


def test_the_cell_itself_is_checked_for_those_who_edit_it():
    old = DECLARED.replace("lr: float = 0.1", "lr: float = -0.1")
    check_parameters(["", old, "%time pass", DECLARED, "check_parameters(In)"])
    with pytest.raises(StudyError, match="lr must be above 0"):
        check_parameters(["", DECLARED, old, "check_parameters(In)"])


def edited(cell, *more):
    """What a stage gets of a parameters' cell that a person has edited."""
    return check_parameters(["", "%matplotlib inline", cell, *more, "settings = check_parameters(In)"])


@pytest.mark.parametrize(
    "line",
    [
        "# a note\n",
        "\n\n# a note\n\n",
        "import os\n",
        "from pathlib import Path\nprint(Path())\n",
        '"""What I tried."""\n',
        "get_ipython().run_line_magic('time', '')\n",
    ],
)
def test_lines_that_are_no_parameters_may_stand_anywhere(line):
    assert edited(line + DECLARED)["lr"] == edited(DECLARED + "\n" + line)["lr"] == 0.1


@pytest.mark.parametrize(
    ("old", "new", "name", "value"),
    [
        ("epochs: int = None", "epochs = 5", "epochs", 5),
        ("epochs: int = None", "epochs = None", "epochs", None),
        ("seed: int = 0", "seed = 7", "seed", 7),
        ("epochs: int = None", "epochs: int = None\nepochs = 3", "epochs", 3),
        ("epochs: int = None", "epochs: int | None = 4", "epochs", 4),
        ("epochs: int = None", 'epochs: "int" = 4', "epochs", 4),
        ("lr: float = 0.1", "lr = 1", "lr", 1),
        ('name: str = "scenes"', "name = 'mine'", "name", "mine"),
    ],
)
def test_an_edited_line_counts_with_or_without_its_type(old, new, name, value):
    assert edited(DECLARED.replace(old, new))[name] == value


def test_values_in_a_cell_of_ones_own_count_too():
    assert edited(DECLARED, "epochs = 5\nother = 3")["epochs"] == 5
    assert edited(DECLARED, "epochs = 5\nprint(epochs)", "epochs = 6")["epochs"] is None  # a later cell of the notebook
    assert edited(DECLARED, "# Parameters\nimport os\nepochs = 5")["epochs"] == 5


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("home = os.getcwd()", r"line 6 of the parameters' cell is 'home = os.getcwd\(\)'; .* another cell"),
        ("seed += 1", "line 6 .* 'seed \\+= 1'"),
        ("a, b = 1, 2", "line 6"),
        ("size: tuple = (1, 2)", "line 6 .* one of str, bool, int, float"),
        ("size: int", "line 6"),
        ("if seed:\n    seed = 3", "line 6"),
        ("epochs = 2 * 3", r"epochs must be of type int, not 2 \* 3"),
    ],
)
def test_a_line_that_would_not_count_is_refused(line, says):
    with pytest.raises(StudyError, match=says):
        edited(f"{DECLARED}\n{line}")


def test_without_a_cell_of_parameters_it_says_which_to_run():
    with pytest.raises(StudyError, match="no cell of parameters, of lines name: type = value, has been run"):
        edited("seed = 3")
