"""What a benchmark prints, for people and for programs."""

import json

import numpy as np
import pytest

from benchmarks.pairs import Comparison
from benchmarks.report import Report


def report() -> Report:
    made = Report("parse", "three files", {"slow reader": 20, "fast reader": 2})
    ours = np.array([101.23456, 99, 100])
    made.ratio(Comparison("slow reader", "files", "CPU", ours, np.full(3, 4.0)))
    made.ratio(Comparison("fast reader", "files", "wall", ours, np.full(3, 100.0)))
    made.ratio(Comparison("something else", "files", "CPU", ours, np.full(3, 50.0)))
    made.figure("size", 0.75, "of dense", at_most=0.62)
    made.figure("speed", 412.3456, "MB/s")
    made.note("measured by moonlight")
    return made


def test_the_last_line_is_json_with_ratios_bars_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that collects figures reads this line; the documentation quotes it."""
    report().show()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["benchmark"] == "parse"
    slow = found["ratios"]["slow reader"]
    assert slow["ratio"] == 25
    assert (slow["low"], slow["high"]) == (24.88, 25.15)
    assert (slow["hold_to"], slow["holds"]) == (20, True)
    assert (slow["ours"], slow["reference"], slow["unit"]) == (100, 4, "files/s")
    assert (slow["clock"], slow["rounds"]) == ("CPU", 3)
    assert found["ratios"]["fast reader"]["holds"] is False
    assert "hold_to" not in found["ratios"]["something else"]
    assert found["figures"]["size"] == {
        "value": 0.75,
        "unit": "of dense",
        "hold_to_at_most": 0.62,
        "holds": False,
    }
    assert found["figures"]["speed"] == {"value": 412.3, "unit": "MB/s"}
    assert found["notes"] == ["measured by moonlight"]
    assert {"cpu", "cores", "python", "numpy", "numba", "data"} <= found["on"].keys()


def test_the_table_shows_every_bar_with_a_yes_or_no(capsys: pytest.CaptureFixture[str]) -> None:
    """A missed bar would hide among the figures."""
    report().show()
    lines = capsys.readouterr().out.splitlines()
    rows = {name: next(line for line in lines if name in line) for name in ("slow", "fast", "size", "speed")}
    assert ">= 20" in rows["slow"]
    assert "yes" in rows["slow"]
    assert ">= 2" in rows["fast"]
    assert " no " in rows["fast"]
    assert "<= 0.62" in rows["size"]
    assert " no " in rows["size"]
    assert "=" not in rows["speed"]
    assert "measured by moonlight" in "".join(lines)
