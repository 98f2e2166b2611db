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
MOST_BODIES = 16
NEEDED = (
    *("name", "title", "reader", "name_pattern", "max_bodies", "fps"),
    *("classes", "skeleton", "protocols", "default_protocol"),
)
OPTIONAL = ("missing", "simultaneous_cameras", "actions", "pair_actions", "aliases")


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
        named = self._named()
        for key, joints in named.items():
            for joint in joints:
                if not 0 <= joint < self.num_joints:
                    raise ValueError(
                        f"skeleton.{key}: there is no joint {joint + 1}: the {self.num_joints} of "
                        f"skeleton.joints are numbered from 1 to {self.num_joints}"
                    )
        self._check_tree()
        sides = named["mirror_pairs"]
        twice = sorted({joint for joint in sides if sides.count(joint) > 1})
        if twice:
            raise ValueError(
                f"skeleton.mirror_pairs: {self._called(twice[0])} is named twice; each has one other side"
            )

    def _named(self) -> dict[str, tuple[int, ...]]:
        """The joints that stand under each key."""
        return {
            "root": (self.root,),
            "centre": (self.centre,),
            "bones": tuple(joint for bone in self.bones for joint in bone),
            "spine": self.spine,
            "shoulders": self.shoulders,
            "mirror_pairs": tuple(joint for pair in self.mirror_pairs for joint in pair),
            "ends": self.ends or (),
        }

    def _check_tree(self) -> None:
        children = [child for child, _ in self.bones]
        for joint in range(self.num_joints):
            if children.count(joint) != (joint != self.root):
                raise ValueError(
                    f"skeleton.bones: every joint but the root must be the child of exactly one bone; "
                    f"{self._called(joint)} is that of {children.count(joint)}"
                )
        loose = set(range(self.num_joints)) - _reachable(self.root, self.bones)
        if loose:
            raise ValueError(
                f"skeleton.bones: they do not form one tree under the root; {self._called(min(loose))} "
                f"does not hang on it"
            )

    def _called(self, joint: int) -> str:
        return f"{'the root, ' * (joint == self.root)}joint {joint + 1} ({self.joints[joint]})"

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
        metadata = self._read_name(name)
        if metadata is None or metadata["action"] not in self.labels:
            return None
        return metadata | {"label": self.labels[metadata["action"]]}

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


def built_in_names() -> list[str]:
    """Names that `load_spec` knows without a file."""
    return sorted(path.stem for path in BUILT_IN_FOLDER.glob("*.toml"))


def load_spec(name_or_path: str) -> DatasetSpec:
    """A built-in data set by name, or a user's own by the path of its TOML file.

    Raises ValueError if there is no such name or file, or if the file is not a complete spec or another one
    under a built-in's name.
    """
    path = BUILT_IN_FOLDER / f"{name_or_path}.toml"
    if name_or_path not in built_in_names():
        path = Path(name_or_path)
        if not path.is_file():
            known = ", ".join(built_in_names())
            raise ValueError(f"no data set {name_or_path!r}: expected {known}, or the path of a spec file")
    try:
        text = path.read_text(encoding="utf-8")
        spec = parse_spec(text, _missing_list(path.parent, tomllib.loads(text).get("missing")))
        if name_or_path not in built_in_names():
            _check_name_is_free(spec)
        return spec
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a usable data set spec: {error}") from None


def _check_name_is_free(spec: DatasetSpec) -> None:
    """By its name alone a report knows a data set's protocols and the figures that were published on them."""
    if spec.name not in built_in_names():
        return
    built_in = load_spec(spec.name)
    if dataclasses.replace(spec, text=built_in.text) != built_in:
        raise ValueError(
            f"name is {spec.name!r}, as of the built-in data set, whose spec says something else; choose "
            f"another name, or give {spec.name} instead of the file"
        )


def _missing_list(folder: Path, name: Any) -> frozenset[str]:
    if name is None:
        return frozenset()
    try:
        lines = (folder / _text("missing", name)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"missing = {name!r}: {getattr(error, 'strerror', error)}; expected a list of names, "
            f"by its path from the folder of the spec"
        ) from None
    return frozenset(filter(None, map(str.strip, lines)))


def parse_spec(text: str, missing: frozenset[str] = frozenset()) -> DatasetSpec:
    """A spec from its TOML text. Raises ValueError that names the key at fault."""
    raw = tomllib.loads(text)
    try:
        return _build(raw, missing, text)
    except re.error as error:
        raise ValueError(f"name_pattern is not a regular expression: {error}") from None


def _build(raw: dict[str, Any], missing: frozenset[str], text: str) -> DatasetSpec:
    _check_keys(raw, NEEDED, OPTIONAL)
    classes = _names("classes", raw["classes"])
    actions = _actions(raw.get("actions", list(range(1, len(classes) + 1))), len(classes))
    published = {
        name: _protocol(name, table) for name, table in _table("protocols", raw["protocols"]).items()
    }
    protocols = dict(published)
    for alias, target in _table("aliases", raw.get("aliases", {})).items():
        if not isinstance(target, str) or target not in published:
            raise ValueError(
                f"aliases: {alias} stands for {target!r}; expected one of {', '.join(published)}"
            )
        if alias in published:
            raise ValueError(f"aliases: {alias} is a protocol of its own; expected another name")
        protocols[alias] = dataclasses.replace(published[target], name=alias)
    spec = DatasetSpec(
        name=_text("name", raw["name"]),
        title=_text("title", raw["title"]),
        reader=_text("reader", raw["reader"]),
        name_pattern=re.compile(_text("name_pattern", raw["name_pattern"])),
        skeleton=_skeleton(_table("skeleton", raw["skeleton"])),
        max_bodies=raw["max_bodies"],
        fps=_rate("fps", raw["fps"]),
        simultaneous_cameras=raw.get("simultaneous_cameras", False),
        classes=classes,
        labels={action: label for label, action in enumerate(actions)},
        pair_actions=frozenset(_numbers("pair_actions", raw.get("pair_actions", []))),
        protocols=protocols,
        default_protocol=_text("default_protocol", raw["default_protocol"]),
        missing=missing,
        text=text,
    )
    _check(spec)
    return spec


def _check_keys(
    table: Mapping[str, Any], needed: tuple[str, ...], optional: tuple[str, ...], group: str = ""
) -> None:
    known = needed + optional
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {group + close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            raise ValueError(f"unknown key {group + key!r}; {hint}")
    for key in needed:
        if key not in table:
            raise ValueError(f"the key {group + key!r} is missing")


def _text(name: str, found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{name} is {found!r}; expected text")
    return found


def _rate(name: str, found: Any) -> float:
    if type(found) not in (int, float) or not 0 < found < math.inf:
        raise ValueError(f"{name} is {found!r}; expected a finite number above 0")
    return float(found)


def _names(name: str, found: Any) -> tuple[str, ...]:
    """A list of texts, each another one."""
    if not isinstance(found, list) or not found or not all(isinstance(item, str) for item in found):
        raise ValueError(f"{name} is {found!r}; expected a list of names, as text")
    twice = [item for index, item in enumerate(found) if item in found[:index]]
    if twice:
        raise ValueError(f"{name} has {twice[0]!r} twice; expected another name for each")
    return tuple(found)


def _table(name: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{name} is {found!r}; expected a table, [{name}]")
    return found


def _numbers(name: str, found: Any, count: int | None = None) -> list[int]:
    """A list of whole numbers, of so many, or ValueError."""
    is_list = isinstance(found, list) and all(type(number) is int for number in found)
    if not is_list or (count is not None and len(found) != count):
        raise ValueError(
            f"{name} is {found!r}; expected a list of {f'{count} ' if count else ''}whole numbers"
        )
    return list(found)


def _actions(found: Any, num_classes: int) -> list[int]:
    """The number of each class's action."""
    actions = _numbers("actions", found)
    twice = [action for index, action in enumerate(actions) if action in actions[:index]]
    if twice:
        raise ValueError(f"actions has {twice[0]} twice; expected another number for each class")
    if len(actions) != num_classes:
        raise ValueError(f"actions: {len(actions)} actions for {num_classes} classes; expected one for each")
    return actions


def _check(spec: DatasetSpec) -> None:
    groups = set(spec.name_pattern.groupindex)
    if spec.reader not in READERS:
        raise ValueError(f"reader {spec.reader!r}: expected one of {', '.join(READERS)}")
    if "action" not in groups or not groups <= set(FIELDS):
        raise ValueError(
            f"name_pattern names the groups {sorted(groups)}; it needs 'action' and may have {FIELDS}"
        )
    unfit = [name for name in spec.missing if spec.name_pattern.fullmatch(name) is None]
    if unfit:
        raise ValueError(
            f"missing lists {min(unfit)!r}, which name_pattern does not fit; expected names of recordings, "
            f"one a line, without folder and suffix"
        )
    unknown = [action for action in spec.pair_actions if action not in spec.labels]
    if unknown:
        raise ValueError(f"pair_actions names {unknown[0]!r}; expected numbers of the spec's actions")
    if re.fullmatch(r"[\w-]+", spec.name) is None:
        raise ValueError(f"name is {spec.name!r}; expected letters, digits, - and _, as it names a folder")
    if type(spec.max_bodies) is not int or not 1 <= spec.max_bodies <= MOST_BODIES:
        raise ValueError(
            f"max_bodies is {spec.max_bodies!r}; expected a whole number from 1 to {MOST_BODIES}"
        )
    if type(spec.simultaneous_cameras) is not bool:
        raise ValueError(f"simultaneous_cameras is {spec.simultaneous_cameras!r}; expected true or false")
    for name in spec.protocols:
        if re.fullmatch(r"[\w-]+", name) is None:
            raise ValueError(
                f"protocol {name!r}: expected letters, digits, - and _, as it is part of file names"
            )
    try:
        spec.protocol(spec.default_protocol)
    except ValueError as error:
        raise ValueError(f"default_protocol: {error}") from None
    for protocol in spec.protocols.values():
        if protocol.field not in groups:
            raise ValueError(f"protocol {protocol.name} splits by {protocol.field!r}, which no name carries")
        if protocol.test is not None and protocol.train & protocol.test:
            raise ValueError(
                f"protocol {protocol.name} has {sorted(protocol.train & protocol.test)} on both sides"
            )


def _protocol(name: str, found: Any) -> Protocol:
    table, group = _table(f"protocols.{name}", found), f"protocols.{name}."
    _check_keys(table, ("title", "field", "train"), ("test",), group)
    parts = {
        part: frozenset(_numbers(group + part, table[part])) for part in ("train", "test") if part in table
    }
    for part, values in parts.items():
        if not values:
            raise ValueError(f"{group}{part} is empty; expected whose samples are in that part")
    title, field = (_text(group + key, table[key]) for key in ("title", "field"))
    return Protocol(name, title, field, parts["train"], parts.get("test"))


def _skeleton(table: Mapping[str, Any]) -> Skeleton:
    def pairs(name: str) -> tuple[tuple[int, int], ...]:
        if not isinstance(table[name], list):
            raise ValueError(f"skeleton.{name} is {table[name]!r}; expected a list of pairs of joints")
        return tuple(pair(name, item) for item in table[name])

    def pair(name: str, found: Any) -> tuple[int, int]:
        first, second = _numbers(f"skeleton.{name}", found, 2)
        if first == second:
            raise ValueError(f"skeleton.{name} is {found}; expected two different joints")
        return first - 1, second - 1

    keys = [field.name for field in dataclasses.fields(Skeleton)]
    keys.remove("ends")
    _check_keys(table, tuple(keys), ("ends",), "skeleton.")
    root, centre = _numbers("skeleton.root and centre", [table["root"], table["centre"]])
    ends = table.get("ends")
    if ends is not None and (len(_numbers("skeleton.ends", ends)) != 3 or len(set(ends)) != 3):
        raise ValueError(f"skeleton.ends is {ends}; expected three joints: left hand, right hand, head")
    return Skeleton(
        joints=_names("skeleton.joints", table["joints"]),
        bones=pairs("bones"),
        root=root - 1,
        centre=centre - 1,
        spine=pair("spine", table["spine"]),
        shoulders=pair("shoulders", table["shoulders"]),
        mirror_pairs=pairs("mirror_pairs"),
        ends=None if ends is None else (ends[0] - 1, ends[1] - 1, ends[2] - 1),
    )


def _reachable(root: int, bones: tuple[tuple[int, int], ...]) -> set[int]:
    seen, border = {root}, {root}
    while border:
        border = {child for child, parent in bones if parent in border} - seen
        seen |= border
    return seen
