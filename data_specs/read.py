"""A data set's facts from TOML, checked.

The built-in specs (`ntu60`, `ntu120`, `ucla`) lie beside this file; a user's own has the same form.
Joints are numbered from 1 in the TOML, as in the papers and the official code, and from 0 in Python.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_specs.protocol import Protocol
from data_specs.skeleton import Skeleton
from data_specs.spec import FIELDS, DatasetSpec

BUILT_IN_FOLDER = Path(__file__).parent
READERS = ("ntu", "ucla")
MOST_BODIES = 16
NEEDED = (
    *("name", "title", "reader", "name_pattern", "max_bodies", "fps"),
    *("classes", "skeleton", "protocols", "default_protocol"),
)
OPTIONAL = ("missing", "simultaneous_cameras", "actions", "pair_actions", "aliases")


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
