"""The page in a real browser, opened from disk as a user opens it."""

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from model.run import Run
from tests.model.report.conftest import visit

MODE_OF_TITLE = {
    "Linear classifier on the frozen encoder": "linear",
    "Nearest neighbours, by cosine": "knn",
    "Semi-supervised: fine-tuned, then a linear classifier on the same labels": "semi",
    "Fine-tuned end to end": "finetune",
}


@pytest.fixture
def opened(browser: Chrome, page: Path) -> Chrome:
    look(browser, 1280, "light")
    visit(browser, page)
    return browser


def look(browser: Chrome, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def ask(browser: Chrome, script: str) -> Any:
    return browser.execute_script(f"return {script}")


def shown(spread: dict[str, Any] | None) -> str:
    """As the page must write a value of the JSON."""
    if spread is None:
        return ""
    deviation = spread["deviation"]
    return f"{100 * spread['mean']:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")


def test_nothing_goes_wrong_and_every_picture_shows(opened: Chrome) -> None:
    assert opened.get_log("browser") == []  # type: ignore[no-untyped-call]
    assert "first, second: report" in opened.title
    assert ask(opened, "[...document.images].every(image => image.complete && image.naturalWidth > 300)")
    assert ask(opened, "document.querySelectorAll('.skeleton-player canvas').length") >= 3


def test_every_accuracy_is_that_of_the_json(opened: Chrome, trained_run: Run, other_run: Run) -> None:
    expected: dict[tuple[str, str, str], list[str]] = {}
    for index, run in enumerate((trained_run, other_run)):
        table = json.loads((run.folder / "eval-ucla-xview3.json").read_text())
        for score in table["scores"]:
            name = score["features"] + (f", k = {score['k']}" if score["k"] else "")
            key = score["mode"], name, f"{score['labels']:,}"
            cells = [shown(score[measure]) for measure in ("top1", "top5", "macro_f1")]
            expected.setdefault(key, ["", "", "", "", "", ""])[3 * index : 3 * index + 3] = cells
    found = {}
    bodies = ask(
        opened,
        "[...document.querySelectorAll('.accuracies tbody')].map(body =>"
        " [...body.rows].map(row => [...row.cells].map(cell => cell.textContent.trim())))",
    )
    for (title,), *rows in bodies:
        for name, labels, _, *cells in rows:
            values = [cell.replace("\xa0", " ") for cell in cells]
            found[MODE_OF_TITLE[title], name, labels] = values[:6]
    assert found == expected


def test_classes_and_confused_pairs_are_those_of_the_json(opened: Chrome, trained_run: Run) -> None:
    table = json.loads((trained_run.folder / "eval-ucla-xview3.json").read_text())
    headline = next(row for row in table["scores"] if (row["mode"], row["label_fraction"]) == ("semi", 0.5))
    rows = "[...document.querySelectorAll('.{} tbody tr')]"
    script = rows + ".map(row => [...row.cells].map(cell => cell.textContent))"
    classes = ask(opened, script.format("classes"))
    assert [row[0] for row in classes] == table["classes"]
    assert [row[1] for row in classes] == [str(sum(row) // 3) for row in headline["confusion"]]
    assert [row[2] for row in classes] == [f"{100 * share:.1f}" for share in headline["per_class"]]
    names, counts = table["classes"], headline["confusion"]
    for true, predicted, times, share in ask(opened, script.format("confused"))[:5]:
        row = counts[names.index(true)]
        assert times == f"{row[names.index(predicted)]} of {sum(row)}"
        assert share == f"{100 * row[names.index(predicted)] / sum(row):.1f}"


def test_no_width_makes_the_page_itself_scroll_sideways(opened: Chrome) -> None:
    for width in (320, 360, 600, 1000, 1600):
        look(opened, width, "light")
        assert ask(opened, "document.documentElement.scrollWidth") <= width
    look(opened, 360, "light")
    assert ask(opened, "document.querySelector('.accuracies').offsetWidth") > 360  # in a box that scrolls


def test_dark_and_light_follow_the_system_and_pictures_stay_on_white(opened: Chrome) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        look(opened, 1280, scheme)
        style = "getComputedStyle(document.{})"
        colours[scheme] = ask(opened, style.format("body") + ".backgroundColor")
        text = ask(opened, style.format("body") + ".color")
        assert contrast(colours[scheme], text) > 7
        assert (
            ask(opened, style.format("querySelector('.picture')") + ".backgroundColor")
            == "rgb(255, 255, 255)"
        )
        quiet = ask(opened, style.format("querySelector('.quiet')") + ".color")
        assert contrast(colours[scheme], quiet) > 4.5
    assert luminance(colours["dark"]) < 0.05 < 0.8 < luminance(colours["light"])


def test_everything_can_be_reached_by_keyboard(opened: Chrome) -> None:
    """Contents, headings, tables and pictures that scroll, the player; and it shows where one is."""
    reached: list[str] = []
    outlines: set[str] = set()
    for _ in range(120):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        facts = ask(
            opened,
            "(e => [e.getAttribute('href') || e.getAttribute('aria-label') || e.tagName,"
            " getComputedStyle(e).outlineStyle])(document.activeElement)",
        )
        if facts[0] == "BODY" or (reached and facts[0] == reached[0]):
            break
        reached.append(facts[0])
        outlines.add(facts[1])
    assert reached[0] == "#content"
    sections = ask(opened, "[...document.querySelectorAll('h2 a')].map(a => a.getAttribute('href'))")
    assert len(sections) >= 9
    assert all(reached.count(section) == 2 for section in sections)  # from the contents, and itself
    boxes = ask(
        opened,
        "[...document.querySelectorAll('[role=region]')].filter(e => e.checkVisibility())"
        ".map(e => e.getAttribute('aria-label'))",
    )
    assert set(boxes) <= set(reached)
    assert "none" not in outlines


def test_a_link_of_the_contents_leads_to_its_section(opened: Chrome) -> None:
    link = opened.find_element(By.CSS_SELECTOR, ".contents a[href='#confusion']")
    link.send_keys(Keys.ENTER)
    assert opened.current_url.endswith("#confusion")


def luminance(colour: str) -> float:
    """Relative luminance of rgb(r, g, b), 0 to 1."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Ratio of the web's accessibility guidelines, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
