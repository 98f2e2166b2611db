"""Files appear whole or not at all: written beside their place, synced, then renamed into it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A temporary path to write to; what was written takes the place of `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def publish_bytes(path: Path, content: bytes) -> None:
    """Write a small file so that it appears whole or not at all."""
    with published(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else who asks like this works in the folder, which is there; it ends with the process, too.

    Raises ValueError if somebody does. Where the file system knows no locks, nobody is kept out.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another preprocess is writing there; wait for it, or write elsewhere by --out"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_facts(content: bytes) -> dict[str, int | str]:
    """As `file_facts`, of what is in memory."""
    return {"bytes": len(content), "crc32c": f"{google_crc32c.value(content):08x}"}


def file_facts(path: Path) -> dict[str, int | str]:
    """{"bytes": size, "crc32c": eight hex digits} of a file's present content."""
    checksum = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = google_crc32c.extend(checksum, block)
            size += len(block)
    return {"bytes": size, "crc32c": f"{checksum:08x}"}
