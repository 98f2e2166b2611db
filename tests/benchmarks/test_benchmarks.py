"""Every benchmark runs on tiny data, checks before it measures, and says what it promises."""

import errno
import json
import shutil
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.data import (
    SPEC,
    WHOLE_NTU_120,
    dense,
    find_recordings,
    mixed_shards,
    mixture,
    names_of_ntus_form,
    normalized_samples,
)
from benchmarks.feed import write_dense
from benchmarks.references.feeder import Feeder, loader
from benchmarks.write import write_ours
from pipeline.raw.synthetic import synthesize
from pipeline.store.zarr_shard import ZarrShards

RATIOS: dict[str, dict[str, float]] = {
    "parse": {"line-by-line reader": 20, "two threads, parse": 1.6},
    "write": {"zarr-python": 5},
    "read": {"zarr-python oindex": 100, "webdataset": 10, "np.memmap": 1, "verified: np.memmap": 0.7},
    "views": {
        "per-sample float64 numpy": 100,
        "tuned float32 numpy": 5,
        "memcpy": 0.7,
        "two threads, views": 1.6,
    },
    "feed": {"per-sample feeder": 60, "two loader threads": 1.6},
    "preprocess": {"CTR-GCN-style chain": 20, "zip, beside folder + inflating": 1},
    "whole": {},
    "train_step": {
        "encoder, forward and backward, wall": 1.8,
        "encoder, forward and backward, CPU": 1.8,
        "training step, wall": 1.8,
        "training step, CPU": 1.8,
    },
}
OPTIONS = {"preprocess": ["--scale", "12"], "train_step": ["--device", "cpu"]}
FIGURES = {
    "parse": {"text parsed"},
    "write": {"size of the shard"},
    "read": {"moved by read_bodies", "moved by read_bodies, verified"},
    "preprocess": {
        "overhead of the job over its parts",
        "overhead of the job over a plain loop of its parts",
        "12 files, a file",
        "12 files, peak memory",
        "113,945 files on 2 cores, extrapolated",
        "113,945 files on 32 cores, extrapolated",
    },
    "whole": {"two worker processes", "two threads"},
    "train_step": {
        "training step, of the limit, CPU",
        "training step, peak memory, ours",
        "training step, peak memory, plain",
    },
}


# webdataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("module", RATIOS)
def test_benchmark(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark that broke, lost a bar, or left its files, is found out when someone wants the figures."""
    monkeypatch.setattr("benchmarks.threads._STEPS", 1000)
    monkeypatch.setattr("benchmarks.limits.MATRIX", {"cpu": 64})
    monkeypatch.setattr("benchmarks.limits.COPY_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = ["--quick", *OPTIONS.get(module, [])]
    done = CliRunner().invoke(import_module(f"benchmarks.{module}").main, options, catch_exceptions=False)
    found = json.loads(done.output.splitlines()[-1])
    assert found["benchmark"] == module
    assert "synthesized" in found["on"]["data"]
    for name, bar in RATIOS[module].items():
        entry = found["ratios"][name]
        assert entry["hold_to"] == bar
        assert entry["holds"] == (entry["ratio"] >= bar)
        assert 0 < entry["low"] <= entry["ratio"] <= entry["high"]
        assert entry["ours"] > 0
        assert entry["reference"] > 0
    assert FIGURES.get(module, set()) <= found["figures"].keys()
    # On import, torch may make a folder for its compiler, which is not used here.
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor_")]


def test_a_size_that_is_none_is_an_error_before_anything_is_measured() -> None:
    """Someone would wait for minutes to be told."""
    for text in ("1000;5000", "0"):
        done = CliRunner().invoke(import_module("benchmarks.preprocess").main, ["--quick", "--scale", text])
        assert done.exit_code == 2
        assert "expected numbers of recordings" in done.output


def test_real_recordings_beside_the_project_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures would be of synthesized files without anybody noticing, or the other way round."""
    quick = find_recordings(None, tmp_path / "made", quick=True)
    assert not quick.are_real
    with tarfile.open(tmp_path / "real.tar.xz", "w:xz") as archive:
        for file in quick.files[:3]:
            archive.add(file, f"subset/{file.name}")
    monkeypatch.setattr(data, "REAL_ARCHIVE", tmp_path / "real.tar.xz")
    found = find_recordings(None, tmp_path / "unpacked", quick=False)
    assert found.origin == "3 real NTU RGB+D 60 recordings"
    assert found.are_real
    assert [file.name for file in found.files] == [file.name for file in quick.files[:3]]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good recordings; one that is cut off, one of nobody, one of the list of missing skeletons, one
    under another name, and one with a comment."""
    folder = tmp_path_factory.mktemp("odd")
    synthesize(SPEC, folder, 3)
    good = min(folder.iterdir()).read_bytes()
    (folder / "S001C001P001R001A100.skeleton").write_bytes(good[: len(good) // 2])
    (folder / "S001C001P001R001A101.skeleton").write_text("1\n0\n")
    (folder / f"{min(SPEC.missing)}.skeleton").write_bytes(good)
    (folder / "foo.skeleton").write_bytes(good)
    (folder / "S001C001P001R001A102.skeleton").write_bytes(b"# by a tool\n" + good)
    return folder


def test_what_cannot_be_used_is_left_out(odd: Path, tmp_path: Path) -> None:
    """A download has some; a benchmark would end in the middle, or measure how fast they are refused."""
    found = find_recordings(odd, tmp_path, quick=False)
    assert found.origin == f"3 recordings in {odd.name} (5 left out)"
    assert found.are_real
    assert len(mixture(normalized_samples(found), 10)) == 10
    for file in found.files:
        assert file.read_bytes() == (odd / file.name).read_bytes()
    assert len({file.name for file in found.files} & {file.name for file in odd.iterdir()}) == 3


@pytest.mark.parametrize("module", ["parse", "write"])
def test_a_folder_with_damaged_files_is_measured(
    module: str, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.threads._STEPS", 1000)
    command = import_module(f"benchmarks.{module}").main
    done = CliRunner().invoke(command, ["--quick", "--raw", str(odd)], catch_exceptions=False)
    assert "3 recordings" in json.loads(done.output.splitlines()[-1])["on"]["data"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("S001C001P001R001A101", "none of 1 recordings can be used; `python cli.py preprocess ntu120"),
        (min(SPEC.missing), "none of 1 recordings can be used"),
        ("foo", "recordings: 1, none of ntu120"),
    ],
)
@pytest.mark.parametrize("module", ["parse", "write", "whole"])
def test_a_folder_without_usable_files_is_told_in_a_line(
    module: str, name: str, message: str, tmp_path: Path
) -> None:
    """Nothing can be measured, and a division by zero does not say so."""
    (tmp_path / f"{name}.skeleton").write_text("1\n0\n")
    done = CliRunner().invoke(import_module(f"benchmarks.{module}").main, ["--raw", str(tmp_path)])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def noise_like(x_CTVM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jitter of every joint."""
    return np.random.default_rng(0).normal(scale=0.01, size=x_CTVM.shape)


def test_recordings_in_a_zip_are_to_be_unpacked(tmp_path: Path) -> None:
    """`preprocess` reads them, and would not say why a benchmark does not."""
    synthesize(SPEC, tmp_path / "made", 2)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in (tmp_path / "made").iterdir():
            archive.write(file, file.name)
    shutil.rmtree(tmp_path / "made")
    done = CliRunner().invoke(import_module("benchmarks.parse").main, ["--raw", str(tmp_path)])
    assert done.exit_code == 2
    assert "2 recordings are in zip archives; unpack them first" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("module", "broken", "instead", "message"),
    [
        (
            "views",
            "numpy_views.jitter",
            lambda x_CTVM: x_CTVM + noise_like(x_CTVM),
            "in the per-sample views",
        ),
        ("views", "TunedViews.temporal_view", lambda *_: None, "in the tuned views and"),
        ("feed", "write_dense", lambda a, rows_N, path: write_dense(a, rows_N[::-1], path), "other values"),
        ("read", "stream_webdataset", lambda _: [], "webdataset reads 0 samples of"),
        ("write", "write_ours", lambda folder, samples: write_ours(folder, samples[::-1]), "something else"),
        ("preprocess", "SAME_PLACE", -1.0, "ours and the chain agree on 0 of"),
    ],
)
def test_what_is_not_alike_is_not_compared(
    module: str, broken: str, instead: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference that does less, or something else, would make any ratio."""
    monkeypatch.setattr(f"benchmarks.{module}.{broken}", instead)
    done = CliRunner().invoke(import_module(f"benchmarks.{module}").main, ["--quick"])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_disk_that_fails_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr("benchmarks.parse.find_recordings", fail)
    done = CliRunner().invoke(import_module("benchmarks.parse").main, ["--quick"])
    assert done.exit_code == 1
    assert done.output == "Error: [Errno 28] No space left on device: '/tmp/x'\n"


def test_a_job_is_not_measured_where_it_is_done_already(tmp_path: Path) -> None:
    """It would take no time at all."""
    command = ["--workers", "1", str(tmp_path), str(tmp_path)]
    done = CliRunner().invoke(import_module("benchmarks.job").main, command)
    assert done.exit_code == 2
    assert "is there already" in done.output


def test_a_recipe_that_the_plain_network_does_not_have_is_named() -> None:
    """Not what --quick made of it."""
    command = ["--quick", "--recipe", "best"]
    done = CliRunner().invoke(import_module("benchmarks.train_step").main, command)
    assert done.exit_code == 2
    assert "the plain ST-GCN to compare with knows only" in " ".join(done.output.split())


def test_a_mixture_has_as_many_pairs_as_the_data_set() -> None:
    """The sizes and ratios of a thousand recordings of single people would be better than anybody's."""
    one, two = (np.zeros((bodies, 3, 4, 25), np.float32) for bodies in (1, 2))
    samples = {Path(f"one-{index}"): one for index in range(30)} | {
        Path(f"two-{index}"): two for index in range(3)
    }
    chosen = mixture(samples, 100)
    assert sum(len(samples[file]) == 2 for file in chosen) == 18
    assert len(chosen) == 100
    assert {file.name for file in chosen} == {file.name for file in samples}
    assert chosen == mixture(samples, 100)
    assert mixture({Path("only"): one}, 4) == [Path("only")] * 4


def test_there_are_names_for_as_many_recordings_as_ntu_120_has() -> None:
    """What `preprocess` would leave out is not done, and the job would look faster than it is."""
    names = list(names_of_ntus_form())
    keys = {name.removesuffix(".skeleton") for name in names}
    assert len(keys) == len(names) == 230_309 > WHOLE_NTU_120
    assert not keys & SPEC.missing
    assert all(SPEC.parse_name(key) for key in keys)


def test_the_feeder_serves_what_the_shards_hold(tmp_path: Path) -> None:
    """Ours would be compared with a feeder of other data."""
    recordings = find_recordings(None, tmp_path, quick=True)
    shards = mixed_shards(recordings, tmp_path, 30, 16)
    assert set(shards.split("xsub", "train")["row"]) == set(range(30))
    array = ZarrShards(shards.folder / "skeletons.zarr")
    whole_NMCTV = np.stack([array.read(row) for row in range(30)])
    np.save(tmp_path / "dense.npy", whole_NMCTV.transpose(0, 2, 3, 4, 1))
    feeder = Feeder(tmp_path / "dense.npy", list(range(30)))
    batches = list(loader(feeder, 8))
    assert [len(labels) for *_, labels in batches] == [8, 8, 8]
    original_NCTVM, spatial_NCTVM, temporal_NCTVM, labels_N = batches[0]
    expected = whole_NMCTV[labels_N.numpy()].transpose(0, 2, 3, 4, 1)
    assert np.array_equal(original_NCTVM.numpy(), expected)
    assert spatial_NCTVM.shape == temporal_NCTVM.shape == (8, 3, 200, 25, 2)
    assert not np.array_equal(spatial_NCTVM.numpy(), expected)
    assert str(original_NCTVM.dtype) == "torch.float32"


def test_dense_fills_absent_bodies_with_zeros() -> None:
    """The dense readers must move what peers store."""
    one, two = (np.ones((bodies, 3, 4, 25), np.float32) for bodies in (1, 2))
    whole_NMCTV = dense([two, one])
    assert whole_NMCTV.shape == (2, 2, 3, 4, 25)
    assert whole_NMCTV[0].all()
    assert whole_NMCTV[1, 0].all()
    assert not whole_NMCTV[1, 1].any()
    assert SPEC.max_bodies == 2
