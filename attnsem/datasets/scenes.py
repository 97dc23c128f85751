"""`scenes`, the embedded data set: drawn objects with known boxes, some so faint that only their company tells."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from attnsem import StudyError
from attnsem.datasets.dataset import BOX_COLUMNS, Dataset

TENTH = {"train": 200, "val": 50, "test": 100}
GENERATOR = "scenes 1"  # to be raised when any pixel or label changes


class Node(NamedTuple):
    company: tuple[str, ...]
    present: tuple[float, ...]  # P(present | how many of `company` are present)
    faint: float  # P(faint | present)


NETWORK = {  # Bayesian, ancestors first
    "sun": Node((), (0.45,), 0.1),
    "sea": Node((), (0.45,), 0.1),
    "house": Node((), (0.45,), 0.1),
    "tree": Node((), (0.35,), 0.4),  # the control: no company tells of it
    "cloud": Node(("sun",), (0.65, 0.08), 0.4),
    "boat": Node(("sea",), (0.08, 0.8), 0.4),
    "fence": Node(("house",), (0.08, 0.8), 0.4),
    "lamp": Node(("fence",), (0.08, 0.75), 0.4),  # at second hand from the house when the fence is faint
    "kite": Node(("sun", "sea"), (0.08, 0.8, 0.08), 0.4),  # wants exactly one of the two: no pair shows it
    "bird": Node(("sea", "house"), (0.08, 0.8, 0.08), 0.4),  # the same
}
LABELS = tuple(NETWORK)

SIDE = 72
EXTENT = (13, 25)  # least height and width of an object in pixels, and one more than the greatest
OPACITY = {False: 32, True: 1}  # of a clear and a faint object, in 32nds
DISTRACTORS = 4
PLACES = 12  # tried for each object; the emptiest is taken

SPRITES = """
sun       sea       house     tree      cloud     boat      fence     lamp      kite      bird
y...y...y .bb...bb. ....r.... ....g.... ...ww.... ....n.... n.n.n.n.n ...kkk... ....r.... k.......k
.y.yyy.y. bwwb.bwwb ...rrr... ...ggg... ..wwww.w. ....nw... n.n.n.n.n ..kyyyk.. ...rry... kk.....kk
..yyyyy.. bbbbbbbbb ..rrrrr.. ..wgwgw.. .wwwwwwww ....nww.. nnnnnnnnn .kyyyyyk. ..rrryy.. kkk...kkk
.yyyyyyy. bbbbbbbbb .rrrrrrr. ...ggg... wwwwwwwww ....nwww. n.n.n.n.n kyyyyyyyk .rrrryyy. .kkk.kkk.
yyyyyyyyy wwbbbbbww rrrrrrrrr ..ggggg.. wwwwwwwww ....nwwww n.n.n.n.n .kkkkkkk. rrrrryyyy ..kkkkk..
.yyyyyyy. bbwwbwwbb .wwwwwww. .wgwgwgw. wwwwwwwww ....n.... n.n.n.n.n ....k.... .yyyyrrr. ...kyk...
..yyyyy.. bbbbbbbbb .wbwnwbw. ..ggggg.. .wwwwwww. rrrrrrrrr nnnnnnnnn ....k.... ..yyyrr.. ...kkk...
.y.yyy.y. wwbbbbbww .wwwnwww. ggggggggg ..ww.www. .rrrrrrr. n.n.n.n.n ....k.... ...yyr... ....k....
y...y...y bbwwbwwbb .wwwnwww. ....n.... .....w... ..rrrrr.. n.n.n.n.n ..kkkkk.. ....k.... ...k.k...
"""
COLOURS = {
    "y": (245, 215, 40), "b": (45, 85, 205), "r": (205, 45, 40), "w": (240, 240, 240),
    "g": (25, 150, 45), "n": (115, 65, 30), "k": (30, 30, 35),
}  # fmt: skip
PICTURES = {  # label -> (9, 9, 4) integers: red, green, blue, and 1 where the object covers its box
    label: np.array([[(*COLOURS.get(letter, (0, 0, 0)), letter != ".") for letter in row] for row in rows])
    for label, *rows in zip(*map(str.split, SPRITES.strip().splitlines()), strict=True)
}


class Thing(NamedTuple):
    label: str
    box: tuple[int, int, int, int]  # xmin, ymin, xmax, ymax in pixels, touched on all sides
    faint: bool


def load(*, seed: int = 0, train: int = 2000, val: int = 500, test: int = 1000) -> Dataset:
    """Describe the scenes; each is drawn when it is opened, and depends on `seed` and its own number only."""
    if seed < 0 or min(train, val, test) < 1:
        raise StudyError(f"scenes got {seed=}, {train=}, {val=}, {test=}: no seed is negative, no size below 1.")
    ids = tuple(f"scene{number:05d}" for number in range(1, test + val + train + 1))
    # Numbered from the test scenes on, so that they stay the same when `train` grows.
    splits = {"train": ids[test + val :], "val": ids[test : test + val], "test": ids[:test]}
    splits["trainval"] = splits["train"] + splits["val"]
    rows = [(image, thing.label, *thing.box, 0) for image in ids for thing in describe(image, seed=seed)]
    boxes = pd.DataFrame(rows, columns=BOX_COLUMNS)
    boxes[BOX_COLUMNS[2:6]] /= SIDE
    objects = set(zip(boxes.image, boxes.label, strict=True))
    targets = pd.DataFrame([[(image, label) in objects for label in LABELS] for image in ids], ids, LABELS, np.int8)
    return Dataset(
        name="scenes",
        images="scenes",
        splits=splits,
        targets=targets,
        boxes=boxes,
        open=partial(draw, seed=seed),
        files=[(f"{GENERATOR}, seed {seed}", 0)],
        notes=("Drawn by attnsem.datasets.scenes; the label dependencies are planted and known exactly.",),
    )


def describe(image: str, *, seed: int = 0) -> list[Thing]:
    """The objects of a scene, in the order of LABELS."""
    return _compose(image, seed)[0]


def draw(image: str, *, seed: int = 0) -> Image.Image:
    """The 72 x 72 RGB scene: gradient and blotches, plain blocks in the objects' colours, objects, noise."""
    things, rng = _compose(image, seed)
    top, bottom = rng.integers(70, 190, (2, 3))
    ramp = np.arange(SIDE)[:, None, None]
    canvas = np.tile((top * (SIDE - ramp) + bottom * ramp) // SIDE, (1, SIDE, 1))
    canvas += rng.integers(-16, 17, (9, 9, 1)).repeat(SIDE // 9, 0).repeat(SIDE // 9, 1)
    for _ in range(DISTRACTORS):
        left, upper, width, height = rng.integers((0, 0, 4, 4), (SIDE - 4, SIDE - 4, 17, 17))
        canvas[upper : upper + height, left : left + width] = rng.choice(list(COLOURS.values()))
    for thing in sorted(things, key=lambda thing: not thing.faint):
        _paint(canvas, thing, mirrored=rng.random() < 0.5, tint=rng.integers(-25, 26, 3))
    canvas += rng.integers(-30, 31, canvas.shape)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _compose(image: str, seed: int) -> tuple[list[Thing], np.random.Generator]:
    """Draws the labels ancestors first, where each stands and whether it is faint; the generator draws the rest.

    An object takes the emptiest of a few random places, all of one size."""
    if not (number := image.removeprefix("scene")).isdecimal():
        raise StudyError(f"scenes has no image {image!r}: its ids are scene00001, scene00002 and so on.")
    rng = np.random.Generator(np.random.PCG64([seed, int(number)]))
    things, taken = {}, np.zeros((SIDE, SIDE), bool)
    for label, node in NETWORK.items():
        if rng.random() < node.present[sum(company in things for company in node.company)]:
            width, height = rng.integers(*EXTENT, 2).tolist()
            corners = rng.integers(0, (SIDE - width + 1, SIDE - height + 1), (PLACES, 2)).tolist()
            x, y = min(corners, key=lambda corner: taken[corner[1] :, corner[0] :][:height, :width].sum())
            taken[y : y + height, x : x + width] = True
            things[label] = Thing(label, (x, y, x + width, y + height), rng.random() < node.faint)
    return list(things.values()), rng


def _paint(canvas: np.ndarray, thing: Thing, *, mirrored: bool, tint: np.ndarray) -> None:
    """Blend the object's picture, stretched to its box, into the (72, 72, 3) canvas."""
    xmin, ymin, xmax, ymax = thing.box
    rows, columns = (np.arange(extent) * 9 // extent for extent in (ymax - ymin, xmax - xmin))
    picture = PICTURES[thing.label][:, :: -1 if mirrored else 1][rows][:, columns]
    opacity = OPACITY[thing.faint] * picture[..., 3:]
    window = canvas[ymin:ymax, xmin:xmax]
    window += (picture[..., :3] + tint - window) * opacity // 32
