"""`python -m benchmarks.growth`: time and memory as images, labels and pixels grow, each point in a process of its own.

Writes benchmarks/results/growth-<device>.json and figures/growth-<device>.svg.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure

from attnsem import stages, training
from attnsem.analysis.figures import COLOURS, styled, subplots, write_figure
from attnsem.datasets.features import Features
from attnsem.datasets.storage import Images
from attnsem.engine import fastest_precision, launched
from attnsem.files import ROOT, write_json
from attnsem.paper import Settings
from attnsem.runs import environment
from attnsem.training import Split
from benchmarks.measure import seconds
from benchmarks.report import RESULTS, write_report

POINTS = {
    "images": (1500, 6000, 25000),
    "cached images": (500, 2000, 8000),
    "labels": (20, 80, 320, 1000),
    "pixels": (224, 336, 448, 672),
}
UNITS = {"images": "to read an epoch", "cached images": "an epoch", "labels": "a step", "pixels": "a step"}


def zeros(folder: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A mapped array on the disk, as prepared arrays and cached features are."""
    return np.lib.format.open_memmap(folder / "array.npy", "w+", dtype, shape)


def epoch(fabric: Fabric, settings: Settings, inputs: Images | Features, labels: int) -> Callable[[], float]:
    """An epoch of the settings' stage, as training.fit runs it."""
    network = stages.network_of(settings, labels).to(fabric.device, memory_format=torch.channels_last)
    trained, scored = stages.trained_parts(settings, network), stages.scored_part(settings)
    learner = training.Learner(fabric, network, settings, trained, scored)
    split = Split(inputs, torch.zeros(len(inputs), labels, dtype=torch.int8), settings)
    return lambda: training.train_epoch(learner, split, 0)


def work_of(what: str, size: int, fabric: Fabric, folder: Path) -> Callable[[], object]:
    common = {"dataset": "growth", "weights": "none", "precision": fastest_precision(fabric.device.type)}
    if what == "images":
        settings = Settings(stage=1, **common)
        inputs = Images(zeros(folder, (size, 512, 512, 3), np.uint8), np.arange(size), "")
        split = Split(inputs, torch.zeros(size, 20, dtype=torch.int8), settings)
        return lambda: deque(split.training_batches(fabric, 0), maxlen=0)
    if what == "pixels":
        settings = Settings(stage=1, train_size=size, image_size=size, batch_size=8, **common)
        return epoch(fabric, settings, Images(zeros(folder, (8, size, size, 3), np.uint8), np.arange(8), ""), 20)
    images, labels, stage = (24, size, 3) if what == "labels" else (size, 20, 1)
    settings = Settings(stage=stage, feature_cache=1, train_backbone=False, **common)
    return epoch(
        fabric, settings, Features(zeros(folder, (images, 1, 1024, 14, 14), np.float16), np.arange(images)), labels
    )


def memory(device: torch.device) -> float:
    """GiB that the process itself has taken: on a CPU without mapped files, and what is once taken is kept."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return own_memory()


def own_memory(process: int | str = "self") -> float:
    """GiB of a process now, without mapped files; 0 of one that has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def point(what: str, size: int, device: str) -> dict:
    fabric = launched(device, precision=fastest_precision(device))
    with tempfile.TemporaryDirectory() as folder:
        work = work_of(what, size, fabric, Path(folder))
        work()
        took = min(seconds(work, fabric.device) for _ in range(2))
    return {"what": what, "size": size, "seconds": took, "gib": memory(fabric.device)}


@styled
def growth(table: pd.DataFrame, units: dict[str, str], machine: str) -> Figure:
    """Time and memory over the size of the work, both axes logarithmic; a dotted line is proportional to the size.

    table: rows with what, size, seconds and gib; units: what one time is of, for each `what`.
    """
    figure, axes = subplots(2, len(units), 3.6, f"Cost as work grows, {machine}; dotted: proportional")
    for column, (what, unit) in zip(axes.T, units.items(), strict=True):
        rows = table[table["what"] == what]
        for ax, values, name in zip(column, ("seconds", "gib"), (f"s {unit}", "GiB, peak"), strict=True):
            ax.loglog(rows["size"], rows[values], marker=".", color=COLOURS[0])
            first = rows.iloc[0]
            ax.loglog(rows["size"], first[values] * rows["size"] / first["size"], ":", color=COLOURS[-1])
            ax.set(xlabel=what, ylabel=name)
            ax.set_xticks(rows["size"], [str(size) for size in rows["size"]], rotation=45)
            ax.minorticks_off()
            ax.yaxis.set_major_formatter("{x:g}")
            for row in (rows.iloc[0], rows.iloc[-1]):
                place = (row["size"], row[values])
                ax.annotate(f"{row[values]:.2g}", place, (0, -11), textcoords="offset points", ha="center")
            ax.margins(x=0.2, y=0.35)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--point", nargs=2, metavar=("WHAT", "SIZE"), help="measure this point alone")
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(point(arguments.point[0], int(arguments.point[1]), arguments.device)))
        return
    rows = []
    for what, sizes in POINTS.items():
        for size in sizes:
            options = ["--device", arguments.device, "--point", what, str(size)]
            command = [sys.executable, "-m", "benchmarks.growth", *options]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    machine = environment(arguments.device)
    content = {"date": time.strftime("%Y-%m-%d"), "rows": rows, **machine}
    write_json(RESULTS / f"growth-{arguments.device}.json", content)
    write_figure(ROOT / "figures" / f"growth-{arguments.device}.svg", growth(table, UNITS, machine["device"]))
    write_report()


if __name__ == "__main__":
    main()
