import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from attnsem import StudyError
from attnsem.datasets import scenes, storage
from attnsem.datasets.arrays import Views, batches
from attnsem.datasets.prepared import Prepared, prepare
from attnsem.files import ROOT

SIZES = {"train_size": 40, "image_size": 32}


def small(**changed):
    return scenes.load(**{"train": 70, "val": 6, "test": 10} | changed)


def files(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and path.suffixes != [".npy", ".json"]
    }


def test_arrays_are_the_images_resized(tmp_path):
    dataset = small()
    prepared = prepare(dataset, data=tmp_path, **SIZES)
    for split, size in (("trainval", 40), ("train", 40), ("val", 32), ("test", 32)):
        images, ids = prepared.images(split, size), dataset.splits[split]
        assert len(images) == len(ids) and prepared.ids(split) == ids
        last = dataset.open(ids[-1]).resize((size, size), Image.Resampling.BILINEAR)
        assert (images[np.array([len(ids) - 1])][0].numpy() == np.asarray(last)).all()
    assert (prepared.targets("val") == dataset.targets.loc[list(dataset.splits["val"])]).all(axis=None)
    assert prepared.boxes[["image", "label"]].equals(dataset.boxes[["image", "label"]])
    assert (prepared.labels, prepared.fingerprint, prepared.notes) == (
        dataset.labels,
        dataset.fingerprint,
        dataset.notes,
    )


def test_interrupted_preparation_goes_on(tmp_path):
    whole = prepare(small(), data=tmp_path / "whole", **SIZES).folder
    dataset, opened = small(), []

    def dying(image):
        opened.append(image)
        if len(opened) == 75:  # after the first chunk of 64 rows
            raise KeyboardInterrupt
        return dataset.open(image)

    with pytest.raises(KeyboardInterrupt):
        prepare(replace(dataset, open=dying), data=tmp_path / "halved", **SIZES)
    assert not list((tmp_path / "halved").rglob("trainval-40.npy"))
    opened.clear()
    recorded = replace(dataset, open=lambda image: (opened.append(image), dataset.open(image))[1])
    prepare(recorded, data=tmp_path / "halved", **SIZES)
    assert files(tmp_path / "halved") == files(whole)
    assert set(opened) & set(dataset.splits["trainval"]) == set(dataset.splits["trainval"][64:])


def test_prepared_arrays_are_kept_and_other_sizes_added(tmp_path):
    prepared = prepare(small(), data=tmp_path, **SIZES)
    before = files(tmp_path)
    prepare(small(), data=tmp_path, train_size=40, image_size=24)
    assert before.items() <= files(tmp_path).items()
    assert prepared.images("test", 24).array.shape == (10, 24, 24, 3)


def test_a_changed_source_is_refused(tmp_path):
    prepare(small(), data=tmp_path, **SIZES)
    before = files(tmp_path)
    with pytest.raises(StudyError, match=r"the source of scenes has changed since .*; delete it and .*arrays.scenes"):
        prepare(small(seed=1), data=tmp_path, **SIZES)
    assert files(tmp_path) == before


def test_an_unreadable_image_leaves_no_array(tmp_path):
    def broken(image):
        raise StudyError(f"{image}.jpg cannot be read as an image")

    with pytest.raises(StudyError, match="cannot be read"):
        prepare(replace(small(), open=broken), data=tmp_path, **SIZES)
    assert not [path for path in tmp_path.rglob("*.npy") if not path.name.startswith(".")]


@pytest.mark.parametrize(
    ("told_by", "code"),
    [("disk_usage", errno.ENOSPC), ("posix_fallocate", errno.ENOSPC), ("posix_fallocate", errno.EDQUOT)],
)
def test_a_full_disk_or_quota_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, told_by, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        if told_by == "disk_usage":
            patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        else:
            patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(
            StudyError, match=r"scenes trainval at 40 px needs .* GiB are free; make room, name another"
        ):
            prepare(small(), data=tmp_path, **SIZES)
    assert not [path for path in tmp_path.rglob("*40*") if path.is_file()]
    assert prepare(small(), data=tmp_path, **SIZES).images("trainval", 40)


def test_what_is_not_prepared(tmp_path):
    prepared = prepare(small(), data=tmp_path, **SIZES)
    with pytest.raises(StudyError, match=r"no test-448\.npy of scenes; run 00_prepare_data\.ipynb"):
        prepared.images("test", 448)
    with pytest.raises(StudyError, match="voc2007 is not prepared under"):
        Prepared.load("voc2007", tmp_path)


def test_views_crop_and_flip():
    batch = torch.randint(0, 256, (5, 9, 9, 3), dtype=torch.uint8)
    views = Views.drawn(50, 3, 0, 1, 2)
    indices = np.array([3, 41, 0, 17, 8])
    found = views.of(batch, indices, 6)
    assert found.shape == (5, 3, 6, 6) and found.is_contiguous(memory_format=torch.channels_last)
    for image, i, result in zip(batch.numpy(), indices, found.numpy(), strict=True):
        crop = image[views.top[i] : views.top[i] + 6, views.left[i] : views.left[i] + 6]
        crop = crop[:, ::-1] if views.flip[i] else crop
        assert result == pytest.approx(crop.transpose(2, 0, 1) / 255)


def test_views_depend_on_their_key_alone_and_use_all_the_room():
    views = Views.drawn(2000, 3, 4, 5)
    assert all(
        torch.equal(a, b) for a, b in zip(vars(views).values(), vars(Views.drawn(2000, 3, 4, 5)).values(), strict=True)
    )
    assert not torch.equal(views.top, Views.drawn(2000, 3, 4, 6).top)
    for part in (views.top, views.left):
        assert np.bincount(part) == pytest.approx([500] * 4, rel=0.2)
    assert views.flip.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(views.top, views.left)


def test_whole_views_are_the_image():
    batch = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    found = Views.whole(2).of(batch, np.arange(2), 8)
    assert torch.equal((found * 255).round().byte().permute(0, 2, 3, 1), batch)


def test_rows_come_in_the_order_asked_for(tmp_path):
    prepared = prepare(small(), data=tmp_path, **SIZES)
    images = prepared.images("trainval", 40)
    asked = np.array([7, 2, 30, 2])
    assert torch.equal(images[asked], torch.stack([images[np.array([i])][0] for i in asked]))


def test_batches_cover_all_and_the_last_is_short():
    assert [len(part) for part in batches(np.arange(10), 4)] == [4, 4, 2]


def test_an_array_is_the_one_that_was_written_or_is_refused_by_name(tmp_path):
    path, values = tmp_path / "x.npy", np.arange(3000, dtype=np.uint8).reshape(1000, 3)
    storage.fill(path, values.shape, np.uint8, lambda start, stop: values[start:stop], "x")
    assert np.array_equal(storage.mapped(path), values)
    whole = path.read_bytes()
    path.write_bytes(whole)  # a copy has another time
    assert np.array_equal(storage.mapped(path), values)
    for wrong in (whole[:-1] + b"x", whole[:2000], whole[:20], b"", whole + b"more"):
        path.write_bytes(wrong)
        with pytest.raises(StudyError, match=r"x\.npy is (no whole array|not the array that was written).*delete it"):
            storage.mapped(path)


def test_an_array_of_objects_is_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(StudyError, match="is no whole array"):
        storage.mapped(tmp_path / "x.npy")


def test_an_older_array_is_sealed_when_it_is_first_read(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    storage.mapped(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(StudyError):
        storage.mapped(tmp_path / "x.npy")


def test_many_that_read_an_older_array_at_once_seal_it_once(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(10**6))
    code = "import sys, pathlib; from attnsem.datasets.storage import mapped; mapped(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, tmp_path / "x.npy"]
    readers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [reader.communicate()[1] for reader in readers] == [""] * 3
