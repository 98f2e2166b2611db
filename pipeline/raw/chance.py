"""Randomness that comes from identity: a seed and a name, never the clock or what was drawn before."""

import hashlib

import numpy as np


def digest(seed: int, *key: str) -> bytes:
    """32 bytes that depend on seed and key alone: whatever is random about what the key names."""
    return hashlib.sha256("/".join((str(seed), *key)).encode()).digest()


def random_of(seed: int, *key: str) -> np.random.Generator:
    """The random source of whatever the key names; the same seed and key start it anew."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(seed, *key)[:16], "little")))
