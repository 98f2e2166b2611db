"""A data set's facts: skeleton, classes, file names, protocols.

`data_specs.read` reads them from TOML.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from data_specs.protocol import HeldOut, Protocol
from data_specs.skeleton import Skeleton

FIELDS = ("action", "subject", "camera", "setup", "replication")


@dataclass(frozen=True)
class DatasetSpec:
    """Everything that the code knows about one data set.

    simultaneous_cameras: whether recordings whose names differ by the camera alone show one performance;
        False where nobody says so.
    labels: action number in the file name -> class index 0..len(classes)-1.
    pair_actions: the numbers of the actions that two people do together.
    missing: names of samples that the authors list as having missing or wrong skeletons.
    text: the TOML it was read from, so that shards can carry their own spec.
    """

    name: str
    title: str
    reader: str
    name_pattern: re.Pattern[str]
    skeleton: Skeleton
    max_bodies: int
    fps: float
    simultaneous_cameras: bool
    classes: tuple[str, ...]
    labels: Mapping[int, int]
    pair_actions: frozenset[int]
    protocols: Mapping[str, Protocol]
    default_protocol: str
    missing: frozenset[str]
    text: str

    def parse_name(self, name: str) -> dict[str, int] | None:
        """The metadata that a recording's name carries, or None if the name is not of this data set.

        Keys: those of FIELDS that the pattern names, and `label`.
        """
        metadata = self._read_name(name)
        if metadata is None or metadata["action"] not in self.labels:
            return None
        return metadata | {"label": self.labels[metadata["action"]]}

    def unread(self, name: str) -> str:
        """What is left of a name without the numbers that the pattern reads; all, if it does not fit."""
        match = self.name_pattern.fullmatch(name)
        read = sorted(map(match.span, self.name_pattern.groupindex)) if match else []
        starts, ends = [0, *(end for _, end in read)], [*(start for start, _ in read), len(name)]
        return "|".join(name[start:end] for start, end in zip(starts, ends, strict=True))

    def action_without_class(self, name: str) -> int | None:
        """The action of a name that fits the pattern, where the data set has no class for it; else None."""
        metadata = self._read_name(name)
        return None if metadata is None or metadata["action"] in self.labels else metadata["action"]

    def _read_name(self, name: str) -> dict[str, int] | None:
        """The numbers that a name carries; None if it does not fit the pattern."""
        match = self.name_pattern.fullmatch(name)
        if match is None:
            return None
        found = match.groupdict()
        if not all(value and value.isdecimal() for value in found.values()):
            return None
        return {field: int(value) for field, value in found.items()}

    def protocol(self, name: str) -> Protocol:
        """The protocol of that name; of `xview@subject-1-6` the training samples of subjects 1 and 6 are held
        out. Raises ValueError that says which there are."""
        published, at, rest = name.partition("@")
        if published not in self.protocols:
            known = ", ".join(self.protocols)
            raise ValueError(f"{self.name} has no protocol {published!r}; it has: {known}")
        protocol = self.protocols[published]
        return self._holding_out(protocol, rest) if at else protocol

    def _holding_out(self, protocol: Protocol, text: str) -> Protocol:
        """text: FIELD-VALUE-VALUE."""
        fields = [field for field in FIELDS if field in self.name_pattern.groupindex and field != "action"]
        field, *values = text.split("-")
        if field not in fields or not values or not all(value.isdecimal() for value in values):
            example = f"{protocol.name}@{fields[0]}-1-6" if fields else protocol.name
            raise ValueError(
                f"protocol {protocol.name}@{text}: expected what is held out of its training samples, as a "
                f"field ({', '.join(fields)}) and its numbers, such as {example}"
            )
        held_out = HeldOut(field, frozenset(map(int, values)))
        title = (
            f"{protocol.title}; of what trains, {field} {', '.join(map(str, sorted(held_out.values)))} tests"
        )
        return dataclasses.replace(protocol, name=f"{protocol.name}@{text}", title=title, held_out=held_out)
