"""A notebook, executed as the Snakefile does."""

import subprocess
import sys

import nbformat
import papermill

from attnsem.files import ROOT


def execute(name, home, parameters):
    """Notebook `name` with those parameters that it has, in home, where it is written; else what its log ends with."""
    path, target = ROOT / f"notebooks/{name}.ipynb", home / f"{name}.ipynb"
    own = papermill.inspect_notebook(path).keys() & parameters.keys()
    words = [word for parameter in own for word in ("-p", parameter, str(parameters[parameter]))]
    done = subprocess.run([sys.executable, ROOT / "grids/execute.py", path, target, *words], cwd=home)
    assert done.returncode == 0, target.with_suffix(".log").read_text()[-5000:]
    return nbformat.read(target, as_version=4)
