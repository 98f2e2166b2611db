"""The rows of the paper's Table 5, and what each means in keys of a recipe."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from model.config import key_of
from model.recurrent import RECURRENT

FILE = Path(__file__).parent / "recipes" / "tables" / "table5.toml"
VIEW_OF = {"S": "spatial", "T": "temporal"}


@dataclass(frozen=True)
class Row:
    """One row, in the paper's columns.

    encoder: a recurrent network, or the terms of Eq. 1.  aug1, aug2: "S" or "T", how each view is augmented.
    pre1, pre2: whether the sample is rebuilt from that view.  half_c: whether each pretext has its own half
    of the channels; None without pretexts.  paper: its top-1 accuracy, a share of 1, on NTU-60 X-Sub; None
    where it has no such row.
    """

    name: str
    encoder: str
    aug1: str
    pre1: bool
    aug2: str
    pre2: bool
    half_c: bool | None = None
    paper: float | None = None

    def sets(self, key: str) -> bool:
        """Whether the row itself decides what the key is."""
        return key in map(key_of, self.changes())

    def changes(self) -> tuple[str, ...]:
        """The `key=value` changes that turn any recipe with both pretexts into this row's."""
        changes = [f"views={[VIEW_OF[self.aug1], VIEW_OF[self.aug2]]}"]
        if self.encoder.lower() in RECURRENT:
            changes += [f"model.backbone={self.encoder.lower()}"]
        else:
            changes += ["model.backbone=st_gcn", f"model.encoder.adaptive={self.encoder}"]
        for weight, rebuilt in (("spatial_weight", self.pre1), ("temporal_weight", self.pre2)):
            changes += [] if rebuilt else [f"{weight}=0.0"]
        if self.half_c is not None:
            changes += [f"model.split_channels={str(self.half_c).lower()}"]
        return tuple(changes)


@functools.cache
def all_rows() -> dict[str, Row]:
    """Every row by its name."""
    return {row["name"]: Row(**row) for row in tomllib.loads(FILE.read_text(encoding="utf-8"))["rows"]}


@functools.cache
def tables() -> dict[str, list[str]]:
    """Every table: the names of its rows, in their order."""
    found: dict[str, list[str]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["tables"]
    return found


def find_row(name: str) -> Row:
    """The row of that name. Raises ValueError that lists the known ones."""
    if name not in all_rows():
        raise ValueError(f"no row {name!r}: expected one of {', '.join(all_rows())}")
    return all_rows()[name]


def choose_rows(table: str, names: tuple[str, ...] = ()) -> list[Row]:
    """The rows of a table, or the named ones, each once, in the order of the file.

    Raises ValueError if there is no such table or row.
    """
    if table not in tables():
        raise ValueError(f"no table {table!r}: expected one of {', '.join(tables())}")
    chosen = [find_row(name) for name in names or tables()[table]]
    return [row for row in all_rows().values() if row in chosen]
