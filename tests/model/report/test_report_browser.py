"""The page in a real browser, opened from disk as a user opens it."""

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from model.report.page import write_report
from model.run import Run
from tests.model.report.conftest import visit
from tests.model.report.made_up import evaluation_table, score_table, write_run

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
    compared: dict[tuple[str, str, str], list[str]] = {}
    for index, run in enumerate((trained_run, other_run)):
        table = json.loads((run.folder / "eval-ucla-xview3.json").read_text())
        whole = {}
        for score in table["scores"]:
            name = score["features"] + (f", k = {score['k']}" if score["k"] else "")
            key = score["mode"], name, f"{score['labels']:,}"
            whole[key] = [shown(score[measure]) for measure in ("top1", "top5", "macro_f1")]
            compared.setdefault(key, ["", ""])[index] = whole[key][0]
        assert rows_of(opened, index + 1, 3) == whole
    assert rows_of(opened, 0, 2) == compared


def rows_of(browser: Chrome, place: int, columns: int) -> dict[tuple[str, str, str], list[str]]:
    """The first columns of numbers in a table of accuracies, by mode, features and labels."""
    bodies = ask(
        browser,
        f"[...document.querySelectorAll('.accuracies')[{place}].tBodies].map(body =>"
        " [...body.rows].map(row => [...row.cells].map("
        "cell => cell.textContent.trim().replaceAll('\\xa0', ' '))))",
    )
    return {
        (MODE_OF_TITLE[title], name, labels): cells[:columns]
        for (title,), *rows in bodies
        for name, labels, _, *cells in rows
    }


def test_runs_can_be_compared_without_scrolling(browser: Chrome, tmp_path: Path) -> None:
    """Three of them, with all that makes their table wide, in a window of a small laptop."""
    subset = ", ".join(f"ucla-xview-0.1-seed-{seed}.txt" for seed in range(3))
    copies = {"mean": 0.7, "deviation": 0.012, "by_seed": [0.69, 0.71]}
    scores = [
        score_table(features=features, by_seed=(0.6, 0.7)) | {"top1_without_copies": copies} | more
        for features in (
            "trained encoder",
            "untrained encoder and input statistics, with distances, whitened",
        )
        for more in ({}, {"subset": subset, "label_fraction": 0.1, "labels": 102})
    ]
    table = evaluation_table(scores, copied=95)
    runs = [write_run(tmp_path / f"run-{number}", table, steps=1) for number in range(3)]
    look(browser, 1300, "light")
    visit(browser, write_report(runs, tmp_path / "out.html"))
    box = "document.querySelector('.compared').parentElement"
    assert ask(browser, f"{box}.scrollWidth <= {box}.clientWidth")
    look(browser, 500, "light")
    assert ask(browser, f"{box}.scrollWidth > {box}.clientWidth")
    name = "document.querySelector('.compared th[scope=row]').getBoundingClientRect().left"
    before = ask(browser, name)
    browser.execute_script(f"{box}.scrollLeft = 200")
    assert ask(browser, name) == pytest.approx(before, abs=1)


def test_a_name_on_a_card_and_a_p_value_stay_on_one_line(browser: Chrome, tmp_path: Path) -> None:
    trained = score_table() | {"versus_untrained": {"won": 9, "lost": 4, "p": 0.02668}}
    more = ("untrained encoder", "input statistics", "input statistics, with distances")
    table = evaluation_table([trained, *(score_table(features=name) for name in more)])
    look(browser, 1300, "light")
    runs = [write_run(tmp_path / name, table, steps=1) for name in ("a", "b", "c")]  # side by side
    visit(browser, write_report(runs, tmp_path / "out.html"))
    lines = """[...document.querySelectorAll('.card th, .card small')].map(each => {
        const range = document.createRange();
        range.selectNodeContents(each);
        return [each.textContent, range.getClientRects().length];
    })"""
    found = [line for line in ask(browser, lines) if line[0] in more[:2] or line[0].startswith("p")]
    assert {text for text, _ in found} >= {*more[:2], "p\u00a00.027"}
    assert [text for text, count in found if count != 1] == []


def test_classes_and_confused_pairs_are_those_of_the_json(opened: Chrome, trained_run: Run) -> None:
    table = json.loads((trained_run.folder / "eval-ucla-xview3.json").read_text())
    headline = next(row for row in table["scores"] if row["features"] == "trained encoder")
    rows = "[...document.querySelectorAll('.{} tbody tr')]"
    script = rows + ".map(row => [...row.cells].map(cell => cell.textContent))"
    classes = ask(opened, script.format("classes"))
    assert [row[0] for row in classes] == table["classes"]
    assert (headline["mode"], headline["label_fraction"]) == ("linear", 1)
    assert [row[1] for row in classes] == [str(sum(row)) for row in headline["confusion"]]
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
