"""Arrays that are kept on disk: where they may not be, and that the order of facts says nothing."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from model.kept import Kept

ARRAY = np.arange(6).reshape(2, 3)


def refuse_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that is to be published."""

    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))

    monkeypatch.setattr("model.kept.published", refuse)


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "EROFS"])
def test_in_a_folder_that_is_not_ours_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A colleague's run, or one on a disk that is mounted to read: the scores themselves are no mistake."""
    kept = Kept(tmp_path, {})
    refuse_with(getattr(errno, name), monkeypatch)
    kept.write("some name", {}, x_MN=ARRAY)
    assert kept.read("some name", {}) == {}


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours later the evaluation's own file would not be written either."""
    refuse_with(errno.ENOSPC, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        Kept(tmp_path, {}).write("some name", {}, x_MN=ARRAY)


def test_facts_are_the_same_in_any_order(tmp_path: Path) -> None:
    """A recipe whose keys are written down in another order is no other: hours would be measured again."""
    Kept(tmp_path, {"a": {"b": 1, "c": 2}, "d": 3}).write("some name", {"e": 4, "f": 5}, x_MN=ARRAY)
    found = Kept(tmp_path, {"d": 3, "a": {"c": 2, "b": 1}}).read("some name", {"f": 5, "e": 4})
    assert_array_equal(found["x_MN"], ARRAY)
