"""`python -m benchmarks.equal`: does a faster path end at the same mAP? Judged by the spread of seeds, on `scenes`.

Trains stage 1 in float32 and bfloat16, and from the float32 one stage 2 with recomputed and with cached features,
with three seeds each; writes benchmarks/results/equal.json. About a quarter of an hour on two cores; runs that are
complete are not run again.
"""

import argparse
import shutil
import time
from pathlib import Path

import pandas as pd

from attnsem import stages
from attnsem.datasets import scenes
from attnsem.datasets.prepared import prepare
from attnsem.files import read_json, rooted, write_json
from attnsem.paper import settings
from attnsem.runs import environment
from benchmarks.report import RESULTS, write_report

SEEDS, VIEWS = (0, 1, 2), (0, 1, 4)
PRECISIONS = ("32-true", "bf16-mixed")


def trained(stage: int, runs: Path, data: Path, **parameters: object) -> float:
    """mAP in %."""
    run = stages.train(stage, dataset="scenes", evaluate_every=0, runs=runs, data=data, device="cpu", **parameters)
    return read_json(run.folder / "metrics.json")["mAP"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal", description=__doc__)
    parser.add_argument("--runs", default="runs/equal")
    parser.add_argument("--data", default="data")
    arguments = parser.parse_args()
    runs, data, rows = rooted(arguments.runs), rooted(arguments.data), []
    defaults = settings(1, dataset="scenes")
    prepare(scenes.load(), data=data, train_size=defaults.train_size, image_size=defaults.image_size)
    for seed in SEEDS:
        for precision in PRECISIONS:
            mean_ap = trained(1, runs / precision, data, seed=seed, precision=precision)
            rows.append({"what": f"stage 1, {precision}", "seed": seed, "mAP": mean_ap})
        stage1 = Path("scenes/densenet") / f"seed{seed}" / "stage1"
        for views in VIEWS:
            folder = runs / f"views{views}"
            shutil.copytree(runs / "32-true" / stage1, folder / stage1, dirs_exist_ok=True)
            mean_ap = trained(2, folder, data, seed=seed, precision="32-true", feature_cache=views)
            name = f"cached features, {views} views" if views else "recomputed features"
            rows.append({"what": f"stage 2, {name}", "seed": seed, "mAP": mean_ap})
    print(pd.DataFrame(rows).groupby("what", sort=False)["mAP"].agg(["mean", "std", "min", "max"]).round(2).to_string())
    write_json(RESULTS / "equal.json", {"date": time.strftime("%Y-%m-%d"), "rows": rows, **environment()})
    write_report()


if __name__ == "__main__":
    main()
