"""Samples as a sharded zarr v3 array, composed here to the letter of the specification.

Any zarr v3 reader opens the result; going around the generic machinery makes reading a matter of memory
copies out of mapped files. A shard file holds one record for every present body (its float32 values, then
their crc32c), then the index: offset and size of every (row, body) as uint64, then the index's crc32c. An
absent body has an empty index entry, costs no bytes and reads as zeros.
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html

To read, numpy and numba suffice: google_crc32c is imported only where bodies are written or verified.

Axes: N sample, R row within a shard, M body slot, B present body of one sample, P present body of a batch,
C channel, T frame, V joint, K shard.
"""

import errno
import json
import math
import mmap
import os
import resource
import struct
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.memory import copy_bytes
from pipeline.store.checksum import crc32c_of_bytes, know_crc32c
from pipeline.store.damage import REPAIR, DamagedError

METADATA_FILE = "zarr.json"
DIMENSIONS = ("sample", "body", "channel", "frame", "joint")
EMPTY = 2**64 - 1
CRC_BYTES = 4
# Beside the shards: libraries, logs, connections.
OTHER_OPEN_FILES = 256
WRITE_BUFFER_BYTES = 1 << 20


def array_metadata(
    shape_NMCTV: tuple[int, ...], shard_samples: int, attributes: Mapping[str, object]
) -> bytes:
    """The content of zarr.json for an array of that shape in shards of `shard_samples` rows.

    attributes: anything JSON can carry except NaN. The same arguments give the same bytes.
    """
    assert len(shape_NMCTV) == len(DIMENSIONS)
    assert min(shape_NMCTV) >= 1
    assert shard_samples >= 1
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    checked = [little_endian, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": [1, 1, *shape_NMCTV[2:]],
        "codecs": checked,
        "index_codecs": checked,
        "index_location": "end",
    }
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape_NMCTV),
        "data_type": "float32",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [shard_samples, *shape_NMCTV[1:]]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": dict(attributes),
        "dimension_names": list(DIMENSIONS),
        "storage_transformers": [],
    }
    return (json.dumps(metadata, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def shard_path(shard: int) -> str:
    """Where shard `shard` lies inside the array's folder."""
    return f"c/{shard}/0/0/0/0"


def write_shard(
    path: Path, bodies: Iterable[tuple[int, NDArray[np.float32]]], max_bodies: int, shard_samples: int
) -> None:
    """Write one shard file and force it to disk; the caller gives it its final name.

    bodies: (row within the shard, float32 (B, C, T, V) of the present bodies, 1 <= B <= max_bodies) in
        increasing row order. They fill the slots 0..B-1; other slots, and rows that do not come, stay empty.
        A body of zeros is present. The rows are consumed one at a time.
    The same bodies give the same bytes. If `bodies` raises, an unfinished file without index is left.
    """
    import google_crc32c

    index_RM2 = np.full((shard_samples, max_bodies, 2), EMPTY, dtype="<u8")
    offset, last_row, chunk_shape = 0, -1, None
    with path.open("wb", buffering=WRITE_BUFFER_BYTES) as file:
        for row, values_BCTV in bodies:
            assert last_row < row < shard_samples, "rows must increase and fit the shard"
            assert 1 <= len(values_BCTV) <= max_bodies
            assert values_BCTV.dtype == np.float32
            assert chunk_shape in (None, values_BCTV.shape[1:]), "all bodies must have one shape"
            last_row, chunk_shape = row, values_BCTV.shape[1:]
            for body, values_CTV in enumerate(np.ascontiguousarray(values_BCTV, dtype="<f4")):
                file.write(values_CTV.data)
                file.write(struct.pack("<I", google_crc32c.value(values_CTV)))
                index_RM2[row, body] = offset, values_CTV.nbytes + CRC_BYTES
                offset += values_CTV.nbytes + CRC_BYTES
        file.write(index_RM2.data)
        file.write(struct.pack("<I", google_crc32c.value(index_RM2)))
        file.flush()
        os.fsync(file.fileno())


def verify_shard(path: Path, chunk_bytes: int, max_bodies: int, shard_samples: int) -> list[str]:
    """Read every body and the index again and compare them with their checksums.

    chunk_bytes: bytes of one body's values, C * T * V * 4, without the checksum.
    Returns the problems, each naming row and body (or the index, when no row can be trusted); empty if the
    file is sound. Damage of any kind, also a file that is empty, cut short or missing, is a problem in the
    list and no exception.
    """
    import google_crc32c

    try:
        # Read, not mapped: a disk error on a mapped page would kill the process.
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        return [f"the file cannot be read: {error.strerror}"]
    try:
        offsets_RM = _parse_index(content, chunk_bytes, max_bodies, shard_samples)
    except ValueError as error:
        return [str(error)]
    problems = []
    for row, body in np.argwhere(offsets_RM >= 0).tolist():
        start = int(offsets_RM[row, body])
        values, stored = np.split(content[start : start + chunk_bytes + CRC_BYTES], [chunk_bytes])
        if google_crc32c.value(values) != int(stored.view("<u4")[0]):
            problems.append(f"row {row} body {body}: the values do not match their checksum")
    expected_bytes = int((offsets_RM >= 0).sum()) * (chunk_bytes + CRC_BYTES)
    found_bytes = len(content) - _index_bytes(max_bodies, shard_samples)
    if found_bytes != expected_bytes:
        problems.append(
            f"index: it accounts for {expected_bytes} bytes of bodies, the file has {found_bytes}"
        )
    return problems


class ZarrShards:
    """The array of samples in a folder, opened from its zarr.json; shard files are mapped when first read.

    Any number of threads may read at once. The files must not be cut short while they are open.

    verify: compare every body that is read with its checksum (needs google_crc32c). The index of a shard is
        always compared with its own.
    sizes: bytes of every shard file, by its path in the folder, where that is known: a file of another size
        is not read.
    shape: (N, M, C, T, V).  shape_CTV, num_samples, max_bodies, num_shards, shard_samples: as in zarr.json.
    chunk_bytes: bytes of one body's values, without the checksum.
    Raises DamagedError if zarr.json is missing or does not describe an array that `array_metadata` describes.
    """

    def __init__(self, folder: Path, verify: bool = False, sizes: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self.verify = verify
        self.sizes = sizes or {}
        if verify:
            know_crc32c()
        shape, self.shard_samples = _read_metadata(folder / METADATA_FILE)
        samples, bodies, channels, frames, joints = shape
        self.shape = (samples, bodies, channels, frames, joints)
        self.num_samples, self.max_bodies = samples, bodies
        self.shape_CTV = self.shape[2:]
        self.num_shards = -(-self.num_samples // self.shard_samples)
        self.chunk_bytes = math.prod(self.shape_CTV) * 4
        _allow_open_files(self.num_shards)
        self._lock = threading.Lock()
        self._mapped: dict[int, NDArray[np.uint8]] = {}
        self._bases_K = np.zeros(self.num_shards, dtype=np.uint64)
        self._offsets_NM = np.full(self.shape[:2], -1, dtype=np.int64)

    def read(self, row: int) -> NDArray[np.float32]:
        """One sample, float32 (M, C, T, V), zeros where a body is absent. Errors as `read_bodies`."""
        self._open_shards(np.array([row]))
        sample_MCTV = np.zeros(self.shape[1:], dtype=np.float32)
        for body in np.flatnonzero(self._offsets_NM[row] >= 0):
            self._copy(np.array([row]), np.array([body]), sample_MCTV[body : body + 1])
        return sample_MCTV

    def read_bodies(
        self, rows_N: NDArray[np.int64], num_bodies_N: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        """Copy the first `num_bodies_N` bodies of the samples `rows_N`, packed in that order, to `out_PCTV`.

        out_PCTV: C-contiguous float32 with P = sum of num_bodies_N. The copy runs without the GIL.
        Raises DamagedError that names the shard file if it is missing or its index is damaged, if a body that
        is asked for is absent, or (with `verify`) if a body does not match its checksum; then the content of
        out_PCTV is undefined.
        """
        rows_P = np.repeat(rows_N, num_bodies_N)
        first_N = np.cumsum(num_bodies_N) - num_bodies_N
        bodies_P = np.arange(len(rows_P)) - np.repeat(first_N, num_bodies_N)
        self._open_shards(rows_N)
        self._copy(rows_P, bodies_P, out_PCTV)

    def _copy(
        self, rows_P: NDArray[np.int64], bodies_P: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        assert out_PCTV.shape == (len(rows_P), *self.shape_CTV)
        assert out_PCTV.dtype == np.float32
        assert out_PCTV.flags.c_contiguous
        assert out_PCTV.flags.writeable
        if bodies_P.size and bodies_P.max() >= self.max_bodies:
            worst = int(bodies_P.argmax())
            raise self._body_error(
                rows_P[worst], bodies_P[worst], f"an array of {self.max_bodies} bodies has"
            )
        offsets_P = self._offsets_NM[rows_P, bodies_P]
        if (offsets_P < 0).any():
            first = int((offsets_P < 0).argmax())
            raise self._body_error(rows_P[first], bodies_P[first], "the index has")
        addresses_P = self._bases_K[rows_P // self.shard_samples] + offsets_P.astype(np.uint64)
        if not self.verify:
            _gather(addresses_P, self.chunk_bytes, out_PCTV)
            return
        damaged = _gather_checked(addresses_P, self.chunk_bytes, out_PCTV)
        if damaged >= 0:
            row, shard = rows_P[damaged] % self.shard_samples, rows_P[damaged] // self.shard_samples
            raise DamagedError(
                f"{self._file(shard)}: row {row} body {bodies_P[damaged]}: the values do not match their "
                "checksum; run verify"
            )

    def _body_error(self, row: int, body: int, holder: str) -> DamagedError:
        path = self._file(row // self.shard_samples)
        return DamagedError(
            f"{path}: the table says that row {row % self.shard_samples} has a body {body}, {holder} none; "
            "do the table and the shards belong together? run verify"
        )

    def _file(self, shard: int) -> Path:
        return self.folder / shard_path(shard)

    def _open_shards(self, rows_N: NDArray[np.int64]) -> None:
        """Map the shards of these rows, as far as they are not."""
        if rows_N.size and not 0 <= rows_N.min() <= rows_N.max() < self.num_samples:
            raise DamagedError(
                f"{self.folder}: asked for rows {rows_N.min()} to {rows_N.max()}, the array has rows 0 to "
                f"{self.num_samples - 1}; do the table and the shards belong together? run verify"
            )
        shards_N = rows_N // self.shard_samples
        closed = shards_N[self._bases_K[shards_N] == 0]
        for shard in np.unique(closed).tolist():
            with self._lock:
                if shard not in self._mapped:
                    self._open_shard(shard)

    def _open_shard(self, shard: int) -> None:
        path = self._file(shard)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                expected = self.sizes.get(shard_path(shard), size)
                if size == 0 or size != expected:
                    found = "empty" if size == 0 else f"{size} bytes long, where {expected} were written"
                    raise DamagedError(f"{path}: the file is {found}; is the copy complete? run verify")
                content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        except FileNotFoundError:
            raise DamagedError(f"{path}: this shard is missing; is the copy complete? run verify") from None
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENOMEM):
                raise
            raise ValueError(
                f"{self.folder}: its {self.num_shards:,} shards are open at the same time, more than this "
                "system allows; raise its limit (ulimit -n or -v, vm.max_map_count), or preprocess with a "
                "larger --shard-samples"
            ) from None
        try:
            offsets_RM = _parse_index(content, self.chunk_bytes, self.max_bodies, self.shard_samples)
        except ValueError as error:
            raise DamagedError(f"{path}: {error}; is the copy complete? run verify") from None
        first = shard * self.shard_samples
        rows = min(self.shard_samples, self.num_samples - first)
        self._offsets_NM[first : first + rows] = offsets_RM[:rows]
        # The base address comes last: other threads take it as the sign that the offsets are there.
        self._mapped[shard] = content
        self._bases_K[shard] = content.ctypes.data


def _allow_open_files(shards: int) -> None:
    """Raise this process's limit on open files, as far as the system lets it: each mapped shard is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = shards + OTHER_OPEN_FILES
    if soft != resource.RLIM_INFINITY and needed > soft:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def _read_metadata(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape and rows a shard from zarr.json, after comparing all of it with `array_metadata`."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedError(f"{path}: there is no such file; is this a folder of shards?") from None
    except ValueError:
        raise DamagedError(f"{path}: damaged: not JSON; {REPAIR}") from None
    try:
        shape = found["shape"]
        shard_samples = found["chunk_grid"]["configuration"]["chunk_shape"][0]
        sizes = [*shape, shard_samples]
        if len(shape) != len(DIMENSIONS) or not all(type(size) is int and size >= 1 for size in sizes):
            raise TypeError
        expected = json.loads(array_metadata(tuple(shape), shard_samples, dict(found["attributes"])))
    except (KeyError, TypeError, IndexError, ValueError):
        raise DamagedError(f"{path}: damaged: does not describe our sharded zarr array; {REPAIR}") from None
    for key in sorted(expected.keys() | found.keys()):
        if found.get(key) != expected.get(key):
            raise DamagedError(f"{path}: {key} is {found.get(key)}, expected {expected.get(key)}; {REPAIR}")
    return tuple(shape), shard_samples


def _index_bytes(max_bodies: int, shard_samples: int) -> int:
    return shard_samples * max_bodies * 16 + CRC_BYTES


def _parse_index(
    content: NDArray[np.uint8], chunk_bytes: int, max_bodies: int, shard_samples: int
) -> NDArray[np.int64]:
    """Where each body's record starts in the shard file, int64 (R, M), -1 where the body is absent.

    Raises DamagedError if the index does not match its checksum, or if a record lies outside the file or has
    another size than a body.
    """
    body_bytes = len(content) - _index_bytes(max_bodies, shard_samples)
    if body_bytes < 0:
        raise DamagedError(f"index: the file ends after {len(content)} bytes, before the index is complete")
    index, stored = np.split(content[body_bytes:], [-CRC_BYTES])
    if _crc32c(index) != int(stored.view("<u4")[0]):
        raise DamagedError("index: it does not match its checksum, no row of this file can be trusted")
    entries_RM2 = index.view("<u8").reshape(shard_samples, max_bodies, 2)
    offsets_RM, sizes_RM = entries_RM2[..., 0], entries_RM2[..., 1]
    absent_RM = (offsets_RM == EMPTY) & (sizes_RM == EMPTY)
    record_bytes = chunk_bytes + CRC_BYTES
    fits = record_bytes <= body_bytes
    inside_RM = (offsets_RM <= body_bytes - record_bytes) if fits else np.zeros_like(absent_RM)
    wrong = np.argwhere(~absent_RM & ~(inside_RM & (sizes_RM == record_bytes)))
    if wrong.size:
        row, body = wrong[0].tolist()
        offset, size = entries_RM2[row, body].tolist()
        raise DamagedError(
            f"row {row} body {body}: the index places {size} bytes at {offset}, expected {record_bytes} "
            f"inside the first {body_bytes}"
        )
    return np.where(absent_RM, np.int64(-1), offsets_RM.astype(np.int64))


def _crc32c_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, np.uint32(0x82F63B78) ^ (table >> 1), table >> 1).astype(np.uint32)
    return table


_CRC32C_TABLE = _crc32c_table()


@njit(cache=True, nogil=True)
def _crc32c(content: NDArray[np.uint8]) -> int:
    """CRC-32C (Castagnoli, RFC 3720) of a shard's index: a few kB once, so a byte at a time will do."""
    crc = np.uint32(0xFFFFFFFF)
    for byte in content:
        crc = _CRC32C_TABLE[(crc ^ np.uint32(byte)) & np.uint32(0xFF)] ^ np.uint32(crc >> np.uint32(8))
    return int(np.uint32(~crc))


@njit(cache=True, nogil=True)
def _gather(addresses_P: NDArray[np.uint64], chunk_bytes: int, out_PCTV: NDArray[np.float32]) -> None:
    """Copy the values at each address to `out_PCTV`."""
    size, out = np.uint64(chunk_bytes), np.uint64(out_PCTV.ctypes.data)
    for packed in range(len(addresses_P)):
        copy_bytes(out + np.uint64(packed) * size, addresses_P[packed], size)


@njit(cache=True, nogil=True)
def _gather_checked(addresses_P: NDArray[np.uint64], chunk_bytes: int, out_PCTV: NDArray[np.float32]) -> int:
    """As `_gather`, comparing each body, once copied, with its checksum: the first that differs, or -1.

    The copy is compared, and not the file: it is what counts, and it is still in the cache.
    """
    size, out = np.uint64(chunk_bytes), np.uint64(out_PCTV.ctypes.data)
    stored = np.empty(1, np.uint32)
    for packed in range(len(addresses_P)):
        place = out + np.uint64(packed) * size
        copy_bytes(place, addresses_P[packed], size)
        copy_bytes(np.uint64(stored.ctypes.data), addresses_P[packed] + size, np.uint64(CRC_BYTES))
        if crc32c_of_bytes(place, size) != stored[0]:
            return packed
    return -1
