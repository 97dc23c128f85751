"""What reads files from strangers, as functions of a file's bytes: each returns, or raises StudyError and nothing else.

tests/test_parsers.py drives them by hypothesis, `python -m tests.fuzz` by atheris.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from attnsem.analysis import published
from attnsem.datasets import coco, mirflickr, nuswide, table, voc2007
from attnsem.datasets.dataset import read_lines
from attnsem.datasets.similarity import similarity
from attnsem.files import ROOT, load_tensors
from attnsem.runs import Run
from tests import verify

RECORDED = ROOT / "results/voc2007-xception224/voc2007/densenet/seed0/stage1"
PLACE = Path(tempfile.mkdtemp(prefix="attnsem-parsers-"))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)


def written(name: str, data: bytes) -> Path:
    path = PLACE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def voc_list(data: bytes) -> None:
    voc2007.read_list(written("list.txt", data), 2)
    voc2007.read_list(written("list.txt", data), 1)


def voc_xml(data: bytes) -> None:
    written("voc/Annotations/000001.xml", data)
    voc2007.read_boxes(PLACE / "voc", ["000001"])


def mirflickr_list(data: bytes) -> None:
    mirflickr.read_list(written("animals.txt", data))


def coco_instances(data: bytes) -> None:
    coco.read_instances(written("instances_val2014.json", data))


def nuswide_list(data: bytes) -> None:
    read_lines(written("TrainImagelist.txt", data), *nuswide.IMAGE, nuswide.ARCHIVES)


def nuswide_marks(data: bytes) -> None:
    nuswide.read_marks(written("Labels_sky_Train.txt", data), 3)


def own_table(data: bytes) -> None:
    for name in ("a.png", "b.png"):
        written(f"own/{name}", b"")
    table.load(written("own/pets.csv", data))


def published_table(data: bytes) -> None:
    published.read(written("tables.csv", data), "percent")


def similarities(data: bytes) -> None:
    similarity(written("vectors.txt", data), ["cat", "dog"])


def similarity_table(data: bytes) -> None:
    similarity(written("table.csv", data), ["cat", "dog"])


def manifest(data: bytes) -> None:
    run = Run(written("run/manifest.json", data).parent)
    _ = run.manifest, run.settings


def history(data: bytes) -> None:
    _ = Run(written("run/history.csv", data).parent).history


def scores(data: bytes) -> None:
    Run(written("scored/scores.npz", data).parent).scores()


def checkpoint(data: bytes) -> None:
    load_tensors(written("run/checkpoint.pt", data))


def recorded_run(data: bytes) -> None:
    """A recorded run whose metrics are these, looked at by verify, which names what is broken."""
    place = PLACE / "recorded"
    if not place.exists():
        shutil.copytree(RECORDED, place / "voc2007/densenet/seed0/stage1")
        shutil.copy(RECORDED.parents[2] / "images.npz", place / "voc2007")
    written("recorded/voc2007/densenet/seed0/stage1/metrics.json", data)
    list(verify.broken(place))


XML = b"""<annotation><size><width>500</width><height>375</height></size><object><name>cat</name>
<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""
EXCEL = b"\xef\xbb\xbfimage;split;cat\r\na.png;train;TRUE\r\nb.png;test;0,0\r\n"
NAMED = b"image,split,labels\na.png,train,cat|black dog\nb.png,test,cat\n"
CATEGORIES = ",".join(f'{{"id": {number}, "name": "{label}"}}' for number, label in enumerate(coco.LABELS, 1))
COCO = f"""{{"images": [{{"id": 7, "file_name": "COCO_val2014_000000000007.jpg", "width": 50, "height": 40}}],
"annotations": [{{"image_id": 7, "category_id": 17, "bbox": [1, 2.5, 3, 4], "iscrowd": 0}}],
"categories": [{CATEGORIES}]}}""".encode()
PARSERS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {  # with files that they accept
    "voc_list": (voc_list, [b"000001  1\n000002 -1\n000003  0\n", b"\xef\xbb\xbf000005\r\n000007\r\n"]),
    "voc_xml": (voc_xml, [XML]),
    "mirflickr_list": (mirflickr_list, [b"1\n17\n25000\n"]),
    "coco_instances": (coco_instances, [COCO]),
    "nuswide_list": (nuswide_list, [b"actor\\0001_2124494179.jpg\r\n\r\nzebra\\0002_98.jpg\r\n"]),
    "nuswide_marks": (nuswide_marks, [b"0\n1\r\n1\n"]),
    "own_table": (own_table, [b"image,split,cat\na.png,train,1\nb.png,test,0\n", EXCEL, NAMED]),
    "published_table": (published_table, [(ROOT / "data/published/tables.csv").read_bytes()[:200]]),
    "similarities": (similarities, [b"2 2\ncat 1 0\ndog 0.5 1\n"]),
    "similarity_table": (similarity_table, [b"label,cat,dog\ncat,1,0.5\ndog,0.5,1\n"]),
    "manifest": (manifest, [(RECORDED / "manifest.json").read_bytes()]),
    "history": (history, [(RECORDED / "history.csv").read_bytes()]),
    "scores": (scores, [(RECORDED / "scores.npz").read_bytes()[:4000]]),
    "checkpoint": (checkpoint, [b"PK\x03\x04"]),
    "recorded_run": (recorded_run, [(RECORDED / "metrics.json").read_bytes()]),
}
