"""Evaluation from tars: all samples in memory, the same to the bit as the zarr array's."""

from collections.abc import Callable

import pytest
from numpy.testing import assert_array_equal

from pipeline.loader import sequential_batches
from pipeline.samples import in_any_order, split_samples
from pipeline.store import web
from pipeline.store.shards import Shards, open_shards


def test_tars_are_loaded_to_be_read_in_any_order(
    both_shards: Shards, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation from a web server must see what it sees on disk, each tar read once."""
    monkeypatch.setattr(web, "RANGE_BYTES", 5_000)
    log: list[str] = []
    opened = open_shards(serve(both_shards.folder, log=log))
    log.clear()
    parts = in_any_order(*(split_samples(opened, "xview", part) for part in ("train", "test")))
    assert len({line.split()[0] for line in log}) == 40
    assert sum(line.split()[1].startswith("bytes=0-") for line in log) == 40
    for part, name in zip(parts, ("train", "test"), strict=True):
        expected = split_samples(both_shards, "xview", name)
        assert in_any_order(expected) == (expected,)
        for one, other in zip(sequential_batches(part, 7), sequential_batches(expected, 7), strict=True):
            assert_array_equal(one.original_PCTV.numpy(), other.original_PCTV.numpy())
            assert_array_equal(one.sample_P.numpy(), other.sample_P.numpy())
            assert_array_equal(one.ids_N.numpy(), other.ids_N.numpy())
            assert_array_equal(one.labels_N.numpy(), other.labels_N.numpy())
