"""JupyterLab's settings under `make lab`: a save leaves the study's notebooks without outputs, as git has them.

The executed copy goes to runs/notebooks, where it can be opened again.
"""

import json
import re
import warnings
from pathlib import Path

import nbformat

from attnsem.files import write

STUDY = re.compile(r"notebooks/\d\d_[^/]+\.ipynb")


def store_without_outputs(model: dict, path: str, contents_manager: object, **_: object) -> None:
    """Outputs, counts and the kernel's description stay what they are in the stored file."""
    root = Path(contents_manager.root_dir)
    if model["type"] != "notebook" or not STUDY.fullmatch(path) or not (root / path).exists():
        return
    content, stored = model["content"], json.loads((root / path).read_text(encoding="utf-8"))
    if any(cell.get("outputs") for cell in content["cells"]):
        text = nbformat.writes(nbformat.from_dict(content)) + "\n"
        write(root / "runs" / path, lambda partial: partial.write_text(text, encoding="utf-8"))
    cells = {cell["id"]: cell for cell in stored["cells"]}
    for cell in (cell for cell in content["cells"] if cell["cell_type"] == "code"):
        before = cells.get(cell["id"], {})
        cell.update(outputs=before.get("outputs", []), execution_count=before.get("execution_count"))
    content["metadata"] = stored["metadata"]


warnings.filterwarnings("ignore", message="Overriding existing pre_save_hook")  # with itself: traitlets checks it twice
c = get_config()  # noqa: F821, JupyterLab's
c.FileContentsManager.pre_save_hook = store_without_outputs
