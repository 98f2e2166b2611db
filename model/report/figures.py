"""The report's pictures, as PNG files: curves, accuracy over labels, gains of classes, features on a plane.

All on white, so that they can be read on any page and printed; colours that colour-blind readers can tell
apart, never alone: lines differ in their dashes, points in their shapes, too. The same input gives the same
bytes.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from model.pictures.style import FAINT_INK, INK, publish_figure
from model.published import own_curve, published_curves
from model.report.curves import Curve
from model.report.embedding import Embedding, dense_place, free_place
from model.report.saved import SavedEvaluation, SavedScore
from model.scores import LINEAR, SEMI

Dash = Literal["-"] | tuple[float, tuple[float, ...]]

DPI = 200  # two pixels for each of the page's, for dense screens
GRID, PAPER_INK = "#e4e6ea", "#7d828b"
# The palette of Okabe and Ito, less yellow, which is faint on white.
RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
RUN_DASHES: tuple[Dash, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
GAIN, LOSS = RUN_COLOURS[0], RUN_COLOURS[1]
# The ten colours of Petroff (2021), made for categories and colour-blind readers.
CLASS_COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70",
                 "#717581", "#92dadd")  # fmt: skip
CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">")
MOST_BARS = 24
# Over the fraction of labels, by mode and whether the encoder was pre-trained.
SERIES_STYLES: dict[tuple[str, bool], dict[str, Any]] = {
    (SEMI, True): {"linestyle": "-", "linewidth": 2.0, "marker": "o"},
    (SEMI, False): {"linestyle": (0, (2, 2)), "linewidth": 1.4, "marker": "o"},
    (LINEAR, True): {"linestyle": (0, (6, 2)), "linewidth": 1.4, "marker": "s", "markersize": 4},
}


def draw_curves(path: Path, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """One panel for each loss, one line for each run. Faint: every step; bold: running mean.

    curves: by run, then by loss; of both at least one.
    """
    losses = list(dict.fromkeys(loss for of_run in curves.values() for loss in of_run))
    columns = min(2, len(losses))
    rows = -(-len(losses) // columns)
    figure = Figure(figsize=(9.0, 0.4 + 2.6 * rows), facecolor="white")
    for number, loss in enumerate(losses):
        axes = figure.add_subplot(rows, columns, number + 1)
        _plain(axes, title=loss.replace("_", " "), across="step" if number >= len(losses) - columns else "")
        for index, of_run in enumerate(curves.values()):
            if loss in of_run:
                _draw_curve(axes, of_run[loss], index)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    figure.subplots_adjust(wspace=0.16, hspace=0.38)
    if len(curves) > 1:
        lines = [_run_line(index) for index in range(len(curves))]
        _legend(figure, lines, list(curves), loc="lower left", bbox_to_anchor=(0.115, 0.9 + 0.1 / rows),
                ncols=min(4, len(curves)), fontsize=10)  # fmt: skip
    _publish(figure, path)


def draw_fractions(path: Path, evaluations: Mapping[str, SavedEvaluation], *, paper: str) -> None:
    """Top-1 accuracy over the fraction of labels, of every run and of the paper's methods.

    Of a run: the trained encoder semi-supervised (full lines), the same from random weights (hollow points)
    and the linear classifier on the frozen encoder (small points).  paper: what its curves are called.
    """
    figure = Figure(figsize=(7.4, 4.6), facecolor="white")
    axes = figure.add_axes((0.09, 0.12, 0.86, 0.82))
    _plain(axes, across="labelled share of the training samples, %", up="top-1, %")
    handles: list[Artist | ErrorbarContainer] = []
    names: list[str] = []
    for curve, dash in zip(published_curves(), ((0, (1, 1.5)), (0, (3, 2)), "-"), strict=True):
        points = {percent: float(top1) for percent, top1 in curve.top1.items() if percent}
        width, name = (2.0, "CP-STN") if curve is own_curve() else (1.2, curve.method)
        (line,) = axes.plot(list(points), list(points.values()), color=PAPER_INK, linestyle=dash,
                            linewidth=width, marker="|")  # fmt: skip
        handles.append(line)
        names.append(f"{paper}: {name}")
    for index, (run, evaluation) in enumerate(evaluations.items()):
        for mode, features in _fraction_series(evaluation):
            scores = by_fraction(evaluation, mode, features)
            filled = scores[0].of_trained
            colour = RUN_COLOURS[index % len(RUN_COLOURS)]
            bars = axes.errorbar(
                [100 * score.share for score in scores],
                [100 * score.top1.mean for score in scores],
                [100 * (score.top1.deviation or 0) for score in scores],
                color=colour, capsize=2, elinewidth=1, markerfacecolor=colour if filled else "white",
                **SERIES_STYLES[mode, filled],
            )  # fmt: skip
            handles.append(bars)
            names.append(f"{run}: {_series_name(mode, features)}")
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 30, 50, 100]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    _legend(axes, handles, names, loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=9, labelspacing=0.7,
            handlelength=3)  # fmt: skip
    _publish(figure, path)


def by_fraction(evaluation: SavedEvaluation, mode: str, features: str) -> list[SavedScore]:
    """The scores of one mode and features over the labelled share, the smallest first.

    One a share: of drawn labels, where id files name as many.
    """
    found = [score for score in evaluation.scores if (score.mode, score.features) == (mode, features)]
    drawn_last = sorted(found, key=lambda score: score.subset is None)
    return sorted(
        {score.share: score for score in drawn_last}.values(),
        key=lambda score: score.share,
    )


def has_fractions(evaluation: SavedEvaluation) -> bool:
    """Whether any of the modes that `draw_fractions` draws was evaluated on several fractions of labels."""
    return bool(_fraction_series(evaluation))


def draw_gains(path: Path, gains: Sequence[tuple[str, float]], *, title: str) -> None:
    """A bar for each class, to the right what it gained, to the left what it lost, in points of per cent.

    gains: name and gain as a share of 1, the largest first. Of more than 24, the outermost are drawn.
    """
    half = MOST_BARS // 2
    shown = list(gains) if len(gains) <= MOST_BARS else [*gains[:half], *gains[-half:]]
    figure = Figure(figsize=(6.4, 0.7 + 0.29 * len(shown)), facecolor="white")
    axes = figure.add_axes((0.3, 0.06, 0.66, 0.88))
    _plain(axes, title=title, across="gain in accuracy of the class, points")
    points = np.array([100 * gain for _, gain in shown])
    places = -np.arange(len(shown)) - (np.arange(len(shown)) >= half) * (len(shown) < len(gains)) * 0.8
    axes.barh(places, points, height=0.62, color=[GAIN if point >= 0 else LOSS for point in points])
    for place, point in zip(places, points, strict=True):
        sign, side = (5, "left") if point >= 0 else (-5, "right")
        axes.annotate(f"{point:+.1f}".replace("-", "−"), (point, place), (sign, 0), ha=side, va="center",
                      textcoords="offset points", fontsize=9, color=INK)  # fmt: skip
    axes.set_yticks(places, [_short(name) for name, _ in shown], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=FAINT_INK, linewidth=0.8)
    low, high = min(points.min(), 0), max(points.max(), 0)
    room = 0.16 * max(high - low, 1)
    axes.set_xlim(low - room * (low < 0), high + room)
    axes.grid(visible=False, axis="y")
    _publish(figure, path)


def draw_embedding(path: Path, embedding: Embedding, *, title: str) -> None:
    """Every sample as a point in the colour and shape of its class, and each class's name in a legend.

    Its number stands beside the samples, in the thick of them, and hides as few as can be.
    """
    figure = Figure(figsize=(6.2, 6.2), facecolor="white")
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9))
    axes.set_title(title, fontsize=12, color=INK, loc="left", fontweight="bold", parse_math=False)
    size = 34 if len(embedding.points_NX) <= 600 else 14
    clouds = []
    for label in range(len(embedding.classes)):
        points_NX = embedding.points_NX[embedding.labels_N == label]
        colour, marker = CLASS_COLOURS[label], CLASS_MARKERS[label]
        clouds.append(axes.scatter(points_NX[:, 0], points_NX[:, 1], s=size, c=colour, marker=marker,
                                   edgecolors="white", linewidths=0.4))  # fmt: skip
    names = [f"{number}  {_short(name)}" for number, name in enumerate(embedding.classes, 1)]
    _legend(axes, clouds, names, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=10, labelspacing=0.75)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
    axes.spines[:].set_color(GRID)
    _draw_numbers(figure, axes, embedding)
    _publish(figure, path)


def _draw_numbers(figure: Figure, axes: Axes, embedding: Embedding) -> None:
    """Of all classes, by the axes' limits as they are now."""
    axes.autoscale_view()
    # In points of print, in which letters and markers have their sizes.
    scale = 72 / figure.dpi
    taken_NX = axes.transData.transform(embedding.points_NX) * scale
    for label in range(len(embedding.classes)):
        dense_X = dense_place(embedding.points_NX[embedding.labels_N == label])
        point_X = axes.transData.transform(dense_X) * scale
        place_X = free_place(point_X, taken_NX, reaches=(9, 12, 15, 18), room=8.0)
        taken_NX = np.concatenate([taken_NX, place_X[None]])
        axes.annotate(str(label + 1), tuple(dense_X), tuple(place_X - point_X), textcoords="offset points",
                      fontsize=11, fontweight="bold", color=INK, ha="center", va="center",
                      path_effects=[withStroke(linewidth=1.5, foreground="white")])  # fmt: skip


def _fraction_series(evaluation: SavedEvaluation) -> list[tuple[str, str]]:
    """The (mode, features) that are drawn over the fraction of labels: those that have several fractions."""
    fractions: dict[tuple[str, str], set[float]] = {}
    for score in evaluation.scores:
        if (score.mode, score.of_trained) in SERIES_STYLES:
            fractions.setdefault((score.mode, score.features), set()).add(score.share)
    return [series for series, found in fractions.items() if len(found) > 1]


def _series_name(mode: str, features: str) -> str:
    return f"{'semi-supervised' if mode == SEMI else mode}, {features.split(',')[0]}"


def _draw_curve(axes: Axes, curve: Curve, index: int) -> None:
    colour = RUN_COLOURS[index % len(RUN_COLOURS)]
    axes.plot(curve.steps_S, curve.values_S, color=colour, linewidth=0.6, alpha=0.28, zorder=2)
    axes.plot(curve.steps_S, curve.smoothed(), color=colour, linewidth=1.7, zorder=3,
              linestyle=RUN_DASHES[index % len(RUN_DASHES)])  # fmt: skip


def _run_line(index: int) -> Line2D:
    colour, dash = RUN_COLOURS[index % len(RUN_COLOURS)], RUN_DASHES[index % len(RUN_DASHES)]
    return Line2D([], [], color=colour, linestyle=dash, linewidth=1.7)


def _legend(owner: Figure | Axes, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """A legend whose names are shown as they are: a $ would start a formula."""
    legend = owner.legend(list(handles), list(names), frameon=False, labelcolor=INK, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _plain(axes: Axes, *, title: str = "", across: str = "", up: str = "") -> None:
    """Quiet axes: a light grid, two spines, faint numbers."""
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontweight="bold", parse_math=False)
    axes.set_xlabel(across, fontsize=9.5, color=FAINT_INK)
    axes.set_ylabel(up, fontsize=9.5, color=FAINT_INK)
    axes.tick_params(colors=FAINT_INK, labelsize=9, length=3, labelcolor=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b9bdc4")


def _short(name: str, longest: int = 40) -> str:
    return textwrap.shorten(name, longest, placeholder=" …") if " " in name else name[:longest]


def _publish(figure: Figure, path: Path) -> None:
    publish_figure(figure, path, dpi=DPI, bbox_inches="tight", pad_inches=0.15)
