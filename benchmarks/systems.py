"""`python -m benchmarks.systems --runs runs/voc2007-densenet448 --dataset voc2007`: how long each other system trains.

Each in a process of its own, from cached features, on a copy of the folder's stage 1 of seed 0, with the settings that
were chosen on val there, if any; the process ends with scores on test. Memory is the greatest of its own, without
mapped files. Names of systems measure these alone. Linux. Writes benchmarks/results/systems-<dataset>.json.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attnsem.analysis.systems import SYSTEMS
from attnsem.files import ROOT, read_json, rooted, write_json
from attnsem.runs import environment
from benchmarks.growth import own_memory
from benchmarks.report import RESULTS, write_report

STAGE = "densenet/seed0/stage1"


def trained(name: str, runs: Path, dataset: str, data: str) -> dict[str, object]:
    """Seconds and GiB in which one is trained; runs: a folder that has its stage 1."""
    command = [sys.executable, "-m", "attnsem.analysis.systems", name, "-p", "feature_cache", "2"]
    for key, value in {"dataset": dataset, "runs": str(runs), "data": data}.items():
        command += ["-p", key, value]
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, own_memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{name} was not trained; its message is above")
    return {"system": SYSTEMS[name].name, "seconds": round(time.perf_counter() - began), "gib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}; all without")
    parser.add_argument("--runs", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data", default="data")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SYSTEMS):
        parser.error(f"no system {min(unknown)!r}; there are {', '.join(SYSTEMS)}")
    rows, path = {}, RESULTS / f"systems-{arguments.dataset}.json"
    if path.exists():
        rows = {row["system"]: row for row in read_json(path)["rows"]}
    machine = {"date": time.strftime("%Y-%m-%d"), **environment("cpu")}  # before the first row is written
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        shutil.copytree(rooted(arguments.runs) / arguments.dataset / STAGE, runs / arguments.dataset / STAGE)
        if (chosen := rooted(arguments.runs) / "val" / arguments.dataset).exists():
            shutil.copytree(chosen, runs / "val" / arguments.dataset)
        for name in arguments.names or SYSTEMS:
            row = trained(name, runs, arguments.dataset, arguments.data)
            print(row, flush=True)
            rows[row["system"]] = row
            ordered = [rows[system.name] for system in SYSTEMS.values() if system.name in rows]
            write_json(path, {"rows": ordered, **machine})
    write_report()


if __name__ == "__main__":
    main()
