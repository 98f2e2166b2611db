"""The order of samples: a user who resumes, or trains on other ranks, must meet the same batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.order import (
    MAX_LANES,
    TARS_PER_LANE,
    StreamOrder,
    batch_indices,
    epoch_permutation,
    num_lanes,
    partners,
    steps_per_epoch,
    stream_order,
)

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def mix64_slowly(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def permutation_slowly(num_samples: int, seed: int, epoch: int) -> list[int]:
    key = mix64_slowly((seed + GOLDEN) % WORD)
    key = mix64_slowly(((key ^ (epoch % WORD)) + GOLDEN) % WORD)
    hashes = [mix64_slowly((key + (position + 1) * GOLDEN) % WORD) for position in range(num_samples)]
    return sorted(range(num_samples), key=lambda position: (hashes[position], position))


def test_slow_hash_is_splitmix64() -> None:
    """The twin itself: the first outputs of splitmix64 from state 0, as published with the generator."""
    outputs = [mix64_slowly((k * GOLDEN) % WORD) for k in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("seed", [0, 7, -1, 2**64 - 1])
def test_permutation_equals_the_slow_one(seed: int) -> None:
    """Overflow or a lost sign would give an order that other machines do not reproduce."""
    assert epoch_permutation(101, seed, 3).tolist() == permutation_slowly(101, seed, 3)


def test_permutation_never_changes_between_versions() -> None:
    """A checkpoint that is resumed with a later version would see another order."""
    assert epoch_permutation(11, seed=1, epoch=2).tolist() == [2, 9, 8, 7, 3, 1, 5, 6, 10, 0, 4]


def test_a_partner_is_another_one_of_the_group() -> None:
    """Views of two different performances pulled together would teach that all actions are one."""
    groups_N = np.array([7, 3, 7, 9, 3, 7, 1])
    found = partners(groups_N)
    met: dict[int, set[int]] = {}
    for epoch in range(60):
        for position, other in enumerate(found.of(np.arange(7), 5, epoch).tolist()):
            assert groups_N[other] == groups_N[position]
            met.setdefault(position, set()).add(other)
    assert met == {0: {2, 5}, 1: {4}, 2: {0, 5}, 3: {3}, 4: {1}, 5: {0, 2}, 6: {6}}


def test_partners_never_change_between_versions_and_are_drawn_one_by_one() -> None:
    """A rank, or a resumed run, asks for other positions together and must get the same answers."""
    found = partners(np.arange(30) % 5)
    whole = found.of(np.arange(30), 2, 11)
    assert whole[:10].tolist() == [15, 11, 17, 23, 19, 20, 26, 2, 23, 19]
    chosen = np.array([21, 4, 4, 17])
    assert found.of(chosen, 2, 11).tolist() == whole[chosen].tolist()


@given(st.integers(1, 500), st.integers(-(2**63), 2**63), st.integers(0, 10**6))
def test_every_sample_comes_once(num_samples: int, seed: int, epoch: int) -> None:
    """A lost or doubled sample would bias training silently."""
    permutation = epoch_permutation(num_samples, seed, epoch)
    assert permutation.dtype == np.int64
    assert sorted(permutation.tolist()) == list(range(num_samples))


def test_seeds_and_epochs_shuffle_differently() -> None:
    """An epoch that repeats the last one's order, or a seed without effect, makes repeats worthless."""
    orders = {tuple(epoch_permutation(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_first_place_is_uniform() -> None:
    """A weak hash would let some samples come early in every epoch."""
    firsts = np.array([epoch_permutation(8, 5, epoch)[0] for epoch in range(2000)])
    counts = np.bincount(firsts, minlength=8)
    assert np.all(np.abs(counts - 250) < 5 * np.sqrt(250 * 7 / 8))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "drop_last", "steps"),
    [
        (10, 3, True, 3),
        (10, 3, False, 4),
        (9, 3, True, 3),
        (9, 3, False, 3),
        (2, 3, True, 1),
        (2, 3, False, 1),
    ],
)
def test_steps_per_epoch(num_samples: int, batch_size: int, drop_last: bool, steps: int) -> None:
    """A schedule that is one step off per epoch ends its decay at the wrong place."""
    assert steps_per_epoch(num_samples, batch_size, drop_last) == steps


@settings(max_examples=60)
@given(
    st.integers(1, 120), st.integers(1, 6), st.sampled_from([1, 2, 3]), st.integers(0, 3), st.integers(0, 99)
)
def test_an_epoch_of_batches(num_samples: int, part: int, world: int, epoch: int, seed: int) -> None:
    """Ranks that overlap, or batches that skip samples, would train on another set than was asked for."""
    batch_size = part * world
    if num_samples < world:
        return
    steps = steps_per_epoch(num_samples, batch_size)
    seen: list[int] = []
    for step in range(epoch * steps, (epoch + 1) * steps):
        parts = [
            batch_indices(step, num_samples, batch_size, seed, rank=rank, world=world)
            for rank in range(world)
        ]
        assert len({len(part) for part in parts}) == 1
        seen += np.concatenate(parts).tolist()
    batches = num_samples // batch_size
    visited = batches * batch_size if batches else num_samples - num_samples % world
    assert seen == epoch_permutation(num_samples, seed, epoch)[:visited].tolist()


def test_a_caller_cannot_spoil_the_next_batch() -> None:
    """The permutation is kept: writing into a batch must not reach it."""
    first = batch_indices(0, 20, 4, 9)
    expected = first.copy()
    first[:] = -1
    assert batch_indices(0, 20, 4, 9).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 10, 4, 1), {"rank": 0, "world": 3}, "batch_size is 4, which 3 ranks cannot share"),
        ((0, 10, 4, 1), {"rank": 2, "world": 2}, r"rank is 2 of 2; expected 0\.\.1"),
        ((0, 10, 4, 1), {"rank": -1, "world": 2}, r"rank is -1 of 2; expected 0\.\.1"),
        ((-1, 10, 4, 1), {}, "step is -1"),
        ((0, 0, 4, 1), {}, "there are 0 samples; at least 1 is needed: is the split empty"),
        ((0, 10, 0, 1), {}, "batch_size is 0"),
        ((0, 1, 4, 1), {"rank": 0, "world": 2}, "1 samples for 2 ranks"),
    ],
)
def test_impossible_settings_are_named(
    arguments: tuple[int, int, int, int], options: dict[str, int], message: str
) -> None:
    """A user must read what is wrong, not meet an empty batch an hour later."""
    with pytest.raises(ValueError, match=message):
        batch_indices(*arguments, **options)


# Sizes of up to 60 tars, batch size, seed, epoch, buffer.
streams = st.tuples(
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24]),
    st.integers(0, 99),
    st.integers(0, 5),
    st.integers(1, 200),
)
Stream = tuple[list[int], int, int, int, int]


def ordered(stream: Stream) -> StreamOrder:
    sizes, batch_size, seed, epoch, buffer = stream
    return stream_order(np.repeat(np.arange(len(sizes)), sizes), batch_size, seed, epoch, buffer)


@given(streams)
def test_a_stream_gives_every_sample_once_up_to_its_tail(stream: Stream) -> None:
    """A lost or doubled sample would bias training silently; zarr shards leave out as many."""
    order, num_samples, batch_size = ordered(stream), sum(stream[0]), stream[1]
    assert sorted(order.read_N.tolist()) == list(range(num_samples))
    steps, size = steps_per_epoch(num_samples, batch_size), min(batch_size, num_samples)
    assert order.given_SN.shape == (steps, size)
    assert len(set(order.given_SN.ravel().tolist())) == steps * size


@given(streams)
def test_a_stream_reads_every_tar_from_its_beginning(stream: Stream) -> None:
    """A tar that had to be read twice, or backwards, would cost a download each."""
    order, sizes = ordered(stream), stream[0]
    starts = np.cumsum([0, *sizes])
    read = order.read_N.tolist()
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        at = read.index(first)
        assert read[at : at + last - first] == list(range(first, last))


@given(streams)
def test_lanes_and_buffers_keep_to_their_sizes(stream: Stream) -> None:
    """A sample that is asked for before the buffer can hold it would make the loader wait for ever."""
    order, buffer = ordered(stream), stream[-1]
    lanes, (steps, size) = len(order.bounds_L) - 1, order.given_SN.shape
    lengths = np.diff(order.bounds_L)
    assert lengths.max() - lengths.min() <= 1
    for lane, first in enumerate(order.bounds_L[:-1]):
        given_SN = order.given_SN[:, lane * size // lanes : (lane + 1) * size // lanes] - first
        assert 0 <= given_SN.min() <= given_SN.max() < lengths[lane]
        assert np.all(given_SN.ravel() < np.arange(steps * size // lanes) + max(1, buffer // lanes))


@given(st.integers(1, 64), st.sampled_from([1, 4, 6, 8, 64]), st.integers(1, 500))
def test_lanes_are_long_and_share_the_batch(tars: int, batch_size: int, num_samples: int) -> None:
    """Short lanes read most tars twice; lanes that do not divide the batch make batches differ in size."""
    lanes = num_lanes(tars, num_samples, batch_size)
    assert lanes == 1 or (lanes <= MAX_LANES and tars >= lanes * TARS_PER_LANE)
    assert batch_size % lanes == 0
    assert num_lanes(1000, 10_000, 64) == MAX_LANES


def test_a_buffer_that_holds_all_shuffles_all() -> None:
    """As good as its buffer: with room for everything, every sample can come first, equally often."""
    tars_N = np.repeat(np.arange(2), 4)
    firsts = [stream_order(tars_N, 1, 5, epoch, 8) for epoch in range(2000)]
    counts = np.bincount([order.read_N[order.given_SN[0, 0]] for order in firsts], minlength=8)
    assert np.all(np.abs(counts - 250) < 5 * np.sqrt(250 * 7 / 8))


def test_a_buffer_of_one_keeps_the_order_of_the_tars() -> None:
    """The other end: what is read first comes first, so nothing but the buffer shuffles within a tar."""
    order = stream_order(np.repeat(np.arange(3), 5), 1, 0, 0, 1)
    assert order.given_SN.ravel().tolist() == list(range(15))
    assert order.read_N.tolist() != list(range(15))


def test_a_buffer_smaller_than_the_lanes_still_holds_one_sample_of_each() -> None:
    """`buffer = 1`, for no shuffling at all, would end the training at once on a set of many tars."""
    order = stream_order(np.repeat(np.arange(64), 3), 16, 0, 0, 1)
    lanes = len(order.bounds_L) - 1
    assert lanes == MAX_LANES
    for lane, given_SN in enumerate(np.split(order.given_SN, lanes, axis=1)):
        assert given_SN.ravel().tolist() == list(range(order.bounds_L[lane], order.bounds_L[lane + 1]))


def test_a_set_smaller_than_a_batch_is_given_in_whole() -> None:
    """Cut into lanes, it would lose what these cannot share equally, and in every epoch."""
    order = stream_order(np.arange(33), 64, 0, 0, 8)
    assert sorted(order.given_SN.ravel().tolist()) == list(range(33))


def test_streams_of_other_epochs_and_seeds_differ() -> None:
    """An epoch that repeats the last one's batches is worthless, also where there is but one tar."""
    for tars in (1, 40):
        tars_N = np.repeat(np.arange(tars), 80 // tars)
        orders = {
            tuple(order.read_N[order.given_SN].ravel().tolist())
            for order in (stream_order(tars_N, 8, seed, epoch, 16) for seed in range(4) for epoch in range(4))
        }
        assert len(orders) == 16


def test_a_stream_leaves_out_others_in_every_epoch() -> None:
    """Samples that never come are lost to training, even where one tar is all there is."""
    for tars in (1, 5):
        tars_N = np.repeat(np.arange(tars), 100 // tars)[:99]
        seen: set[int] = set()
        for epoch in range(6):
            order = stream_order(tars_N, 20, 1, epoch, 50)
            seen |= set(order.read_N[order.given_SN].ravel().tolist())
        assert len(seen) == 99


def test_a_stream_never_changes_between_versions() -> None:
    """A checkpoint that is resumed with a later version would see other batches."""
    order = stream_order(np.repeat(np.arange(8), 3), 4, seed=1, epoch=2, buffer=6)
    assert order.bounds_L.tolist() == [0, 12, 24]
    assert order.read_N[order.given_SN].tolist() == [
        [7, 8, 16, 17],
        [21, 6, 18, 15],
        [22, 23, 0, 1],
        [11, 3, 2, 12],
        [9, 5, 20, 13],
        [10, 4, 14, 19],
    ]
