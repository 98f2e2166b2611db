"""What the tests of the report need: a run that was trained, its page, and a real browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from model.report.page import write_report
from model.run import Run
from tests.model.report.made_up import evaluation_table, full_scores, made_from, write_evaluation, write_run


@pytest.fixture(scope="session")
def trained_run(tiny_run: Run) -> Run:
    """Really trained; evaluated by made-up numbers."""
    step = int(tiny_run.checkpoint.stem.split("-")[1])
    of_run = made_from(tiny_run.recipe().to_table(), step, step)
    write_evaluation(tiny_run, evaluation_table(made_from=of_run))
    return tiny_run


@pytest.fixture(scope="session")
def other_run(trained_run: Run) -> Run:
    """Beside it, with another recipe, some points ahead, and without a checkpoint."""
    evaluation = evaluation_table(full_scores(0.0317), seen_in_training=17)
    return write_run(trained_run.folder.parent / "second", evaluation, changes=("lr=0.5",), steps=3)


@pytest.fixture(scope="session")
def page(trained_run: Run, other_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both."""
    return write_report([trained_run, other_run], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """A headless Chromium; the test is skipped where it or its driver is not installed."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = Options()
    options.binary_location = program
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def visit(browser: Chrome, page: Path) -> None:
    """Opens the page, anew where it is open, and waits until all of it is there.

    Left first: when a page is opened over itself, what is asked next may reach a half of it.
    """
    browser.get("about:blank")
    browser.get(page.as_uri())
    whole = f"return document.URL === '{page.as_uri()}' && document.readyState === 'complete'"
    WebDriverWait(browser, 60).until(lambda browser: browser.execute_script(whole))
