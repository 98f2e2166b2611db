"""Features are computed once, and never taken for others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import Tensor

from data_specs.skeleton import Skeleton
from model import feature_cache
from model.calibrate import calibrated
from model.checkpoint import load_checkpoint
from model.feature_cache import FeatureCache, cache_of
from model.features import Features, encoder_extractor, statistics_extractor
from model.kept import Kept
from model.recipe import load_recipe
from model.report.embedding import embed
from model.run import Run
from model.scores import TRAINED
from model.train import train
from pipeline.samples import split_samples
from pipeline.store.shards import Shards

CPU = torch.device("cpu")
TINY = (
    "epochs=2",
    "batch_size=40",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
)


class Counted:
    """Statistics, and how often they were asked for."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.inner, self.calls = statistics_extractor(skeleton), 0

    def __call__(self, x_PCTV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        self.calls += 1
        return self.inner(x_PCTV, sample_P, num_samples)


@pytest.fixture
def counted(shards: Shards) -> Counted:
    return Counted(shards.spec.skeleton)


def test_a_second_time_nothing_is_computed(shards: Shards, counted: Counted, tmp_path: Path) -> None:
    samples = split_samples(shards, "xview", "train")
    cache = FeatureCache(Kept(tmp_path / "features", {"weights": "abc"}))
    first = cache.features("some name", counted, samples, CPU)
    calls = counted.calls
    second = cache.features("some name", counted, samples, CPU)
    assert counted.calls == calls > 0
    assert torch.equal(first.x_ND, second.x_ND)
    assert torch.equal(first.labels_N, second.labels_N)
    (path,) = (tmp_path / "features").iterdir()
    assert path.name.startswith("some-name-")


def test_whatever_they_depend_on_asks_for_new_ones(
    shards: Shards, counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old features under a new name would be a wrong accuracy that nobody notices."""
    samples = split_samples(shards, "xview", "train")
    cache = FeatureCache(Kept(tmp_path, {"weights": "abc"}))
    cache.features("a", counted, samples, CPU)
    asked: list[Callable[[], Features]] = [
        lambda: cache.features("b", counted, samples, CPU),
        lambda: cache.features("a", counted, samples.take(np.arange(5)), CPU),
        lambda: cache.features("a", counted, samples.take(np.arange(5, 10)), CPU),  # as many others
        lambda: cache.features("a", counted, samples.take(np.arange(len(samples))[::-1].copy()), CPU),
        lambda: cache.features("a", counted, samples, CPU, batch_size=7),
        lambda: FeatureCache(Kept(tmp_path, {"weights": "abd"})).features("a", counted, samples, CPU),
    ]
    for ask in asked:
        calls = counted.calls
        ask()
        assert counted.calls > calls
    monkeypatch.setattr(feature_cache, "FEATURES_VERSION", feature_cache.FEATURES_VERSION + 1)
    calls = counted.calls
    cache.features("a", counted, samples, CPU)
    assert counted.calls > calls


def test_another_kind_of_device_has_its_own(shards: Shards, counted: Counted, tmp_path: Path) -> None:
    """A GPU rounds otherwise: what is compared would be measured now with the one's, now with the other's."""
    samples = split_samples(shards, "xview", "test")
    cache = FeatureCache(Kept(tmp_path, {}))
    cache.features("a", counted, samples, CPU)
    assert cache.stored("a", samples, CPU) is not None
    assert cache.stored("a", samples, torch.device("meta")) is None


@pytest.mark.parametrize("damage", [b"", b"PK", b"half"])
def test_a_damaged_file_is_computed_anew(
    shards: Shards, counted: Counted, tmp_path: Path, damage: bytes
) -> None:
    samples = split_samples(shards, "xview", "test")
    cache = FeatureCache(Kept(tmp_path, {}))
    expected = cache.features("a", counted, samples, CPU)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == b"half" else damage)
    assert torch.equal(cache.features("a", counted, samples, CPU).x_ND, expected.x_ND)
    encrypted, version = content.index(b"PK\x01\x02") + 8, content.index(b"PK\x01\x02") + 6
    for place, bit in ((len(content) // 2, 1), (encrypted, 1), (version, 64)):
        flipped = bytearray(content)
        flipped[place] ^= bit
        path.write_bytes(bytes(flipped))
        assert torch.equal(cache.features("a", counted, samples, CPU).x_ND, expected.x_ND)


def test_another_run_or_protocol_or_shards_have_their_own(
    shards: Shards, both_shards: Shards, tmp_path: Path
) -> None:
    """The report draws what an evaluation left, and must not draw another checkpoint's features."""
    recipe, run = load_recipe("compact", TINY), Run(tmp_path / "run")
    run.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, run, device=CPU)
    late = load_checkpoint(run)
    run.checkpoint.unlink()
    early = load_checkpoint(run)
    samples, test = split_samples(shards, "xview", "train"), split_samples(shards, "xview", "test")
    cache = cache_of(run.features, shards, late, samples)
    assert cache.stored(TRAINED, test, CPU) is None
    model = calibrated(late.build_model(), samples, CPU)
    expected = cache.features(TRAINED, encoder_extractor(model), test, CPU)
    found = cache_of(run.features, shards, late, samples).stored(TRAINED, test, CPU)
    assert found is not None
    assert torch.equal(found.x_ND, expected.x_ND)
    assert cache_of(run.features, shards, early, samples).stored(TRAINED, test, CPU) is None
    assert cache_of(run.features, shards, late, samples.take(np.arange(9))).stored(TRAINED, test, CPU) is None
    assert cache_of(run.features, both_shards, late, samples).stored(TRAINED, test, CPU) is None
    drawn = embed(shards, late, "xview", CPU)
    assert_array_equal(embed(shards, late, "xview", CPU, cache=run.features).points_NX, drawn.points_NX)
    (stored,) = run.features.iterdir()
    np.savez(stored, x_ND=np.eye(len(test), 7, dtype=np.float32))
    other = embed(shards, late, "xview", CPU, cache=run.features)
    assert (other.points_NX != drawn.points_NX).any()  # it is these that are drawn


def test_labels_are_not_kept(shards: Shards, counted: Counted, tmp_path: Path) -> None:
    samples = split_samples(shards, "xview", "test")
    cache = FeatureCache(Kept(tmp_path, {}))
    cache.features("a", counted, samples, CPU)
    other = replace(samples, labels_N=samples.labels_N + 1)
    assert cache.features("a", counted, other, CPU).labels_N.tolist() == other.labels_N.tolist()


def test_large_ones_are_not_kept(
    shards: Shards, counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "MOST_BYTES", 1000)
    cache = FeatureCache(Kept(tmp_path / "none", {}))
    cache.features("a", counted, split_samples(shards, "xview", "test"), CPU)
    assert not (tmp_path / "none").exists()
