"""Kills, full disks, numbers that go wrong and other processes cost at most the epoch in flight."""

import errno
import gc
import os
import resource
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from attnsem import StudyError, losses, stages, training
from attnsem.files import ROOT, held, write, write_arrays, write_tensors
from attnsem.model import Network
from tests import kills

QUICK = {"dataset": "scenes", "epochs": 2, "lr_step": 1, "batch_size": 8, "precision": "32-true", "device": "cpu"}


def test_kills_at_random_moments_cost_nothing_that_was_done(tmp_path):
    """A few; `make kills` does 200."""
    found = kills.survive(tmp_path, 4)
    assert found["kills"] == 4 and not found["wrong"]


def test_the_harness_sees_what_is_partial_left_over_or_other(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name / "a.csv", lambda partial: partial.write_text("1"))
        write_arrays(tmp_path / name / "b.npz", {"x": np.arange(3)})
    assert kills.differing(tmp_path / "one", tmp_path / "two") == []
    (tmp_path / "one/b.npz").write_bytes((tmp_path / "two/b.npz").read_bytes()[:-9])
    assert len(kills.partial_files(tmp_path / "one")) == 1
    (tmp_path / "two/a.csv").write_text("2")
    (tmp_path / "two/.c.part").touch()
    write_arrays(tmp_path / "one/b.npz", {"x": np.arange(4)})
    found = kills.differing(tmp_path / "two", tmp_path / "one")
    assert found == ["left over or missing: .c.part", "differs: a.csv", "differs: b.npz"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB where the machine lets us mount one."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


BIG = {"x": torch.zeros(10**6)}


@pytest.mark.parametrize(
    "save",
    [
        lambda path: write_tensors(path, BIG),
        lambda path: write(path, lambda partial: partial.write_bytes(bytes(4 * 10**6))),
        lambda path: write_arrays(path, {"x": np.random.default_rng(0).random(10**6)}),
    ],
    ids=["tensors", "bytes", "arrays"],
)
def test_a_full_disk_is_one_sentence_and_nothing_half_written(small_disk, save):
    with pytest.raises(StudyError, match=r"/big cannot be written: no space left on device; make room"):
        save(small_disk / "big")
    assert not list(small_disk.iterdir())


def test_a_stage_on_a_full_disk_goes_on_when_there_is_room(small_disk, tmp_path_factory, scenes_data):
    with pytest.raises(StudyError, match="cannot be written: no space left"):
        stages.train(1, **QUICK, data=scenes_data, runs=small_disk, backbone="squeezenet1_1")
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.name != ".lock"]
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert stages.train(1, **QUICK, data=scenes_data, runs=small_disk, backbone="squeezenet1_1").complete


def test_a_read_only_folder_is_named(small_disk, scenes_data):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StudyError, match="cannot be written: read-only file system"):
        stages.train(1, **QUICK, data=scenes_data, runs=small_disk)


def limited(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_from_the_command_line_it_is_a_sentence_and_an_exit_code(tmp_path, scenes_data):
    """The largest file allowed stands for a quota."""
    given = QUICK | {"data": scenes_data, "runs": tmp_path}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "attnsem.stages", "1", *words]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it writes files
    done = subprocess.run(
        command, cwd=ROOT, env=plain, capture_output=True, text=True, preexec_fn=lambda: limited(50_000)
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("which goes on from what is there")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_other_errors_stay_what_they_are(tmp_path):
    def save(partial: Path) -> None:
        partial.touch()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "x", save)
    assert not list(tmp_path.iterdir())


def test_a_number_that_is_none_stops_the_stage_and_names_its_images(tmp_path, scenes_data, monkeypatch):
    """The third step of the second epoch gets a loss that is not finite."""
    stages.train(1, **QUICK | {"epochs": 1}, data=scenes_data, runs=tmp_path / "one")
    seen, usual = [], losses.multilabel_loss

    def loss(logits, targets, *given, **named):
        seen.append(targets)
        return usual(logits, targets, *given, **named) * (float("nan") if len(seen) == 4 + 3 else 1)

    monkeypatch.setattr(losses, "multilabel_loss", loss)
    with pytest.raises(StudyError, match=r"not finite in epoch 2, step 3, with the images scene\d+, scene") as caught:
        stages.train(1, **QUICK, data=scenes_data, runs=tmp_path / "runs")
    monkeypatch.undo()
    from attnsem.datasets.prepared import Prepared

    prepared = Prepared.load("scenes", scenes_data)
    named = str(caught.value).split("images ")[1].split(";")[0].split(", ")
    assert np.array_equal(prepared.all_targets.loc[named].to_numpy(), seen[6].numpy())
    kept = torch.load(tmp_path / "runs/scenes/densenet/seed0/stage1/resume.pt", weights_only=True)
    assert len(kept["progress"]["history"]) == 1
    assert all(torch.isfinite(value).all() for value in kept["network"].values())


def test_a_process_that_waits_is_told_for_whom(tmp_path, capsys):
    code = "import sys, time; from pathlib import Path; from attnsem.files import held\n"
    code += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(2)"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StudyError, match=f"is being written by process {other.pid} on .* since 20"), held(tmp_path):
        pass
    with held(tmp_path, wait=True):
        assert other.poll() is not None or other.wait(5) == 0
    assert f"process {other.pid}" in (told := capsys.readouterr().out) and "waiting" in told


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    code = "import sys, time; from pathlib import Path; from attnsem.files import held\n"
    code += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    other.stdout.readline()
    other.kill()
    other.wait()
    with held(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".holder").read_text()
    assert not (tmp_path / ".holder").exists()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and open files are read from /proc")
def test_two_hundred_epochs_take_no_more_memory_or_files_than_fifty(tmp_path, scenes_data, monkeypatch):
    seen, save = [], training.save

    def saved(*given):
        save(*given)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((pages * resource.getpagesize() / 2**20, len(os.listdir("/proc/self/fd"))))

    monkeypatch.setattr(training, "save", saved)
    data = shutil.copytree(scenes_data, tmp_path / "data")
    given = QUICK | {"epochs": 200, "lr": 1e-4, "train_backbone": False, "feature_cache": 1, "evaluate_every": 1}
    stages.train(1, **given, data=data, runs=tmp_path / "runs")
    memory, opened = np.array(seen).T
    assert len(seen) == 200 and opened[50:].max() <= opened[:50].max()
    assert memory[-10:].mean() - memory[40:50].mean() < 10  # MiB


def test_a_stage_leaves_no_network_in_memory(tmp_path, scenes_data, monkeypatch):
    """What a GPU's memory is given back by; there, what is no longer used is still kept until the cache is emptied."""
    emptied, networks = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(networks)))
    monkeypatch.setattr(
        stages, "Network", lambda **given: networks.append(weakref.ref(made := Network(**given))) or made
    )
    gc.disable()
    try:
        stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    finally:
        gc.enable()
    assert [network() for network in networks] == [None] and emptied == [1]


def test_a_run_that_goes_on_elsewhere_says_where_it_began(tmp_path, scenes_data, monkeypatch):
    def stop(*given):
        save(*given)
        raise KeyboardInterrupt

    save, usual = training.save, training.environment
    monkeypatch.setattr(training, "save", stop)
    monkeypatch.setattr(training, "environment", lambda device: usual(device) | {"device": "cuda: another"})
    with pytest.raises(KeyboardInterrupt):
        stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    monkeypatch.undo()
    began = stages.train(1, **QUICK, data=scenes_data, runs=tmp_path).manifest["begun_on"]
    assert [place["device"] for place in began] == ["cuda: another"] and began[0]["versions"]["torch"]
    assert stages.train(1, **QUICK, data=scenes_data, runs=tmp_path / "whole").manifest["begun_on"] == []


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_around_the_last_saved_state_loses_no_line_of_the_history(tmp_path, scenes_data, monkeypatch, before):
    def killed(path, state):
        last = len(state["progress"]["history"]) == QUICK["epochs"]
        if not (last and before):
            write_tensors(path, state)
        if last:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    monkeypatch.undo()
    assert stages.train(1, **QUICK, data=scenes_data, runs=tmp_path).history["epoch"].tolist() == [1, 2]


def test_what_a_kill_after_the_manifest_leaves_is_gone_at_the_next_call(tmp_path, scenes_data):
    run = stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    for name in ("resume.pt", ".holder"):
        (run.folder / name).touch()
    stages.train(1, **QUICK, data=scenes_data, runs=tmp_path)
    assert not (run.folder / "resume.pt").exists() and not (run.folder / ".holder").exists()
