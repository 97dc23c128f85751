"""Low-level descriptors of images by scikit-image, for the systems that came before convolutional networks.

Of the whole image at 128 × 128 pixels, D = 648 numbers, each part scaled to length 1:

| part | what | numbers |
| --- | --- | --- |
| colour | histogram of HSV, 8 × 4 × 4 bins | 128 |
| layout | mean and standard deviation of Lab in a 4 × 4 grid | 96 |
| edges | HOG: 9 directions, cells of 32 pixels, blocks of 2 × 2 | 324 |
| texture | uniform LBP of 8 neighbours at radius 1 and 2, histograms of the whole and of 2 × 2 quarters | 100 |

Huiskes et al. 2010 had MPEG-7's edge histogram and homogeneous texture and a colour descriptor of their own, which
scikit-image lacks; these stand in their place.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from attnsem.analysis.systems.examples import Examples, read
from attnsem.analysis.systems.linear import unit
from attnsem.datasets.features import made_once, short
from attnsem.datasets.storage import fill

SIDE = 128
NEIGHBOURS, RADII = 8, (1, 2)
CODES = NEIGHBOURS + 2  # of uniform LBP


def describe(image: np.ndarray) -> np.ndarray:
    """image: (S, S, 3) uint8. Returns (D,) float32."""
    from skimage import color, feature  # here: seconds that most do not need

    small = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    grey = color.rgb2gray(small)
    histogram, _ = np.histogramdd(color.rgb2hsv(small).reshape(-1, 3), bins=(8, 4, 4), range=[(0, 1)] * 3)
    lab = color.rgb2lab(small).reshape(4, SIDE // 4, 4, SIDE // 4, 3)
    layout = np.concatenate([lab.mean((1, 3)).ravel(), lab.std((1, 3)).ravel()])
    edges = feature.hog(grey, orientations=9, pixels_per_cell=(32, 32), cells_per_block=(2, 2))
    texture = [
        codes_of(feature.local_binary_pattern(to_bytes(grey), NEIGHBOURS, radius, "uniform")) for radius in RADII
    ]
    return np.concatenate([unit(part) for part in (histogram.ravel(), layout, edges, np.concatenate(texture))])


def to_bytes(grey: np.ndarray) -> np.ndarray:
    return np.round(255 * grey).astype(np.uint8)


def codes_of(pattern: np.ndarray) -> np.ndarray:
    """How often each code comes, in the whole and in its quarters: (5 · CODES,)."""
    half = SIDE // 2
    quarters = [pattern[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    counts = [np.bincount(part.astype(int).ravel(), minlength=CODES) / part.size for part in (pattern, *quarters)]
    return np.concatenate(counts)


def descriptors(examples: Examples) -> np.ndarray:
    """(N, D) float32, kept on the disk beside the features."""
    prepared, images = examples.source.prepared, examples.images
    holder = "trainval" if examples.split == "train" else examples.split
    key = [images.sha256, Path(__file__).read_text()]
    target = prepared.folder / "features" / prepared.image_set / f"{holder}-descriptors-{short(key)}.npy"

    def rows(start: int, stop: int) -> np.ndarray:
        return np.stack(list(pool.map(describe, read(images.array.filename, start, stop))))

    shape = (len(images.array), len(describe(images.array[0])))
    with ThreadPoolExecutor() as pool:
        make = partial(fill, target, shape, np.float32, rows, f"descriptors of {shape[0]} images")
        return np.array(made_once(examples.source.fabric, target, make)[images.rows])


def vectors(examples: Examples, inputs: str) -> np.ndarray:
    """(N, D) float32 of inputs: "descriptors" of the image, or pooled "features" of the CNN, L2-normalised."""
    if inputs == "descriptors":
        return descriptors(examples)
    return unit(unit(examples.pooled()).mean(axis=1))
