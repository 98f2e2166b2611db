"""Tars must be webdataset's to plain webdataset, and never read short in silence.

Axes: M body, C channel, T frame, V joint.
"""

import io
import os
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.store.damage import DamagedError
from pipeline.store.location import Folder
from pipeline.store.publish import file_facts
from pipeline.store.tar_shard import TarShards, tar_name, write_tar
from tests.pipeline.tars import read_tar

M, C, T, V = 2, 3, 7, 25
KEYS = ("S001C001P001R001A001", "a08_s01_e02_v03", "x" * 120, "short-again")
Sample = tuple[str, NDArray[np.float32], dict[str, object]]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rng = np.random.default_rng(3)
    samples: list[Sample] = []
    for label, key in enumerate(KEYS):
        sample_MCTV = rng.normal(size=(M, C, T, V)).astype(np.float32)
        sample_MCTV[1 + label % 2 :] = 0
        samples.append((key, sample_MCTV, {"num_bodies": 1 + label % 2, "label": label, "key": key}))
    return samples


@pytest.fixture
def tar(tmp_path: Path, samples: list[Sample]) -> Path:
    path = tmp_path / tar_name(7)
    write_tar(path, iter(samples))
    return path


def assert_same(found: list[Sample], expected: list[Sample]) -> None:
    assert [(key, metadata) for key, _, metadata in found] == [(key, meta) for key, _, meta in expected]
    for (_, found_MCTV, _), (_, expected_MCTV, _) in zip(found, expected, strict=True):
        assert found_MCTV.dtype == np.float32
        np.testing.assert_array_equal(found_MCTV, expected_MCTV)


def source(tar: Path, keys: tuple[str, ...] = KEYS) -> TarShards:
    """The tar as a source of samples, as if it were the one that was written."""
    files = {0: (tar.name, file_facts(tar))}
    shape = len(keys), M, C, T, V
    return TarShards(Folder(tar.parent), files, shape, len(keys), {0: dict(enumerate(keys))})


def member(name: str, content: bytes) -> bytes:
    """Header and padded content of one member."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf() + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def npy(array: NDArray[Any], allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def test_round_trip(tar: Path, samples: list[Sample]) -> None:
    """What is streamed from an object store is what was preprocessed."""
    found = list(read_tar(tar))
    assert_same(found, samples)
    assert found[0][1].flags.writeable  # torch warns of arrays that are not


def test_plain_webdataset_reads_it(tar: Path, samples: list[Sample]) -> None:
    """The promise of the format: `WebDataset(url).decode()` and nothing of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        dataset = webdataset.WebDataset(str(tar), shardshuffle=False).decode()
        found = [(sample["__key__"], sample["npy"], sample["json"]) for sample in dataset]
    assert_same(found, samples)


def test_two_writes_give_equal_bytes(tar: Path, tmp_path: Path, samples: list[Sample]) -> None:
    """Resume compares checksums: no clock, user or memory layout may show in a tar."""
    write_tar(
        tmp_path / "again",
        ((key, np.asfortranarray(array), dict(reversed(meta.items()))) for key, array, meta in samples),
    )
    assert (tmp_path / "again").read_bytes() == tar.read_bytes()


def test_a_tar_is_on_the_disk_as_a_whole(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename would leave a short tar under its final name."""
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.fstat(descriptor).st_size))
    path = tmp_path / "forced.tar"
    write_tar(path, iter(samples))
    assert forced == [path.stat().st_size]


def test_members_name_nobody(tar: Path) -> None:
    """A published tar must not carry the user's name, and must unpack readable for everybody."""
    with tarfile.open(tar) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == [key + end for key in KEYS for end in (".npy", ".json")]
    for info in infos:
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
        assert info.mode == 0o644


def test_cut_at_every_member_boundary(tar: Path, samples: list[Sample]) -> None:
    """tarfile reads such a file as a whole, shorter one: part of the data set would be gone unnoticed."""
    content = tar.read_bytes()
    with tarfile.open(tar) as archive:
        starts = [info.offset for info in archive.getmembers()]
        ends = [info.offset_data + -(-info.size // 512) * 512 for info in archive.getmembers()]
    assert len(starts) == 2 * len(samples)
    for end in {*starts, *ends, ends[-1] + 512}:
        tar.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"shard-000007\.tar: "):
            list(read_tar(tar))


def test_cut_anywhere(tar: Path, samples: list[Sample]) -> None:
    """Inside headers, arrays, padding or the end mark. Only the zeros behind the mark carry nothing."""
    content = tar.read_bytes()
    with tarfile.open(tar) as archive:
        last = archive.getmembers()[-1]
    needed = last.offset_data + 512 + 1024
    for end in [*range(0, needed, 97), needed - 1]:
        tar.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"shard-000007\.tar: "):
            list(read_tar(tar))
    tar.write_bytes(content[:needed])
    assert_same(list(read_tar(tar)), samples)


def test_flipped_bit_in_any_header(tar: Path) -> None:
    """tarfile takes a damaged header in the middle for the end and says nothing."""
    content = tar.read_bytes()
    with tarfile.open(tar) as archive:
        infos = archive.getmembers()
    for info in infos[:4]:  # the long name of the others lies in a block that tar does not checksum
        for place in range(info.offset, info.offset_data, 13):
            damaged = bytearray(content)
            damaged[place] ^= 2
            tar.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"shard-000007\.tar: "):
                list(read_tar(tar))


def test_sound_samples_come_before_the_damage(tar: Path, samples: list[Sample]) -> None:
    """Streaming: a reader has seen the whole samples by the time that the error comes."""
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content) // 2])
    reader = read_tar(tar)
    assert next(reader)[0] == samples[0][0]
    with pytest.raises(ValueError, match="is the copy complete"):
        list(reader)


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ([("a.npy", npy(np.zeros((M, C, T, V), np.float32)))], "found a.npy, then nothing"),
        ([("a.json", b"{}")], "found a.json, then nothing"),
        ([("a", npy(np.zeros((M, C, T, V), np.float32))), ("a.json", b"{}")], "found a, then a.json"),
        ([("a.npy", b""), ("b.json", b"{}")], "found a.npy, then b.json"),
        ([("a.json", b"{}"), ("a.npy", b"")], "found a.json, then a.npy"),
        ([("a.npy", npy(np.zeros((M, C, T, V)))), ("a.json", b"{}")], "a.npy: not a .npy of float32"),
        ([("a.npy", npy(np.zeros((T, V), np.float32))), ("a.json", b"{}")], "a.npy: not a .npy of float32"),
        ([("a.npy", b""), ("a.json", b"{}")], "a.npy: not a .npy of float32"),
        (
            [("a.npy", npy(np.zeros((M, C, T, V), np.float32))[:-1]), ("a.json", b"{}")],
            "4199 bytes where shape",
        ),
        (
            [("a.npy", npy(np.zeros((M, C, T, V), np.float32)) + b"\0"), ("a.json", b"{}")],
            "4201 bytes where shape",
        ),
        (
            [("a.npy", npy(np.zeros((M, C, T, V), np.float32))), ("a.json", b"[]")],
            "a.json: list where an object",
        ),
        ([("a.npy", npy(np.zeros((M, C, T, V), np.float32))), ("a.json", b"{")], "a.json: not JSON"),
        ([("a.npy", npy(np.zeros((M, C, T, V), np.float32))), ("a.json", b"\xff")], "a.json: not JSON"),
    ],
)
def test_wrong_members(tmp_path: Path, members: list[tuple[str, bytes]], match: str) -> None:
    """A tar of somebody else, or one repaired by hand, is refused with the member's name."""
    path = tmp_path / "foreign.tar"
    path.write_bytes(b"".join(member(*item) for item in members) + bytes(1024))
    with pytest.raises(ValueError, match=match) as caught:
        list(read_tar(path))
    assert str(path) in str(caught.value)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    """Tars come over the network: reading one must never run code."""
    harmful = npy(np.array([[[[{"code": 1}]]]], dtype=object), allow_pickle=True)
    path = tmp_path / "harmful.tar"
    path.write_bytes(member("a.npy", harmful) + member("a.json", b"{}") + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.npy: not a \.npy of float32"):
        list(read_tar(path))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Nor may it lead to other files."""
    path = tmp_path / "link.tar"
    info = tarfile.TarInfo("a.npy")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path.write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.npy is not a plain file"):
        list(read_tar(path))


def test_interrupted_write_is_refused(tmp_path: Path, samples: list[Sample]) -> None:
    """webdataset's own writer leaves a valid short tar when its source fails."""

    def failing() -> Iterator[Sample]:
        yield samples[0]
        raise RuntimeError("the disk is gone")

    path = tmp_path / "short.tar"
    with pytest.raises(RuntimeError):
        write_tar(path, failing())
    with pytest.raises(ValueError, match="cut short or damaged"):
        list(read_tar(path))


@pytest.mark.parametrize("key", ["a.b", "a/b", ""])
def test_keys_that_webdataset_would_cut(tmp_path: Path, samples: list[Sample], key: str) -> None:
    """Two samples whose keys are cut alike would be merged into one."""
    with pytest.raises(AssertionError):
        write_tar(tmp_path / "bad.tar", [(key, samples[0][1], {})])


def test_no_samples_is_an_empty_tar(tmp_path: Path) -> None:
    """A whole tar with nothing in it is no damage."""
    write_tar(tmp_path / "empty.tar", [])
    assert list(read_tar(tmp_path / "empty.tar")) == []


def test_an_array_of_another_form_is_not_given_out(tar: Path, samples: list[Sample]) -> None:
    """It would be in a batch long before the end of the tar, where a checksum tells of it."""
    tar.write_bytes(tar.read_bytes().replace(b"'<f4'", b"'>f4'", 1))
    with pytest.raises(DamagedError, match=rf"{KEYS[0]}\.npy: not a \.npy of float32 in shape"):
        next(source(tar).read_shard(0, {0: 1, 1: 1}))
    write_tar(tar, ((key, sample_MCTV[:, :, 1:], metadata) for key, sample_MCTV, metadata in samples))
    with pytest.raises(DamagedError, match=rf"{KEYS[0]}\.npy has 3728 bytes where 4328 belong"):
        next(source(tar).read_shard(0, {0: 1, 1: 1}))


def test_a_tar_cut_within_an_array_is_told(tar: Path) -> None:
    """By where it ends, and not by numpy, of a shape that cannot be made."""
    content = tar.read_bytes()
    for end in range(512, 512 + 4000, 400):
        tar.write_bytes(content[:end])
        with pytest.raises(DamagedError, match=f"cut short or damaged at byte {end}"):
            next(source(tar).read_shard(0, {0: M, 1: 1}))


def test_a_sample_that_the_table_does_not_know_is_told(tar: Path) -> None:
    """A table that lost its last lines would leave samples out, and say nothing."""
    with pytest.raises(DamagedError, match=rf"found {KEYS[-1]}\.npy, which samples\.csv does not know"):
        list(source(tar, KEYS[:-1]).read_shard(0, {0: 1}))
