"""The paper's numbers: a wrong digit would make every comparison wrong."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from model.published import (
    FILE,
    is_comparable,
    is_curves_split,
    own_curve,
    own_row,
    published_curves,
    published_rows,
    same_split,
)

PAPER = Path(__file__).parents[3] / "shared" / "paper" / "cp-stn.txt"


def test_every_number_stands_in_the_paper_in_its_row() -> None:
    if not PAPER.is_file():
        pytest.skip("the paper's text is not at hand")
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    printed = {}
    for line in lines:
        name, *cells = line.split("\t")
        digits = [re.sub(r"[^\d.-]", "", cell) for cell in cells]
        printed[name.split(" (")[0].replace("^2", "²"), tuple(filter(None, digits))] = name
    splits = [("ucla", ("xview3",)), ("ntu60", ("xview", "xsub")), ("ntu120", ("xsub", "xset"))]
    for dataset, protocols in splits:
        columns = [{row.method: row for row in published_rows(dataset, name)} for name in protocols]
        for method, row in columns[-1].items():
            values = tuple(str(column[method].percent) if method in column else "-" for column in columns)
            assert row.source in printed[method, values]
    for curve in published_curves():
        for accuracies in (curve.top1, curve.top5):
            values = tuple(str(accuracies.get(percent, "-")) for percent in (0, 1, 5, 10, 20, 30, 40, 50))
            assert curve.source in printed[curve.method, values]


def test_the_file_holds_every_row_of_the_tables() -> None:
    assert [len(published_rows("ucla", "xview3")), len(published_rows("ntu60", "xview"))] == [4, 10]
    assert [len(published_rows("ntu60", "xsub")), len(published_rows("ntu120", "xsub"))] == [11, 6]
    assert len(published_rows("ntu120", "xset")) == 6
    assert [len(curve.top1) + len(curve.top5) for curve in published_curves()] == [14, 7, 16]
    assert "table5" in FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dataset", "protocol", "table", "percent"),
    [
        ("ucla", "xview3", 1, "85.12"),
        ("ucla", "xview", 1, "85.12"),
        ("ntu60", "xview", 2, "76.6"),
        ("ntu60", "xsub", 2, "69.4"),
        ("ntu120", "xsub", 3, "55.7"),
        ("ntu120", "xset", 3, "54.7"),
    ],
)
def test_the_papers_own_method_is_found_by_any_name_of_a_split(
    dataset: str, protocol: str, table: int, percent: str
) -> None:
    row = own_row(dataset, protocol)
    assert row is not None
    assert (row.table, row.percent, row.setting) == (table, Decimal(percent), "unsupervised")


def test_other_splits_have_no_rows() -> None:
    """Accuracies on another view must not be set beside those of the paper's."""
    assert published_rows("ucla", "xview1") == []
    assert published_rows("ucla", "nonsense") == []
    assert published_rows("my-own", "xsub") == []
    assert not same_split("ucla", "xview", "xview2")
    assert not same_split("my-own", "xview", "xview3")


def test_the_curve_is_of_one_split_and_keeps_the_papers_digits() -> None:
    assert is_curves_split("ntu120", "xsub")
    assert not is_curves_split("ntu120", "xset")
    assert not is_curves_split("ntu60", "xsub")
    assert str(own_curve().top5[50]) == "89.0"
    assert [row.method for row in published_rows("ucla", "xview") if str(row.percent) == "74.30"] == [
        "LongT GAN"
    ]


@pytest.mark.parametrize(
    ("dataset", "protocol", "test_samples", "comparable"),
    [
        ("ucla", "xview", 462, True),
        ("ucla", "xview3", 300, False),
        ("ucla", "xview1", 300, True),  # the paper has no figure there
        ("ntu60", "xsub", 16_487, True),
        ("ntu60", "xsub", 329, False),
        ("ntu120", "xset", 59_000, True),
        ("ntu120", "xset", 50_919, False),
        ("mine", "xsub", 3, True),
    ],
)
def test_a_part_of_a_split_is_told_from_the_whole(
    dataset: str, protocol: str, test_samples: int, comparable: bool
) -> None:
    assert is_comparable(dataset, protocol, test_samples) is comparable
