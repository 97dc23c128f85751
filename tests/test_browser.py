"""What tests/browser.py finds in a good page and in a broken one; JupyterLab's settings under `make lab`."""

import re
import runpy
from types import SimpleNamespace

import nbformat
import pytest

from attnsem import StudyError
from attnsem.files import ROOT
from tests import browser

needs_chromium = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
HEAD = '<!doctype html><meta name="viewport" content="width=device-width,initial-scale=1"><h2>Page</h2>'
DOT = '<rect width="9" height="9"/>'
WIDE = '<table><tr><td><div style="width:{}px">{}</div></table>'


@needs_chromium
def test_a_page_in_order_has_no_faults_and_is_pictured(tmp_path):
    page = tmp_path / "page.html"
    body = f'<svg viewBox="0 0 9 9" style="max-width:100%" width="2000">{DOT}</svg>'
    body += f'<div style="overflow-x:auto">{WIDE.format(1900, "may be scrolled")}</div>{WIDE.format(300, "is narrow")}'
    page.write_text(HEAD + body, encoding="utf-8")
    assert browser.check(page, screenshots=tmp_path) == []
    assert {path.name for path in tmp_path.glob("*.png")} == {"page-1280-0.png", "page-390-0.png"}


@needs_chromium
def test_a_broken_page_is_told_fault_by_fault(tmp_path):
    page = tmp_path / "page.html"
    body = [
        '<img src="data:image/png;base64,AAAA" alt="a picture that is none">',
        f'<div style="display:none"><svg width="9" height="9">{DOT}</svg></div>',
        '<svg width="50" height="50"></svg>',
        f'<svg width="2000" height="20">{DOT}</svg>',
        f'<div style="overflow:hidden">{WIDE.format(1900, "in a frame")}</div>',
        WIDE.format(500, "too wide for a phone"),
        '<table style="table-layout:fixed;width:99px"><tr><td style="overflow:hidden">thisisaverylongword',
        "</table><script>console.error('said'); nothing.at.all</script>",
        '<script src="https://example.org/script.js"></script>',
    ]
    page.write_text(HEAD + "".join(body), encoding="utf-8")
    expected = [
        r'img "a picture that is none" below "Page" shows nothing \(at 1280 and 390 pixels\)',
        r'svg below "Page" is not visible \(at 1280 and 390 pixels\)',
        r'svg below "Page" shows nothing \(at 1280 and 390 pixels\)',
        r'svg below "Page" reaches from \d+ to 20\d\d pixels \(at 1280 and 390 pixels\)',
        r'table "in a frame" below "Page" is cut off: 19\d\d pixels wide \(at 1280 and 390 pixels\)',
        r'table "thisisaverylongword" below "Page" has a cell that is cut off, td .*\(at 1280 and 390 pixels\)',
        r'the page is 20\d\d pixels wide by svg below "Page" \(at 1280 pixels\)',
        r"an error on the console: said \(at 1280 and 390 pixels\)",
        r"an error on the console: ReferenceError: nothing is not defined \(at 1280 and 390 pixels\)",
        r"the page asks the network for https://example.org/script.js \(at 1280 and 390 pixels\)",
        r'table "too wide for a phone" below "Page" is cut off: 5\d\d pixels wide \(at 390 pixels\)',
        r"the page is 20\d\d pixels wide by .* \(at 390 pixels\)",
    ]
    faults = browser.check(page)
    assert len(faults) == len(expected)
    for fault, pattern in zip(faults, expected, strict=True):
        assert re.fullmatch(pattern, fault), fault


@needs_chromium
def test_a_page_without_a_figure_or_table_is_a_fault(tmp_path):
    (tmp_path / "page.html").write_text(HEAD)
    assert browser.check(tmp_path / "page.html", (1280,)) == ["the page has no figure and no table (at 1280 pixels)"]


def test_without_chromium_one_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(browser, "CHROMIUM", None)
    (tmp_path / "page.html").write_text(HEAD)
    with pytest.raises(StudyError, match=r"^no Chromium is installed, .*; install one"):
        browser.check(tmp_path / "page.html")
    with pytest.raises(StudyError, match="there is no file"):
        browser.check(tmp_path / "none.html")


def test_a_save_in_jupyterlab_leaves_the_studys_notebook_as_git_has_it(tmp_path):
    config = SimpleNamespace(FileContentsManager=SimpleNamespace())
    settings = ROOT / "profiles/jupyterlab/jupyter_server_config.py"
    runpy.run_path(str(settings), {"get_config": lambda: config})
    path = "notebooks/05_table1_voc2007.ipynb"
    before = (ROOT / path).read_text(encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / path).write_text(before, encoding="utf-8")

    def saved(name, notebook):
        """As JupyterLab's server writes it."""
        model = {"type": "notebook", "content": notebook}
        config.FileContentsManager.pre_save_hook(
            model=model, path=name, contents_manager=SimpleNamespace(root_dir=str(tmp_path))
        )
        return nbformat.writes(nbformat.from_dict(model["content"])) + "\n"

    def executed():
        notebook = nbformat.reads(before, as_version=4)
        notebook.metadata["language_info"]["version"] = "3.99"
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
        cell.execution_count, cell.outputs = 7, [nbformat.v4.new_output("stream", text="a result")]
        return notebook

    assert saved(path, executed()) == before
    assert "a result" in (tmp_path / "runs" / path).read_text(encoding="utf-8")
    changed = executed()
    changed.cells[0].source += " changed here"
    assert saved(path, changed).replace(" changed here", "") == before
    for own in ("notebooks/mine.ipynb", "runs/scenes/notebooks/05_table1_voc2007.ipynb", "05_x.ipynb"):
        assert "a result" in saved(own, executed())
