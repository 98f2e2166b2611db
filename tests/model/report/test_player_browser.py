"""The player in a real headless Chromium: it plays, scrubs, turns, fits a phone, and never complains."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from model.report.player import player_fragment, player_page
from model.report.scene import Panel, Scene
from tests.model.report.conftest import visit

NASTY = "</script><b>wave & bow"
FRAMES = 12


class Window:
    """A page with players, and what its reader does."""

    def __init__(self, browser: Chrome, folder: Path) -> None:
        self.browser, self.path = browser, folder / "page.html"

    def open(
        self, html: str, *, width: int = 1000, height: int = 900, scheme: str = "light", calm: bool = True
    ) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.prefer(scheme, calm=calm)
        self.path.write_text(html, encoding="utf-8")
        visit(self.browser, self.path)

    def prefer(self, scheme: str, *, calm: bool = True) -> None:
        motion = "reduce" if calm else "no-preference"
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def find(self, selector: str, player: int = 0) -> WebElement:
        return self.player(player).find_element(By.CSS_SELECTOR, selector)

    def player(self, index: int = 0) -> WebElement:
        return self.browser.find_elements(By.CSS_SELECTOR, ".skeleton-player")[index]

    def frame(self, player: int = 0) -> int:
        return int(self.player(player).get_attribute("data-frame") or "-1")

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def picture(self, panel: int = 0, player: int = 0) -> str:
        """The pixels of a canvas, as they are once the next frame was painted."""
        script = """
            const [player, panel, done] = arguments;
            requestAnimationFrame(() => requestAnimationFrame(() => done(
                document.querySelectorAll(".skeleton-player")[player].querySelectorAll("canvas")[panel].toDataURL()
            )));
        """
        return str(self.browser.execute_async_script(script, player, panel))

    def press(self, *keys: str, on: str = ".sp-stage", player: int = 0) -> None:
        """Keys in an element that has the focus."""
        self.ask("arguments[0].focus()", self.find(on, player))
        chain = ActionChains(self.browser)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def press_shift(self, key: str) -> None:
        self.ask("arguments[0].focus()", self.find(".sp-stage"))
        ActionChains(self.browser).key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()

    def wait_for_frame(self, expected: Callable[[int], bool], player: int = 0) -> None:
        until = time.monotonic() + 30  # of a busy machine
        while not expected(self.frame(player)):
            assert time.monotonic() < until, f"still at frame {self.frame(player)}"
            time.sleep(0.02)


@pytest.fixture
def window(browser: Chrome, tmp_path: Path) -> Iterator[Window]:
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    yield Window(browser, tmp_path)
    complaints = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert complaints == []


def dancers(frame_seconds: float = 0.05) -> Scene:
    """Two bodies of a few joints; the second comes late. All five panels that there may be."""
    joints = ("hip", "head", "left hand", "right hand", "left foot", "right foot")
    rest_VC = np.array(
        [[0, 0, 0], [0, 0, 0.7], [0.5, 0, 0.3], [-0.5, 0, 0.3], [0.2, 0, -0.9], [-0.2, 0, -0.9]]
    )
    x_MTVC = np.repeat(np.stack([rest_VC, rest_VC + np.array([1.0, 0.2, 0])])[:, None], FRAMES, axis=1)
    for frame in range(FRAMES):
        x_MTVC[:, frame, 2:4, 2] += 0.4 * math.sin(frame / 2)
    x_MTVC[1, :3] = np.nan
    masked_MTVC, late_MTVC = x_MTVC.copy(), 0.8 * x_MTVC
    masked_MTVC[:, 8:], late_MTVC[:, :8] = np.nan, np.nan
    as_stored = x_MTVC.astype(np.float32)
    panels = (
        Panel("original", as_stored),
        Panel("spatial view", (x_MTVC * (1.2, 0.8, 1.0)).astype(np.float32)),
        Panel("temporal view", masked_MTVC.astype(np.float32), hidden_from=8),
        Panel("rebuilt by the spatial decoder", (0.9 * x_MTVC).astype(np.float32), target_MTVC=as_stored),
        Panel(
            "rebuilt by the temporal decoder",
            late_MTVC.astype(np.float32),
            target_MTVC=as_stored,
            rebuilt_from=8,
        ),
    )
    bones = ((1, 0), (2, 0), (3, 0), (4, 0), (5, 0))
    sides = (2, 2, 0, 1, 0, 1)
    return Scene("A set", "key-1", NASTY, joints, bones, sides, frame_seconds, panels, note="after a while")


def test_it_stands_still_until_it_is_played(window: Window) -> None:
    window.open(player_page(dancers(frame_seconds=0.5)))  # far from its end while the test looks
    assert window.frame() == 0
    assert window.find(".sp-title strong").text == NASTY
    assert window.find(".sp-counter").text == f"frame 0 / {FRAMES - 1} · 0.00 s"
    before = window.picture()
    window.find(".sp-play").click()
    assert window.find(".sp-play").get_attribute("aria-label") == "pause"
    window.wait_for_frame(lambda frame: frame >= 3)
    assert window.picture() != before
    window.find(".sp-play").click()
    assert window.find(".sp-play").get_attribute("aria-label") == "play"
    stopped = window.picture(), window.frame()
    time.sleep(0.2)
    assert (window.picture(), window.frame()) == stopped


def test_it_plays_at_once_and_begins_again_where_motion_is_welcome(window: Window) -> None:
    window.open(player_page(dancers(frame_seconds=0.1)), calm=False)
    window.wait_for_frame(lambda frame: frame >= FRAMES - 3)
    window.wait_for_frame(lambda frame: frame < FRAMES - 3)


def test_speed_changes_the_pace(window: Window) -> None:
    window.open(player_page(dancers(frame_seconds=2)))
    window.ask("arguments[0].value = '0.25'", window.find(".sp-speed"))  # eight seconds a frame
    window.find(".sp-play").click()
    time.sleep(0.6)
    assert window.frame() == 0
    window.ask("arguments[0].value = '2'", window.find(".sp-speed"))
    window.wait_for_frame(lambda frame: frame >= 1)


def test_slider_and_keys_choose_the_frame(window: Window) -> None:
    window.open(player_page(dancers()))
    script = "arguments[0].value = 5; arguments[0].dispatchEvent(new Event('input'))"
    window.ask(script, window.find(".sp-scrub"))
    window.wait_for_frame(lambda frame: frame == 5)
    assert "frame 5 of 0 to 11, 0.25 s" in (window.find(".sp-scrub").get_attribute("aria-valuetext") or "")
    steps = [
        (Keys.ARROW_RIGHT, 6),
        (Keys.ARROW_LEFT, 5),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),
        (Keys.END, 11),
        (Keys.ARROW_RIGHT, 11),
    ]
    for element in (".sp-stage", ".sp-scrub", ".sp-play"):
        window.ask(script, window.find(".sp-scrub"))
        for key, expected in steps:
            window.press(key, on=element)
            window.wait_for_frame(expected.__eq__)
            assert window.find(".sp-scrub").get_attribute("value") == str(expected)
    window.press(Keys.HOME)
    window.press(Keys.SPACE)
    window.wait_for_frame(lambda frame: frame >= 2)
    window.press(Keys.SPACE)
    assert window.find(".sp-play").get_attribute("aria-label") == "play"


def test_dragging_keys_and_wheel_turn_all_panels_and_the_view_comes_back(window: Window) -> None:
    window.open(player_page(dancers()))
    stage, first = window.find(".sp-stage"), window.find("canvas")
    seen = [window.picture(panel) for panel in (0, 1)]
    start = list(seen)
    ActionChains(window.browser).drag_and_drop_by_offset(first, 60, 20).perform()
    acts: list[Callable[[], None]] = [
        lambda: None,
        lambda: window.press(Keys.ARROW_UP),
        lambda: window.press_shift(Keys.ARROW_LEFT),
        lambda: window.press("+"),
        lambda: wheel(window, stage),
    ]
    for act in acts:
        act()
        now = [window.picture(panel) for panel in (0, 1)]
        assert now[0] != seen[0]
        assert now[1] != seen[1]
        seen = now
    assert window.frame() == 0
    window.find(".sp-reset").click()
    assert [window.picture(panel) for panel in (0, 1)] == start


def wheel(window: Window, stage: WebElement) -> None:
    script = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: -120, cancelable: true}))"
    window.ask(script, stage)


def test_two_fingers_zoom(window: Window) -> None:
    window.open(player_page(dancers()), width=360)
    before = window.picture()
    box = window.ask("return arguments[0].getBoundingClientRect().toJSON()", window.find("canvas"))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, apart in (("touchStart", 10), ("touchMove", 25), ("touchMove", 40)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        window.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    window.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert window.picture() != before


def test_the_wheel_scrolls_the_page_until_the_player_is_clicked(window: Window) -> None:
    window.open(player_page(dancers()))
    before = window.picture()
    wheel(window, window.find(".sp-stage"))
    assert window.picture() == before


def test_panels_say_what_they_do_not_show(window: Window) -> None:
    window.open(player_page(dancers()))
    states = [".sp-panel:nth-child(3) .sp-state", ".sp-panel:nth-child(5) .sp-state"]
    assert [window.find(state).text for state in states] == ["", "seen, not rebuilt"]
    assert window.find(".sp-panel:nth-child(4) .sp-error").text.endswith("cm off")
    window.press(Keys.END)
    window.wait_for_frame(lambda frame: frame == 11)
    assert [window.find(state).text for state in states] == ["hidden; last pose seen", ""]
    faint = window.picture(2)
    window.press(Keys.ARROW_LEFT)
    window.wait_for_frame(lambda frame: frame == 10)
    assert window.picture(2) == faint  # what was seen last
    compared = window.picture(4)
    window.find(".sp-compare").click()
    assert window.picture(4) != compared


def test_two_players_on_a_page_are_their_own(window: Window) -> None:
    both = player_fragment(dancers()) + player_fragment(dancers())
    page = f"<!doctype html><html><head><meta charset=utf-8><link rel=icon href=data:,></head><body>{both}"
    window.open(page)
    before = window.picture(player=1)
    window.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, player=0)
    window.wait_for_frame(lambda frame: frame == 2)
    assert window.frame(player=1) == 0
    assert window.picture(player=1) == before
    window.press(Keys.END, player=1)
    window.wait_for_frame(lambda frame: frame == 11, player=1)
    assert window.frame(player=0) == 2
    assert (
        window.ask("return Object.keys(window).filter((name) => /player|skeleton|scene/i.test(name))") == []
    )


@pytest.mark.parametrize("width", [320, 360, 700, 1000])
def test_nothing_is_wider_than_the_screen(window: Window, width: int) -> None:
    window.open(player_page(dancers()), width=width)
    assert window.ask("return document.documentElement.scrollWidth") <= width
    sizes = (
        "const c = arguments[0]; return [c.width / c.clientWidth, c.height / c.clientHeight, c.clientWidth]"
    )
    across, down, shown = window.ask(sizes, window.find("canvas"))
    assert across == pytest.approx(2, abs=0.02)  # sharp on a dense screen
    assert down == pytest.approx(2, abs=0.02)
    assert shown >= 120


def test_nothing_jumps_in_height_from_frame_to_frame(window: Window) -> None:
    window.open(player_page(dancers()), width=360)
    heights = set()
    for _ in range(FRAMES):
        heights.add(window.ask("return document.documentElement.scrollHeight"))
        window.press(Keys.ARROW_RIGHT)
        window.picture()
    assert len(heights) == 1


def test_dark_and_light_change_while_it_is_open(window: Window) -> None:
    window.open(player_page(dancers()))
    ground = "return getComputedStyle(document.body).backgroundColor"
    light, painted = window.ask(ground), window.picture()
    window.prefer("dark")
    assert window.ask(ground) != light
    assert window.picture() != painted
    window.prefer("light")
    assert window.ask(ground) == light
    assert window.picture() == painted


def test_the_focus_shows_and_reaches_every_control(window: Window) -> None:
    window.open(player_page(dancers()))
    reached = []
    for _ in range(7):
        ActionChains(window.browser).send_keys(Keys.TAB).perform()
        reached.append(window.ask("return document.activeElement.className"))
        assert window.ask("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached == [
        f"sp-{name}" for name in ("stage", "play", "scrub", "compare", "follow", "speed", "reset")
    ]
