"""What people see while they wait and when it is done: bars, a spinner, tables.

Every command imports this module: nothing heavy may be imported at its top.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from rich.table import Table

    from model.ablate import Ablation
    from model.train import Progress
    from pipeline.store.shards import Shards

WIDTH_WITHOUT_TERMINAL = 160


@contextmanager
def bar(unit: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on standard error: done of total, rate, time left."""
    with _progress(unit, total) as (shown, task):
        yield lambda count, note: shown.update(task, advance=count, note=note)


@contextmanager
def training_bar() -> "Iterator[Callable[[Progress], None]]":
    """A bar over all samples of all epochs, with the losses; a line an epoch where there is no terminal."""
    started = time.perf_counter()
    with _progress("samples", None) as (shown, task):

        def show(progress: "Progress") -> None:
            losses = " ".join(
                f"{name} {value:.3f}" for name, value in progress.losses.items() if name != "total"
            )
            note = f"epoch {progress.epoch + 1}/{progress.epochs}: {losses}"
            left = (progress.steps - progress.step) * progress.samples
            shown.update(task, advance=progress.samples, note=note)
            shown.update(task, total=shown.tasks[task].completed + left)
            if progress.epoch_done and not shown.console.is_terminal:
                click.echo(f"{time.perf_counter() - started:7.1f} s  {note}", err=True)

        yield show


@contextmanager
def _progress(unit: str, total: int | None) -> "Iterator[tuple[Bar, TaskID]]":
    """A bar and its task; no trace is left of one under which nothing was done."""
    shown = _columns(unit)
    task = shown.add_task("", total=total, note="")
    if shown.console.is_terminal:
        shown.start()
    try:
        yield shown, task
    finally:
        done = bool(shown.tasks[0].completed)
        if not done:
            shown.remove_task(task)
        if done or shown.console.is_terminal:
            shown.start()
            shown.stop()


def _columns(unit: str) -> "Bar":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.completed / task.elapsed if task.finished and task.elapsed else task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"- {unit}/s")

    page = console(stderr=True)
    ratio = 1 if page.is_terminal else None  # a file is not filled up with spaces
    return Progress(
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[note]}", table_column=Column(ratio=ratio, no_wrap=True, overflow="ellipsis")
        ),
        expand=page.is_terminal,
        console=page,
    )


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A spinner on standard error that says what is being done; lines where there is no terminal."""
    page = console(stderr=True)
    if not page.is_terminal:
        yield lambda text: click.echo(text, err=True)
        return
    with page.status("") as spinner:
        yield spinner.update


def print_description(shards: "Shards") -> None:
    """What `inspect` says, for people."""
    from rich.table import Table
    from rich.text import Text

    facts = shards.describe()
    frames, bodies = facts["captured_frames"], facts["bodies"]
    word = "shard" if facts["shards"] == 1 else "shards"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row(
        "samples",
        f"{facts['samples']:,} in {facts['shards']} {word}, {facts['bytes'] / 1e6:,.1f} MB",
    )
    table.add_row(
        "array", f"{' x '.join(f'{n:,}' for n in facts['shape'])} (sample, body, channel, frame, joint)"
    )
    table.add_row("captured frames", f"{frames['least']} to {frames['most']}, mean {frames['mean']}")
    table.add_row("bodies", ", ".join(f"{count:,} with {n}" for n, count in bodies.items()))
    table.add_row("classes", f"{facts['classes']} of {len(shards.spec.classes)}")
    for name, counts in facts["protocols"].items():
        copied = f", {counts['copied']:,} of them copies of training samples" if counts["copied"] else ""
        table.add_row(f"{name}", f"{counts['train']:,} train, {counts['test']:,} test{copied}")
    copies = facts["copies"]
    if copies["samples"]:
        other = f", {copies['of_other_class']:,} of them under another class" * (copies["of_other_class"] > 0)
        table.add_row(
            "copies", f"{copies['samples']:,} hold the numbers of another (content in samples.csv){other}"
        )
    reasons = {
        "missing": "on the official list of missing skeletons",
        "too_short": "shorter than --min-frames",
        "foreign": "not of this data set",
        "duplicate": "found twice",
    }
    for name, count in facts["left_out"].items():
        if count:
            table.add_row("left out", f"{count:,} {reasons[name]}")
    if facts["rejected"]:
        table.add_row("rejected", f"{facts['rejected']:,}, listed in rejects.csv")
    for reason, count in facts["rejects_by_reason"].items():
        table.add_row("", Text(f"{count:,} x {reason}"))
    _print_titled(f"{shards.location}: {shards.spec.title}", table)


def print_scores(table: dict[str, Any], folder: Path) -> None:
    """The rows of an evaluation, as `model.evaluation_file.to_table` gives them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    sizes = f"{table['train_samples']:,} train, {table['test_samples']:,} test"
    title = f"{folder}: {table['title']} {table['protocol']}, {sizes}; %"
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    measures = {"top1": "top-1", "top5": "top-5", "macro_f1": "macro-F1"}
    if not any(row["top5"] for row in table["scores"]):  # of neighbours, or of five classes
        del measures["top5"]
    if table["copied"]:
        measures = {"top1": "top-1", "top1_without_copies": "without copies"} | measures
    gains = any(row["versus_untrained"] for row in table["scores"])
    words = [word for row in table["scores"] for word in row["features"].split()]
    shown.add_column("features", min_width=max(map(len, words)), vertical="bottom")
    for column in (*measures.values(), *(["over untrained"] if gains else [])):
        shown.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True, vertical="bottom")
    for heading, rows in groupby(table["scores"], key=_heading):
        shown.add_section()
        shown.add_row(Text(heading, style="bold"))
        for row in rows:
            accuracies = [_percent(row[name]) for name in measures]
            gain = _gain(row["versus_untrained"], table["test_samples"])
            shown.add_row(Text(row["features"]), *accuracies, *([gain] if gains else []))
    _print_titled(title, shown)
    files = {row["labels"]: row["subset"] for row in table["scores"] if row["subset"]}
    for labels, names in files.items():
        click.echo(f"{labels:,} labels: those of {names}")


def _heading(row: dict[str, Any]) -> str:
    """What the rows of one mode on one set of labels have in common."""
    from model.evaluation_file import MODE_TITLES

    neighbours = f", k = {row['k']}" if row["k"] else ""
    drawn = row["label_fraction"] < 1 and not row["subset"]
    share = f" (fraction {row['label_fraction']:g})" if drawn else ""
    return f"{MODE_TITLES[row['mode']]}{neighbours}, {row['labels']:,} labels{share}"


def _percent(summary: dict[str, Any] | None) -> str:
    """Mean and, of several seeds, their standard deviation."""
    if summary is None:
        return ""
    spread = "" if summary["deviation"] is None else f" ± {100 * summary['deviation']:.1f}"
    return f"{100 * summary['mean']:.1f}{spread}"


def _gain(versus: dict[str, Any] | None, test_samples: int) -> str:
    """Points that training brought, and how likely chance alone would differ as much; see `model.versus`."""
    if versus is None:
        return ""
    return f"{100 * (versus['won'] - versus['lost']) / test_samples:+.1f} (p {versus['p']:.2g})"


def print_ablation(result: "Ablation", folder: Path) -> None:
    """The paper's columns, and its own accuracies beside ours."""
    from rich.table import Table

    copied = f" ({result.copied:,} of them copies of training samples)" if result.copied else ""
    sizes = f"{result.train_samples:,} train, {result.test_samples:,} test{copied}"
    title = f"{folder}: {result.dataset} {result.protocol}, {sizes}; linear on the frozen encoder, top-1 %"
    table = Table()
    for column in ("row", "Encoder", "Aug1", "Pre1", "Aug2", "Pre2", "Half-C"):
        table.add_column(column)
    for column in ("Acc", "paper, on NTU-60 X-Sub"):
        table.add_column(column, justify="right")
    sign = {True: "√", False: "×", None: "–"}
    for line, top1 in zip(result.lines, result.to_frame().to_dict("records"), strict=True):
        row, marks, paper = line.row, [""] * 5, ""
        if row:
            marks = [row.aug1, sign[row.pre1], row.aug2, sign[row.pre2], sign[row.half_c]]
            paper = f"{100 * row.paper:.2f}" if row.paper else "–"
        accuracy = f"{100 * top1['top1']:.1f}" if top1["seeds"] else ""
        spread = f" ± {100 * top1['deviation']:.1f}" if top1["seeds"] > 1 else ""
        failed = f" {len(line.problems)} failed" if line.problems else ""
        table.add_row(line.name, line.encoder, *marks, f"{accuracy}{spread}{failed}".strip(), paper)
    _print_titled(title, table)
    for line in result.failed:
        for seed, problem in line.problems.items():
            click.echo(f"{line.name}, seed {seed}: {problem}", err=True)


def _print_titled(title: str, table: "Table") -> None:
    """The title is as wide as the page, not as the table."""
    from rich.text import Text

    page = console()
    page.print(Text(title, style="bold"))
    page.print(table, highlight=False)


def console(*, stderr: bool = False) -> "Console":
    """As wide as the terminal, or as a file should be."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDTH_WITHOUT_TERMINAL)
