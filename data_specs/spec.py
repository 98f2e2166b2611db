"""A data set's facts, read once from TOML and checked: skeleton, classes, file names, protocols.

The built-in specs (`ntu60`, `ntu120`, `ucla`) lie beside this file; a user's own has the same form.
Joints are numbered from 1 in the TOML, as in the papers and the official code, and from 0 in Python.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

BUILT_IN_FOLDER = Path(__file__).parent
READERS = ("ntu", "ucla")
FIELDS = ("action", "subject", "camera", "setup", "replication")
KEYS = (
    *("name", "title", "reader", "name_pattern", "missing", "max_bodies", "fps", "simultaneous_cameras"),
    *("classes", "actions", "pair_actions", "skeleton", "protocols", "aliases", "default_protocol"),
)


@dataclass(frozen=True)
class Skeleton:
    """Joints and bones of one body. All indices are 0-based.

    joints: names, in file order.  bones: (child, parent) pairs, a tree that hangs on the joint `root`.
    centre: the joint that is moved to the origin.  spine: (lower, upper) joints that define "up".
    shoulders: (right, left) joints that define "across".  mirror_pairs: (left, right) joints.
    ends: (left hand, right hand, head), from which the distances of all joints are taken where a recipe asks
        for them; None where the spec does not say.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    root: int
    centre: int
    spine: tuple[int, int]
    shoulders: tuple[int, int]
    mirror_pairs: tuple[tuple[int, int], ...]
    ends: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        children = [child for child, _ in self.bones]
        if sorted([*children, self.root]) != list(range(self.num_joints)):
            raise ValueError("bones: every joint but the root must be the child of exactly one bone")
        if len(_reachable(self.root, self.bones)) != self.num_joints:
            raise ValueError("bones: they do not form one tree under the root")
        pairs = (self.spine, self.shoulders, *self.mirror_pairs)
        others = (self.centre, *(joint for pair in pairs for joint in pair), *(self.ends or ()))
        if not all(0 <= joint < self.num_joints for joint in others):
            raise ValueError(f"a joint number lies outside 1..{self.num_joints}")
        sides = [joint for pair in self.mirror_pairs for joint in pair]
        twice = sorted({joint for joint in sides if sides.count(joint) > 1})
        if twice:
            raise ValueError(f"mirror_pairs: joint {twice[0] + 1} is named twice; each has one other side")

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """The parent of every joint; the root is its own."""
        parent_of = dict(self.bones) | {self.root: self.root}
        return tuple(parent_of[joint] for joint in range(self.num_joints))

    @cached_property
    def outward(self) -> tuple[tuple[int, int], ...]:
        """(joint, parent) from the root, which is its own, outward: no joint before its parent."""
        order = [(self.root, self.root)]
        for placed, _ in order:  # grows while it is gone through
            order += [(joint, placed) for joint in range(self.num_joints) if (joint, placed) in self.bones]
        return tuple(order)


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
        match = self.name_pattern.fullmatch(name)
        if match is None:
            return None
        metadata = {}
        for field, value in match.groupdict().items():
            if not (value and value.isdecimal()):
                return None
            metadata[field] = int(value)
        label = self.labels.get(metadata["action"])
        return None if label is None else metadata | {"label": label}

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


def built_in_names() -> list[str]:
    """Names that `load_spec` knows without a file."""
    return sorted(path.stem for path in BUILT_IN_FOLDER.glob("*.toml"))


def load_spec(name_or_path: str) -> DatasetSpec:
    """A built-in data set by name, or a user's own by the path of its TOML file.

    Raises ValueError if there is no such name or file, or if the file is not a complete spec.
    """
    path = BUILT_IN_FOLDER / f"{name_or_path}.toml"
    if name_or_path not in built_in_names():
        path = Path(name_or_path)
        if not path.is_file():
            known = ", ".join(built_in_names())
            raise ValueError(f"no data set {name_or_path!r}: expected {known}, or the path of a spec file")
    try:
        text = path.read_text(encoding="utf-8")
        return parse_spec(text, _missing_list(path.parent, tomllib.loads(text).get("missing")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a usable data set spec: {error}") from None


def _missing_list(folder: Path, name: str | None) -> frozenset[str]:
    if name is None:
        return frozenset()
    try:
        return frozenset((folder / name).read_text().split())
    except OSError as error:
        raise ValueError(
            f"missing = {name!r}: {error.strerror}; expected a list of names, "
            f"by its path from the folder of the spec"
        ) from None


def parse_spec(text: str, missing: frozenset[str] = frozenset()) -> DatasetSpec:
    """A spec from its TOML text. Raises ValueError that names the key at fault."""
    raw = tomllib.loads(text)
    try:
        return _build(raw, missing, text)
    except KeyError as error:
        raise ValueError(f"the key {error.args[0]!r} is missing") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a value has the wrong type: {error}") from None
    except re.error as error:
        raise ValueError(f"name_pattern is not a regular expression: {error}") from None


def _build(raw: dict[str, Any], missing: frozenset[str], text: str) -> DatasetSpec:
    _check_keys(raw, KEYS)
    classes = raw["classes"]
    actions = _numbers("actions", raw.get("actions", list(range(1, len(classes) + 1))))
    protocols = {name: _protocol(name, table) for name, table in raw["protocols"].items()}
    for alias, target in raw.get("aliases", {}).items():
        if target not in raw["protocols"]:
            raise ValueError(
                f"aliases: {alias} stands for {target!r}; expected one of {', '.join(raw['protocols'])}"
            )
        if alias in raw["protocols"]:
            raise ValueError(f"aliases: {alias} is a protocol of its own; expected another name")
        protocols[alias] = dataclasses.replace(protocols[target], name=alias)
    spec = DatasetSpec(
        name=raw["name"],
        title=raw["title"],
        reader=raw["reader"],
        name_pattern=re.compile(raw["name_pattern"]),
        skeleton=_skeleton(raw["skeleton"]),
        max_bodies=raw["max_bodies"],
        fps=float(raw["fps"]),
        simultaneous_cameras=raw.get("simultaneous_cameras", False),
        classes=tuple(classes),
        labels={action: label for label, action in enumerate(actions)},
        pair_actions=frozenset(raw.get("pair_actions", ())),
        protocols=protocols,
        default_protocol=raw["default_protocol"],
        missing=missing,
        text=text,
    )
    _check(spec)
    return spec


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], group: str = "") -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {group + close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            raise ValueError(f"unknown key {group + key!r}; {hint}")


def _numbers(name: str, found: Any, count: int | None = None) -> list[int]:
    """A list of whole numbers, of so many, or ValueError."""
    is_list = isinstance(found, list) and all(type(number) is int for number in found)
    if not is_list or (count is not None and len(found) != count):
        raise ValueError(
            f"{name} is {found!r}; expected a list of {f'{count} ' if count else ''}whole numbers"
        )
    return list(found)


def _check(spec: DatasetSpec) -> None:
    groups = set(spec.name_pattern.groupindex)
    if spec.reader not in READERS:
        raise ValueError(f"reader {spec.reader!r}: expected one of {', '.join(READERS)}")
    if "action" not in groups or not groups <= set(FIELDS):
        raise ValueError(
            f"name_pattern names the groups {sorted(groups)}; it needs 'action' and may have {FIELDS}"
        )
    if len(spec.labels) != len(spec.classes):
        raise ValueError(f"{len(spec.labels)} actions for {len(spec.classes)} classes")
    unknown = [action for action in spec.pair_actions if action not in spec.labels]
    if unknown:
        raise ValueError(f"pair_actions names {unknown[0]!r}; expected numbers of the spec's actions")
    if re.fullmatch(r"[\w-]+", spec.name) is None:
        raise ValueError(f"name is {spec.name!r}; expected letters, digits, - and _, as it names a folder")
    if type(spec.max_bodies) is not int or spec.max_bodies < 1:
        raise ValueError(f"max_bodies is {spec.max_bodies}; expected a whole number, at least 1")
    if type(spec.simultaneous_cameras) is not bool:
        raise ValueError(f"simultaneous_cameras is {spec.simultaneous_cameras!r}; expected true or false")
    if not 0 < spec.fps < math.inf:
        raise ValueError(f"fps is {spec.fps}; expected a finite number above 0")
    if not all(isinstance(name, str) for name in (*spec.classes, *spec.skeleton.joints)):
        raise ValueError("classes and skeleton.joints: expected names, as text")
    spec.protocol(spec.default_protocol)
    for protocol in spec.protocols.values():
        if protocol.field not in groups:
            raise ValueError(f"protocol {protocol.name} splits by {protocol.field!r}, which no name carries")
        if protocol.test is not None and protocol.train & protocol.test:
            raise ValueError(
                f"protocol {protocol.name} has {sorted(protocol.train & protocol.test)} on both sides"
            )


def _protocol(name: str, table: Mapping[str, Any]) -> Protocol:
    group = f"protocols.{name}."
    _check_keys(table, ("title", "field", "train", "test"), group)
    train = frozenset(_numbers(f"{group}train", table["train"]))
    test = frozenset(_numbers(f"{group}test", table["test"])) if "test" in table else None
    return Protocol(name, table["title"], table["field"], train, test)


def _skeleton(table: Mapping[str, Any]) -> Skeleton:
    def pair(name: str, found: Any) -> tuple[int, int]:
        first, second = _numbers(f"skeleton.{name}", found, 2)
        if first == second:
            raise ValueError(f"skeleton.{name} is {found}; expected two different joints")
        return first - 1, second - 1

    _check_keys(table, tuple(field.name for field in dataclasses.fields(Skeleton)), "skeleton.")
    root, centre = _numbers("skeleton.root and centre", [table["root"], table["centre"]])
    ends = table.get("ends")
    if ends is not None and (len(_numbers("skeleton.ends", ends)) != 3 or len(set(ends)) != 3):
        raise ValueError(f"skeleton.ends is {ends}; expected three joints: left hand, right hand, head")
    return Skeleton(
        joints=tuple(table["joints"]),
        bones=tuple(pair("bones", bone) for bone in table["bones"]),
        root=root - 1,
        centre=centre - 1,
        spine=pair("spine", table["spine"]),
        shoulders=pair("shoulders", table["shoulders"]),
        mirror_pairs=tuple(pair("mirror_pairs", joints) for joints in table["mirror_pairs"]),
        ends=None if ends is None else (ends[0] - 1, ends[1] - 1, ends[2] - 1),
    )


def _reachable(root: int, bones: tuple[tuple[int, int], ...]) -> set[int]:
    seen, border = {root}, {root}
    while border:
        border = {child for child, parent in bones if parent in border} - seen
        seen |= border
    return seen
