"""Stick figures of a recording and its views.

Axes: R row of the picture, F drawn frame, M body, C coordinate, T frame, V joint, N body drawn anywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from model.pictures.style import (
    FAINT_INK,
    GAP,
    INK,
    MARGIN,
    POINTS,
    SIDES,
    TONES,
    publish_figure,
    sides_of,
    text_width,
    wrap,
)

PANEL, MASK_EDGE = "#f4f5f7", "#b9bdc4"
CAMERA_DEGREES = 25.0  # seen from slightly beside the front, so that depth reads
VIEWS_WIDTH, VIEWS_DPI = 12.0, 200  # inches; two pixels for each of a README's, for dense screens
CELL_WIDTHS, CELL_SHAPES = (0.6, 1.7), (0.8, 1.9)  # the least and the most: inches; height over width


def draw_views(
    path: Path,
    skeleton: Skeleton,
    rows: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    title: str,
    num_frames: int = 8,
    visible: Sequence[int | None] | None = None,
) -> None:
    """Draw a recording and its views as rows of stick figures, all to one scale, and write a PNG by rename.

    Every frame is centred across on the bodies in it, so that a walk does not shrink them; heights are kept.

    rows: (name, x_MCTV) pairs of one shape: metres, centred and aligned, x across, y depth, z up. A body all
        of whose joints are 0 in a frame is absent there and not drawn.
    num_frames: evenly spaced frames per row; fewer where the recording is shorter.
    visible: for each row the number of leading frames that the view shows, or None for all; the frames after
        them are drawn as empty cells that say "masked".

    Shapes fit each other and the skeleton, and all values are finite. Raises OSError where the file cannot be
    written.
    """
    _check_rows(skeleton, rows)
    length = rows[0][1].shape[2]
    visible_R = _shown_frames(visible, len(rows), length)
    assert num_frames >= 1, f"num_frames is {num_frames}"
    frames_F = np.linspace(0, length - 1, min(num_frames, length)).round().astype(np.int64)
    x_RFMCV = np.stack([x_MCTV[:, :, frames_F].transpose(2, 0, 1, 3) for _, x_MCTV in rows])
    masked_RF = frames_F >= visible_R[:, None]
    drawn_RFM = x_RFMCV.any(axis=(3, 4)) & ~masked_RF[:, :, None]
    seen_RFMCV = _centre(_turn(x_RFMCV.astype(np.float64), drawn_RFM), drawn_RFM)

    page = _plan_page([name for name, _ in rows], title, len(frames_F), seen_RFMCV[drawn_RFM])
    figure, axes = page.open()
    _draw_headings(axes, page, frames_F)
    for row, column in np.ndindex(masked_RF.shape):
        _draw_cell(axes, page, row, column, masked=bool(masked_RF[row, column]))
        placed_MCV = page.place(seen_RFMCV[row, column], row, column)
        _draw_bodies(axes, page, skeleton, placed_MCV, drawn_RFM[row, column])
    _draw_legend(axes, page, second_body=bool(drawn_RFM[:, :, 1:].any()))
    publish_figure(figure, path)


def _check_rows(skeleton: Skeleton, rows: Sequence[tuple[str, NDArray[np.float32]]]) -> None:
    assert rows, "expected the recording and, below it, its views"
    first, shape = rows[0][0], rows[0][1].shape
    assert len(shape) == 4, f"{first!r} has shape {shape}"
    assert (shape[1], shape[3]) == (3, skeleton.num_joints), f"{first!r} has shape {shape}"
    assert 0 not in shape, f"{first!r} has shape {shape}"
    for name, x_MCTV in rows:
        assert x_MCTV.shape == shape, f"{name!r} has shape {x_MCTV.shape}, {first!r} {shape}"
        assert np.isfinite(x_MCTV).all(), f"{name!r} holds values that are not finite"


def _shown_frames(visible: Sequence[int | None] | None, num_rows: int, length: int) -> NDArray[np.int64]:
    visible = [None] * num_rows if visible is None else visible
    assert len(visible) == num_rows, f"visible has {len(visible)} entries for {num_rows} rows"
    visible_R = np.array([length if frames is None else frames for frames in visible])
    assert ((visible_R >= 0) & (visible_R <= length)).all(), f"visible is {list(visible)} of {length} frames"
    return visible_R


def _turn(x_RFMCV: NDArray[np.float64], drawn_RFM: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Turn to the camera, which stands on the side from which two people hide each other less.

    They mostly face each other: from one of the two sides, one may stand right behind the other.
    """
    pairs_FMCV = x_RFMCV[0, drawn_RFM[0, :, :2].sum(axis=1) == 2]
    apart = []
    for degrees in (CAMERA_DEGREES, -CAMERA_DEGREES):
        across_FM = _turned(pairs_FMCV, degrees)[:, :2, 0].mean(axis=2)
        apart.append(float(np.abs(np.diff(across_FM)).sum()))
    return _turned(x_RFMCV, CAMERA_DEGREES if apart[0] >= apart[1] else -CAMERA_DEGREES)


def _turned(x_NMCV: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """`x_NMCV`, of any leading axes, turned about the vertical."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn_CC = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = turn_CC @ x_NMCV
    return turned


def _centre(seen_RFMCV: NDArray[np.float64], drawn_RFM: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Every cell moved across, and every row up or down as a whole, to the middle of what is drawn in it."""
    seen_RFMCV = seen_RFMCV.copy()
    for row, column in np.argwhere(drawn_RFM.any(axis=2)):
        bodies = drawn_RFM[row, column]
        seen_RFMCV[row, column, :, 0] -= seen_RFMCV[row, column, bodies, 0].mean()
    for row in np.flatnonzero(drawn_RFM.any(axis=(1, 2))):
        up_NV = seen_RFMCV[row][drawn_RFM[row]][:, 2]
        seen_RFMCV[row, :, :, 2] -= (up_NV.min() + up_NV.max()) / 2
    return seen_RFMCV


@dataclass(frozen=True)
class _Page:
    """Where everything of a picture of views stands: inches from the lower left corner, y upward.

    left, top: of the cells.  scale: inches per metre.  across: the metres that lie in the middle of a cell.
    """

    width: float
    height: float
    left: float
    top: float
    cell_width: float
    cell_height: float
    scale: float
    across: float
    title: str
    names: tuple[str, ...]

    def open(self) -> tuple[Figure, Axes]:
        """An empty figure and axes over all of it whose units are inches."""
        figure = Figure(figsize=(self.width, self.height), dpi=VIEWS_DPI, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(0, self.height), autoscale_on=False)
        axes.set_axis_off()
        return figure, axes

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """The lower left corner of a cell."""
        x = self.left + column * (self.cell_width + GAP)
        y = self.top - (row + 1) * self.cell_height - row * 2 * GAP
        return x, y

    def place(self, seen_MCV: NDArray[np.float64], row: int, column: int) -> NDArray[np.float64]:
        """Bodies in metres, moved into a cell: inches across and up, and the depth as it was."""
        x, y = self.corner(row, column)
        across_MV = x + self.cell_width / 2 + self.scale * (seen_MCV[:, 0] - self.across)
        up_MV = y + self.cell_height / 2 + self.scale * seen_MCV[:, 2]
        return np.stack([across_MV, seen_MCV[:, 1], up_MV], axis=1)


def _plan_page(names: Sequence[str], title: str, columns: int, drawn_NCV: NDArray[np.float64]) -> _Page:
    names = tuple(wrap(name, 11, 1.3) for name in names)
    left = MARGIN + max(text_width(name, 11) for name in names) + 0.2
    room = (VIEWS_WIDTH - left - MARGIN) / columns - GAP
    cell_width = min(max(room, CELL_WIDTHS[0]), CELL_WIDTHS[1])
    width = max(left + columns * (cell_width + GAP) - GAP + MARGIN, left + 5.6)  # or the legend's
    title = wrap(title, 14, width - 2 * MARGIN, bold=True)
    width = max(width, text_width(title, 14, bold=True) + 2 * MARGIN)

    if not len(drawn_NCV):  # nothing but masked cells: two metres of nobody
        drawn_NCV = np.array([[[-1.0, 1.0]] * 3])
    low, high = drawn_NCV.min(axis=(0, 2)), drawn_NCV.max(axis=(0, 2))
    metres_across, _, metres_up = np.maximum(high - low, 1e-3)
    cell_height = cell_width * float(np.clip(metres_up / metres_across, *CELL_SHAPES))
    cell_height = max(cell_height, 0.2 * max(len(name.splitlines()) for name in names))
    scale = 0.88 * float(min(cell_width / metres_across, cell_height / metres_up))

    header = MARGIN + 0.27 * len(title.splitlines()) + 0.3
    height = header + len(names) * (cell_height + 2 * GAP) - 2 * GAP + 0.5
    across = float(low[0] + high[0]) / 2
    return _Page(width, height, left, height - header, cell_width, cell_height, scale, across, title, names)


def _draw_headings(axes: Axes, page: _Page, frames_F: NDArray[np.int64]) -> None:
    title_top = page.height - MARGIN
    axes.text(MARGIN, title_top, page.title, size=14, weight="bold", color=INK, va="top", parse_math=False)
    axes.text(MARGIN, page.top + 0.08, "frame", size=9, color=FAINT_INK)
    for column, frame in enumerate(frames_F):
        middle = page.corner(0, column)[0] + page.cell_width / 2
        axes.text(middle, page.top + 0.08, str(frame), size=9, color=FAINT_INK, ha="center")
    for row, name in enumerate(page.names):
        middle = page.corner(row, 0)[1] + page.cell_height / 2
        axes.text(MARGIN, middle, name, size=11, color=INK, va="center", linespacing=1.25, parse_math=False)


def _draw_cell(axes: Axes, page: _Page, row: int, column: int, *, masked: bool) -> None:
    x, y = page.corner(row, column)
    cell = FancyBboxPatch(
        (x, y), page.cell_width, page.cell_height, boxstyle="round,pad=0,rounding_size=0.06"
    )
    cell.set(facecolor=PANEL, edgecolor="none")
    if masked:
        cell.set(facecolor="white", edgecolor=MASK_EDGE, linewidth=0.8, linestyle=(0, (4, 3)))
        middle = (x + page.cell_width / 2, y + page.cell_height / 2)
        axes.text(*middle, "masked", size=9, color=FAINT_INK, ha="center", va="center")
    axes.add_patch(cell)


def _draw_bodies(
    axes: Axes, page: _Page, skeleton: Skeleton, placed_MCV: NDArray[np.float64], drawn_M: NDArray[np.bool_]
) -> None:
    """Bones from the farthest to the nearest, then joints: a near arm must lie over a far one."""
    width = min(max(0.03 * page.scale * POINTS, 0.9), 2.2)  # of a bone: 3 cm, within what prints well
    side_V = sides_of(skeleton)
    bones: list[tuple[float, list[tuple[float, float]], str]] = []
    for body in np.flatnonzero(drawn_M):
        tones = TONES[0] if body == 0 else TONES[1]
        across_V, depth_V, up_V = placed_MCV[body]
        for child, parent in skeleton.bones:
            ends = [(across_V[joint], up_V[joint]) for joint in (child, parent)]
            bones.append((float(depth_V[child] + depth_V[parent]), ends, tones[side_V[child]]))
        colours = [tones[side] for side in side_V]
        axes.scatter(
            across_V, up_V, s=(1.9 * width) ** 2, c=colours, linewidths=0, zorder=4 if body == 0 else 3
        )
    bones.sort(key=lambda bone: -bone[0])
    lines = LineCollection([ends for _, ends, _ in bones], colors=[colour for _, _, colour in bones])
    lines.set(linewidth=width, capstyle="round", zorder=2)
    axes.add_collection(lines, autolim=False)


def _draw_legend(axes: Axes, page: _Page, *, second_body: bool) -> None:
    """The colours at the lower left and, at the lower right, a bar of a round length."""
    middle = 0.25
    handles: list[Artist | tuple[Artist, ...]] = [_legend_line(colour) for colour in TONES[0]]
    if second_body:
        handles.append(tuple(_legend_line(colour) for colour in TONES[1]))
    axes.legend(
        handles,
        [*SIDES, "second body"][: len(handles)],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.3)},
        loc="center left",
        bbox_to_anchor=(page.left, middle),
        bbox_transform=axes.transData,
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0,
        borderaxespad=0,
    )
    metres = _round_down(0.8 * min(page.cell_width, 1.0) / page.scale)
    end = page.width - MARGIN
    start = end - metres * page.scale
    axes.plot([start, end], [middle, middle], color=INK, linewidth=1.5, solid_capstyle="butt")
    axes.text(start - 0.08, middle, f"{metres:g} m", size=9, color=INK, ha="right", va="center")


def _legend_line(colour: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=2, marker="o", markersize=4, markeredgewidth=0)


def _round_down(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `length`."""
    decade = 10.0 ** math.floor(math.log10(length))
    return decade * max(step for step in (1, 2, 5) if step * decade <= length)
