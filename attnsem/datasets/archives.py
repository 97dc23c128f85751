"""From what there is (a folder, archives, nothing) to an unpacked copy of official archives."""

import hashlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tqdm import tqdm

from attnsem import StudyError
from attnsem.files import held, write
from attnsem.notebook import IN_JUPYTERLAB, bar

MOST_BYTES = 32 * 2**30  # unpacked; ten times MIRFlickr-25k
TIMEOUT = 30  # seconds without a byte


class Archive(NamedTuple):
    name: str
    urls: tuple[str, ...]
    md5: str | None  # as published; None where none is
    sha256: str | None = None  # as torchvision's prototype data sets list it; None where they do not

    def __str__(self) -> str:
        return f"{self.name} (MD5 {self.md5 or 'none published'})"


def names(archives: Sequence[Archive]) -> str:
    return " and ".join(map(str, archives))


def locate(finder: Callable[[Path], Any], archives: Sequence[Archive], source: Path | None, folder: Path) -> Any:
    """What `finder` finds in `source`, a folder or archive; without one in `folder`, else downloaded.

    Raises StudyError where nothing is found, an archive is bad, or no server answers."""
    if source and not source.exists():
        raise StudyError(f"source {source} does not exist; -p source takes a folder or an archive")
    place = source or folder
    if place.is_dir() and (copy := finder(place)):
        return copy
    with held(folder):
        paths = _beside(source, archives) if source else download(archives, folder)
        if copy := finder(unpack(paths, folder)):
            return copy
    raise StudyError(f"{paths[0]} is not what was looked for: -p source takes {names(archives)}")


def find(folder: Path, pattern: str) -> Path | None:
    """The folder, at most three levels down and not hidden, where `pattern` matches; StudyError where several do."""
    levels = ({match.parent for match in folder.glob("[!.]*/" * depth + pattern)} for depth in range(4))
    parents = next(filter(None, levels), {None})
    if len(parents) > 1:
        remedy = "name one by -p source, or copy one into the other if they are parts"
        raise StudyError(f"several copies: {', '.join(sorted(map(str, parents)))}; {remedy}")
    return parents.pop()


def _beside(source: Path, archives: Sequence[Archive]) -> list[Path]:
    """An archive of the user's own making stands alone; an official one stands with those beside it."""
    if source.is_file() and source.name not in {archive.name for archive in archives}:
        return [source]
    paths = [(source if source.is_dir() else source.parent) / archive.name for archive in archives]
    if missing := [str(path) for path in paths if not path.is_file()]:
        remedy = f"-p source takes a folder of {names(archives)}, or of what they unpack to"
        raise StudyError(f"{source} holds no unpacked copy, and not there: {', '.join(missing)}; {remedy}")
    return paths


def download(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """The archives in `folder`, each from its first URL that works; StudyError says what to fetch by hand."""
    paths, failures = [folder / archive.name for archive in archives], []
    for archive, path in zip(archives, paths, strict=True):
        if not archive.urls and not path.exists():
            failures.append(f"{archive.name} is on no public server")
        for url in archive.urls:
            if not path.exists():
                try:
                    write(path, partial(_fetch, url, archive))
                except (OSError, ValueError) as error:  # the errors of requests are OSErrors
                    failures.append(f"{url}: {error}")
    if all(path.exists() for path in paths):
        return paths
    remedy = f"fetch {names(archives)} by hand into one folder and give it by -p source PATH"
    raise StudyError(f"no source answered ({'; '.join(failures)}); {remedy}")


def _fetch(url: str, archive: Archive, path: Path) -> None:
    import pooch  # only here: whoever has the data does without it

    options = {"timeout": TIMEOUT, "headers": {"User-Agent": "attnsem"}, "chunk_size": 2**20}
    # Not tqdm.auto, whose widget does not take the total that pooch learns from the server; pooch wants one before.
    shape = {"total": 1, "unit": "B", "unit_scale": True, "leave": False}
    with tqdm(desc=f"download {url}", disable=not IN_JUPYTERLAB, **shape) as progress:
        pooch.HTTPDownloader(progress, **options)(url, path, None)
    for algorithm, published in {"MD5": archive.md5, "SHA-256": archive.sha256}.items():
        if published and (digest := pooch.file_hash(path, algorithm.replace("-", "").lower())) != published:
            raise OSError(f"it has {algorithm} {digest}, the published one is {published}")


def unpack(paths: Sequence[Path], folder: Path) -> Path:
    """Unpacks into one new folder below `folder`, unless archives of these names and sizes were before.

    StudyError on a truncated archive, and on members that are links, devices or lie outside; nothing is left."""
    key = repr([(path.name, path.stat().st_size) for path in paths])
    target = folder / f"unpacked-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    if not target.exists():
        with TemporaryDirectory(prefix=".", dir=folder) as temporary:
            for path in paths:
                _extract(path, Path(temporary, target.name))
            Path(temporary, target.name).rename(target)
    return target


def _extract(path: Path, folder: Path) -> None:
    try:
        (_extract_zip if path.suffix.lower() == ".zip" else _extract_tar)(path, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise StudyError(f"{path} is truncated or no tar or zip ({error}); fetch it again") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise StudyError(f"{path} cannot be unpacked: {error}") from error


def _extract_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        plain = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made on a system that has no file types
        _check(path, [(m.filename, m.file_size, stat.S_IFMT(m.external_attr >> 16) in plain) for m in members])
        archive.extractall(folder, bar(members, f"unpack {path.name}"))


def _extract_tar(path: Path, folder: Path) -> None:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            # tarfile takes an archive that was cut between two members, or in a header, for a whole one.
            raise tarfile.ReadError("no end marker")
        _check(path, [(member.name, member.size, member.isfile() or member.isdir()) for member in members])
        archive.extractall(folder, bar(members, f"unpack {path.name}"), filter="data")


def _check(path: Path, members: list[tuple[str, int, bool]]) -> None:
    """Refuses (name, bytes, is a plain file or folder) that the standard library takes, or mends without a word."""
    for name, _, is_plain in members:
        place = PureWindowsPath(name)  # knows both kinds of slash, and drives
        if place.anchor or ".." in place.parts or not is_plain:
            raise StudyError(f"{path}: {name!r} is a link, a device or lies outside; use another archive")
    counts = Counter(PureWindowsPath(name) for name, size, _ in members if size)
    if twice := [place for place, count in counts.items() if count > 1]:
        raise StudyError(f"{path}: {twice[0].as_posix()!r} comes twice; use another archive")
    if (total := sum(size for _, size, _ in members)) > MOST_BYTES:
        raise StudyError(f"{path} unpacks to {total:.3g} bytes, more than {MOST_BYTES:.3g}; use another archive")
