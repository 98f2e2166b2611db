"""A confusion matrix: rows are true classes, columns what was predicted.

Axes: K class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from model.pictures.style import FAINT_INK, INK, MARGIN, POINTS, publish_figure, text_width, wrap

# White to dark blue in equal steps along a curve in the OKLab space, so that equal differences look equal.
SHARE_STOPS = ("#ffffff", "#d4eeff", "#acd9fd", "#87c3f6", "#66aceb", "#4a94da", "#347bc6", "#2563ac",
               "#1b4d90", "#153972", "#0f2653")  # fmt: skip
UNTESTED = "#d6d3ce"
SHARE_COLOURS = LinearSegmentedColormap.from_list("share", SHARE_STOPS).with_extremes(bad=UNTESTED)
CONFUSION_DPI = 150
MOST_NUMBERED = 20  # classes up to which numbers fit into the cells
LONGEST_NAME = 36


def draw_confusion(path: Path, counts_KK: NDArray[np.int64], classes: Sequence[str], *, title: str) -> None:
    """Draw a confusion matrix, every row as shares of its true class, and write a PNG by rename.

    counts_KK: samples by true class (down) and predicted class (across). A row of zeros, a class without test
        samples, is grey. Up to 20 classes the shares also stand in the cells, in per cent.
    classes: K names; those beyond 36 letters are shortened in their middle.

    Raises ValueError where the counts are negative, not square, or not as many as the classes; OSError where
    the file cannot be written.
    """
    share_KK = _shares(counts_KK, len(classes))
    sheet = _plan_sheet(tuple(_shorten(name) for name in classes), title)
    figure, axes = sheet.open()
    shares = np.ma.masked_invalid(share_KK)
    picture = axes.imshow(shares, cmap=SHARE_COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="none")
    _draw_class_names(axes, sheet)
    _draw_axis_titles(figure, sheet)
    if len(classes) <= MOST_NUMBERED:
        _draw_numbers(axes, share_KK)
    bar_axes = sheet.add_axes(figure, sheet.bar_left, sheet.bottom, sheet.bar_width, sheet.side)
    bar = figure.colorbar(picture, cax=bar_axes, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.set_ticklabels(["0%", "25%", "50%", "75%", "100%"], color=INK, fontsize=sheet.heading - 1)
    bar.set_label("share of the true class", color=INK, fontsize=sheet.heading)
    bar_axes.tick_params(color=FAINT_INK)
    bar_axes.spines["outline"].set(edgecolor=FAINT_INK, linewidth=0.8)
    if shares.mask.any():
        _draw_untested_key(figure, sheet)
    publish_figure(figure, path)


def of_occurring(counts_KK: NDArray[np.int64], classes: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Counts and names without the classes that are neither tested nor predicted; all where there is none."""
    occurs_K = counts_KK.any(0) | counts_KK.any(1)
    chosen = np.flatnonzero(occurs_K if occurs_K.any() else ~occurs_K)
    return counts_KK[np.ix_(chosen, chosen)], [classes[label] for label in chosen.tolist()]


@dataclass(frozen=True)
class _Sheet:
    """Where everything of a confusion matrix stands: inches from the lower left corner.

    left, bottom, side: of the square matrix.  names_size, heading: points.  turn: degrees, of names below.
    """

    width: float
    height: float
    left: float
    bottom: float
    side: float
    bar_left: float
    bar_width: float
    names_size: float
    heading: float
    turn: float
    title: str
    names: tuple[str, ...]

    def open(self) -> tuple[Figure, Axes]:
        """A figure with its title, and the axes of the matrix."""
        figure = Figure(figsize=(self.width, self.height), dpi=CONFUSION_DPI, facecolor="white")
        x, y = MARGIN / self.width, 1 - MARGIN / self.height
        size = 1.25 * self.heading
        figure.text(x, y, self.title, size=size, weight="bold", color=INK, va="top", parse_math=False)
        return figure, self.add_axes(figure, self.left, self.bottom, self.side, self.side)

    def add_axes(self, figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a place given in inches."""
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return figure.add_axes(place)


def _plan_sheet(names: tuple[str, ...], title: str) -> _Sheet:
    count = len(names)
    if count <= MOST_NUMBERED:
        cell, names_size, heading, turn = max(0.55, 2.4 / count), 10.0, 11.0, 45.0
    elif count <= 60:
        cell, names_size, heading, turn = 0.2, 9.0, 15.0, 90.0
    else:
        cell, names_size, heading, turn = 0.125, 7.0, 19.0, 90.0
    em = heading / POINTS
    longest = max(text_width(name, names_size) for name in names)
    side = cell * count
    left = MARGIN + 1.8 * em + longest + 0.1
    bottom = MARGIN + 1.8 * em + longest * math.sin(math.radians(turn)) + 0.2
    bar_left, bar_width = left + side + 1.5 * em, 1.2 * em
    width = bar_left + bar_width + 5.2 * em + MARGIN
    title = wrap(title, 1.25 * heading, width - 2 * MARGIN, bold=True)
    width = max(width, text_width(title, 1.25 * heading, bold=True) + 2 * MARGIN)
    height = bottom + side + 1.6 * em * len(title.splitlines()) + 0.8 * em + MARGIN
    return _Sheet(
        width, height, left, bottom, side, bar_left, bar_width, names_size, heading, turn, title, names
    )


def _shares(counts_KK: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Every row divided by its sum; a row without samples is NaN."""
    if counts_KK.shape != (num_classes, num_classes) or num_classes == 0:
        raise ValueError(f"counts of shape {counts_KK.shape}: expected one row and column for each of the "
                         f"{num_classes} classes")  # fmt: skip
    if counts_KK.min() < 0:
        raise ValueError(f"the counts hold {counts_KK.min()}: expected numbers of samples")
    total_K1 = counts_KK.sum(axis=1, keepdims=True)
    share_KK = np.full(counts_KK.shape, np.nan)
    np.divide(counts_KK, total_K1, out=share_KK, where=total_K1 > 0)
    return share_KK


def _shorten(name: str) -> str:
    """A name cut in its middle: names of actions often differ only at one end."""
    if len(name) <= LONGEST_NAME:
        return name
    tail = LONGEST_NAME // 3
    return f"{name[: LONGEST_NAME - tail - 1]}…{name[-tail:]}"


def _draw_class_names(axes: Axes, sheet: _Sheet) -> None:
    count = len(sheet.names)
    style: dict[str, Any] = {"fontsize": sheet.names_size, "color": INK, "parse_math": False}
    upright = "center" if sheet.turn == 90 else "top"
    axes.set_yticks(range(count), sheet.names, **style)
    axes.set_xticks(
        range(count),
        sheet.names,
        rotation=sheet.turn,
        rotation_mode="anchor",
        ha="right",
        va=upright,
        **style,
    )
    borders = np.arange(0, count, 1 if count <= 60 else 5) - 0.5  # denser lines shimmer when scaled down
    axes.vlines(borders, -0.5, count - 0.5, colors="#e6e6e6", linewidths=0.5)
    axes.hlines(borders, -0.5, count - 0.5, colors="#e6e6e6", linewidths=0.5)
    axes.tick_params(length=0)
    axes.spines[:].set(color=FAINT_INK, linewidth=0.8)


def _draw_axis_titles(figure: Figure, sheet: _Sheet) -> None:
    across, up = (sheet.left + sheet.side / 2) / sheet.width, (sheet.bottom + sheet.side / 2) / sheet.height
    style: dict[str, Any] = {"size": sheet.heading, "color": INK}
    figure.text(across, MARGIN / sheet.height, "predicted class", ha="center", va="bottom", **style)
    figure.text(MARGIN / sheet.width, up, "true class", ha="left", va="center", rotation=90, **style)


def _draw_numbers(axes: Axes, share_KK: NDArray[np.float64]) -> None:
    for true, predicted in np.argwhere(share_KK > 0):
        share = float(share_KK[true, predicted])
        colour = "white" if share > 0.5 else INK
        axes.text(predicted, true, _per_cent(share), size=9, color=colour, ha="center", va="center")


def _per_cent(share: float) -> str:
    """Whole per cent, but never a 0 for something nor a 100 for less than everything."""
    if share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _draw_untested_key(figure: Figure, sheet: _Sheet) -> None:
    """What grey means, below the colour bar."""
    size = sheet.bar_width
    bottom = sheet.bottom - 2.2 * size
    key = sheet.add_axes(figure, sheet.bar_left, bottom, size, size)
    key.set_axis_off()
    key.add_patch(Rectangle((0, 0), 1, 1, facecolor=UNTESTED))
    x, y = (sheet.bar_left + 1.4 * size) / sheet.width, (bottom + size / 2) / sheet.height
    figure.text(x, y, "no test\nsamples", size=sheet.heading - 1, color=INK, va="center")
