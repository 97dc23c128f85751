"""Archives and image files as people really have them: cut off, hostile, renamed, unreachable."""

import hashlib
import io
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from attnsem import StudyError
from attnsem.analysis.predict import Photographs
from attnsem.datasets import archives, read_image
from attnsem.datasets.archives import Archive, download, find, locate, unpack
from attnsem.files import ROOT


def make_tar(path, files, mode="w", members=()):
    with tarfile.open(path, mode) as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for member in members:
            packed.addfile(member)
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def finder(folder):
    return find(folder, "set/*.txt")


def official(*paths):
    return [Archive(path.name, (path.as_uri(),), None) for path in paths]


class Handler(SimpleHTTPRequestHandler):
    """Gives out a folder's files; breaks off in the middle of /short.tar, and falls silent at /silent.tar."""

    def do_GET(self):
        assert self.headers["User-Agent"] == "attnsem"  # else there is no answer
        if self.path not in ("/short.tar", "/silent.tar"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"a" * 500)
        if self.path == "/silent.tar":
            time.sleep(2)

    def log_message(self, *line):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address under which tmp_path is given out."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as httpd:
        threading.Thread(target=httpd.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != ".lock")


FILES = {"set/a.txt": b"a" * 3000, "set/b.txt": b"b" * 3000}


@pytest.mark.parametrize(("make", "name"), [(make_tar, "x.tar"), (make_zip, "x.zip"), (make_tar, "x")])
def test_unpacks_once(tmp_path, make, name):
    source = make(tmp_path / name, FILES)
    unpacked = unpack([source], tmp_path)
    assert (unpacked / "set/a.txt").read_bytes() == FILES["set/a.txt"]
    (unpacked / "set/mine.txt").write_text("kept")
    assert unpack([source], tmp_path) == unpacked
    assert (unpacked / "set/mine.txt").exists()
    other = make(tmp_path / name, FILES | {"set/c.txt": b"c" * 99_000})
    assert unpack([other], tmp_path) != unpacked


def test_gz(tmp_path):
    assert (unpack([make_tar(tmp_path / "x.tar.gz", FILES, "w:gz")], tmp_path) / "set/b.txt").exists()


@pytest.mark.parametrize("left", [0, 100, 512, 700, 3584, 3700, 4096, 5000])
def test_truncated_tar(tmp_path, left):
    """Cut in a header, in the data, and where a member ends, which tarfile itself does not notice."""
    source = make_tar(tmp_path / "x.tar", FILES)
    source.write_bytes(source.read_bytes()[:left])
    with pytest.raises(StudyError, match=r"x\.tar is truncated"):
        unpack([source], tmp_path)
    assert names_below(tmp_path) == ["x.tar"]


@pytest.mark.parametrize(("name", "mode"), [("x.zip", None), ("x.tar.gz", "w:gz"), ("x.tar.xz", "w:xz")])
def test_truncated_compressed(tmp_path, name, mode):
    noise = np.random.default_rng(0).bytes(20_000)
    files = {"set/a.txt": noise, "set/b.txt": noise}
    source = make_tar(tmp_path / name, files, mode) if mode else make_zip(tmp_path / name, files)
    source.write_bytes(source.read_bytes()[:15_000])
    with pytest.raises(StudyError, match=f"{name} is truncated"):
        unpack([source], tmp_path)
    assert names_below(tmp_path) == [name]


def test_broken_in_the_second_archive(tmp_path):
    good = make_tar(tmp_path / "good.tar", FILES)
    bad = make_zip(tmp_path / "bad.zip", FILES)
    content = bytearray(bad.read_bytes())
    content[1000] ^= 1
    bad.write_bytes(content)
    with pytest.raises(StudyError, match=r"bad\.zip is truncated"):
        unpack([good, bad], tmp_path)
    assert names_below(tmp_path) == ["bad.zip", "good.tar"]


@pytest.mark.parametrize("name", ["../out.txt", "set/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt"])
@pytest.mark.parametrize(("make", "suffix"), [(make_tar, "tar"), (make_zip, "zip")])
def test_member_outside(tmp_path, make, suffix, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    source = make(inner / f"x.{suffix}", FILES | {name: b"out"})
    with pytest.raises(StudyError, match=r"out\.txt' is a link"):
        unpack([source], inner)
    assert names_below(tmp_path) == ["inner", f"inner/x.{suffix}"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [(tarfile.SYMTYPE, "a.txt"), (tarfile.LNKTYPE, "set/a.txt"), (tarfile.CHRTYPE, ""), (tarfile.FIFOTYPE, "")],
)
def test_tar_member_of_another_kind(tmp_path, kind, target):
    source = make_tar(tmp_path / "x.tar", FILES, members=[special("set/odd", kind, target)])
    with pytest.raises(StudyError, match="'set/odd' is a link"):
        unpack([source], tmp_path)
    assert names_below(tmp_path) == ["x.tar"]


def test_zip_link(tmp_path):
    link = zipfile.ZipInfo("set/odd")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(StudyError, match="'set/odd' is a link"):
        unpack([make_zip(tmp_path / "x.zip", FILES | {link: b"/etc/passwd"})], tmp_path)


@pytest.mark.parametrize(("make", "suffix"), [(make_tar, "tar"), (make_zip, "zip")])
def test_too_large(tmp_path, monkeypatch, make, suffix):
    monkeypatch.setattr(archives, "MOST_BYTES", 5000)
    with pytest.raises(StudyError, match=r"unpacks to 6e\+03 bytes"):
        unpack([make(tmp_path / f"x.{suffix}", FILES)], tmp_path)


def test_a_name_that_no_file_can_have(tmp_path):
    member = tarfile.TarInfo("set/odd")
    member.pax_headers = {"path": "set/o\0dd"}
    with pytest.raises(StudyError, match=r"x\.tar cannot be unpacked: embedded null byte"):
        unpack([make_tar(tmp_path / "x.tar", FILES, members=[member])], tmp_path)
    assert names_below(tmp_path) == ["x.tar"]


@pytest.fixture
def pair(tmp_path):
    (tmp_path / "shelf").mkdir()
    return (
        make_tar(tmp_path / "shelf/one.tar", {"set/a.txt": b"a"}),
        make_zip(tmp_path / "shelf/two.zip", {"set/b.txt": b"b"}),
    )


def test_source_is_a_folder_of_archives_or_one_of_them(pair, tmp_path):
    for source in (pair[0].parent, pair[0], pair[1]):
        found = locate(finder, official(*pair), source, tmp_path / "data")
        assert sorted(path.name for path in found.iterdir()) == ["a.txt", "b.txt"]
        assert found.is_relative_to(tmp_path / "data")


def test_source_is_an_archive_of_the_users_own(pair, tmp_path):
    own = make_zip(tmp_path / "own.zip", {"deep/set/c.txt": b"c"})
    found = locate(finder, official(*pair), own, tmp_path / "data")
    assert [path.name for path in found.iterdir()] == ["c.txt"]


def test_source_is_unpacked(pair, tmp_path):
    (tmp_path / "copy/set").mkdir(parents=True)
    (tmp_path / "copy/set/a.txt").touch()
    assert locate(finder, official(*pair), tmp_path / "copy", tmp_path / "data") == tmp_path / "copy/set"
    assert not (tmp_path / "data").exists()


def test_source_without_what_is_needed(pair, tmp_path):
    archives = official(*pair)
    with pytest.raises(StudyError, match=r"source .*nowhere does not exist"):
        locate(finder, archives, tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(StudyError, match=r"own\.zip is not what was looked for"):
        locate(finder, archives, make_zip(tmp_path / "own.zip", {"readme": b""}), tmp_path / "data")
    pair[1].unlink()
    with pytest.raises(StudyError, match=r"two\.zip; -p source takes a folder of one\.tar \(MD5 none published\)"):
        locate(finder, archives, pair[0], tmp_path / "data")


def test_several_copies(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name / "set").mkdir(parents=True)
        (tmp_path / name / "set/a.txt").touch()
    with pytest.raises(StudyError, match=r"several copies: .*first/set, .*second/set"):
        find(tmp_path, "set/*.txt")


def test_a_copy_that_is_still_being_unpacked_is_not_found(tmp_path):
    (tmp_path / ".part/set").mkdir(parents=True)
    (tmp_path / ".part/set/a.txt").touch()
    assert find(tmp_path, "set/*.txt") is None


def test_downloads_once_then_finds_its_copy(pair, server, tmp_path):
    archives = [Archive(path.name, (f"{server}/shelf/{path.name}",), None) for path in pair]
    found = locate(finder, archives, None, tmp_path / "data")
    for path in pair:
        path.unlink()
    assert locate(finder, archives, None, tmp_path / "data") == found


def test_download_passes_on_to_the_next_url(pair, server, tmp_path):
    one, folder = pair[0], tmp_path / "data"
    md5 = hashlib.md5(one.read_bytes()).hexdigest()
    addresses = (f"{server}/gone.tar", f"{server}/shelf/two.zip", one.as_uri(), "no url", f"{server}/shelf/one.tar")
    assert download([Archive("one.tar", addresses, md5)], folder) == [folder / "one.tar"]
    assert (folder / "one.tar").read_bytes() == one.read_bytes()
    assert names_below(folder) == ["one.tar"]


def test_no_source_answers(pair, server, tmp_path):
    missing = Archive("missing.tar", (f"{server}/missing.tar",), "0" * 32)
    wrong = Archive("two.zip", (f"{server}/shelf/two.zip",), "1" * 32)
    one = Archive("one.tar", (f"{server}/shelf/one.tar",), None)
    with pytest.raises(StudyError) as caught:
        locate(finder, [one, missing, wrong], None, tmp_path / "data")
    sentence = str(caught.value)
    for words in ("missing.tar (MD5 0000", "one.tar (MD5 none published)", "the published one is 1111", "-p source"):
        assert words in sentence
    assert "missing.tar: 404" in sentence and "shelf/one.tar" not in sentence
    assert names_below(tmp_path / "data") == ["one.tar"]


@pytest.mark.parametrize("name", ["short.tar", "silent.tar"])
def test_a_download_that_breaks_off_or_falls_silent_leaves_nothing(server, tmp_path, monkeypatch, name):
    """Without a checksum to tell it by."""
    monkeypatch.setattr(archives, "TIMEOUT", 0.5)
    with pytest.raises(StudyError, match=rf"no source answered \(http.*{name}: .*fetch {name}"):
        download([Archive(name, (f"{server}/{name}",), None)], tmp_path / "data")
    assert names_below(tmp_path / "data") == []


@pytest.mark.parametrize("is_jupyterlab", [True, False])
def test_a_download_shows_its_bytes_in_jupyterlab_and_nothing_in_batch(
    pair, server, tmp_path, monkeypatch, capsys, is_jupyterlab
):
    monkeypatch.setattr(archives, "IN_JUPYTERLAB", is_jupyterlab)
    download([Archive("one.tar", (f"{server}/shelf/one.tar",), None)], tmp_path / "data")
    text = capsys.readouterr().err
    assert "one.tar: " in text and "0.00/10.2k" in text if is_jupyterlab else text == ""


def test_offline(tmp_path):
    """An address that refuses at once, as an offline machine does."""
    archive = Archive("one.tar", ("http://127.0.0.1:9/one.tar",), None)
    with pytest.raises(StudyError, match=r"127\.0\.0\.1:9/one\.tar: .*fetch one\.tar"):
        download([archive], tmp_path)


def save(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_modes_become_rgb(tmp_path):
    red = Image.new("RGB", (4, 3), (255, 0, 0))
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = 0
    files = {
        "rgb.png": red,
        "palette.png": palette,
        "alpha.png": red.convert("RGBA"),
        "cmyk.jpg": red.convert("CMYK"),
        "cmyk.tif": red.convert("CMYK"),
    }
    for name, image in files.items():
        read = read_image(save(tmp_path, image, name))
        assert (read.mode, read.size) == ("RGB", (4, 3))
        assert np.abs(np.asarray(read).astype(int) - [255, 0, 0]).max() < 8, name
    for mode in ("1", "L", "LA"):
        read = read_image(save(tmp_path, Image.new("RGB", (4, 3), "white").convert(mode), f"{mode}.png"))
        assert (np.asarray(read) == 255).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, name):
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)
    read = read_image(save(tmp_path, Image.fromarray(grey), name))
    assert np.asarray(read)[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_exif_rotation(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the left side comes to the top
    read = np.asarray(read_image(save(tmp_path, image, "turned.jpg", exif=exif)))
    assert read.shape == (40, 20, 3)
    assert read[:15].min() > 200 and read[-15:].max() < 50


def test_broken_exif_is_no_broken_image(tmp_path):
    path = save(tmp_path, Image.new("RGB", (8, 8)), "x.jpg", exif=b"Exif\0\0rubbish that is no TIFF header")
    assert read_image(path).size == (8, 8)


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
@pytest.mark.parametrize("left", [0, 1, 0.5])
def test_truncated_image(tmp_path, name, left):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path, Image.fromarray(noise), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if left == 0.5 else left])
    with pytest.raises(StudyError, match=f"{name} cannot be read"):
        read_image(path)


def test_unreadable_images(tmp_path, monkeypatch):
    (tmp_path / "words.jpg").write_text("no image")
    bomb = save(tmp_path, Image.new("RGB", (60, 60)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for path in (tmp_path / "words.jpg", bomb, tmp_path / "none.jpg", tmp_path):
        with pytest.raises(StudyError, match=f"{path.name} cannot be read"):
            read_image(path)


def test_an_image_that_says_it_has_20000_x_20000_pixels(tmp_path):
    path = save(tmp_path, Image.new("RGB", (4, 3)), "huge.png")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"huge.png cannot be read .*400000000 pixels"):
        read_image(path)


def test_an_image_of_one_pixel(tmp_path):
    assert read_image(save(tmp_path, Image.new("RGB", (1, 1), "red"), "one.png")).getpixel((0, 0)) == (255, 0, 0)


def test_a_wrong_suffix_is_no_broken_image(tmp_path):
    save(tmp_path, Image.new("RGB", (4, 3)), "x.png").rename(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg").size == (4, 3)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_a_name_that_comes_twice(tmp_path, suffix):
    """Of two files of one name the second would take the first one's place."""
    source, (content, other) = tmp_path / f"x.{suffix}", (b"checked", b"other")
    if suffix == "zip":
        with zipfile.ZipFile(source, "w") as packed:
            packed.writestr("set/a.txt", content)
            packed.writestr("set/a.txt", other)
    else:
        with tarfile.open(source, "w") as packed:
            for data in (content, other):
                member = tarfile.TarInfo("set/a.txt")
                member.size = len(data)
                packed.addfile(member, io.BytesIO(data))
    with pytest.raises(StudyError, match=r"'set/a\.txt' comes twice"):
        unpack([source], tmp_path)
    assert names_below(tmp_path) == [source.name]


def test_a_zip_that_says_less_than_it_holds(tmp_path):
    """The size in the directory is what _check sees; zipfile reads no more than that, and the checksum tells."""
    source = make_zip(tmp_path / "x.zip", {"a.txt": bytes(10**6)})
    data = source.read_bytes()
    source.write_bytes(data.replace((10**6).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(StudyError, match="is truncated or no tar or zip"):
        unpack([source], tmp_path)
    assert names_below(tmp_path) == ["x.zip"]


def test_a_download_of_another_sha256_is_refused_though_its_md5_is_right(pair, server, tmp_path):
    data = pair[0].read_bytes()
    md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
    for wrong, right in (("0" * 64, False), (sha256, True)):
        archive = Archive("one.tar", (f"{server}/shelf/one.tar",), md5, wrong)
        if right:
            assert download([archive], tmp_path / "data") == [tmp_path / "data/one.tar"]
        else:
            with pytest.raises(StudyError, match=r"it has SHA-256 .*, the published one is 0000"):
                download([archive], tmp_path / "data")
            assert not (tmp_path / "data/one.tar").exists()


def test_importing_everything_asks_no_server():
    code = """
import socket

def refuse(*given):
    raise SystemExit("asked a server")

socket.create_connection = socket.getaddrinfo = refuse
import attnsem.stages, attnsem.analysis.results, attnsem.analysis.dependencies, attnsem.analysis.explorer
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_photographs_are_one_file_or_what_can_be_read_of_a_folder(tmp_path):
    with pytest.raises(StudyError, match=r"there is no .*nowhere; give a photograph"):
        Photographs.of(tmp_path / "nowhere", 8)
    (tmp_path / "words.jpg").write_text("no image")
    with pytest.raises(StudyError, match="has no image in it"):
        Photographs.of(tmp_path, 8)
    one = save(tmp_path, Image.new("RGB", (4, 3), "red"), "one.png")
    assert Photographs.of(tmp_path, 8).names == Photographs.of(one, 8).names == ["one.png"]
    assert "words.jpg cannot be read" in Photographs.of(tmp_path, 8).left_out[0]
    assert Photographs.of(one, 8)[np.array([0])].shape == (1, 8, 8, 3)
