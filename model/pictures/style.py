"""What all pictures share: colours, sizes, text that fits, and a file with the same bytes every time.

Pictures are laid out by hand, in inches, not by a layout engine: nothing can depend on what was drawn before,
and the same input gives the same bytes.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from data_specs.skeleton import Skeleton
from pipeline.store.publish import published

INK, FAINT_INK = "#222222", "#6b6b6b"
POINTS = 72.0  # per inch: sizes of type and widths of lines are given in points
MARGIN, GAP = 0.15, 0.06

# The palette of Okabe and Ito, made for colour-blind readers: a tone for the first body, lighter for others.
SIDES = ("left", "right", "trunk")
TONES = (("#0072b2", "#d55e00", "#4a4a4a"), ("#56b4e9", "#e69f00", "#a6a6a6"))


def sides_of(skeleton: Skeleton) -> tuple[int, ...]:
    """For every joint its index into SIDES; a bone has that of its child."""
    side_V = [SIDES.index("trunk")] * skeleton.num_joints
    for left, right in skeleton.mirror_pairs:
        side_V[left], side_V[right] = SIDES.index("left"), SIDES.index("right")
    return tuple(side_V)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Inches, of the widest line."""
    font = FontProperties(weight="bold" if bold else "normal")
    lines = [line.replace("$", "S") for line in text.splitlines() if line.strip()]  # $ would start a formula
    outlines = [TextPath((0, 0), line, size=size, prop=font).vertices[:, 0] for line in lines]
    return max((float(outline.max(initial=0)) for outline in outlines), default=0.0) / POINTS


def wrap(text: str, size: float, inches: float, *, bold: bool = False) -> str:
    """Text broken between words into lines that fit; a word that does not stays whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size, bold=bold) > inches:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def publish_figure(figure: Figure, path: Path, **saving: Any) -> None:
    """As PNG. saving: further arguments of `Figure.savefig`."""
    with published(path) as temporary, temporary.open("wb") as file:
        # The version of matplotlib is not the picture.
        figure.savefig(file, format="png", metadata={"Software": None}, **saving)
