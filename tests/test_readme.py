"""README's Python works as it stands there, on a data set under the names that it uses."""

import re
from pathlib import Path

import pytest

from tests.commands import works

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


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
