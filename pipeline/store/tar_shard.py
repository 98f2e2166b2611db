"""Samples as webdataset tars: per sample KEY.npy, then KEY.json, readable by plain `webdataset`.

The same samples give the same bytes: no times, owners or machine names are stored. Nothing is pickled.
Tars are read in one pass from the beginning, so that a file and a download are the same.

Axes: M body slot, B present body of one sample, C channel, T frame, V joint.
"""

import io
import json
import math
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.damage import DamagedError
from pipeline.store.location import Location, Stream
from pipeline.store.publish import facts, facts_differ

ARRAY, METADATA = ".npy", ".json"
NPY_PREFIX_BYTES = 10
BLOCK = tarfile.BLOCKSIZE
NO_HEADER = bytes(BLOCK)
# The one form of .npy that we write. numpy's own parser accepts far more and fails in more ways.
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((\d{1,9}), (\d{1,9}), (\d{1,9}), (\d{1,9})\), \} *\n",
    re.DOTALL,
)


def tar_name(shard: int) -> str:
    """The file name of shard `shard`."""
    return f"shard-{shard:06d}.tar"


def write_tar(path: Path, samples: Iterable[tuple[str, NDArray[np.float32], Mapping[str, object]]]) -> None:
    """Write one tar and force it to disk; the caller gives it its final name.

    samples: (key, float32 (M, C, T, V) with zeros for absent bodies, what the .json member holds). A key has
        no dots or slashes: webdataset would cut it there. Samples are consumed one at a time.
    If `samples` raises, an unfinished file is left, which `read_samples` refuses.
    """
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for key, sample_MCTV, metadata in samples:
                assert key, "a sample needs a key"
                assert not set(key) & set("./"), f"webdataset would cut the key {key!r}"
                assert sample_MCTV.ndim == 4
                assert sample_MCTV.dtype == np.float32
                _add(tar, key + ARRAY, _npy_bytes(sample_MCTV))
                _add(tar, key + METADATA, json.dumps(metadata, sort_keys=True, allow_nan=False).encode())
        file.flush()
        os.fsync(file.fileno())


def read_samples(place: str, stream: Stream) -> Iterator[tuple[str, NDArray[np.float32], dict[str, object]]]:
    """The samples of a tar that `write_tar` wrote: key, float32 (M, C, T, V), metadata.

    place: what errors call the tar.
    Raises DamagedError, when the reading comes to the place, if the tar is cut short (also between two
    members), if a sample lacks one of its two members, or if a member is damaged. A changed value inside an
    array is not seen: a tar carries no checksum of it.
    """
    members = _contents(place, CheckedStream(stream))
    for array_name, array in members:
        key = array_name.removesuffix(ARRAY)
        metadata_name, metadata = next(members, ("nothing", b""))
        if (array_name, metadata_name) != (key + ARRAY, key + METADATA):
            raise DamagedError(
                f"{place}: found {array_name}, then {metadata_name}; expected KEY{ARRAY}, then KEY{METADATA};"
                " was this tar written by preprocess?"
            )
        sample_MCTV = _parse_npy(f"{place}: {array_name}", array)
        yield key, sample_MCTV, _parse_metadata(f"{place}: {metadata_name}", metadata)


class CheckedStream:
    """Reads a stream by bytes, counts them, and keeps their CRC-32."""

    def __init__(self, stream: Stream) -> None:
        self.position = 0
        self._stream = stream
        self._block, self._used = memoryview(b""), 0
        self._checksum = 0

    def read(self, size: int, /) -> bytes:
        """The next bytes; fewer than `size` only at the end."""
        content = bytes(self._block[self._used : self._used + size])
        self._used += len(content)
        self.position += len(content)
        if len(content) < size and self._fill():
            return content + self.read(size - len(content))
        return content

    def skip_to(self, position: int) -> bool:
        """Whether the stream goes on to there."""
        while self.position < position:
            step = min(position - self.position, len(self._block) - self._used)
            self._used += step
            self.position += step
            if step == 0 and not self._fill():
                return False
        return True

    def facts(self) -> dict[str, int | str]:
        """As `publish.file_facts` gives them, after reading what is left."""
        self.position += len(self._block) - self._used
        while self._fill():
            self.position += len(self._block)
        self._used = len(self._block)
        return facts(self.position, self._checksum)

    def _fill(self) -> bool:
        """Get the next block; False at the end."""
        block = next(self._stream, b"")
        self._checksum = zlib.crc32(block, self._checksum)
        self._block, self._used = memoryview(block), 0
        return bool(block)


class TarShards:
    """The tars of one folder, as a source of samples that is read from beginning to end.

    location: the folder.  files: path in it, bytes and CRC-32 of every tar, by shard.
    shape: (N, M, C, T, V) of all rows.  keys: the keys of every shard's samples by row, in the tar's order.
    """

    def __init__(
        self,
        location: Location,
        files: Mapping[int, tuple[str, Mapping[str, Any]]],
        shape: tuple[int, int, int, int, int],
        shard_samples: int,
        keys: Mapping[int, Mapping[int, str]],
    ) -> None:
        self.location, self.shape, self.shard_samples = location, shape, shard_samples
        self._files, self._keys = files, keys
        empty = _npy_bytes(np.zeros(shape[1:], np.float32))
        self._npy_bytes = len(empty)
        self._body_bytes = 4 * math.prod(shape[2:])
        self._header = empty[: -shape[1] * self._body_bytes]

    def read(self, row: int) -> NDArray[np.float32]:
        """One sample, float32 (M, C, T, V), zeros where a body is absent. Errors as `read_shard`."""
        ((_, sample_MCTV),) = self.read_shard(row // self.shard_samples, {row: self.shape[1]})
        return sample_MCTV

    def read_shard(
        self, shard: int, num_bodies: Mapping[int, int], location: Location | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(row, float32 (B, C, T, V)) of the wanted samples of one tar, in the order of the rows.

        num_bodies: B, the bodies to read, of every wanted row of this shard.  location: where to read, if not
        in the source's own.
        The last sample is given only after the whole tar was found to be the one that was written.
        Raises DamagedError if it is not, is missing or cut short; OSError if it cannot be read.
        """
        location = location or self.location
        name, expected = self._files[shard]
        place = f"{location}/{name}"
        try:
            with closing(location.open(name)) as stream:
                yield from self._read(place, CheckedStream(stream), self._keys[shard], num_bodies, expected)
        except FileNotFoundError as error:
            raise DamagedError(f"{place}: this shard is missing ({_reason(error)}); run verify") from None

    def _read(
        self,
        place: str,
        stream: CheckedStream,
        keys: Mapping[int, str],
        num_bodies: Mapping[int, int],
        expected: Mapping[str, Any],
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        members = _members(place, stream)
        held: tuple[int, NDArray[np.float32]] | None = None
        for row, key in keys.items():
            _expect(place, members, key + ARRAY, self._npy_bytes)
            if row in num_bodies:
                if held:
                    yield held
                held = row, self._bodies(f"{place}: {key}{ARRAY}", stream, num_bodies[row])
            _expect(place, members, key + METADATA)
        for name, _ in members:
            raise DamagedError(f"{place}: found {name}, which samples.csv does not know; run verify")
        found = stream.facts()
        if found != expected:
            raise DamagedError(f"{place}: {facts_differ(found, expected)}; run verify")
        if held:
            yield held

    def _bodies(self, place: str, stream: CheckedStream, bodies: int) -> NDArray[np.float32]:
        """The first bodies of the array at which the stream stands."""
        needed = len(self._header) + bodies * self._body_bytes
        content = stream.read(needed)
        if len(content) < needed:
            raise _cut_short(place, stream.position)
        if not content.startswith(self._header):
            raise DamagedError(f"{place}: not a .npy of float32 in shape {self.shape[1:]}; run verify")
        values = np.frombuffer(content, dtype="<f4", offset=len(self._header))
        return values.reshape(bodies, *self.shape[2:])


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # time, owner and group are 0 or empty, the mode is 0644
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _npy_bytes(sample_MCTV: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    little_endian = np.ascontiguousarray(sample_MCTV, dtype="<f4")
    np.lib.format.write_array(buffer, little_endian, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _contents(place: str, stream: CheckedStream) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member."""
    for name, size in _members(place, stream):
        yield name, stream.read(size)


def _members(place: str, stream: CheckedStream) -> Iterator[tuple[str, int]]:
    """Name and size of every member; before the next is asked for, its content may be read from the stream.

    Read here and not by tarfile, which takes 100 microseconds for the two members of a sample, and to which a
    damaged header and the end of the file are both an end like any other.
    Raises DamagedError if the tar does not end as a tar must, or holds anything but plain files.
    """
    long_name = b""
    while True:
        start = stream.position
        header = stream.read(BLOCK)
        if header == NO_HEADER and stream.read(BLOCK) == NO_HEADER:
            return
        parsed = _parse_header(header)
        if parsed is None:
            raise _cut_short(place, start)
        name, size, kind = parsed
        end = stream.position + -(-size // BLOCK) * BLOCK
        if kind == tarfile.GNUTYPE_LONGNAME and size <= BLOCK:
            long_name = stream.read(size).rstrip(b"\0")
        elif kind in tarfile.REGULAR_TYPES:
            yield (long_name or name).decode(errors="replace"), size
            long_name = b""
        else:
            shown = (long_name or name).decode(errors="replace")
            raise DamagedError(f"{place}: {shown} is not a plain file; was it written by preprocess?")
        if not stream.skip_to(end):
            raise _cut_short(place, stream.position)


def _parse_header(header: bytes) -> tuple[bytes, int, bytes] | None:
    """Name, size and type of a tar member; None if this is no header, or a damaged one."""
    if len(header) < BLOCK:
        return None
    try:
        checksum, size = int(header[148:154], 8), int(header[124:135], 8)
    except ValueError:
        return None
    counted = sum(header.rstrip(b"\0")) - sum(header[148:156]) + 8 * ord(" ")
    if size < 0 or counted != checksum:
        return None
    return header[:100].partition(b"\0")[0], size, header[156:157]


def _expect(place: str, members: Iterator[tuple[str, int]], name: str, size: int | None = None) -> None:
    """The next member must have this name and, if one is given, this size."""
    found, found_size = next(members, ("the end", None))
    if found != name:
        raise DamagedError(f"{place}: found {found} where samples.csv expects {name}; run verify")
    if size is not None and found_size != size:
        raise DamagedError(f"{place}: {name} has {found_size} bytes where {size} belong; run verify")


def _cut_short(place: str, position: int) -> DamagedError:
    return DamagedError(
        f"{place}: cut short or damaged at byte {position}, before its end-of-archive mark; "
        "is the copy complete? run verify"
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _parse_npy(place: str, content: bytes) -> NDArray[np.float32]:
    header = NPY_HEADER.match(content)
    if header is None or int.from_bytes(header[1], "little") != header.end() - NPY_PREFIX_BYTES:
        raise DamagedError(f"{place}: not a .npy of float32 with four axes; run verify")
    shape_MCTV = tuple(int(size) for size in header.groups()[1:])
    found, expected = len(content) - header.end(), 4 * math.prod(shape_MCTV)
    if found != expected:
        raise DamagedError(f"{place}: {found} bytes where shape {shape_MCTV} needs {expected}; run verify")
    values = np.frombuffer(content, dtype="<f4", offset=header.end())
    return values.astype(np.float32).reshape(shape_MCTV)


def _parse_metadata(place: str, content: bytes) -> dict[str, object]:
    try:
        metadata = json.loads(content)
    except ValueError as error:
        raise DamagedError(f"{place}: not JSON ({error}); run verify") from None
    if not isinstance(metadata, dict):
        raise DamagedError(f"{place}: {type(metadata).__name__} where an object belongs; run verify")
    return metadata
