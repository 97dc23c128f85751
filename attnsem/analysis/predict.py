"""A trained network on anyone's photographs: what notebook 11 and `make predict` do.

`python -m attnsem.analysis.predict --photos FOLDER` labels them by the heads in data/heads, without training.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from attnsem import StudyError
from attnsem.analysis.channels import image_ids
from attnsem.analysis.figures import file_name, write_figure
from attnsem.analysis.heads import Heads
from attnsem.analysis.pictures import AttendedImage, all_channels, attended_photographs, labelled_photograph, with_jpegs
from attnsem.analysis.rows import run_of_row
from attnsem.datasets import read_image, scenes
from attnsem.datasets.prepared import Prepared
from attnsem.engine import launched, memory_given_back
from attnsem.files import disk_errors, rooted, write, write_table
from attnsem.model import Network
from attnsem.paper import Settings
from attnsem.runs import Run
from attnsem.stages import load, scored_part
from attnsem.training import LOGITS, Split, evaluate

HEADS = "data/heads/voc2007.npz"
EXAMPLES = ("astronaut.png", "chelsea.png", "motorcycle_left.png", "coffee.png")  # that scikit-image ships
NEW_SCENES = 20180468  # a seed of scenes that are in no data set
PLACE = "runs/predictions"
TABLE = "probabilities.csv"  # marks a folder that this has written
SHOWN_SIDE = 640  # pixels of a photograph's longer side in a picture
UNLIKELY = 0.1  # a probability below which a label's channel is drawn among all labels' alone
DISPLAYED = 12  # photographs whose own pictures are shown in the notebook; all are written


class Trained(NamedTuple):
    """A network in evaluation mode and what it was trained as; origin: checksums for a manifest."""

    network: Network
    settings: Settings
    labels: tuple[str, ...]
    name: str
    origin: dict[str, str]

    @classmethod
    def chosen(
        cls, heads: str | None, weights: str, *, row: str, stage: int, dataset: str, **place: object
    ) -> "Trained":
        """The heads of a file on a backbone with these weights, or a run; StudyError names heads that are at hand.

        place: seed, runs and data, as for run_of_row.
        """
        if heads:
            return cls.of_heads(heads, weights)
        try:
            return cls.of_run(run_of_row(row, stage, dataset=dataset, **place), row)
        except StudyError as error:
            path = f"data/heads/{dataset}.npz"
            is_there = "/" not in dataset and rooted(path).is_file()
            raise StudyError(f"{error}{f'{chr(10)}or, without training, give -p heads {path}' * is_there}") from error

    @classmethod
    def of_run(cls, run: Run, row: str) -> "Trained":
        manifest, name = run.manifest, f"{row}, stage {run.settings.stage}"
        origin = {"fingerprint": manifest["data_fingerprint"], "run": manifest["checkpoint_sha256"]}
        return cls(load(run), run.settings, tuple(manifest["labels"]), name, origin)

    @classmethod
    def of_heads(cls, path: str | Path, weights: str) -> "Trained":
        heads = Heads.of(path)
        manifest, name = heads.manifest, f"{heads.manifest['row']}, {heads.settings.backbone} frozen"
        origin = {"fingerprint": manifest["data_fingerprint"], "run": manifest["checkpoint_sha256"]}
        return cls(heads.network(weights), heads.settings, tuple(manifest["labels"]), name, origin)


@dataclass(frozen=True)
class Photographs:
    """Images by name, upright; a batch of them is resized to size x size. title: what all are; left_out: sentences."""

    names: Sequence[str]
    open: Callable[[str], Image.Image]
    size: int
    title: str
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, place: str | Path, size: int) -> "Photographs":
        """A file, or the images of a folder and those within, by their paths' order; others are named and left out,
        as are folders that this has written. Relative paths start at the shell's folder.

        StudyError where there is no image.
        """
        place = from_shell(place)
        if not place.exists():
            raise StudyError(f"there is no {place}; give a photograph or a folder of them by -p photos")
        if place.is_file():
            read_image(place)
            return cls([place.name], lambda name: read_image(place), size, place.stem)
        names, left_out = [], []
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            if any((folder / TABLE).is_file() for folder in path.parents if place in folder.parents):
                continue
            try:
                read_image(path)
                names.append(path.relative_to(place).as_posix())
            except StudyError as error:
                left_out.append(str(error))
        written = [str(path.parent) for path in sorted(place.rglob(TABLE)) if path.parent != place]
        left_out += [f"{folder} has predictions, no photographs" for folder in written]
        if not names:
            raise StudyError(f"{place} has no image in it; give a photograph or a folder of them by -p photos")
        return cls(names, lambda name: read_image(place / name), size, place.resolve().name or "photos", (*left_out,))

    @classmethod
    def chosen(
        cls, place: str | Path | None, settings: Settings, data: str | Path = "data", seed: int = 0
    ) -> "Photographs":
        """Those of a place, or examples of the data set, which but for new ones are read from `data`."""
        return cls.of(place, settings.image_size) if place else cls.examples(settings, data, seed)

    @classmethod
    def examples(cls, settings: Settings, data: str | Path, seed: int) -> "Photographs":
        """Of a data set: of voc2007 photographs that scikit-image ships, of scenes new ones, else random test images,
        which are square, as they were prepared."""
        size, split = settings.image_size, settings.test_split
        if settings.dataset == "voc2007":
            if not (spec := find_spec("skimage")):
                raise StudyError("scikit-image, which has photographs, is not installed; give others by -p photos")
            folder = Path(spec.origin).parent / "data"
            return cls(EXAMPLES, lambda name: read_image(folder / name), size, "examples")
        if settings.dataset == "scenes":
            names = [f"scene{number:05}" for number in range(1, 5)]
            return cls(names, partial(scenes.draw, seed=NEW_SCENES + seed), size, "new scenes")
        prepared = Prepared.load(settings.dataset, data)
        names, images = image_ids(prepared, split, count=6, seed=seed), prepared.images(split, size)
        row_of = {name: prepared.ids(split).index(name) for name in names}
        return cls(names, lambda name: Image.fromarray(images[[row_of[name]]][0].numpy()), size, f"{split} images")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """(N, size, size, 3) uint8."""
        images = [self.open(self.names[index]) for index in indices]
        resized = [image.resize((self.size, self.size), Image.Resampling.BILINEAR) for image in images]
        return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))

    def original(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 in its own shape, its longer side at most SHOWN_SIDE pixels."""
        image = self.open(name)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
        return np.asarray(image)


class Predictions(NamedTuple):
    """probabilities: a row a photograph, a column a label; attention: (N, C, h, w) of a network that has it."""

    photographs: Photographs
    name: str
    probabilities: pd.DataFrame
    attention: np.ndarray | None

    def attended(self, name: str, labels: Sequence[str]) -> AttendedImage:
        row = self.photographs.names.index(name)
        columns = self.probabilities.columns.get_indexer(labels)
        scores, channels = self.probabilities.iloc[row, columns], self.attention[row, columns]
        return AttendedImage(name, self.photographs.original(name), tuple(labels), channels, scores.to_numpy())

    def likeliest(self, name: str, most: int) -> pd.Series:
        row = self.probabilities.iloc[self.photographs.names.index(name)]
        return row.sort_values(ascending=False, kind="stable")[:most]

    def shown(self, name: str) -> pd.Index:
        """One or two labels whose channels are drawn: the likeliest, and a second that is not unlikely."""
        likeliest = self.likeliest(name, 2)
        return likeliest.index[: max((likeliest >= UNLIKELY).sum(), 1)]

    def summary(self) -> str:
        """A line a photograph: its labels of 0.5 or more, or the likeliest."""
        width, lines = max(map(len, self.photographs.names)), []
        for name in self.photographs.names:
            best = self.likeliest(name, 5)
            shown = best[best >= 0.5] if best.iloc[0] >= 0.5 else best[:1]
            lines.append(f"{name:{width}}  " + ", ".join(f"{label} {p:.2f}" for label, p in shown.items()))
        return "\n".join(lines)

    def where(self, folder: Path) -> str:
        """What was left out, and where the results are."""
        left_out = [f"left out: {sentence}" for sentence in self.photographs.left_out]
        return "\n".join([*left_out, f"{TABLE} and pictures of {len(self.photographs)} images are in {folder}"])

    def pictures(self, most: int) -> Iterator[tuple[str, Figure, bool]]:
        """File, figure, and whether the notebook shows it: each photograph, all together, every channel of each."""
        files = picture_names(self.photographs.names)
        for number, name in enumerate(self.photographs.names):
            item = self.attended(name, self.shown(name)) if self.attention is not None else None
            image = item.image if item else self.photographs.original(name)
            figure = labelled_photograph(image, self.likeliest(name, most), name, item)
            yield f"{files[name]}.png", figure, number < DISPLAYED
        if self.attention is not None:
            if len(self.photographs) > 1:
                yield "attention.png", self.together(), True
            for number, name in enumerate(self.photographs.names):
                item = self.attended(name, self.probabilities.columns)
                yield f"channels/{files[name]}.png", all_channels(item, self.name), number < DISPLAYED // 2

    def together(self) -> Figure:
        """The first photographs, each with the channels of its one or two likeliest labels."""
        items = [self.attended(name, self.shown(name)) for name in self.photographs.names[:DISPLAYED]]
        return attended_photographs(items, self.name)


def picture_names(names: Sequence[str]) -> dict[str, str]:
    """party for party.jpg; the whole name where another photograph, or the picture of them all, has that one."""
    endings = set(Image.registered_extensions())
    stems = {name: name[: -len(end)] if (end := Path(name).suffix).lower() in endings else name for name in names}
    taken = [*(stem.lower() for stem in stems.values()), "attention", "channels"]
    return {name: file_name(stem if taken.count(stem.lower()) == 1 else name, "") for name, stem in stems.items()}


@memory_given_back()
def predict(trained: Trained, photographs: Photographs, *, device: str = "auto") -> Predictions:
    fabric = launched(device, precision="32-true")
    network = trained.network.to(fabric.device, memory_format=torch.channels_last)
    split = Split(photographs, torch.zeros(len(photographs)), trained.settings)
    parts = evaluate(fabric, network, split, (*LOGITS, "attention"))
    logits = parts[scored_part(trained.settings)]
    probabilities = pd.DataFrame(1 / (1 + np.exp(-logits)), photographs.names, trained.labels)
    return Predictions(photographs, trained.name, probabilities, parts.get("attention"))


def write_predictions(
    predictions: Predictions, out: str | None = None, *, most: int = 8, show: Callable[[Figure], object] | None = None
) -> Path:
    """The table and the pictures in a new folder of `out`, which it gives; `show` is called on some of the pictures.

    out: None is PLACE.
    """
    place = from_shell(out) if out else rooted(PLACE)
    folder = new_folder(place, file_name(predictions.photographs.title, ""))
    write_table(folder / TABLE, predictions.probabilities.rename_axis("image"))
    for file, figure, is_shown in predictions.pictures(most):
        write_figure(folder / file, figure)
        if show and is_shown:
            show(figure)
    return folder


def write_light(path: Path, figure: Figure) -> None:
    """As write_figure, with photographs in an SVG as JPEG."""
    write_figure(path, figure)
    if path.suffix == ".svg":
        light = with_jpegs(path.read_text())
        write(path, lambda partial: partial.write_text(light))


def new_folder(place: Path, name: str) -> Path:
    """place/name, or where there is one, place/name-2, -3, …"""
    for number in count(1):
        folder = place / (name if number == 1 else f"{name}-{number}")
        with disk_errors(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def from_shell(path: str | Path) -> Path:
    """A path as a person types it: a relative one starts at the shell's folder, in JupyterLab the notebook's."""
    return Path(path).expanduser().absolute()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Label photographs, and draw where the network looks.")
    parser.add_argument("--photos", help="a photograph or a folder of them; without it four that scikit-image ships")
    parser.add_argument("--heads", default=HEADS, help="file of trained heads")
    parser.add_argument("--weights", default="imagenet", help="of their backbone: imagenet, or a file")
    parser.add_argument("--out", help=f"folder in which a new one is made; without it {PLACE}")
    parser.add_argument("--figure", help="file of the picture of all besides, such as a .svg for a page")
    parser.add_argument("--device", default="auto")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    try:
        trained = Trained.of_heads(arguments.heads, arguments.weights)
        predictions = predict(trained, Photographs.chosen(arguments.photos, trained.settings), device=arguments.device)
        folder = write_predictions(predictions, arguments.out)
        if arguments.figure and predictions.attention is not None:
            write_light(from_shell(arguments.figure), predictions.together())
    except StudyError as error:
        sys.exit(str(error))
    print(predictions.summary())
    print(predictions.where(folder))


if __name__ == "__main__":
    main()
