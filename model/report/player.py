"""A player of skeletons in 3D for a browser, without library or network: a part of a page, or a whole one.

What goes into the page is JSON: names as text, coordinates as base64 of little-endian int16 in the order
(M, T, V, C), in whole millimetres, which is at most half a millimetre off; -32768 stands for NaN, and what is
farther than 32.767 m away is shown there.

Axes: M body, T frame, V joint, C coordinate.
"""

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.pictures.style import SIDES, TONES
from model.report.scene import Scene
from model.report.templates import read_part, render

MILLIMETRES = 1000.0  # in a metre
FARTHEST, NOTHING = 32_767, -32_768
# On a dark ground the greys of the trunk change places with the ground; the colours stay.
DARK_TONES = ((*TONES[0][:2], "#d3d7de"), (*TONES[1][:2], "#8b919c"))


def player_fragment(scene: Scene, *, autoplay: bool = False) -> str:
    """HTML of a player with its own style and script, to be put anywhere into the body of a page.

    A page may hold any number of them: nothing in it has an id, and its script leaves no global name.
    autoplay: it plays as soon as it is seen, unless the reader's system asks for less motion.
    """
    return _render("player.html.j2", scene, autoplay=autoplay)


def player_page(scene: Scene) -> str:
    """A page of its own around the player, to open from disk; it plays at once."""
    return _render("player_page.html.j2", scene, autoplay=True)


def to_millimetres(x_MTVC: NDArray[np.float32]) -> str:
    """Metres as the module says; NaN and infinity become NOTHING."""
    with np.errstate(invalid="ignore"):
        millimetres_MTVC = np.clip(np.rint(x_MTVC.astype(np.float64) * MILLIMETRES), -FARTHEST, FARTHEST)
        whole_MTVC = np.where(np.isfinite(x_MTVC), millimetres_MTVC, NOTHING).astype("<i2")
    return base64.b64encode(whole_MTVC.tobytes()).decode("ascii")


def player_data(scene: Scene) -> dict[str, Any]:
    """What the script is given. Coordinates that several panels show are there once, in `blocks`."""
    places: dict[str, int] = {}

    def place(x_MTVC: NDArray[np.float32] | None) -> int | None:
        return None if x_MTVC is None else places.setdefault(to_millimetres(x_MTVC), len(places))

    panels = [
        {
            "name": panel.name,
            "block": place(panel.x_MTVC),
            "target": place(panel.target_MTVC),
            "hiddenFrom": panel.hidden_from,
            "rebuiltFrom": panel.rebuilt_from,
        }
        for panel in scene.panels
    ]
    bodies, frames, joints = scene.shape
    return {
        "bodies": bodies,
        "frames": frames,
        "joints": joints,
        "head": scene.joints.index("head") if "head" in scene.joints else None,
        "bones": scene.bones,
        "sides": [SIDES[side] for side in scene.sides],
        "frameSeconds": scene.frame_seconds,
        "panels": panels,
        "blocks": list(places),
    }


def _render(template: str, scene: Scene, *, autoplay: bool) -> str:
    return render(
        template,
        scene=scene,
        autoplay=autoplay,
        second_body=scene.shape[0] > 1,
        compares=scene.rebuilds,
        data=_json_in_html(player_data(scene)),
        style=_tones("", TONES) + _tones("dark", DARK_TONES) + read_part("player.css"),
        script=read_part("player.js"),
    )


def _json_in_html(data: dict[str, Any]) -> str:
    """JSON in which nothing can end the script element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _tones(scheme: str, tones: tuple[tuple[str, ...], ...]) -> str:
    """The colours of bodies as custom properties, such as --left-0."""
    lines = [
        f"--{side}-{body}: {tone};"
        for body, tones_of_body in enumerate(tones)
        for side, tone in zip(SIDES, tones_of_body, strict=True)
    ]
    rule = ".skeleton-player { " + " ".join(lines) + " }\n"
    return f"@media (prefers-color-scheme: {scheme}) {{ {rule.strip()} }}\n" if scheme else rule
