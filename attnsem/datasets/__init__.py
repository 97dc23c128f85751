"""Data sets by name; each module reads one source into a `Dataset`."""

import difflib
import hashlib
from pathlib import Path

from attnsem import StudyError
from attnsem.datasets import coco, mirflickr, nuswide, scenes, table, voc2007, voc2012
from attnsem.datasets.dataset import SPLITS, Dataset, read_image
from attnsem.files import read_json, rooted, write
from attnsem.paper import is_table

__all__ = ["NAMES", "Dataset", "load", "publish_split", "read_image"]

NAMES = ("scenes", "voc2007", "voc2012", *mirflickr.LABELS, *coco.ARCHIVES, "nuswide")
READERS = {"voc2007": voc2007.load, "voc2012": voc2012.load, "nuswide": nuswide.load}


def load(
    name: str, *, source: str | Path | None = None, data: str | Path, partial: bool = False, split_seed: int = 0
) -> Dataset:
    """The data set `name`: one of NAMES, or the path of the user's own CSV (table.py), once prepared its bare name too.

    source: of a real data set: an unpacked folder, an archive, or a folder of the official archives; without
        it an earlier copy below `data` is read, else it is downloaded.
    partial: take those of MIRFlickr's images that are there, or a tenth of the scenes.
    split_seed: of MIRFlickr's random split; one split's prepared data are refused in the folder of another's.
    Relative paths start at the project's root. StudyError on an unknown name, and as the readers raise it.
    """
    is_own, places = is_table(name), {"source": rooted(source) if source else None, "data": rooted(data)}
    if source and (is_own or name == "scenes"):
        raise StudyError(f"{name} takes no source; leave out -p source, or name a real data set by -p dataset")
    if partial and name not in (*mirflickr.LABELS, "scenes"):
        raise StudyError(f"{name} is not read in part; leave out -p partial, which is for MIRFlickr and scenes")
    if split_seed and name not in mirflickr.LABELS:
        raise StudyError(f"the split of {name} is given; leave out -p split_seed, which is for MIRFlickr")
    if is_own and Path(name).stem.lower() in (*NAMES, "mirflickr"):
        raise StudyError(f"{name} would share the folders of the study's {Path(name).stem}; rename the file")
    if is_own:
        return table.load(rooted(name))
    if name == "scenes":
        return scenes.load(**(scenes.TENTH if partial else {}))
    if name in READERS:
        return READERS[name](**places)
    if name in coco.ARCHIVES:
        return coco.load(name, **places)
    if name in mirflickr.LABELS:
        return mirflickr.load(name, **places, partial=partial, split_seed=split_seed)
    if (description := rooted(data) / "prepared" / name / "dataset.json").is_file():  # of a table, by its bare name
        return table.load(Path(read_json(description)["source"]["path"]))
    close = [f"{name}.csv"] if rooted(f"{name}.csv").is_file() else difflib.get_close_matches(name, NAMES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise StudyError(f"no data set {name!r}: there are {', '.join(NAMES)}, and any path that ends in .csv{hint}")


def publish_split(dataset: Dataset, folder: Path) -> str:
    """Writes <images>_{train,val,test}.txt, an id a line; gives the SHA-256 of the three joined."""
    lists = {split: "".join(f"{image}\n" for image in dataset.splits[split]).encode() for split in SPLITS}
    for split, content in lists.items():
        write(folder / f"{dataset.images}_{split}.txt", lambda path, content=content: path.write_bytes(content))
    return hashlib.sha256(b"".join(lists.values())).hexdigest()
