"""Which recordings a synthetic data set holds: their true file names, and which of them are odd."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from data_specs.spec import DatasetSpec
from pipeline.raw.acts import NUM_JOINTS
from pipeline.raw.chance import digest
from pipeline.raw.oddities import NTU_ODDITIES, UCLA_ODDITIES


@dataclass(frozen=True)
class PlannedRecording:
    """One recording to be written: its name, and what is odd about it, as `oddities` calls it, or None."""

    name: str
    oddity: str | None


def plan(spec: DatasetSpec, samples: int, *, seed: int = 0, oddities: float = 0.0) -> list[PlannedRecording]:
    """Which recordings `synthesize` writes, in order, and which of them are odd.

    Classes take turns. Within a class, subjects, cameras, setups and replications that train and that test
    take turns, so that three rounds over the classes, and mostly two, give every class of every protocol
    both. Raises ValueError if there are fewer names than samples, or the spec's bodies are not Kinect's.
    """
    assert samples >= 1
    if not 0 <= oddities <= 1:
        raise ValueError(f"oddities is {oddities}; it is a share, from 0 to 1")
    if spec.skeleton.num_joints != NUM_JOINTS[spec.reader]:
        found, expected = spec.skeleton.num_joints, NUM_JOINTS[spec.reader]
        raise ValueError(f"{spec.name} has {found} joints; the {spec.reader} reader's bodies have {expected}")
    names = _names(spec, samples)
    # Who is odd is drawn by hash: a fixed stride would step in time with the classes.
    drawn = sorted(range(samples), key=lambda i: digest(seed, "oddity", names[i]))
    plans = [PlannedRecording(name, None) for name in names]
    kinds = _kinds(spec)
    for index, (kind, listed_name) in zip(drawn[: round(oddities * samples)], kinds, strict=False):
        plans[index] = PlannedRecording(listed_name or names[index], kind)
    return plans


def _kinds(spec: DatasetSpec) -> Iterator[tuple[str, str | None]]:
    """The oddities in turn, for ever; each "missing list" with its name, as long as there are names."""
    listed = iter(sorted(name for name in spec.missing if spec.parse_name(name)))
    while True:
        for kind in NTU_ODDITIES if spec.reader == "ntu" else UCLA_ODDITIES:
            if kind != "missing list":
                yield kind, None
            elif (name := next(listed, None)) is not None:
                yield kind, name


def _names(spec: DatasetSpec, samples: int) -> list[str]:
    of_action = _ntu_names if spec.reader == "ntu" else _ucla_names
    sources = [
        (name for name in of_action(spec, action) if spec.parse_name(name) and name not in spec.missing)
        for action in spec.labels
    ]
    names: list[str] = []
    while len(names) < samples:
        for source in sources[: samples - len(names)]:
            if (name := next(source, None)) is None:
                raise ValueError(f"{samples} samples are more than {spec.name} has names ({len(names)})")
            names.append(name)
    return names


def _ntu_names(spec: DatasetSpec, action: int) -> Iterator[str]:
    """Every name of an action. Actions from 61 on came with NTU-120, recorded with other people elsewhere."""
    first_part = action <= 60
    subjects = _take_turns(spec, "subject", range(1, 41) if first_part else range(41, 107))
    setups = _take_turns(spec, "setup", range(1, 18) if first_part else range(18, 33))
    # e o o e, where subjects go e o e o: otherwise X-Set and X-Sub would be one and the same split
    for i in range(2, len(setups) - 1, 4):
        setups[i], setups[i + 1] = setups[i + 1], setups[i]
    takes = [
        (subject, 1 + (index // 2 + again) % 2) for again in (0, 1) for index, subject in enumerate(subjects)
    ]
    cameras = _take_turns(spec, "camera", range(1, 4))
    for (subject, replication), camera, setup in _walk(_rotate(spec, action, takes), cameras, setups):
        yield f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}"


def _ucla_names(spec: DatasetSpec, action: int) -> Iterator[str]:
    """Every name of an action, with as many replications as two digits can tell."""
    subjects = _rotate(spec, action, _take_turns(spec, "subject", range(1, 11)))
    cameras = _take_turns(spec, "camera", range(1, 4))
    for replication in range(100):
        for subject, camera in _walk(subjects, cameras):
            yield f"a{action:02d}_s{subject:02d}_e{replication:02d}_v{camera:02d}"


def _rotate(spec: DatasetSpec, action: int, takes: list[Any]) -> list[Any]:
    """The takes from another one on for every class: few samples shall not all be of the same people."""
    start = 2 * spec.labels[action] % len(takes)  # even: who trains and who tests keep their turns
    return takes[start:] + takes[:start]


def _take_turns(spec: DatasetSpec, field: str, values: range) -> list[int]:
    """The values of a field, those that train and those that test by turns."""
    default = spec.protocol(spec.default_protocol)
    protocols = [p for p in (default, *spec.protocols.values()) if p.field == field]
    if not protocols:
        return list(values)
    train = [value for value in values if protocols[0].split({field: value}) == "train"]
    others = [value for value in values if value not in train]
    return [value for pair in zip_longest(train, others) for value in pair if value is not None]


def _walk(*wheels: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Every combination once, as `itertools.product`, but all wheels turn at every step."""
    for step in range(math.prod(map(len, wheels))):
        period, teeth = 1, []
        for wheel in wheels:
            # Two wheels of a and b teeth meet again after lcm(a, b) steps; then one slips by a tooth.
            turned = step % (period * len(wheel))
            teeth.append(wheel[(turned + turned // math.lcm(period, len(wheel))) % len(wheel)])
            period *= len(wheel)
        yield tuple(teeth)
