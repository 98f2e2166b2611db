"""Where finished shards lie: in a folder, or in the same folder behind a web server.

Both are read in the same two ways: a small file at once, a large one as a stream from its beginning.
"""

import errno
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

FILE_BLOCK_BYTES = 1 << 20
# What the system says of a path that can be none.
NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)


# A file from its beginning: blocks of any size, none empty. To be closed, as by `contextlib.closing`.
Stream = Generator[bytes, None, None]


class Location(Protocol):
    """The place of a folder of shards; as text, what a user would type. Any number of threads may read."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        ...

    def read(self, name: str) -> bytes:
        """A whole small file. Errors as `open`."""
        ...

    def open(self, name: str) -> Stream:
        """A file from its beginning; name: relative to the folder.

        While it is read it raises FileNotFoundError, PermissionError or another OSError, with the way out.
        """
        ...

    def reopened(self) -> "Location":
        """The same place with connections of its own."""
        ...

    def close(self) -> None:
        """Break off what other threads are reading here; from now on, reading raises OSError."""
        ...


def locate(place: Path | str | Location) -> Location:
    """The location of a folder's path or of an http(s) address.

    Raises ValueError for any other address, and for a folder whose name is no text: results name it.
    """
    if not isinstance(place, Path | str):
        return place
    if isinstance(place, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place):
        # Imported here: half of all commands never see a web server.
        from pipeline.store.web import WebFolder

        return WebFolder(place)
    check_is_text(Path(place))
    return Folder(Path(place))


def check_is_text(path: Path) -> None:
    """Raises ValueError for a path that has bytes which are not UTF-8, as Linux allows."""
    name = os.fsencode(path)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        shown = name.decode("utf-8", "backslashreplace")
        raise ValueError(f"{shown}: not UTF-8; expected a folder whose name is text: rename it") from None


def file_stream(path: Path) -> Stream:
    """A file on disk from its beginning. Raises OSError while it is read."""
    with path.open("rb", buffering=0) as file:
        while block := file.read(FILE_BLOCK_BYTES):
            yield block


class Folder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def open(self, name: str) -> Stream:
        return file_stream(self.path / name)

    def reopened(self) -> "Folder":
        return self

    def close(self) -> None:
        """Nothing to do: a disk does not keep anybody waiting."""
