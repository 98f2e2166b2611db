"""What the paper reports: the rows of its Tables 1 to 3, and its Table 4 over the fraction of labels."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_specs.read import built_in_names, load_spec

# Recordings that are too short or cannot be read are left out by everybody, and not by all alike.
NEARLY_ALL = 0.95

FILE = Path(__file__).parent / "recipes" / "tables" / "published.toml"


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper prints of one method. source: the work that it cites; "" for its own method."""

    method: str
    source: str

    @property
    def is_own(self) -> bool:
        """Whether this is the paper's own method."""
        return not self.source


@dataclass(frozen=True, kw_only=True)
class PublishedRow(Published):
    """One method's accuracy on one split.

    table: the number of the paper's table.  setting: "supervised" or "unsupervised", the latter being a
    linear classifier on the frozen encoder.
    percent: top-1 accuracy in per cent, with the digits of the paper.
    """

    table: int
    setting: str
    percent: Decimal


@dataclass(frozen=True, kw_only=True)
class PublishedCurve(Published):
    """One method's accuracies over the fraction of labels, in the paper's Table 4.

    top1, top5: per cent by label fraction in per cent, where 0 is the linear evaluation without fine-tuning;
    what the paper leaves out is not there.
    """

    top1: dict[int, Decimal]
    top5: dict[int, Decimal]


def published_rows(dataset: str, protocol: str) -> list[PublishedRow]:
    """The rows of Tables 1 to 3 for a data set's split, by whichever of its names; [] where there is none."""
    found = []
    for table in _file()["tables"]:
        if table["dataset"] != dataset:
            continue
        for row in table["rows"]:
            for name, percent in row["top1"].items():
                if same_split(dataset, name, protocol):
                    method = _method(row)
                    found.append(
                        PublishedRow(**method, table=table["number"], setting=row["setting"], percent=percent)
                    )
    return found


def own_row(dataset: str, protocol: str) -> PublishedRow | None:
    """The paper's own method on that split; None where the paper does not report it."""
    return next((row for row in published_rows(dataset, protocol) if row.is_own), None)


def is_comparable(dataset: str, protocol: str, test_samples: int) -> bool:
    """Whether so many test samples are all, or nearly all, that the paper's rows on that split are of; True
    where it has none."""
    counts = [
        count
        for table in _file()["tables"]
        for name, count in table["test_samples"].items()
        if table["dataset"] == dataset and same_split(dataset, name, protocol)
    ]
    return all(test_samples >= NEARLY_ALL * count for count in counts)


@functools.cache
def published_curves() -> tuple[PublishedCurve, ...]:
    """The rows of Table 4, in its order."""
    return tuple(
        PublishedCurve(**_method(row), top1=_by_percent(row["top1"]), top5=_by_percent(row["top5"]))
        for row in _file()["curves"]["rows"]
    )


def own_curve() -> PublishedCurve:
    """The paper's own method in Table 4."""
    return next(curve for curve in published_curves() if curve.is_own)


def is_curves_split(dataset: str, protocol: str) -> bool:
    """Whether Table 4 is about this split."""
    facts = _file()["curves"]
    return bool(facts["dataset"] == dataset) and same_split(dataset, facts["protocol"], protocol)


def same_split(dataset: str, one: str, other: str) -> bool:
    """Whether two names of protocols of a data set mean one split, as `xview` and `xview3` of NW-UCLA do."""
    if one == other:
        return True
    if dataset not in built_in_names():
        return False
    protocols = load_spec(dataset).protocols
    if one not in protocols or other not in protocols:
        return False
    splits = [(protocols[name].field, protocols[name].train, protocols[name].test) for name in (one, other)]
    return splits[0] == splits[1]


def _method(row: Mapping[str, Any]) -> dict[str, str]:
    return {"method": row["method"], "source": row.get("source", "")}


def _by_percent(row: dict[str, Decimal]) -> dict[int, Decimal]:
    return {int(percent): accuracy for percent, accuracy in row.items()}


@functools.cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"), parse_float=Decimal)
