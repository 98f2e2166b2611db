"""What we compose must be zarr to everybody else, and damage must never reach a training run as numbers.

Axes: N sample, R row within a shard, M body slot, B present body, P packed present body, C channel, T frame,
V joint.
"""

import errno
import json
import mmap
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from pipeline.store import zarr_shard
from pipeline.store.zarr_shard import ZarrShards, array_metadata, shard_path, verify_shard, write_shard

N, M, C, T, V = 11, 2, 3, 7, 25
SHARD_SAMPLES = 4
CHUNK_BYTES = C * T * V * 4
RECORD_BYTES = CHUNK_BYTES + 4
INDEX_BYTES = SHARD_SAMPLES * M * 16 + 4
NUM_BODIES_N = np.array([1, 2, 1, 2, 2, 0, 1, 1, 0, 2, 1], dtype=np.int64)  # 0: the row is a hole
ATTRIBUTES: dict[str, Any] = {"dataset": "made up", "axes": ["sample", "body", "channel", "frame", "joint"]}


def make_samples(num_bodies_N: NDArray[np.int64], max_bodies: int) -> NDArray[np.float32]:
    """(N, M, C, T, V) without zeros in present bodies, zeros in absent ones."""
    rng = np.random.default_rng(5)
    samples_NMCTV = rng.uniform(1, 2, (len(num_bodies_N), max_bodies, C, T, V)).astype(np.float32)
    for sample_MCTV, bodies in zip(samples_NMCTV, num_bodies_N, strict=True):
        sample_MCTV[bodies:] = 0
    return samples_NMCTV


def write_array(folder: Path, samples_NMCTV: NDArray[np.float32], num_bodies_N: NDArray[np.int64]) -> None:
    folder.mkdir()
    metadata = array_metadata(samples_NMCTV.shape, SHARD_SAMPLES, ATTRIBUTES)
    (folder / "zarr.json").write_bytes(metadata)
    for shard in range(-(-len(samples_NMCTV) // SHARD_SAMPLES)):
        path = folder / shard_path(shard)
        path.parent.mkdir(parents=True)
        first = shard * SHARD_SAMPLES
        bodies = [
            (row - first, samples_NMCTV[row, : num_bodies_N[row]])
            for row in range(first, min(first + SHARD_SAMPLES, len(samples_NMCTV)))
            if num_bodies_N[row] > 0
        ]
        write_shard(path, iter(bodies), samples_NMCTV.shape[1], SHARD_SAMPLES)


def write_with_zarr_python(folder: Path, samples_NMCTV: NDArray[np.float32]) -> None:
    """The oracle: the same array, written by zarr-python."""
    array = zarr.create_array(
        store=str(folder),
        shape=samples_NMCTV.shape,
        chunks=(1, 1, *samples_NMCTV.shape[2:]),
        shards=(SHARD_SAMPLES, *samples_NMCTV.shape[1:]),
        dtype="<f4",
        fill_value=0,
        compressors=Crc32cCodec(),
        dimension_names=list(zarr_shard.DIMENSIONS),
        attributes=ATTRIBUTES,
    )
    array[:] = samples_NMCTV


@pytest.fixture(scope="module", name="samples_NMCTV")
def all_samples() -> NDArray[np.float32]:
    return make_samples(NUM_BODIES_N, M)


@pytest.fixture
def folder(tmp_path: Path, samples_NMCTV: NDArray[np.float32]) -> Path:
    """Three shards, the last of them part full, with one- and two-body samples and holes."""
    write_array(tmp_path / "array", samples_NMCTV, NUM_BODIES_N)
    return tmp_path / "array"


def verify(path: Path) -> list[str]:
    return verify_shard(path, CHUNK_BYTES, M, SHARD_SAMPLES)


def packed(samples_NMCTV: NDArray[np.float32], rows_N: NDArray[np.int64]) -> NDArray[np.float32]:
    """The slow twin of `read_bodies`."""
    return np.concatenate([samples_NMCTV[row, : NUM_BODIES_N[row]] for row in rows_N])


def read_bodies(shards: ZarrShards, rows_N: NDArray[np.int64]) -> NDArray[np.float32]:
    num_bodies_N = NUM_BODIES_N[rows_N]
    out_PCTV = np.full((num_bodies_N.sum(), C, T, V), np.nan, dtype=np.float32)
    shards.read_bodies(rows_N, num_bodies_N, out_PCTV)
    return out_PCTV


def records(path: Path) -> list[bytes | None]:
    """Each (row, body)'s values and checksum by way of the index, None where absent."""
    content = path.read_bytes()
    entries = np.frombuffer(content[-INDEX_BYTES:-4], "<u8").reshape(-1, 2).tolist()
    return [None if size == 2**64 - 1 else content[offset : offset + size] for offset, size in entries]


def rewrite_index(path: Path, row: int, body: int, offset: int, size: int) -> None:
    """Change one entry and give the index a fitting checksum, as a faulty writer would."""
    content = bytearray(path.read_bytes())
    index = np.frombuffer(content, "<u8", SHARD_SAMPLES * M * 2, len(content) - INDEX_BYTES)
    index.reshape(SHARD_SAMPLES, M, 2)[row, body] = offset, size
    content[-4:] = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    path.write_bytes(content)


class TestFormat:
    def test_zarr_python_reads_the_same_values(
        self, folder: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """Without this, our shards are a private format that no other tool opens."""
        array = zarr.open_array(folder, mode="r")
        np.testing.assert_array_equal(np.asarray(array[:]), samples_NMCTV)
        assert dict(array.attrs) == ATTRIBUTES

    def test_we_read_what_zarr_python_writes(
        self, tmp_path: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """A user who rewrote the array with zarr-python (chunks in Morton order) trains on the same."""
        write_with_zarr_python(tmp_path / "oracle", samples_NMCTV)
        shards = ZarrShards(tmp_path / "oracle", verify=True)
        rows_N = np.array([10, 1, 7, 3])
        np.testing.assert_array_equal(read_bodies(shards, rows_N), packed(samples_NMCTV, rows_N))

    def test_metadata_is_zarr_pythons_own(
        self, folder: Path, tmp_path: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """A wrong or missing key would pass here and fail in a stricter reader."""
        write_with_zarr_python(tmp_path / "oracle", samples_NMCTV)
        oracle = json.loads((tmp_path / "oracle" / "zarr.json").read_bytes())
        assert json.loads((folder / "zarr.json").read_bytes()) == oracle

    def test_one_body_shards_are_zarr_pythons_byte_for_byte(self, tmp_path: Path) -> None:
        """The strongest proof that index, checksums and the last shard follow the specification."""
        present_N = np.minimum(NUM_BODIES_N, 1)
        one_body_N1CTV = make_samples(present_N, 1)
        write_array(tmp_path / "ours", one_body_N1CTV, present_N)
        write_with_zarr_python(tmp_path / "oracle", one_body_N1CTV)
        for shard in range(3):
            ours, oracle = tmp_path / "ours" / shard_path(shard), tmp_path / "oracle" / shard_path(shard)
            assert ours.read_bytes() == oracle.read_bytes()

    def test_two_body_shards_hold_zarr_pythons_records(
        self, folder: Path, tmp_path: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """As above for two bodies. zarr-python lays chunks out in Morton order (row 0, row 1, then their
        second bodies); we keep a sample's bodies side by side. The specification leaves the order open, so
        here the records that the index leads to must be equal, and the sizes of the files.
        """
        write_with_zarr_python(tmp_path / "oracle", samples_NMCTV)
        for shard in range(3):
            ours, oracle = folder / shard_path(shard), tmp_path / "oracle" / shard_path(shard)
            assert records(ours) == records(oracle)
            assert ours.stat().st_size == oracle.stat().st_size

    def test_absent_bodies_cost_nothing(self, folder: Path) -> None:
        """82% of NTU samples have one body: storing zeros for the second would double the disk space."""
        size = (folder / shard_path(0)).stat().st_size
        assert size == NUM_BODIES_N[:SHARD_SAMPLES].sum() * RECORD_BYTES + INDEX_BYTES

    def test_a_body_of_zeros_is_kept(self, tmp_path: Path) -> None:
        """A body that the table counts must be there, or reading it would be an error."""
        write_array(tmp_path / "a", np.zeros((1, M, C, T, V), np.float32), np.array([1]))
        out_PCTV = np.ones((1, C, T, V), np.float32)
        ZarrShards(tmp_path / "a").read_bodies(np.array([0]), np.array([1]), out_PCTV)
        assert not out_PCTV.any()

    def test_two_writes_give_equal_bytes(
        self, folder: Path, tmp_path: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """Resume and verification compare checksums of files: the same input must give the same bytes."""
        fortran_NMCTV = np.asfortranarray(samples_NMCTV)
        write_array(tmp_path / "again", fortran_NMCTV, NUM_BODIES_N)
        names = ["zarr.json", *map(shard_path, range(3))]
        assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)

    def test_metadata_does_not_depend_on_the_order_of_attributes(self) -> None:
        """Two runs with the same settings must publish the same zarr.json."""
        shape = (N, M, C, T, V)
        assert array_metadata(shape, 4, {"a": 1, "b": 2}) == array_metadata(shape, 4, {"b": 2, "a": 1})


class TestReading:
    def test_read_gives_each_sample(self, folder: Path, samples_NMCTV: NDArray[np.float32]) -> None:
        """Every sample, holes included, with zeros where a body is absent."""
        shards = ZarrShards(folder)
        for row, sample_MCTV in enumerate(samples_NMCTV):
            np.testing.assert_array_equal(shards.read(row), sample_MCTV)

    def test_properties(self, folder: Path) -> None:
        """The loader and the model take their sizes from here."""
        shards = ZarrShards(folder)
        assert shards.shape == (N, M, C, T, V)
        assert shards.shape_CTV == (C, T, V)
        assert (shards.num_samples, shards.max_bodies) == (N, M)
        assert (shards.num_shards, shards.shard_samples, shards.chunk_bytes) == (3, 4, CHUNK_BYTES)

    @pytest.mark.parametrize("check", [False, True])
    def test_read_bodies_is_the_packed_read(
        self, folder: Path, samples_NMCTV: NDArray[np.float32], check: bool
    ) -> None:
        """Bodies packed in any other order would train on other people's labels."""
        shards = ZarrShards(folder, verify=check)
        for seed in range(5):
            rows_N = np.random.default_rng(seed).integers(0, N, 9)
            np.testing.assert_array_equal(read_bodies(shards, rows_N), packed(samples_NMCTV, rows_N))

    def test_an_empty_batch_is_no_error(self, folder: Path) -> None:
        """A filter that leaves nothing is the caller's affair."""
        assert read_bodies(ZarrShards(folder), np.array([], dtype=np.int64)).shape == (0, C, T, V)

    def test_threads_read_the_same(self, folder: Path, samples_NMCTV: NDArray[np.float32]) -> None:
        """Threads race to map the same shards; the loser must not read from address zero."""
        batches = [np.random.default_rng(seed).integers(0, N, 6) for seed in range(64)]
        for _ in range(5):
            shards = ZarrShards(folder)
            with ThreadPoolExecutor(8) as pool:
                results = list(pool.map(partial(read_bodies, shards), batches))
            for rows_N, out_PCTV in zip(batches, results, strict=True):
                np.testing.assert_array_equal(out_PCTV, packed(samples_NMCTV, rows_N))

    def test_threads_map_a_shard_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Mapped again, it would be unmapped under the thread that reads it: the process would die."""
        opened: list[int] = []
        open_shard = ZarrShards._open_shard

        def slowly(shards: ZarrShards, shard: int) -> None:
            opened.append(shard)
            time.sleep(0.05)
            open_shard(shards, shard)

        monkeypatch.setattr(ZarrShards, "_open_shard", slowly)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ZarrShards(folder).read, [1] * 8))
        assert opened == [0]

    def test_reading_needs_neither_zarr_nor_google_crc32c(self, folder: Path) -> None:
        """Training machines hold numpy and numba only; a stray import would be an error there."""
        code = (
            "import sys; from pathlib import Path; from pipeline.store.zarr_shard import ZarrShards\n"
            f"print(ZarrShards(Path({str(folder)!r})).read(1).shape)\n"
            "print(sorted({'zarr', 'numcodecs', 'google_crc32c'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:2] == [str((M, C, T, V)), "[]"]

    def test_our_index_checksum_is_crc32c(self) -> None:
        """Reading has its own kernel for the index; it must agree with the library that writes it."""
        rng = np.random.default_rng(0)
        assert (
            zarr_shard._crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
        )  # the known check value
        for size in (0, 1, 63, 1000):
            content = rng.integers(0, 256, size, dtype=np.uint8)
            assert zarr_shard._crc32c(content) == google_crc32c.value(content)


class TestDamageWhileReading:
    """A damaged copy must stop the run with the file's name, never crash it or feed it zeros."""

    def fails(self, folder: Path, shard: int, match: str, check: bool = False) -> None:
        row = shard * SHARD_SAMPLES + 1
        path = folder / shard_path(shard)
        for read in (lambda s: s.read(row), lambda s: read_bodies(s, np.array([row]))):
            with pytest.raises(ValueError, match=match) as caught:
                read(ZarrShards(folder, verify=check))
            assert str(path) in str(caught.value)

    def test_missing_shard(self, folder: Path) -> None:
        """zarr itself reads a missing shard as zeros."""
        (folder / shard_path(0)).unlink()
        self.fails(folder, 0, "missing; is the copy complete")
        assert ZarrShards(folder).read(9).any()  # the other shards can still be read

    @pytest.mark.parametrize("left", [0, 1, 3, INDEX_BYTES - 1, INDEX_BYTES, RECORD_BYTES, 2 * RECORD_BYTES])
    def test_cut_shard(self, folder: Path, left: int) -> None:
        """An interrupted copy."""
        path = folder / shard_path(0)
        path.write_bytes(path.read_bytes()[:left])
        self.fails(folder, 0, "is the copy complete")

    @pytest.mark.parametrize(
        ("offset", "size"),
        [
            (10**6, RECORD_BYTES),
            (2**64 - 2, RECORD_BYTES),
            (2**64 - RECORD_BYTES, RECORD_BYTES),
            (0, RECORD_BYTES - 4),
            (0, 2**64 - 1),
            (2**64 - 1, RECORD_BYTES),
            (6 * RECORD_BYTES - CHUNK_BYTES, RECORD_BYTES),
        ],
    )
    def test_index_that_points_elsewhere(self, folder: Path, offset: int, size: int) -> None:
        """Following such an entry would read foreign memory."""
        rewrite_index(folder / shard_path(0), 1, 1, offset, size)
        self.fails(folder, 0, "row 1 body 1: the index places")

    def test_index_larger_than_the_bodies(self, folder: Path) -> None:
        """A file that is nothing but an index has no room for a body at all."""
        path = folder / shard_path(0)
        path.write_bytes(path.read_bytes()[-INDEX_BYTES:])
        self.fails(folder, 0, "row 0 body 0: the index places")

    def test_flipped_bit_in_the_index(self, folder: Path) -> None:
        """It could lead to another sample's body, whole and well-formed."""
        path = folder / shard_path(0)
        content = bytearray(path.read_bytes())
        content[-INDEX_BYTES + 1] ^= 4
        path.write_bytes(content)
        self.fails(folder, 0, "does not match its checksum")

    def test_flipped_bit_in_a_body(self, folder: Path) -> None:
        """With `verify`, a single wrong bit among the numbers stops the run."""
        for shard, record in ((0, 2), (2, 1)):
            path = folder / shard_path(shard)
            content = bytearray(path.read_bytes())
            content[record * RECORD_BYTES + 17] ^= 128  # row 1 body 1
            path.write_bytes(content)
            self.fails(folder, shard, "row 1 body 1: the values do not match", check=True)

    def test_body_of_the_table_that_is_absent(self, folder: Path) -> None:
        """A table from another run must not be read against these shards."""
        out_PCTV = np.empty((3, C, T, V), np.float32)
        with pytest.raises(ValueError, match=r"0/0/0/0: the table says that row 0 has a body 1, the index"):
            ZarrShards(folder).read_bodies(np.array([9, 4, 0]), np.array([0, 1, 2]), out_PCTV)
        with pytest.raises(ValueError, match=r"c/0/0.*row 1 has a body 2, an array of 2 bodies"):
            ZarrShards(folder).read_bodies(np.array([1]), np.array([3]), out_PCTV)
        with pytest.raises(ValueError, match=r"c/2/0.*row 0 has a body 0, the index has none"):
            ZarrShards(folder).read_bodies(np.array([8]), np.array([1]), out_PCTV[:1])

    @pytest.mark.parametrize("row", [-1, N])
    def test_row_outside_the_array(self, folder: Path, row: int) -> None:
        """Negative rows would wrap around, others would read beyond the table."""
        with pytest.raises(ValueError, match="the array has rows 0 to 10"):
            ZarrShards(folder).read(row)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("shape", [N, M, C, T]),
            ("shape", [N, M, C, T, V + 1]),
            ("shape", [N, M, C, T, "25"]),
            ("shape", [float(N), M, C, T, V]),
            ("shape", [0, M, C, T, V]),
            ("shape", 3),
            ("data_type", "float64"),
            ("chunk_grid", {}),
            ("codecs", []),
            ("attributes", None),
            ("attributes", {"weight": float("nan")}),
            ("fill_value", 1.0),
            ("zarr_format", 2),
            ("unheard_of", True),
        ],
    )
    def test_wrong_metadata(self, folder: Path, key: str, value: object) -> None:
        """Another layout, read as ours, would give numbers that look like skeletons."""
        path = folder / "zarr.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        with pytest.raises(ValueError, match=r"zarr\.json: "):
            ZarrShards(folder)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b"{}", b"null", b'{"shape": [1'])
    def test_metadata_that_is_something_else(self, folder: Path, content: bytes) -> None:
        """An empty or foreign file at that name."""
        (folder / "zarr.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"zarr\.json: damaged: "):
            ZarrShards(folder)

    def test_missing_metadata(self, tmp_path: Path) -> None:
        """A mistyped folder."""
        with pytest.raises(ValueError, match=r"zarr\.json: there is no such file"):
            ZarrShards(tmp_path)


class TestVerify:
    """`verify` is what a user trusts after copying 10 GB: it must find any damage and blame nothing sound."""

    def test_sound_shards(self, folder: Path) -> None:
        """No false alarm, with holes and in a part-full shard."""
        assert [verify(folder / shard_path(shard)) for shard in range(3)] == [[], [], []]

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_every_flipped_bit_is_found(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        samples_NMCTV: NDArray[np.float32],
        data: st.DataObject,
    ) -> None:
        """One bit anywhere: among values, in a body's checksum, in the index, in the index's checksum."""
        path, sound = self.shard(tmp_path_factory, samples_NMCTV)
        values, index = range(6 * RECORD_BYTES), range(len(sound) - INDEX_BYTES, len(sound) - 4)
        body_crc = range(2 * RECORD_BYTES - 4, 2 * RECORD_BYTES)
        place = data.draw(
            st.sampled_from([values, body_crc, index, range(len(sound) - 4, len(sound))]).flatmap(
                st.sampled_from
            )
        )
        damaged = bytearray(sound)
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
        problems = verify(path)
        assert len(problems) == 1
        owner = place // RECORD_BYTES
        rows_and_bodies = [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]
        if owner < len(rows_and_bodies):
            assert "row {} body {}:".format(*rows_and_bodies[owner]) in problems[0]
        else:
            assert problems[0].startswith("index: ")

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_every_cut_is_found(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        samples_NMCTV: NDArray[np.float32],
        data: st.DataObject,
    ) -> None:
        """A file that ends early, at any byte, or that lost its beginning or something in between."""
        path, sound = self.shard(tmp_path_factory, samples_NMCTV)
        start = data.draw(st.integers(0, len(sound) - 1))
        end = data.draw(st.one_of(st.just(len(sound)), st.integers(start + 1, len(sound))))
        path.write_bytes(sound[:start] + sound[end:])
        assert verify(path) != []

    def shard(
        self, tmp_path_factory: pytest.TempPathFactory, samples_NMCTV: NDArray[np.float32]
    ) -> tuple[Path, bytes]:
        path = tmp_path_factory.getbasetemp() / "to-be-damaged"
        rows = [(row, samples_NMCTV[row, : NUM_BODIES_N[row]]) for row in range(SHARD_SAMPLES)]
        write_shard(path, rows, M, SHARD_SAMPLES)
        return path, path.read_bytes()

    def test_added_bytes(self, folder: Path) -> None:
        """Bytes before the index that belong to nobody, and bytes behind it."""
        path = folder / shard_path(0)
        sound = path.read_bytes()
        path.write_bytes(sound + b"\0")
        assert verify(path) != []
        path.write_bytes(sound[:-INDEX_BYTES] + b"\0" + sound[-INDEX_BYTES:])
        assert "index: it accounts for" in verify(path)[0]

    def test_all_damaged_bodies_are_named(self, folder: Path) -> None:
        """A user wants to know how much is lost, not only the first."""
        path = folder / shard_path(0)
        content = bytearray(path.read_bytes())
        content[5] ^= 1
        content[2 * RECORD_BYTES + 5] ^= 1
        path.write_bytes(content)
        assert [problem.split(":")[0] for problem in verify(path)] == ["row 0 body 0", "row 1 body 1"]

    def test_entry_that_points_elsewhere(self, folder: Path) -> None:
        """A faulty writer's index, with a checksum that fits it."""
        rewrite_index(folder / shard_path(0), 1, 1, 10**6, RECORD_BYTES)
        assert verify(folder / shard_path(0))[0].startswith("row 1 body 1: the index places")

    def test_missing_file_is_a_problem_and_no_crash(self, tmp_path: Path) -> None:
        """A verification of 223 shards goes on after the first that is gone."""
        assert verify(tmp_path / "gone") == ["the file cannot be read: No such file or directory"]
        assert verify(tmp_path) == ["the file cannot be read: Is a directory"]


class TestWriting:
    def test_bodies_are_consumed_one_at_a_time(
        self, tmp_path: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """The writer must not collect a shard: a generator may reuse one buffer for every sample."""
        buffer_BCTV = np.empty((1, C, T, V), np.float32)

        def bodies() -> Iterator[tuple[int, NDArray[np.float32]]]:
            for row in range(SHARD_SAMPLES):
                buffer_BCTV[0] = samples_NMCTV[row, 0]
                yield row, buffer_BCTV

        (tmp_path / "zarr.json").write_bytes(array_metadata((SHARD_SAMPLES, M, C, T, V), SHARD_SAMPLES, {}))
        path = tmp_path / shard_path(0)
        path.parent.mkdir(parents=True)
        write_shard(path, bodies(), M, SHARD_SAMPLES)
        shards = ZarrShards(tmp_path)
        for row in range(SHARD_SAMPLES):
            np.testing.assert_array_equal(shards.read(row)[0], samples_NMCTV[row, 0])

    def test_a_shard_is_on_the_disk_as_a_whole(
        self, tmp_path: Path, samples_NMCTV: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A power cut after the rename would leave a shard without its index under its final name."""
        forced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.fstat(descriptor).st_size))
        path = tmp_path / "shard"
        write_shard(path, [(0, samples_NMCTV[0, :1])], M, SHARD_SAMPLES)
        assert forced == [path.stat().st_size]

    def test_interrupted_write_is_not_a_shard(
        self, tmp_path: Path, samples_NMCTV: NDArray[np.float32]
    ) -> None:
        """A source that fails midway must not leave a short shard that verifies."""

        def bodies() -> Iterator[tuple[int, NDArray[np.float32]]]:
            yield 0, samples_NMCTV[0, :1]
            raise RuntimeError("the disk is gone")

        with pytest.raises(RuntimeError):
            write_shard(tmp_path / "shard", bodies(), M, SHARD_SAMPLES)
        assert verify(tmp_path / "shard") != []

    @pytest.mark.parametrize("rows", [[1, 1], [2, 1], [SHARD_SAMPLES]])
    def test_rows_must_increase_and_fit(
        self, tmp_path: Path, samples_NMCTV: NDArray[np.float32], rows: list[int]
    ) -> None:
        """Two samples in one row would silently lose the first."""
        with pytest.raises(AssertionError, match="rows must increase"):
            write_shard(tmp_path / "shard", [(r, samples_NMCTV[0, :1]) for r in rows], M, SHARD_SAMPLES)


class TestOpenFiles:
    """Every mapped shard is an open file, and a process may have as few as 256."""

    def test_the_limit_is_raised_as_far_as_it_goes(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[object] = []
        monkeypatch.setattr(resource, "setrlimit", lambda *given: asked.append(given[1]))
        for soft, hard in ((1024, 4096), (100, 4096), (100, 200)):
            monkeypatch.setattr(resource, "getrlimit", lambda _, both=(soft, hard): both)
            ZarrShards(folder)
        assert asked == [(3 + zarr_shard.OTHER_OPEN_FILES, 4096), (200, 200)]

    def test_a_system_without_a_limit(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Infinity is -1: taken as a number it would be the least, and 257 shards could not be opened."""
        asked: list[object] = []
        unlimited = resource.RLIM_INFINITY
        monkeypatch.setattr(resource, "setrlimit", lambda *given: asked.append(given[1]))
        for soft in (256, unlimited):
            monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, unlimited))
            ZarrShards(folder)
        assert asked == [(3 + zarr_shard.OTHER_OPEN_FILES, unlimited)]

    def test_a_system_that_refuses(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few shards can be opened all the same."""

        def refuse(*_: object) -> None:
            raise ValueError("current limit exceeds maximum limit")

        monkeypatch.setattr(resource, "getrlimit", lambda _: (100, resource.RLIM_INFINITY))
        monkeypatch.setattr(resource, "setrlimit", refuse)
        assert ZarrShards(folder).read(1).any()

    def test_too_many_are_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        reasons = iter((errno.EMFILE, errno.EIO))

        def refuse(*_: object, **__: object) -> None:
            raise OSError(next(reasons), "why")

        monkeypatch.setattr(mmap, "mmap", refuse)
        with pytest.raises(ValueError, match=r"its 3 shards are open at the same time, .* --shard-samples"):
            ZarrShards(folder).read(0)
        with pytest.raises(OSError, match="why"):
            ZarrShards(folder).read(0)
