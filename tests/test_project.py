"""What the project's files promise each other: lock, environments, commands, no trace of a machine."""

import re
import subprocess
import tomllib

import pandas as pd
import pytest

from attnsem.analysis import report
from attnsem.files import ROOT, checksum, read_json
from attnsem.runs import Run
from tests import verify

LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE))


def tracked(pattern="*"):
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_the_lock_has_all_that_is_asked_for_with_hashes_and_no_index():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in wanted:
        name, _, version = requirement.partition("==")
        name = re.split(r"[><=]", name)[0]
        assert name in LOCKED and version in ("", LOCKED[name]), requirement
    assert (LOCKED["torch"], LOCKED["torchvision"]) == ("2.12.1", "0.27.1")
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK.strip())
    assert len(blocks) >= len(LOCKED) > 50  # some packages have a version for each Python
    assert all("--hash=sha256:" in block for block in blocks)
    assert "index-url" not in LOCK and "://" not in LOCK


def test_conda_users_get_the_versions_of_the_lock():
    """environment.yml names no version of its own but hands the lock to pip."""
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    dependencies = lines[lines.index("dependencies:") + 1 :]
    assert dependencies == [f"- python{PROJECT['requires-python']}", "- pip", "- pip:", "- -r requirements.lock"]


def test_ci_runs_the_readmes_command():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    readme = (ROOT / "README.md").read_text()
    for words in ("make study", "make test", "papermill", "-p dataset mirflickr38"):
        assert words in readme


def test_the_readme_is_read_in_a_few_minutes():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1500 and len(text.splitlines()) <= 200


def test_pages_name_only_files_there_are():
    pages = [path.relative_to(ROOT).as_posix() for path in tracked("*.md")]
    assert {"README.md", "CHOICES.md", "data/README.md", "grids/README.md", "results/findings.md"} <= {*pages}
    for document in pages:
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_every_figure_of_the_readme_is_kept():
    assert [path for path in tracked("figures/*") if path.suffix in (".png", ".svg")]


def test_nothing_tracked_knows_a_machine():
    telling = re.compile(
        r"/(?:work|farm|root|home/[a-z]+)/|--(?:extra-)?index-url|https?://[^ \"]*/(?:simple|packages)/"
    )
    for path in tracked():
        if path.suffix in (".npz", ".png") or path.name == "test_project.py":
            continue
        assert not telling.search(path.read_text()), path


def test_the_tables_are_those_of_the_recorded_scores():
    assert report.places() and [*verify.broken_tables(), *verify.broken_differences()] == []


def test_a_table_that_is_not_of_the_scores_is_named(monkeypatch):
    read = pd.read_csv

    def other(path):
        table = read(path)
        return table.assign(**{"Δ mAP": table["Δ mAP"] + 1}) if "vs." in table else table

    monkeypatch.setattr(pd, "read_csv", other)
    monkeypatch.setattr(verify, "places", lambda: report.places()[:1])
    assert any("says proposed vs. baseline is 1." in sentence for sentence in verify.broken_differences())


def test_recorded_scores_are_those_their_manifests_name():
    for path in (ROOT / "results").rglob("manifest.json"):
        scores, manifest = Run(path.parent).score_file, read_json(path)
        if "scores_left_out" in manifest:
            continue
        if scores.exists() or manifest["parameters"]["test_split"] == "test":
            assert checksum(scores) == manifest["scores_sha256"], path
