"""`python -m benchmarks` prints the table and writes benchmarks/results/<name>.json."""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from attnsem.engine import fastest_precision
from attnsem.files import write_json
from attnsem.runs import environment
from benchmarks import rows
from benchmarks.measure import Limits, as_dict, heading
from benchmarks.report import RESULTS, write_report

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(rows.PARTS)}; all without")
parser.add_argument("--device", default="cpu")
parser.add_argument("--batch", type=int, default=24, help="images in a training batch")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--photos", type=Path, help="folder of JPEGs; without, some are generated")
parser.add_argument("--name", help="of the file under benchmarks/results; the device's kind without")
arguments = parser.parse_args()
if unknown := set(arguments.parts) - set(rows.PARTS):
    parser.error(f"no part {min(unknown)!r}; there are {', '.join(rows.PARTS)}")

device = torch.device(arguments.device)
limits = Limits.measured(device)
print(f"matrix products: {', '.join(f'{name} {rate / 1e9:.0f} GFLOP/s' for name, rate in limits.flops.items())}")
print(f"copies: {limits.bytes / 1e9:.1f} GB/s; fastest precision by rule: {fastest_precision(device.type)}")
print(heading())
machine = {
    "date": time.strftime("%Y-%m-%d"),
    "batch": arguments.batch,
    "rounds": arguments.rounds,
    **environment(device),
}
measured = {}
with tempfile.TemporaryDirectory() as folder:
    setting = rows.Setting(device, arguments.batch, arguments.rounds, limits, Path(folder), arguments.photos)
    for part in arguments.parts or rows.PARTS:
        measured[part] = as_dict(rows.PARTS[part](setting))
        content = machine | {"limits": {"flops": limits.flops, "bytes": limits.bytes}, "rows": measured}
        write_json(RESULTS / f"{arguments.name or device.type}.json", content)
write_report()
