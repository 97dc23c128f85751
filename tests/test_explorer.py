"""The explorer's controls without a browser: what is drawn first, and after each change. tests/browser.py has one."""

import pytest
from matplotlib.figure import Figure

from attnsem import StudyError
from attnsem.analysis.explorer import explorer

IMAGES = {"000005": ("dog", "person"), "000014": ("cat",), "000020": (), "000021": ("dog", "cat")}
LABELS, STAGES, GATES = ("bird", "cat", "dog", "person"), ("stage 2", "stage 3", "stage 4"), ("literal", "signed")


@pytest.fixture
def opened():
    """What was drawn so far, the controls by name, and the picture."""
    drawn = []

    def draw(*values):
        drawn.append(values)
        if values[3] == "signed":
            raise StudyError("no such map")
        return Figure(figsize=(0.1 * len(drawn), 0.1))

    box = explorer(draw, IMAGES, LABELS, STAGES, GATES, image="000014", stage="stage 3", gate="literal")
    *rows, picture = box.children
    controls = {control.description or "note": control for row in rows for control in row.children}
    return drawn, controls, picture


def test_opens_on_a_label_that_is_in_the_image_at_the_stage_asked_for(opened):
    drawn, controls, picture = opened
    assert drawn == [("000014", "cat", "stage 3", "literal")]
    assert bytes(picture.value).startswith(b"\x89PNG") and controls["label"].options[0] == ("cat (in the image)", "cat")
    assert [name for _, name in controls["label"].options[1:]] == ["bird", "dog", "person"]


def test_each_change_is_drawn_once(opened):
    drawn, controls, picture = opened
    changes = {"label": "bird", "stage": "stage 4", "image": "000005"}
    for name, value in changes.items():
        before = bytes(picture.value)
        controls[name].value = value
        assert bytes(picture.value) != before
    assert drawn[1:] == [
        ("000014", "bird", "stage 3", "literal"),
        ("000014", "bird", "stage 4", "literal"),
        ("000005", "dog", "stage 4", "literal"),  # no bird there: its first label
    ]
    controls["label"].value = "person"
    controls["image"].value = "000020"
    assert drawn[-2:] == [("000005", "person", "stage 4", "literal"), ("000020", "bird", "stage 4", "literal")]


def test_a_label_is_kept_where_the_next_image_has_it_too(opened):
    drawn, controls, _ = opened
    controls["image"].value = "000021"
    assert drawn[1:] == [("000021", "cat", "stage 3", "literal")]


@pytest.mark.parametrize(
    ("text", "ids"),
    [("dog", ["000005", "000021"]), ("DOG, cat", ["000021"]), ("00002", ["000020", "000021"]), ("", list(IMAGES))],
)
def test_a_search_finds_ids_and_labels_among_all_images(opened, text, ids):
    drawn, controls, _ = opened
    controls["search"].value = "14"
    controls["search"].value = text
    assert [image for _, image in controls["image"].options] == ids and drawn[-1][0] == ids[0]
    assert controls["note"].value == f"{len(ids)} of 4 test images"


def test_a_search_for_a_label_goes_to_it(opened):
    drawn, controls, _ = opened
    controls["search"].value = "person"
    assert drawn[1:] == [("000005", "person", "stage 3", "literal")]


def test_a_search_in_vain_leaves_the_image_and_says_so(opened):
    drawn, controls, _ = opened
    controls["search"].value = "zebra"
    assert controls["note"].value == "0 of 4 test images" and controls["image"].value == "000014" and len(drawn) == 1


def test_what_cannot_be_drawn_is_said(opened):
    _, controls, picture = opened
    controls["gate"].value = "signed"
    assert controls["note"].value == "no such map" and not bytes(picture.value)
    controls["gate"].value = "literal"
    assert controls["note"].value == "4 of 4 test images" and bytes(picture.value)
