"""Trains a system, or with --draws chooses its settings on val.

`python -m attnsem.analysis.systems cnn_svm -p dataset scenes`
"""

import argparse
import ast
import sys

from attnsem import StudyError
from attnsem.analysis.systems import SYSTEMS
from attnsem.stages import value_of

PLACE = ("dataset", "seed", "runs", "data", "device", "feature_cache")


def literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnsem.analysis.systems", description=__doc__)
    parser.add_argument("name", choices=SYSTEMS)
    named = {"nargs": 2, "default": [], "metavar": ("NAME", "VALUE")}
    parser.add_argument("-p", "-r", dest="parameters", action="append", help=f"{', '.join(PLACE)}, its own", **named)
    parser.add_argument("--draws", type=int, default=0, help="how many settings to try on val, in place of training")
    arguments = parser.parse_args()
    place = {name: value_of(name, value) for name, value in arguments.parameters if name in PLACE}
    own = {name: literal(value) for name, value in arguments.parameters if name not in PLACE}

    from attnsem.analysis.systems.search import search
    from attnsem.analysis.systems.training import train

    try:
        if arguments.draws:
            search(arguments.name, draws=arguments.draws, own=own, **{"dataset": "scenes"} | place)
        else:
            train(arguments.name, own=own, **{"dataset": "scenes"} | place)
    except StudyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
