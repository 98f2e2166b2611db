"""What is printed for people."""

import re
import time
from pathlib import Path

import pytest

from model import terminal
from model.terminal import bar, print_scores, status, training_bar
from model.train import Progress
from tests.model.report.made_up import evaluation_table, score_table


def test_a_finished_bar_gives_the_rate_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """And not that of its last moments: what took time before the first file counts."""
    with bar("files", 200) as advance:
        time.sleep(0.5)
        for _ in range(100):
            advance(2, "")
    shown = capsys.readouterr().err.splitlines()[-1]
    found = re.search(r"200/200 (\d+) files/s", shown)
    assert found, shown
    assert 0 < int(found[1]) <= 400


def test_a_bar_that_was_refused_its_work_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is the line to read; half done, how far it got is worth one, too."""

    def refused(done: int) -> None:
        with bar("files", 200) as advance:
            advance(done, "")
            raise ValueError("the folder is in use")

    for done in (0, 2):
        with pytest.raises(ValueError, match="the folder is in use"):
            refused(done)
        left = capsys.readouterr().err
        assert ("/200" in left) if done else left == ""


def test_a_bar_under_which_nothing_was_left_to_do_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("samples", 200):
        pass
    assert capsys.readouterr().err == ""


def test_stages_are_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with status() as say:
        say("reading the samples")
        say("features: trained encoder")
    assert capsys.readouterr().err == "reading the samples\nfeatures: trained encoder\n"


def test_training_is_a_line_an_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """In a log of hours, a line a step would be all there is; how far it is comes from all steps."""
    with training_bar() as show:
        for step in range(1, 5):
            show(Progress(step, 4, 2, 8, {"contrast": step / 10, "total": 9.0}))
            if step == 2:
                halfway = capsys.readouterr().err
    shown = capsys.readouterr().err
    assert [line.split("s  ")[1] for line in halfway.splitlines() if " s  " in line] == [
        "epoch 1/2: contrast 0.200"
    ]
    assert [line.split("s  ")[1] for line in shown.splitlines() if " s  " in line] == [
        "epoch 2/2: contrast 0.400"
    ]
    assert "32/32" in shown
    assert all(line == line.rstrip() for line in shown.splitlines())  # a log is not filled up with spaces
    with training_bar() as show:
        show(Progress(1, 4, 2, 8, {"total": 9.0}))
    assert "8/32" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 160])
def test_nothing_of_an_evaluation_is_cut_off(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal of 80 columns either, with every column and every repetition there is."""
    monkeypatch.setattr(terminal, "WIDTH_WITHOUT_TERMINAL", width)
    features = "untrained encoder and input statistics, whitened"
    score = score_table("knn", features, [0.1, 0.2, 0.3], k=20, fraction=0.1)
    others = {"mean": 0.654, "deviation": 0.021, "by_seed": [0.633, 0.654, 0.675]}
    won = {"won": 3, "lost": 17, "p": 0.0026}
    score |= {"top1_without_copies": others, "top5": others, "versus_untrained": won}
    table = evaluation_table([score, score_table("linear")]) | {"copied": 95, "test_samples": 464}
    print_scores(table, Path("runs/some"))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    assert printed.startswith("runs/some: Northwestern-UCLA xview3, 1,020 train, 464 test; %\n")
    words = printed.split()
    for word in (*features.split(), "nearest", "neighbours,", "102", "linear,", "1,020", "macro-F1", "-3.0"):
        assert word in words
    assert "65.4 ± 2.1" in printed
    assert "(p 0.0026)" in printed
