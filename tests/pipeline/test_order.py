"""The order of samples: a user who resumes, or trains on other ranks, must meet the same batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.order import batch_indices, epoch_permutation, steps_per_epoch

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
        ((-1, 10, 4, 1), {}, "step is -1"),
        ((0, 0, 4, 1), {}, "there are 0 samples"),
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
