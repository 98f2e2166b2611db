"""Files appear whole or not at all: written beside their place, synced, then renamed into it."""

import errno
import fcntl
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# In a folder that only one process at a time may write to; it stays there, empty.
LOCK = ".lock"


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A temporary path to write to; what was written takes the place of `path` if the block succeeds. Whoever
    writes the same file at the same time has a path of their own, on other machines, too.

    Raises OSError that names `path` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        make_folder(path.parent)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """With its parents, each on disk before anything lies in it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def check_writable(folder: Path) -> None:
    """Before long work: raises OSError if nothing could be written in a folder, be it there or not yet."""
    nearest = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    if not nearest.is_dir():
        number = errno.ENOTDIR
    else:
        number = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
    raise OSError(number, f"cannot be written: {os.strerror(number)}", os.fspath(nearest))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError that names no other file, as that of a full disk does not, names this one."""
    try:
        yield
    except OSError as error:
        named = path if error.filename is None else Path(os.fsdecode(error.filename))
        if error.errno is None or not (named.parent == path.parent or named in path.parents):
            raise
        # A file where a folder should be made "exists".
        number = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno
        raise OSError(number, f"cannot be written: {os.strerror(number)}", os.fspath(path)) from error


def publish_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a small file so that it appears whole or not at all."""
    with published(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """One after the other: who else asks like this for the folder, made if need be, waits meanwhile. For what
    takes a moment. Where the file system knows no locks, nobody waits."""
    with writing(folder):
        make_folder(folder)
    with _lock_of(folder) as descriptor:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(folder: Path, who_else: str, way_out: str) -> Iterator[None]:
    """Nobody else who asks like this works in the folder, which is there; it ends with the process, too.

    Raises ValueError if somebody does, with who that is and the way out. Where the file system knows no
    locks, nobody is kept out.
    """
    with _lock_of(folder) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: {who_else} is writing there; wait for it, or {way_out}") from None
        except OSError:
            pass
        yield


@contextmanager
def _lock_of(folder: Path) -> Iterator[int]:
    """What to lock for a folder: a file in it, since NFS locks only what is open for writing, which no folder
    can be. Another user's file is opened for reading; where none can be made, the folder itself is it."""
    ways = ((folder / LOCK, os.O_RDWR | os.O_CREAT), (folder / LOCK, os.O_RDONLY), (folder, os.O_RDONLY))
    for place, flags in ways:
        try:
            descriptor = os.open(place, flags, 0o666)
            break
        except OSError:
            if place == folder:
                raise
    try:
        yield descriptor
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
    return facts(len(content), zlib.crc32(content))


def file_facts(path: Path) -> dict[str, int | str]:
    """{"bytes": size, "crc32": eight hex digits} of a file's present content.

    Not CRC-32C: a zarr shard is bodies with theirs behind each, and CRC-32C of that is the same whatever the
    bodies hold.
    """
    checksum = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
    return facts(size, checksum)


def facts(size: int, checksum: int) -> dict[str, int | str]:
    """What a manifest says of a file. checksum: CRC-32."""
    return {"bytes": size, "crc32": f"{checksum:08x}"}


def facts_differ(found: Mapping[str, int | str], expected: Mapping[str, int | str]) -> str:
    """What is wrong with a file of these facts, for people."""
    found_text, expected_text = (f"{one['bytes']} bytes, crc32 {one['crc32']}" for one in (found, expected))
    return f"{found_text}, where {expected_text} were written"
