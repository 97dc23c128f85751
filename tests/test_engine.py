"""Reading ahead, the largest batch, precision by rule, and compilers that are not there."""

import logging
import threading
import time

import pytest
import torch
from torch import nn

from attnsem import StudyError, engine


def test_what_is_ahead_comes_in_order_and_is_begun_before_it_is_asked_for():
    begun, second = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 1:
            second.set()
        time.sleep(0.01 * (item % 2))
        return item * item

    found = engine.ahead(work, range(6))
    assert next(found) == 0 and second.wait(10)
    assert list(found) == [1, 4, 9, 16, 25] and sorted(begun) == list(range(6))


def test_a_failure_ahead_reaches_the_reader():
    def work(item):
        if item == 2:
            raise StudyError("row 2 cannot be read")
        return item

    found = engine.ahead(work, range(4))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(StudyError, match="row 2"):
        next(found)


def test_the_largest_batch_that_fits_is_found_by_halving(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    tried = []

    def work(size):
        tried.append(size)
        if size > 60:
            raise torch.OutOfMemoryError
        return size

    assert engine.largest_batch(work, torch.device("cuda")) == 32 and tried == [256, 128, 64, 32]
    with pytest.raises(torch.OutOfMemoryError):
        engine.largest_batch(lambda size: work(100), torch.device("cuda"))


@pytest.mark.parametrize(
    ("able", "wanted"), [({"avx512_bf16"}, "bf16-mixed"), ({"amx_bf16"}, "bf16-mixed"), ({"avx2"}, "32-true")]
)
def test_precision_follows_from_what_the_processor_can(monkeypatch, able, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(able, True))
    assert engine.fastest_precision("cpu") == wanted


def test_float32_is_ieee():
    torch.backends.cudnn.allow_tf32 = True
    engine.launched("cpu", precision="32-true")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_compiling_without_a_compiler(monkeypatch):
    monkeypatch.setattr(engine.shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match=r"compile=True needs a C\+\+ compiler"):
        engine.compiled(nn.Linear(1, 1))


def test_a_device_that_does_not_exist():
    with pytest.raises(StudyError, match="device must be one of auto, cpu, cuda, mps, not 'gpu'"):
        engine.launched("gpu", precision="32-true")


def test_fabric_says_nothing_of_its_precision():
    """Notebooks would show it in a red box."""
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("lightning_fabric.utilities.rank_zero")
    logger.addHandler(handler)
    engine.launched("cpu", precision="bf16-mixed")
    logger.removeHandler(handler)
    assert records == []
