"""What a browser is given holds the scene: every coordinate, nothing that is absent, and names as text."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from numpy.typing import NDArray

from model.pictures.style import TONES
from model.report.player import player_data, player_fragment, player_page, to_millimetres
from model.report.scene import Panel, Scene

M, T, V = 2, 7, 5
NAMES = ("hip", "head", "left hand", "right hand", "foot")


def points(seed: int) -> NDArray[np.float32]:
    x_MTVC = np.random.default_rng(seed).normal(size=(M, T, V, 3)).astype(np.float32)
    x_MTVC[1, 2:4] = np.nan
    return x_MTVC


def scene(*panels: Panel, title: str = "A set", class_name: str = "wave", key: str = "a1") -> Scene:
    bones = ((1, 0), (2, 1), (3, 1), (4, 0))
    panels = panels or (Panel("original", points(0)), Panel("temporal view", points(1), hidden_from=4))
    return Scene(title, key, class_name, NAMES, bones, (2, 2, 0, 1, 2), 0.125, panels)


def decoded(block: str, shape: tuple[int, ...] = (M, T, V, 3)) -> NDArray[np.float64]:
    whole = np.frombuffer(base64.b64decode(block), "<i2").reshape(shape)
    return np.where(whole == -32768, np.nan, whole / 1000)


class Reader(HTMLParser):
    """Counts elements and keeps the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def data_in(html: str) -> Any:
    return json.loads(Reader(html).scripts[0])


@given(st.lists(st.floats(-32.75, 32.75, width=32), min_size=1, max_size=20))
def test_coordinates_are_at_most_half_a_millimetre_off(metres: list[float]) -> None:
    x = np.array(metres, np.float32)
    off = np.abs(decoded(to_millimetres(x), x.shape) - x.astype(np.float64))
    assert off.max() <= 0.0005 + 1e-12


def test_what_is_absent_stays_absent_and_what_is_far_is_shown_at_the_border() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 40, -1e9, 0, 0.0016], np.float32)
    np.testing.assert_array_equal(
        decoded(to_millimetres(x), x.shape), [np.nan, np.nan, np.nan, 32.767, -32.767, 0, 0.002]
    )


def test_the_page_holds_every_panel() -> None:
    wanted_MTVC = points(5)
    shown = scene(
        Panel("original", points(5)),
        Panel("temporal view", points(1), hidden_from=4),
        Panel("rebuilt by the temporal decoder", points(2), target_MTVC=wanted_MTVC, rebuilt_from=4),
    )
    data = data_in(player_page(shown))
    assert (data["bodies"], data["frames"], data["joints"], data["head"]) == (M, T, V, 1)
    assert data["bones"] == [[1, 0], [2, 1], [3, 1], [4, 0]]
    assert data["sides"] == ["trunk", "trunk", "left", "right", "trunk"]
    assert data["frameSeconds"] == 0.125
    assert [panel["hiddenFrom"] for panel in data["panels"]] == [None, 4, None]
    assert [panel["rebuiltFrom"] for panel in data["panels"]] == [0, 0, 4]
    for panel, sent in zip(shown.panels, data["panels"], strict=True):
        found_MTVC = decoded(data["blocks"][sent["block"]])
        np.testing.assert_allclose(found_MTVC, panel.x_MTVC, atol=0.0005001)
    assert data["panels"][2]["target"] == data["panels"][0]["block"]
    assert len(data["blocks"]) == 3


def test_controls_are_there_for_what_there_is() -> None:
    plain = player_fragment(scene(Panel("original", points(0)[:1])))
    assert plain.count("<canvas") == 1
    assert "second body" not in plain
    assert "what was to be rebuilt" not in plain
    two = player_fragment(scene(Panel("original", points(0)), Panel("b", points(1), target_MTVC=points(2))))
    assert two.count("<canvas") == 2
    assert "second body" in two
    assert "what was to be rebuilt" in two


def test_a_player_plays_by_itself_only_where_asked() -> None:
    shown = scene()
    asked = [("data-autoplay", None) in Reader(html).attributes for html in (
        player_fragment(shown), player_fragment(shown, autoplay=True), player_page(shown)
    )]  # fmt: skip
    assert asked == [False, True, True]


NASTY = "</script><script>alert(1)</script><!-- & \" ' {{ 7 * 7 }} \u2028 Größe"


@pytest.mark.parametrize("place", ["title", "class_name", "key", "panel", "joint"])
def test_a_name_stays_a_name(place: str) -> None:
    if place == "panel":
        shown = scene(Panel(NASTY, points(0)))
    elif place == "joint":
        shown = replace(scene(), joints=(NASTY, *NAMES[1:]))
    else:
        shown = scene(**{place: NASTY})
    usual = Reader(player_page(scene(*(replace(panel, name="original") for panel in shown.panels))))
    page = player_page(shown)
    assert Reader(page).tags == usual.tags
    if place != "joint":  # their names do not go into the page
        assert str(escape(NASTY)) in page
    if place == "panel":
        assert data_in(page)["panels"][0]["name"] == NASTY


def test_nothing_is_loaded_and_nothing_has_an_id() -> None:
    page = player_page(scene())
    attributes = Reader(page).attributes
    assert not [value for name, value in attributes if name in ("id", "src", "for")]
    assert [value for name, value in attributes if name == "href"] == ["data:,"]
    assert re.findall(r"https?://|@import|url\(", page) == []


def test_bodies_have_the_colours_of_the_pictures() -> None:
    style = player_fragment(scene()).split("<style>")[1].split("@media")[0]
    for body, tones in enumerate(TONES):
        for side, tone in zip(("left", "right", "trunk"), tones, strict=True):
            assert f"--{side}-{body}: {tone};" in style


def test_data_is_small() -> None:
    sent = json.dumps(player_data(scene(Panel("one", points(0)), Panel("same", points(0)))))
    assert sent.count(to_millimetres(points(0))) == 1
