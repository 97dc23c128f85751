from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from attnsem import StudyError
from attnsem.datasets.dataset import BOX_COLUMNS, Dataset, fingerprint


def read_image(path: str | Path) -> Image.Image:
    """RGB, upright by its EXIF orientation; StudyError on a file that is no whole image, or a bomb."""
    try:
        with Image.open(path) as image:
            image.load()
            with suppress(Exception):  # broken EXIF says nothing about the pixels, which are whole
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits, which convert() would clip to 255
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise StudyError(f"{path} cannot be read as an image ({error}); replace it") from error


def of_files(paths: dict[str, Path], **description: object) -> Dataset:
    """A Dataset whose images are files, by id; `description` is Dataset's other fields.

    Raises StudyError where files are missing, or an image is in two splits.
    """
    if missing := [path for path in paths.values() if not path.is_file()]:
        raise StudyError(f"{len(missing)} of {len(paths)} images are missing, first {missing[0]}; put them there")
    index = description["targets"].index
    if not index.is_unique:
        raise StudyError(f"image {index[index.duplicated()][0]} is in two splits; give each image one")
    description.setdefault("boxes", pd.DataFrame(columns=BOX_COLUMNS))
    counted = (description[name] for name in ("labels", "splits", "targets", "boxes"))
    sizes = [(image, path.stat().st_size) for image, path in paths.items()]
    return Dataset(open=lambda image: read_image(paths[image]), fingerprint=fingerprint(*counted, sizes), **description)
