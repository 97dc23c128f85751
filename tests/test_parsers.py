"""Files from strangers are read, or refused in one sentence, whatever is in them."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnsem import StudyError
from attnsem.datasets import mirflickr, voc2007
from attnsem.files import load_tensors
from tests.parsers import PARSERS, PLACE, written


@st.composite
def spoiled(draw, seeds):
    """A file that is accepted, with some bytes changed, cut out or put in; or any bytes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 20))
        data[at : at + cut] = draw(
            st.binary(max_size=20) | st.sampled_from([b"\n", b",", b"nan", b"-1", b"1e999", b"{", b'"'])
        )
    return bytes(data)


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_are_read_or_refused(name):
    parse, seeds = PARSERS[name]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(spoiled(seeds) | st.binary(max_size=200))
    def check(data):
        try:
            parse(data)
        except StudyError as error:
            assert "\n\n" not in str(error) and str(error)

    check()


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"checkpoint", "scores"}))
def test_the_files_they_begin_with_are_accepted_by_a_part_of_the_readers(name):
    parse, seeds = PARSERS[name]
    if name == "voc_list":
        pytest.skip("a list has one column or two, and is read as both")
    for data in seeds:
        parse(data)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 999999), st.sampled_from(["1", "-1", "0"])), max_size=20))
def test_voc_lists_come_back(rows):
    text = "".join(f"{number:06}  {mark}\r\n" for number, mark in rows)
    assert voc2007.read_list(written("back.txt", text.encode()), 2) == [[f"{number:06}", mark] for number, mark in rows]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 25000), max_size=20), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_mirflickr_lists_come_back(numbers, end, bom):
    data = ("\ufeff" if bom else "") + end.join(map(str, numbers))
    assert mirflickr.read_list(written("back.txt", data.encode())) == numbers


@pytest.mark.parametrize(
    "text", ["../../etc/passwd 1", "/etc/passwd 1", "000001 2", "000001", "000001 1 1", "000001 one", "00\x00001 1"]
)
def test_lists_that_climb_out_or_say_nothing(text):
    with pytest.raises(StudyError, match=r"line 2: .* is not an image id and one of 1, -1, 0"):
        voc2007.read_list(written("bad.txt", f"000009 1\n{text}\n".encode()), 2)


BOMB = """<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;"><!ENTITY z "&y;&y;&y;&y;">]><a>&z;</a>"""
OUTSIDE = """<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>"""


@pytest.mark.parametrize("text", [BOMB, OUTSIDE], ids=["bomb", "outside"])
def test_entities_are_refused(text):
    with pytest.raises(StudyError, match="no VOC annotation"):
        PARSERS["voc_xml"][0](text.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [("<xmin>1<", "<xmin>nan<"), ("<xmax>30<", "<xmax>inf<"), ("<xmax>30<", "<xmax>501<"), ("<ymin>2<", "<ymin>41<"),
     ("<difficult>0<", "<difficult>7<"), ("<width>500<", "<width>0<"), ("<name>cat<", "<name>unicorn<")],
)  # fmt: skip
def test_annotations_that_cannot_be(old, new):
    parse, (xml,) = PARSERS["voc_xml"]
    assert old in xml.decode()
    with pytest.raises(StudyError, match="no VOC annotation"):
        parse(xml.decode().replace(old, new).encode())


class Climbs:
    def __reduce__(self):
        return open, (str(PLACE / "was here"), "w")


def test_json_nested_without_end_is_refused():
    with pytest.raises(StudyError, match="cannot be read"):
        PARSERS["manifest"][0](b"[" * 100_000)


def test_a_checkpoint_runs_no_code():
    torch.save({"network": Climbs()}, PLACE / "evil.pt")
    with pytest.raises(StudyError, match="is no file of plain tensors"):
        load_tensors(PLACE / "evil.pt")
    assert not (PLACE / "was here").exists()


def test_score_files_with_pickles_or_of_other_shapes_are_refused():
    import numpy as np

    path = written("scored/scores.npz", b"")
    good = {"ids": np.array(["a", "b"]), "labels": np.array(["x"]), "targets": np.zeros((2, 1), int)}
    for scores in (np.array([[Climbs()], [Climbs()]], object), np.zeros((3, 1)), np.zeros((2, 1), int)):
        np.savez(path, **good, scores=scores)
        with pytest.raises(StudyError, match="is no score file"):
            PARSERS["scores"][0](path.read_bytes())
    assert not (PLACE / "was here").exists()
    np.savez(path, **good, scores=np.zeros((2, 1)))
    PARSERS["scores"][0](path.read_bytes())
