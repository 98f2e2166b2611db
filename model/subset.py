"""Which training samples may show their labels: the same on every machine, written down as plain id files.

An id file is text, one sample's key a line, in any order; empty lines and lines with a # first are skipped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.store.publish import publish_bytes


@dataclass(frozen=True, eq=False)
class Labelled:
    """Equally large sets of labelled training samples, one for every repetition.

    fraction: of all training labels, 0 to 1.  sets: indices among the training samples, int64, sorted.
    files: the names of the id files that hold them; none where they were drawn here.
    topped_up: how many classes had their share rounded up to the one label that every class has.
    """

    fraction: float
    sets: tuple[NDArray[np.int64], ...]
    files: tuple[str, ...] = ()
    topped_up: int = 0

    @property
    def drawn(self) -> bool:
        """Whether the sets were drawn here, so that each is another one."""
        return self.fraction < 1 and not self.files

    @property
    def subset(self) -> str | None:
        """Those names in one; None where the sets were drawn here."""
        return ", ".join(self.files) or None


def all_labels(num_samples: int) -> Labelled:
    """Every training sample."""
    return Labelled(1.0, (np.arange(num_samples),))


def balanced(labels_N: NDArray[np.int64], keys: Sequence[str], fraction: float, seeds: int = 1) -> Labelled:
    """One balanced subset for every seed from 0 on."""
    if fraction == 1:
        return all_labels(len(keys))
    sets = tuple(balanced_subset(labels_N, keys, fraction, seed) for seed in range(seeds))
    topped_up = sum(_share(fraction, count) == 0 for count in np.unique(labels_N, return_counts=True)[1])
    return Labelled(fraction, sets, topped_up=topped_up)


def check_fraction(fraction: float) -> None:
    """Raises ValueError if it is no share of labels."""
    if not 0 < fraction <= 1:
        raise ValueError(f"label fraction is {fraction}; expected above 0, at most 1 (0.1 is ten per cent)")


def balanced_subset(
    labels_N: NDArray[np.int64], keys: Sequence[str], fraction: float, seed: int = 0
) -> NDArray[np.int64]:
    """Indices of a class-balanced part, sorted: of every class the same share, at least one sample.

    Samples are taken in the order of a hash of seed and key, so that the subset is the same everywhere, and
    within a seed a smaller fraction's lies within a larger one's. Raises ValueError if fraction is not in
    (0, 1].
    """
    check_fraction(fraction)
    place_N = hashed_places(keys, seed)
    chosen = []
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        count = max(1, _share(fraction, len(members)))
        chosen.append(members[np.argsort(place_N[members], kind="stable")][:count])
    return np.sort(np.concatenate(chosen))


def _share(fraction: float, count: int) -> int:
    return round(fraction * count)


def hashed_places(keys: Sequence[str], seed: int) -> NDArray[np.str_]:
    """What to sort samples by for an order that depends on their keys and the seed alone."""
    return np.array([hashlib.sha256(f"labels {seed} {key}".encode()).hexdigest() for key in keys])


def write_subset(path: Path, keys: Sequence[str], title: str) -> None:
    """Write an id file that `read_subset` reads back. title: what it says of itself, on its first line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_bytes(path, "\n".join([f"# {title}", *keys, ""]).encode())


def read_subset(path: Path, keys: Sequence[str]) -> NDArray[np.int64]:
    """The indices, sorted, of the samples that an id file names. keys: of all training samples.

    Raises ValueError that names the file if it cannot be read, names no sample, one twice, or one that is
    not among the training samples.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(f"{path}: not a readable id file: {reason}") from None
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not wanted:
        raise ValueError(f"{path}: names no sample; expected one key a line, such as {keys[0]}")
    place = {key: index for index, key in enumerate(keys)}
    unknown = [key for key in wanted if key not in place]
    if unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise ValueError(
            f"{path}: {unknown[0]!r}{more} not among the {len(keys):,} training samples of the protocol, "
            f"such as {keys[0]}; is it a subset of another data set or protocol?"
        )
    if len(set(wanted)) < len(wanted):
        twice = next(key for index, key in enumerate(wanted) if key in wanted[:index])
        raise ValueError(f"{path}: {twice} is named twice")
    return np.sort(np.array([place[key] for key in wanted], np.int64))


def from_files(paths: Sequence[Path], keys: Sequence[str]) -> list[Labelled]:
    """The sets that id files name, those of equal size as repetitions of each other; smallest first.

    Raises ValueError that names the file if `read_subset` does, or if it names all training samples.
    """
    by_size: dict[int, list[tuple[NDArray[np.int64], str]]] = {}
    for path in paths:
        indices = read_subset(path, keys)
        if len(indices) == len(keys):
            raise ValueError(
                f"{path}: names all {len(keys):,} training samples; expected fewer, as all of them are "
                "measured anyway: leave it out"
            )
        by_size.setdefault(len(indices), []).append((indices, path.name))
    found = []
    for size, members in sorted(by_size.items()):
        sets, names = zip(*members, strict=True)
        found.append(Labelled(size / len(keys), sets, names))
    return found
