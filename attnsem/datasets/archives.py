"""From what there is (a folder, archives, nothing) to an unpacked copy of official archives."""

import hashlib
import http.client
import lzma
import stat
import tarfile
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TypeVar

from attnsem import StudyError
from attnsem.files import held, write
from attnsem.notebook import bar

MOST_BYTES = 32 * 2**30  # unpacked; ten times MIRFlickr-25k
TIMEOUT = 30  # seconds without a byte

Found = TypeVar("Found")


@dataclass(frozen=True)
class Archive:
    """An official archive. md5: as published, None where none is; sha256: as torchvision's prototype data sets list
    it, None where they do not."""

    name: str
    urls: tuple[str, ...]
    md5: str | None
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.name} (MD5 {self.md5 or 'none published'})"


def locate(
    finder: Callable[[Path], Found | None], archives: Sequence[Archive], source: Path | None, folder: Path
) -> Found:
    """What `finder` finds in `source`, a folder or archive; without one in `folder`, else downloaded.

    Raises StudyError where nothing is found, an archive is bad, or no server answers.
    """
    if source and not source.exists():
        raise StudyError(f"source {source} does not exist; -p source takes a folder or an archive")
    place = source or folder
    if place.is_dir() and (found := finder(place)):
        return found
    with held(folder):
        packed = _given(source, archives) if source else download(archives, folder)
        if found := finder(unpack(packed, folder)):
            return found
    raise StudyError(f"{packed[0]} is not what was looked for: -p source takes {_listed(archives)}")


def find(folder: Path, pattern: str) -> Path | None:
    """The folder, at most three levels down, where `pattern` matches; StudyError where several do."""
    for depth in range(4):
        holders = {match.parent for match in folder.glob("*/" * depth + pattern)}
        holders = [path for path in holders if "/." not in path.relative_to(folder.parent).as_posix()]
        if len(holders) > 1:
            raise StudyError(f"several copies: {', '.join(map(str, sorted(holders)))}; name one by -p source")
        if holders:
            return holders[0]
    return None


def unpack(packed: Sequence[Path], folder: Path) -> Path:
    """Unpacks into one new folder below `folder`, unless archives of these names and sizes were before.

    StudyError on a truncated archive, and on members that are links, devices or lie outside; nothing is left.
    """
    key = repr([(path.name, path.stat().st_size) for path in packed])
    target = folder / f"unpacked-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    if not target.exists():
        with TemporaryDirectory(prefix=".", dir=folder) as temporary:
            for path in packed:
                _extract(path, Path(temporary, target.name))
            Path(temporary, target.name).rename(target)
    return target


def download(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """The archives in `folder`, each from its first URL that works; StudyError says what to fetch by hand."""
    packed, failures = [folder / archive.name for archive in archives], []
    for archive, target in zip(archives, packed, strict=True):
        for url in archive.urls:
            if not target.exists():
                try:
                    write(target, partial(_fetch, url, archive))
                except (OSError, ValueError, http.client.HTTPException) as error:
                    failures.append(f"{url}: {error}")
    if all(path.exists() for path in packed):
        return packed
    raise StudyError(
        f"no source answered ({'; '.join(failures)}); fetch {_listed(archives)} by hand into one "
        "folder and give it by -p source PATH"
    )


def _listed(archives: Sequence[Archive]) -> str:
    return " and ".join(map(str, archives))


def _given(source: Path, archives: Sequence[Archive]) -> list[Path]:
    """An archive of the user's own making stands alone; an official one stands with those beside it."""
    if source.is_file() and source.name not in {archive.name for archive in archives}:
        return [source]
    packed = [(source if source.is_dir() else source.parent) / archive.name for archive in archives]
    if missing := [str(path) for path in packed if not path.is_file()]:
        raise StudyError(
            f"{source} holds no unpacked copy, and not there: {', '.join(missing)}; -p source takes a "
            f"folder of {_listed(archives)}, or of what they unpack to"
        )
    return packed


def _fetch(url: str, archive: Archive, target: Path) -> None:
    digests = {"MD5": hashlib.md5(usedforsecurity=False), "SHA-256": hashlib.sha256()}
    request = urllib.request.Request(url, headers={"User-Agent": "attnsem"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(target, "wb") as file:
        for block in bar(iter(partial(answer.read, 2**20), b""), f"download {url}"):
            for digest in digests.values():
                digest.update(block)
            file.write(block)
    for name, published in {"MD5": archive.md5, "SHA-256": archive.sha256}.items():
        if published not in (None, found := digests[name].hexdigest()):
            raise OSError(f"it has {name} {found}, the published one is {published}")


def _extract(archive: Path, folder: Path) -> None:
    try:
        (_extract_zip if archive.suffix.lower() == ".zip" else _extract_tar)(archive, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise StudyError(f"{archive} is truncated or no tar or zip ({error}); fetch it again") from error
    except (OSError, RuntimeError) as error:
        raise StudyError(f"{archive} cannot be unpacked: {error}") from error


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        plain = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made on a system that has no file types
        _check(archive, [(m.filename, m.file_size, stat.S_IFMT(m.external_attr >> 16) in plain) for m in members])
        for member in bar(members, f"unpack {archive.name}"):
            packed.extract(member, folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
        packed.fileobj.seek(packed.offset)
        if packed.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            # tarfile takes an archive that was cut between two members, or in a header, for a whole one.
            raise tarfile.ReadError("no end marker")
        _check(archive, [(member.name, member.size, member.isfile() or member.isdir()) for member in members])
        for member in bar(members, f"unpack {archive.name}"):
            packed.extract(member, folder, filter="data")


def _check(archive: Path, members: list[tuple[str, int, bool]]) -> None:
    """Refuses (name, bytes, is a plain file or folder) that an honest archive does not hold."""
    for name, _, plain in members:
        path = PureWindowsPath(name)  # knows both kinds of slash, and drives
        if path.anchor or ".." in path.parts or not plain:
            raise StudyError(f"{archive}: {name!r} is a link, a device or lies outside; use another archive")
    files = Counter(PureWindowsPath(name) for name, size, _ in members if size)
    if twice := [path for path, count in files.items() if count > 1]:
        raise StudyError(f"{archive}: {twice[0].as_posix()!r} comes twice; use another archive")
    if (total := sum(size for _, size, _ in members)) > MOST_BYTES:
        raise StudyError(f"{archive} unpacks to {total:.3g} bytes, more than {MOST_BYTES:.3g}; use another archive")
