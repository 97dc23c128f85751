"""`python -m benchmarks.readings --runs R --data D`: what the other readings of CHOICES.md do to mAP.

Trains stage 3 (and stage 2 where the reading is one of it) of finished runs again, with one thing read otherwise, and
writes the differences with their paired bootstrap to <out>/<dataset>/readings.csv. One seed, the epochs and learning
rate of the run it is compared with. About a minute a reading on two cores for VOC2007 at 224 pixels.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn

from attnsem import model, paper, stages
from attnsem.analysis import tables
from attnsem.analysis.rows import run_of_row
from attnsem.analysis.tables import Row
from attnsem.files import rooted, write_table
from attnsem.model import SEBlock, SemanticPart

KEPT = ("feature_cache", "batch_size", "epochs", "lr", "lr_step", "precision")


class TwoSigmoids(SEBlock):
    """Eq. (6) as printed."""

    def __init__(self, **sizes: int):
        super().__init__(**sizes)
        self.excitation[1] = nn.Sigmoid()


class WithoutBiases(SEBlock):
    def __init__(self, **sizes: int):
        super().__init__(**sizes)
        for layer in (self.excitation[0], self.excitation[2]):
            layer.register_parameter("bias", None)


class BareConvs(SemanticPart):
    """Neither BatchNorm nor ReLU after the 1×1 convs, which then have biases."""

    def __init__(self, **sizes: object):
        super().__init__(**sizes)
        for name, block in self.convs.items():
            self.convs[name] = nn.Conv2d(block[0].in_channels, block[0].out_channels, 1)


def reduced(reduction: int) -> type[SEBlock]:
    class Reduced(SEBlock):
        def __init__(self, *, channels: int):
            super().__init__(channels=channels, reduction=reduction)

    return Reduced


def from_classifier(build: object) -> object:
    """S starts as the class activation map of stage 1's classifier."""

    def network_of(settings: paper.Settings, labels: int, state: dict | None = None) -> model.Network:
        network = build(settings, labels, state)
        if settings.stage == 2 and state and "attention.confidence.weight" not in state:
            with torch.no_grad():
                network.attention.confidence.weight.copy_(network.classifier.fc.weight[..., None, None])
                network.attention.confidence.bias.copy_(network.classifier.fc.bias)
        return network

    return network_of


@dataclass(frozen=True)
class Reading:
    """choice: its row in CHOICES.md; row: of the tables; patched: (where, name, with what); times: as many epochs;
    parameters: of stage 3, where the reading is one of them."""

    choice: str
    name: str
    row: str = "proposed, confidence gate, α fixed"
    patched: tuple = ()
    parameters: tuple[tuple[str, object], ...] = ()
    times: int = 1
    stage2: bool = False


READINGS = [
    Reading("4", "stage 3's loss averaged over the labels", parameters=(("label_loss", "mean"),)),
    Reading("5", "a sigmoid after SE's first layer", patched=(model, "SEBlock", TwoSigmoids)),
    Reading("7", "no BatchNorm and ReLU after the 1×1 convs", patched=(model, "SemanticPart", BareConvs)),
    Reading("8", "SE reduction 4", patched=(model, "SEBlock", reduced(4))),
    Reading("8", "SE reduction 32", patched=(model, "SEBlock", reduced(32))),
    Reading("9", "no biases in SE's layers", patched=(model, "SEBlock", WithoutBiases)),
    Reading("12", "three times the epochs", times=3),
    Reading("19", "S from stage 1's classifier", stage2=True),
    Reading("19", "S from stage 1's classifier", row="attention pooling, α fixed", stage2=True),
]


@contextmanager
def read_so(reading: Reading) -> Iterator[None]:
    if reading.stage2:
        with patch.object(stages, "network_of", from_classifier(stages.network_of)):
            yield
    elif reading.patched:
        with patch.object(*reading.patched):
            yield
    else:
        yield


def measured(reading: Reading, dataset: str, runs: Path, data: Path) -> dict:
    """Δ mAP of the row with that reading vs. the row as recorded in `runs`, on the same test images."""
    usual = run_of_row(reading.row, 3, dataset=dataset, runs=runs)
    place, parents = runs.with_name(f"{runs.name}-readings") / reading.name.replace(" ", "-"), runs
    if reading.stage2:
        second = run_of_row(reading.row, 2, dataset=dataset, runs=runs)
        own = {name: getattr(second.settings, name) for name in KEPT}
        with read_so(reading):
            stages.train(2, dataset=dataset, runs=place, parents=runs, data=data, **own)
        parents = place
    parameters = {name: getattr(usual.settings, name) for name in (*KEPT, "variant", "gate", *paper.SEMANTIC)}
    parameters |= {name: reading.times * parameters[name] for name in ("epochs", "lr_step")}
    parameters |= dict(reading.parameters)
    with read_so(reading):
        run = stages.train(3, dataset=dataset, runs=place, parents=parents, data=data, **parameters)
    files = {"other": run.folder / "scores.npz", "ours": usual.folder / "scores.npz"}
    rows = [Row("", name, ((path,),)) for name, path in files.items()]
    named = {"choice": reading.choice, "row": reading.row, "reading": reading.name}
    return named | tables.difference(*rows) | {"revision": run.manifest["git"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readings", description=__doc__)
    parser.add_argument("--runs", required=True, help="folder of finished runs, with their checkpoints")
    parser.add_argument("--dataset", default="voc2007")
    parser.add_argument("--data", default="data")
    parser.add_argument("--out", help="folder of the table; default: that of the runs")
    arguments = parser.parse_args()
    runs, data = rooted(arguments.runs), rooted(arguments.data)
    rows = [measured(reading, arguments.dataset, runs, data) for reading in READINGS]
    table = pd.DataFrame(rows).drop(columns="sd of seeds").set_index("choice").round(3)
    write_table(rooted(arguments.out or runs) / arguments.dataset / "readings.csv", table)
    print(table.to_string())


if __name__ == "__main__":
    main()
