"""What a benchmark found: a table for people, and one line of JSON for whoever reads it again."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.pairs import Comparison

RATIO_COLUMNS = (
    *("against", "ratio", "middle half", "best", "hold to", "holds"),
    *("ours", "theirs", "per second of"),
)
FIGURE_COLUMNS = ("figure", "value", "unit", "hold to", "holds")
TEXT_COLUMNS = {"per second of", "unit", "holds"}


class Report:
    """Collects ratios and figures, then prints them.

    benchmark: the module's name.  data: what it was measured on.
    bars: the ratio to hold to, by the comparison's name; what is not there is for information.
    """

    def __init__(self, benchmark: str, data: str, bars: Mapping[str, float]) -> None:
        self.benchmark = benchmark
        self.bars = bars
        self.ratios: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self.on = _machine() | {"data": data}

    def ratio(self, *comparisons: Comparison) -> None:
        """Rows of the first table."""
        for comparison in comparisons:
            self.ratios[comparison.name] = self._entry(comparison)

    def _entry(self, comparison: Comparison) -> dict[str, Any]:
        low, high = comparison.middle_half
        entry = {
            "ratio": _rounded(comparison.ratio),
            "low": _rounded(low),
            "high": _rounded(high),
            "of_the_best": _rounded(comparison.of_the_best),
            "ours": _rounded(comparison.ours),
            "reference": _rounded(comparison.reference),
            "unit": f"{comparison.unit}/s",
            "clock": comparison.clock,
            "rounds": len(comparison.ours_R),
        }
        if comparison.name in self.bars:
            bar = self.bars[comparison.name]
            entry |= {"hold_to": bar, "holds": comparison.ratio >= bar}
        return entry

    def figure(self, name: str, value: float, unit: str, *, at_most: float | None = None) -> None:
        """One row of the second table, with the value to hold to, if any."""
        entry: dict[str, Any] = {"value": _rounded(value), "unit": unit}
        if at_most is not None:
            entry |= {"hold_to_at_most": at_most, "holds": value <= at_most}
        self.figures[name] = entry

    def note(self, text: str) -> None:
        """What one has to know to read the figures."""
        self.notes.append(text)

    def show(self) -> None:
        """Print the tables and, as the last line, everything as JSON."""
        console = Console(width=None if Console().is_terminal else 120)
        console.print(f"{self.benchmark}: {self.on['data']}; {self.on['cpu']}, {self.on['cores']} cores")
        for table in (self._ratio_table(), self._figure_table()):
            if table.row_count:
                console.print(table)
        for note in self.notes:
            console.print(note)
        facts = {"benchmark": self.benchmark, "ratios": self.ratios, "figures": self.figures}
        facts |= {"notes": self.notes, "on": self.on}
        click.echo(json.dumps(facts, ensure_ascii=False, allow_nan=False))

    def _ratio_table(self) -> Table:
        table = _table(*RATIO_COLUMNS)
        table.caption = "middle half: of the rounds; best: our best round over their best"
        for name, row in self.ratios.items():
            table.add_row(
                name,
                f"{row['ratio']:,g}",
                f"{row['low']:,g} to {row['high']:,g}",
                f"{row['of_the_best']:,g}",
                f">= {row['hold_to']:g}" if "hold_to" in row else "",
                _mark(row),
                f"{row['ours']:,g}",
                f"{row['reference']:,g}",
                f"{row['clock']}, {row['unit'].removesuffix('/s')}",
            )
        return table

    def _figure_table(self) -> Table:
        table = _table(*FIGURE_COLUMNS)
        for name, row in self.figures.items():
            bar = f"<= {row['hold_to_at_most']:g}" if "hold_to_at_most" in row else ""
            table.add_row(name, f"{row['value']:,g}", row["unit"], bar, _mark(row))
        return table


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name in TEXT_COLUMNS else "right", no_wrap=True)
    return table


def _mark(row: dict[str, Any]) -> str:
    return {True: "yes", False: "no", None: ""}[row.get("holds")]


def _rounded(value: float) -> float:
    """Four significant digits: no measurement here is better, and the JSON line stays readable."""
    return float(f"{value:.4g}")


def _machine() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load before": _rounded(load),
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "numba", "zarr", "webdataset", "torch")},
    }


def _cpu_model() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
