"""From TOML to nested frozen dataclasses and back: every key has one type, and every mistake its name.

A key is named by its path, with dots: "model.encoder.widths".
"""

import dataclasses
import difflib
import sys
import tomllib
import typing
from typing import Any, TypeVar

Config = TypeVar("Config")

# No key counts further; larger integers would overflow in torch.
LARGEST = 2**32


def from_table(kind: type[Config], table: dict[str, Any]) -> Config:
    """A dataclass from what TOML holds. Raises ValueError on any key or value out of place."""
    return _build(kind, table, "", all_keys(kind))


def to_table(config: Any) -> dict[str, Any]:
    """Plain nested dictionaries and lists, as TOML and JSON hold them."""
    table: dict[str, Any] = _plain(dataclasses.asdict(config))
    return table


def all_keys(kind: Any, prefix: str = "") -> list[str]:
    """Every key of a dataclass and of those in it."""
    keys = []
    for name, wanted in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(wanted)
        keys += all_keys(wanted, f"{prefix}{name}.") if inner else [prefix + name]
    return keys


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table by its keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def key_of(change: str) -> str:
    """The key of a `key=value`."""
    return change.partition("=")[0].strip()


def set_key(table: dict[str, Any], change: str) -> None:
    """Set one `key=value` in place; the value is read as TOML, and as a plain string where that fails.

    Raises ValueError if the change is not of that form.
    """
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set {change!r}: expected key=value, such as epochs=20 or model.encoder.kernel=9")
    if len(text.splitlines()) > 1:
        raise ValueError(f"--set {change!r}: expected a value on one line; give each key a --set of its own")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ValueError(f"--set {change!r}: {parent} is a value, not a group of keys")
    table[last] = value


def _build(kind: type[Config], table: dict[str, Any], prefix: str, known: list[str]) -> Config:
    """known: all keys of the whole."""
    types = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in types:
            meant = _nearest_group if isinstance(value, dict) else _nearest_key
            raise ValueError(f"unknown key {prefix + key!r}; {meant(key, prefix, known)}")
    values = {key: _convert(types[key], value, prefix + key, known) for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def _convert(wanted: Any, value: Any, name: str, known: list[str]) -> Any:
    """The value in the field's own type, or ValueError."""
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}; expected a group of keys: {name}.KEY = value")
        return _build(typing.cast("type[Any]", wanted), value, f"{name}.", known)
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {value!r}; expected a list")
        item_type = typing.get_args(wanted)[0]
        return tuple(_convert(item_type, item, f"{name}[{i}]", known) for i, item in enumerate(value))
    if wanted is float and type(value) is int:
        if abs(value) > sys.float_info.max:
            raise ValueError(f"{name} has {len(str(value))} digits; expected a number that a float can hold")
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{name} is {value!r}; expected {_type_name(wanted)}")
    if wanted is int and abs(value) > LARGEST:
        raise ValueError(f"{name} has {len(str(abs(value)))} digits; expected at most {LARGEST:,}")
    return value


def _type_name(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    return names.get(wanted, str(wanted))


def _nearest_group(key: str, prefix: str, known: list[str]) -> str:
    groups = {name.rpartition(".")[0]: "" for name in known if "." in name}
    close = difflib.get_close_matches(prefix + key, groups, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known groups: {', '.join(groups)}"


def _nearest_key(key: str, prefix: str, known: list[str]) -> str:
    """One of the same group, or of any."""
    group = [name for name in known if name.startswith(prefix)]
    for names in (group, known):
        last_parts = {name.split(".")[-1]: name for name in reversed(names)}
        close = difflib.get_close_matches(key, last_parts, n=1)
        if close:
            return f"did you mean {last_parts[close[0]]!r}?"
    return f"known keys: {', '.join(group)}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
