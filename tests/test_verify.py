"""Each link from data to tables: whole as recorded, and named when it is broken."""

import json
import shutil
import sys

import pytest

from attnsem import StudyError, metrics, stages
from attnsem.analysis import tables
from attnsem.runs import Run
from results.record import leave_out, record
from tests import verify

QUICK = {"dataset": "scenes", "epochs": 1, "batch_size": 8, "precision": "32-true", "device": "cpu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, scenes_data):
    """A study's first two stages, its data, and what is recorded of it."""
    home = tmp_path_factory.mktemp("made")
    shutil.copytree(scenes_data, home / "data")
    for stage in (1, 2):
        stages.train(stage, **QUICK, data=home / "data", runs=home / "one")
    record(home / "one", "one", home / "results")
    return home


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made, tmp_path / "home")


def sentences(home):
    results = home / "results"
    return [
        *verify.broken(results),
        *verify.broken_checkpoints(results, home / "one", "one"),
        *verify.broken_data(results, home / "data"),
    ]


def changed(path, name, value):
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def lend(home, place):
    """The first run's scores, to be read in another folder, where there are none."""
    (home / "results/one" / FIRST / "scores.npz").unlink()
    changed(home / "results/one" / FIRST / "manifest.json", "scores_of", place)


OTHER = "0" * 64
FIRST, SECOND = "scenes/densenet/seed0/stage1", "scenes/attention/seed0/stage2"


def test_a_whole_chain(home):
    assert sentences(home) == []


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lambda home: (home / "results/one" / FIRST / "scores.npz").write_bytes(b"PK"), "scores.npz is not the file"),
        (
            lambda home: changed(home / "results/one" / SECOND / "manifest.json", "parent_sha256", OTHER),
            "was trained from another checkpoint than that of",
        ),
        (
            lambda home: changed(home / "results/one" / FIRST / "manifest.json", "data_fingerprint", OTHER),
            "was trained on other data",
        ),
        (
            lambda home: changed(home / "results/one" / FIRST / "manifest.json", "arrays_sha256", {"trainval": OTHER}),
            "was trained on other arrays of images",
        ),
        (
            lambda home: changed(home / "results/one" / FIRST / "metrics.json", "readings", {}),
            "cannot be read",
        ),
        (lambda home: (home / "results/one" / FIRST / "metrics.json").write_text("{"), "cannot be read"),
        (lambda home: (home / "results/one" / FIRST / "scores.npz").unlink(), "scores.npz is gone"),
        (lambda home: lend(home, "scenes/att/seed0/stage3"), "stage3, which has none"),
        (lambda home: (home / "one" / FIRST / "checkpoint.pt").write_bytes(b""), "is not the checkpoint"),
        (lambda home: (home / "one" / FIRST / "checkpoint.pt").unlink(), "there is no checkpoint"),
        (lambda home: changed(home / "data/prepared/scenes/dataset.json", "fingerprint", OTHER), "has the fingerprint"),
        (
            lambda home: (home / "data/arrays/scenes/test-64.npy").write_bytes(b"\x93NUMPY"),
            "test-64.npy is not the array",
        ),
        (lambda home: shutil.rmtree(home / "data/prepared"), "scenes is not prepared"),
    ],
)  # fmt: skip
def test_a_broken_link_is_named(home, breaks, says):
    breaks(home)
    broken = sentences(home)
    assert any(says in sentence for sentence in broken), broken


def test_a_run_whose_scores_are_left_out_is_whole_and_in_no_table(home):
    leave_out(Run(home / "results/one" / FIRST))
    assert sentences(home) == []
    with pytest.raises(StudyError, match="has no complete run of scenes"):
        tables.read_rows(home / "results/one", "scenes", 3)


def test_a_metric_that_is_not_the_scores(home):
    path = home / "results/one" / FIRST / "metrics.json"
    stored = json.loads(path.read_text())
    stored["readings"]["11-point ignore"]["mAP"] += 5
    path.write_text(json.dumps(stored))
    (sentence,) = sentences(home)
    assert "another mAP (11-point, ignore) than the scores give" in sentence


def test_an_f1_that_is_not_the_scores(home):
    path = home / "results/one" / FIRST / "metrics.json"
    stored = json.loads(path.read_text())
    assert list(stored["precision_recall_f1"]) == ["0.5", "top 3"]
    stored["precision_recall_f1"]["top 3"]["CF1"] += 5
    path.write_text(json.dumps(stored))
    (sentence,) = sentences(home)
    assert "another CF1 (top 3) than the scores give" in sentence


def test_metrics_from_before_there_was_an_f1_are_whole(home):
    """And the tables have it, from the scores."""
    path = home / "results/one" / FIRST / "metrics.json"
    stored = json.loads(path.read_text())
    del stored["precision_recall_f1"]
    path.write_text(json.dumps(stored))
    assert sentences(home) == []
    table = tables.precision_recall_f1(tables.read_rows(home / "results/one", "scenes", 3).values())
    assert list(table.index) == ["baseline", "ŷ_att alone"]
    scores = Run(path.parent).scores()
    expected = metrics.precision_recall_f1(scores["targets"], scores["scores"])
    assert table.loc["baseline"].unstack()[expected.columns].to_numpy() == pytest.approx(expected.to_numpy())


def test_what_is_recorded_here_is_whole():
    assert list(verify.broken()) == []


@pytest.mark.parametrize(("has_all", "end"), [(True, "every link holds\n"), (False, "this is no whole repository\n")])
def test_verify_says_when_it_cannot_look_at_commits(has_all, end, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verify"])
    monkeypatch.setattr(verify, "has_all_commits", lambda: has_all)
    for name in ("broken", "broken_revisions", "broken_tables", "broken_differences"):
        monkeypatch.setattr(verify, name, lambda *_: [])
    with pytest.raises(SystemExit, match="False"):
        verify.main()
    assert capsys.readouterr().out.endswith(end)


def test_what_is_recorded_here_was_made_by_commits_of_this_repository():
    assert list(verify.broken_revisions()) == []


def test_a_run_of_no_commit_or_of_a_changed_one_is_named(home):
    results, head = home / "results", verify.git("rev-parse", "--short=12", "HEAD")
    if not verify.has_all_commits():
        pytest.skip("no whole repository here")
    for place, revision in ((FIRST, head), (SECOND, head)):
        changed(results / "one" / place / "manifest.json", "git", revision)
    assert list(verify.broken_revisions(results)) == []
    changed(results / "one" / FIRST / "manifest.json", "git", f"{head}-dirty")
    changed(results / "one" / SECOND / "manifest.json", "git", "0123456789ab")
    expected = [
        f"0123456789ab, of which 1 runs are (one/{SECOND}, …), is no commit of this repository",
        f"{head}-dirty, of which 1 runs are (one/{FIRST}, …), has changes on top",
    ]
    assert sorted(sentence.split("; ")[0] for sentence in verify.broken_revisions(results)) == sorted(expected)


def test_a_manifest_is_enough_to_train_the_same_again(made, tmp_path):
    for place in (FIRST, SECOND):
        manifest = json.loads((made / "one" / place / "manifest.json").read_text())
        again = stages.train(**manifest["parameters"], data=made / "data", runs=tmp_path, device="cpu")
        assert again.manifest["checkpoint_sha256"] == manifest["checkpoint_sha256"]
