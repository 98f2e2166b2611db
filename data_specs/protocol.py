"""Published train/test splits, and what is held out of the training samples to choose by."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HeldOut:
    """Training samples that test instead, so that settings can be chosen without a look at the test samples:
    those whose `field` is in `values`."""

    field: str
    values: frozenset[int]


@dataclass(frozen=True)
class Protocol:
    """A published train/test split, as a predicate over one metadata field.

    A sample whose `field` is in `train` trains; one in `test` (or, where `test` is None, any other) tests.
    With `held_out` the published test samples are not used at all.
    """

    name: str
    title: str
    field: str
    train: frozenset[int]
    test: frozenset[int] | None
    held_out: HeldOut | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """What it has to know of a sample, each once."""
        return tuple(dict.fromkeys([self.field, *([self.held_out.field] if self.held_out else [])]))

    def split(self, metadata: Mapping[str, int]) -> str | None:
        """'train', 'test', or None for a sample that this protocol does not use."""
        value = metadata[self.field]
        if self.held_out is not None:
            if value not in self.train:
                return None
            return "test" if metadata[self.held_out.field] in self.held_out.values else "train"
        if value in self.train:
            return "train"
        return "test" if self.test is None or value in self.test else None
