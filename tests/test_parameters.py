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
