"""The three rooms: who imports whom, what needs no torch, what re-scoring needs, and how long the files are."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pandas as pd
import pytest

from attnsem.files import ROOT, read_json

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "attnsem").rglob("*.py"))
}
CORE = [name for name in MODULES if name.count(".") <= 1 and name not in ("attnsem.datasets", "attnsem.analysis")]
DATASETS = [name for name in MODULES if name.startswith("attnsem.datasets")]
SYSTEMS = [name for name in MODULES if name.startswith("attnsem.analysis.systems")]
ANALYSIS = [name for name in MODULES if name.startswith("attnsem.analysis") and name not in SYSTEMS]
WITHOUT_TORCH = (
    *("attnsem.metrics", "attnsem.files", "attnsem.runs", "attnsem.paper", "attnsem.notebook"),
    "attnsem.datasets.prepared",
    *(f"attnsem.analysis.{name}" for name in ("rows", "tables", "results", "published", "statistics", "figures")),
    "attnsem.analysis.systems",
)
LIGHT_NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[05-8]_*.ipynb"))  # preparation and tables
RESCORING = {"numpy", "pandas", "dateutil", "six", "pytz", "tzdata"}  # numpy and pandas, and what those import


def run(program, *arguments):
    """A fresh interpreter's output, in the project's folder."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imports(name):
    """The modules of this project that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            places = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from places & set(MODULES)
            if node.module in MODULES and places - set(MODULES):
                yield node.module


def lines(names):
    return {name: len(MODULES[name].read_text().splitlines()) for name in names}


def test_the_core_and_the_data_sets_know_nothing_of_the_analysis():
    assert len(CORE) > 10 and len(DATASETS) > 5 and len(ANALYSIS) > 8
    for name in (*CORE, *DATASETS):
        assert not {place for place in imports(name) if place.startswith("attnsem.analysis")}, name


def test_no_file_is_in_a_circle_of_imports():
    graph = {name: set(imports(name)) for name in MODULES}
    assert "attnsem.runs" in graph["attnsem.analysis.tables"]
    TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("room", "most"),
    [(CORE, 2000), (DATASETS, 1650), (ANALYSIS, 3200), (SYSTEMS, 1900)],
    ids=["core", "datasets", "analysis", "systems"],
)
def test_a_room_keeps_its_size(room, most):
    assert sum(lines(room).values()) <= most


def test_no_file_of_the_core_is_long():
    assert {name: count for name, count in lines(CORE).items() if count > 300} == {}


def test_no_system_is_long():
    assert {name: count for name, count in lines(SYSTEMS).items() if count > 150} == {}


def import_cells(notebook):
    sources = ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]]
    return "\n".join(source for source in sources if source.startswith("%matplotlib inline")).replace("%", "# %")


PROGRAMS = {name: f"import {name}" for name in WITHOUT_TORCH}
PROGRAMS |= {path.stem: import_cells(path) for path in LIGHT_NOTEBOOKS}


IN_TURN = """
import sys
for name, program in {programs}.items():
    for module in [name for name in sys.modules if name.partition(".")[0] == "attnsem"]:
        del sys.modules[module]
    exec(program, {{}})
    if loaded := [name for name in ("torch", "torchvision", "lightning_fabric", "timm") if name in sys.modules]:
        sys.exit(f"{{name}} imports {{loaded}}")
"""


def test_what_prepares_or_reads_results_imports_no_torch():
    assert len(PROGRAMS) == len(WITHOUT_TORCH) + 5
    assert all("import attnsem" in program or "from attnsem" in program for program in PROGRAMS.values())
    run(IN_TURN.format(programs=PROGRAMS))
    with pytest.raises(AssertionError, match=r"attnsem\.model imports \['torch'"):
        run(IN_TURN.format(programs=PROGRAMS | {"attnsem.model": "import attnsem.model"}))


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata") and top not in {allowed}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
for name in ("torch", "torchvision", "lightning_fabric", "timm", "sklearn", "scipy", "matplotlib",
             "pydantic", "filelock", "tqdm", "PIL"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{{name}} is not blocked")
"""


POSIX = ("resource", "fcntl", "pwd", "grp", "termios", "pty", "tty", "syslog", "readline", "curses")
ON_WINDOWS = """
import importlib, os, sys, types
os.environ["USERNAME"] = "user"  # as Windows has it; torchvision.ops asks for it
sys.modules |= dict.fromkeys({posix})
for name in {modules}:
    importlib.import_module(name)
memory = types.SimpleNamespace(rss=1, peak_wset=3 * 2**30)
sys.modules["psutil"] = types.SimpleNamespace(Process=lambda: types.SimpleNamespace(memory_info=lambda: memory))
from attnsem import runs
print(runs.cost(2.0))
"""


def test_every_module_imports_without_what_windows_lacks():
    """And the peak memory is what Windows itself says."""
    assert "'peak_memory_gib': 3.0" in run(ON_WINDOWS.format(posix=POSIX, modules=list(MODULES)))


def test_a_manifest_needs_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    from attnsem.runs import environment

    assert environment()["git"] == "no git checkout"


def test_the_pages_lines_score_a_file_again_with_numpy_and_pandas_alone():
    program = re.search(r"```python\n(.*?)```", (ROOT / "results/README.md").read_text(), re.DOTALL)[1]
    place, name = re.search(r'folder = "([^"]+)"', program)[1], re.search(r'"([^"]+/scores)"', program)[1]
    path = ROOT / place / f"{name}.npz"
    *before, last = program.strip().splitlines()
    shown = f"table = {last}\nprint(table['mAP'].to_json(orient='values'))"
    mean_ap = json.loads(run(BLOCKED.format(allowed=RESCORING | {"attnsem"}) + "\n".join([*before, shown])))
    readings = read_json(path.with_name("metrics.json"))["readings"]
    recorded = pd.Series({reading: stored["mAP"] for reading, stored in readings.items()})
    assert len(mean_ap) == 9 and mean_ap == pytest.approx(recorded.tolist(), abs=0.02)
