"""Samples as webdataset tars: per sample KEY.npy, then KEY.json, readable by plain `webdataset`.

The same samples give the same bytes: no times, owners or machine names are stored. Nothing is pickled.

Axes: M body, C channel, T frame, V joint.
"""

import io
import json
import math
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ARRAY, METADATA = ".npy", ".json"
NPY_PREFIX_BYTES = 10
END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)
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
    If `samples` raises, an unfinished file is left, which `read_tar` refuses.
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


def read_tar(path: Path) -> Iterator[tuple[str, NDArray[np.float32], dict[str, object]]]:
    """The samples of a tar that `write_tar` wrote: key, float32 (M, C, T, V), metadata.

    Raises ValueError that names the file, when the reading comes to the place, if it is missing or cut short
    (also between two members), if a sample lacks one of its two members, or if a member is damaged. A changed
    value inside an array is not seen: a tar carries no checksum of it.
    """
    members = _members(path)
    for array_name, array in members:
        key = array_name.removesuffix(ARRAY)
        metadata_name, metadata = next(members, ("nothing", b""))
        if (array_name, metadata_name) != (key + ARRAY, key + METADATA):
            raise ValueError(
                f"{path}: found {array_name}, then {metadata_name}; expected KEY{ARRAY}, then KEY{METADATA}; "
                "was this tar written by preprocess?"
            )
        sample_MCTV = _parse_npy(f"{path}: {array_name}", array)
        yield key, sample_MCTV, _parse_metadata(f"{path}: {metadata_name}", metadata)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # time, owner and group are 0 or empty, the mode is 0644
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _npy_bytes(sample_MCTV: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    little_endian = np.ascontiguousarray(sample_MCTV, dtype="<f4")
    np.lib.format.write_array(buffer, little_endian, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member. ValueError if the tar does not end as a tar must."""
    end = 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if not info.isreg():
                    raise ValueError(
                        f"{path}: {info.name} is not a plain file; was it written by preprocess?"
                    )
                member = tar.extractfile(info)
                assert member is not None
                yield info.name, member.read()
                end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            # To tarfile, a damaged header and the end of the file are both an end like any other.
            file.seek(end)
            if file.read(len(END_OF_ARCHIVE)) != END_OF_ARCHIVE:
                raise ValueError(
                    f"{path}: no end-of-archive mark at byte {end}: the tar is cut short or damaged there; "
                    "is the copy complete? run verify"
                )
    except FileNotFoundError:
        raise ValueError(f"{path}: this shard is missing; is the copy complete? run verify") from None
    except tarfile.TarError as error:
        raise ValueError(f"{path}: damaged tar ({error}); is the copy complete? run verify") from None


def _parse_npy(place: str, content: bytes) -> NDArray[np.float32]:
    header = NPY_HEADER.match(content)
    if header is None or int.from_bytes(header[1], "little") != header.end() - NPY_PREFIX_BYTES:
        raise ValueError(f"{place}: not a .npy of float32 with four axes; run verify")
    shape_MCTV = tuple(int(size) for size in header.groups()[1:])
    found, expected = len(content) - header.end(), 4 * math.prod(shape_MCTV)
    if found != expected:
        raise ValueError(f"{place}: {found} bytes where shape {shape_MCTV} needs {expected}; run verify")
    values = np.frombuffer(content, dtype="<f4", offset=header.end())
    return values.astype(np.float32).reshape(shape_MCTV)


def _parse_metadata(place: str, content: bytes) -> dict[str, object]:
    try:
        metadata = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON ({error}); run verify") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{place}: {type(metadata).__name__} where an object belongs; run verify")
    return metadata
