"""benchmarks/README.md from the files under benchmarks/results."""

from pathlib import Path

import pandas as pd

from attnsem.analysis.results import as_markdown
from attnsem.files import ROOT, read_json, write
from benchmarks.measure import Row, heading, line

RESULTS = ROOT / "benchmarks/results"
HEAD = """# Where the time goes

Written by the commands below from the files in [results](results); none of it is typed.

- `python -m benchmarks` compares, part by part, a plain script (plain.py: JPEGs decoded in a DataLoader, contiguous
  float32, the backbone recomputed in frozen stages, scikit-learn in a loop) with the study's own code, in turn in one
  run. Ratios are medians over the rounds, with the lowest and the highest. The machine's limit is the longer of two
  times: the float operations of the work at the rate of a large matrix product, and the bytes that PyTorch's
  operators read and write at the rate of a large copy. Both are measured in the same run.
- `python -m benchmarks.growth` lets the work grow. *images*: at 512 pixels, read and cropped to 448 (up to 25,000, as
  MIRFlickr has). *cached images*: their features under a linear classifier. *labels*: a step of `proposed` in stage 3
  (24 images). *pixels*: a training step of DenseNet-121 (8 images). Memory is the process's own, without mapped files.
- `python -m benchmarks.systems --runs runs/voc2007-densenet448 --dataset voc2007` trains each other system of Tables 1
  and 2 and those that came later, alone, from cached features.
- `python -m benchmarks.equal` measures whether the faster paths end at the same mAP.
- `python -m benchmarks.readings --runs runs/scenes-grid --dataset scenes` measures other readings of the paper than
  ours; [CHOICES.md](../CHOICES.md) has the results.

On a GPU: `python -m benchmarks --device cuda`, likewise `growth`.

What the study does by default:

- Images are decoded and resized once, by `00_prepare_data`. Training reads uint8 arrays that are mapped, not loaded,
  ahead of the step that needs them, and crops and flips them on the device.
- Memory layout is channels_last. `precision=auto` is bfloat16 by autocast where the hardware multiplies it (GPUs
  since Ampere; CPUs with AVX512-BF16 or AMX) and float32 elsewhere; the manifest says which it was. `-p precision
  32-true` is the paper's float32, IEEE's: TF32 is always off.
- `-p feature_cache 4` lets frozen stages (2, 3, and 1 with `train_backbone False`) train on four stored augmented
  views of each image. All variants, gates and seeds with the same frozen backbone share one cache; its size is
  printed before it is written.
- `-p compile True` is torch.compile. It is off: it wants a C++ compiler and time to compile, and gains little
  afterwards ("eager / compiled" below).
- On a CPU freed memory is kept for the next batch (glibc only).
"""


def machine(record: dict) -> str:
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "torchvision", "numpy"))
    return f"{record['device']}; {versions}; {record['date']}; revision {record['git']}.\n"


def speed(path: Path) -> str:
    record = read_json(path)
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in record["limits"]["flops"].items())
    limits = (
        f"Matrix products {rates}; copies {record['limits']['bytes'] / 1e9:.0f} GB/s; training batch {record['batch']}."
    )
    rows = [line(Row(**row)) for part in record["rows"].values() for row in part]
    return "\n".join([f"## {path.stem}\n", machine(record), limits, "", heading(), *rows, ""])


def equal(path: Path) -> str:
    record = read_json(path)
    table = pd.DataFrame(record["rows"]).groupby("what", sort=False)
    table_of_seeds = pd.DataFrame(
        {
            "mAP (%)": table["mAP"].mean().map("{:.2f}".format),
            "of single seeds": table["mAP"].agg(lambda values: ", ".join(f"{value:.2f}" for value in values)),
        }
    ).reset_index()
    return f"## Equal results, `scenes`\n\n{machine(record)}\n{as_markdown(table_of_seeds)}"


def growth(path: Path) -> str:
    record = read_json(path)
    figure = f"../figures/{path.stem}.svg"
    rows = pd.DataFrame(record["rows"])
    rows = rows.assign(**{name: rows[name].map("{:.2f}".format) for name in ("seconds", "gib")})
    rows = rows.rename(columns={"seconds": "seconds, as in the figure", "gib": "peak memory (GiB)"})
    return f"## Cost as work grows\n\n{machine(record)}\n![time and memory]({figure})\n\n{as_markdown(rows)}"


def systems(path: Path) -> str:
    record = read_json(path)
    rows = pd.DataFrame(record["rows"]).assign(gib=lambda rows: rows["gib"].map("{:.2f}".format))
    rows = rows.rename(columns={"gib": "peak memory (GiB)"})
    title = f"## Other systems, `{path.stem.partition('-')[2]}`"
    return f"{title}\n\n{machine(record)}\n{as_markdown(rows)}"


def report() -> str:
    kinds = {"equal": equal, "growth": growth, "systems": systems}
    paths = sorted(RESULTS.glob("*.json"))
    return "\n".join([HEAD, *(kinds.get(path.stem.split("-")[0], speed)(path) for path in paths)])


def write_report() -> None:
    write(ROOT / "benchmarks/README.md", lambda partial: partial.write_text(report()))
