"""What README and docs/own-data.md show works as it stands there, on data under the names that they use."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.commands import works

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    """What stands between fences of that language, or of none."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M) if name == language
    ]


BLOCKS = blocks("README.md", "python")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards/ntu60 in both formats, and runs/ntu60-001, encoded."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        works("synthesize", "ntu60", "raw", "--samples", "360")
        works("preprocess", "ntu60", "raw", "--format", "both")
        narrow = ["--set=model.encoder.widths=[4, 4]", "--set=model.encoder.strides=[8, 1]"]
        works("train", "--set=epochs=1", *narrow)
        works("encode")
    return folder


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_a_block_runs(block: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    exec(block, {})


def test_a_data_set_of_ones_own_comes_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (spec,), (recordings,) = (blocks("docs/own-data.md", language) for language in ("toml", "python"))
    (tmp_path / "mine.toml").write_text(spec)
    exec(recordings, {})
    (commands,) = blocks("docs/own-data.md", "")
    for command in commands.splitlines():
        python, program, *arguments = shlex.split(command)
        assert (python, program) == ("python", "cli.py")
        works(*arguments)
    evaluation = json.loads((tmp_path / "runs/mine-001/eval-mine-xsub.json").read_text())
    assert (evaluation["train_samples"], evaluation["test_samples"]) == (24, 24)
    assert evaluation["scores"][0]["top1"]["mean"] > 0.9
    assert evaluation["scores"][0]["top5"] is None
