"""Trains a system, or with --draws chooses its settings on val.

`python -m attnsem.analysis.systems cnn_svm -p dataset scenes`
"""

from attnsem.analysis.systems import SYSTEMS
from attnsem.analysis.systems.search import search
from attnsem.analysis.systems.training import train
from attnsem.notebook import command_line

PLACE = ("dataset", "seed", "runs", "data", "device", "feature_cache")


def run(name: str, draws: int, **parameters: object) -> None:
    place = {key: parameters.pop(key) for key in PLACE if key in parameters}
    if draws:
        search(name, draws=draws, own=parameters, **place)
    else:
        train(name, own=parameters, **place)


if __name__ == "__main__":
    options = {"draws": (0, "how many settings to try on val, in place of training")}
    command_line(run, __doc__, "name", [*SYSTEMS], **options)
