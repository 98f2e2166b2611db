"""Randomness of synthetic recordings: it is the name's own, and can be had again."""

from pipeline.raw.chance import random_of


def test_randomness_belongs_to_seed_and_key() -> None:
    """Or two things would move in step, or a recording could not be made again."""
    keys = [(1, ("person", "ab")), (2, ("person", "ab")), (1, ("person", "a", "b")), (1, ("class", "ab"))]
    draws = [random_of(seed, *key).random() for seed, key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [random_of(seed, *key).random() for seed, key in keys]
