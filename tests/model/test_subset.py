"""Which labels may be seen: balanced, nested, the same everywhere, and in files that can be given back."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_specs.read import load_spec
from model.subset import balanced, balanced_subset, from_files, read_subset, write_subset
from pipeline.store.shards import Shards, performances


def keys(samples: int) -> list[str]:
    return [f"sample {n}" for n in range(samples)]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.29, 0.5, 1.0])
def test_subsets_are_balanced(fraction: float) -> None:
    labels_N = np.repeat(np.arange(3), [100, 50, 10])
    chosen = balanced_subset(labels_N, keys(160), fraction)
    counts = np.bincount(labels_N[chosen])
    np.testing.assert_array_equal(counts, [max(1, round(fraction * n)) for n in (100, 50, 10)])
    assert len(set(chosen)) == len(chosen)


@pytest.mark.parametrize(("fraction", "topped_up"), [(0.004, 3), (0.01, 2), (0.05, 1), (0.1, 0), (1.0, 0)])
def test_classes_whose_share_is_no_label_are_counted(fraction: float, topped_up: int) -> None:
    """Who asks for a tenth and gets a third, one label a class, is to be told."""
    labels_N = np.repeat(np.arange(3), [100, 50, 10])
    assert balanced(labels_N, keys(160), fraction).topped_up == topped_up


@pytest.mark.parametrize("seed", [0, 3])
def test_subsets_are_nested_and_follow_the_keys_alone(seed: int) -> None:
    labels_N = np.arange(90) % 3
    sizes = (0.04, 0.1, 0.3, 0.5)
    nested = [set(balanced_subset(labels_N, keys(90), fraction, seed)) for fraction in sizes]
    assert nested[0] < nested[1] < nested[2] < nested[3]
    turned = balanced_subset(labels_N[::-1].copy(), keys(90)[::-1], 0.1, seed)
    assert {89 - n for n in turned} == nested[1]


def test_another_seed_shows_other_labels() -> None:
    first, second = balanced(np.arange(90) % 3, keys(90), 0.1, seeds=2).sets
    assert len(first) == len(second) == 9
    assert set(first) != set(second)


def test_this_very_subset_is_taken_everywhere() -> None:
    """A published accuracy at 10 % would mean nothing if a new version took other labels."""
    assert balanced_subset(np.arange(30) % 3, keys(30), 0.1).tolist() == [1, 14, 18]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="label fraction is"):
        balanced_subset(np.zeros(3, np.int64), keys(3), fraction)


def test_an_id_file_gives_the_same_samples_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "ids.txt"
    write_subset(path, ["sample 7", "sample 2"], "two of ten")
    assert path.read_text() == "# two of ten\nsample 7\nsample 2\n"
    assert read_subset(path, keys(10)).tolist() == [2, 7]
    path.write_text("sample 7\r\n\n  sample 2  \n")  # from another system, by hand
    assert read_subset(path, keys(10)).tolist() == [2, 7]


def test_files_of_one_size_are_repetitions(tmp_path: Path) -> None:
    for name, chosen in (("a", [1, 2]), ("b", [3, 4]), ("c", [5])):
        write_subset(tmp_path / name, [f"sample {n}" for n in chosen], "")
    one, two = from_files([tmp_path / name for name in "abc"], keys(10))
    assert (one.fraction, [chosen.tolist() for chosen in one.sets]) == (0.1, [[5]])
    assert (two.fraction, [chosen.tolist() for chosen in two.sets]) == (0.2, [[1, 2], [3, 4]])
    assert (one.subset, two.subset) == ("c", "a, b")


def test_an_id_file_of_everything_is_refused(tmp_path: Path) -> None:
    """It would be measured twice, and the semi-supervised protocol left out without a word."""
    write_subset(tmp_path / "all", keys(10), "")
    with pytest.raises(ValueError, match="all: names all 10 training samples; expected fewer"):
        from_files([tmp_path / "all"], keys(10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no sample; expected one key a line, such as sample 0"),
        (b"# only a title\n", "names no sample"),
        (b"sample 3\nsample 30\nsample 31\n", "'sample 30' and 1 more not among the 10 training samples"),
        (b"sample 3\nsample 3\n", "sample 3 is named twice"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_id_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_subset(path, keys(10))
    assert str(path) in str(error.value)


def test_an_id_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        read_subset(tmp_path / "ids.txt", keys(10))


def test_recordings_of_one_performance_have_one_name(shards: Shards) -> None:
    shown = performances(shards.table, shards.spec)
    without_view = [key.rpartition("_v")[0] for key in shards.table["key"]]  # a01_s01_e00_v01
    assert len(set(zip(shown, without_view, strict=True))) == len(set(shown)) == len(set(without_view))


def test_recordings_are_told_apart_by_what_the_pattern_leaves_out_of_their_names() -> None:
    """A spec need not have a group for the number of a recording: all of a subject's would pass for one, no
    class could be spread over folds, and the penalty would be anybody's guess."""
    spec = load_spec("ucla")
    spec = replace(spec, name_pattern=re.compile(r"a(?P<action>\d+)_s\d+_e\d+_v(?P<camera>\d+)"))
    names = ["a01_s01_e00_v01", "a01_s01_e00_v02", "a01_s01_e01_v01", "a02_s01_e00_v01"]
    table = pd.DataFrame({"key": names, "action": [1, 1, 1, 2], "camera": [1, 2, 1, 1]})
    first, again, *others = performances(table, spec)
    assert first == again
    assert len({first, *others}) == 3
    # Where the groups say all, what else differs says nothing: a camera's serial number may.
    table["key"] = ["a01_s01_e00_v01", "a01_s02_e00_v02", "a02_s01_e01_v01", "a03_s01_e00_v01"]
    first, again, *others = performances(table.assign(action=[1, 1, 2, 3]), spec)
    assert first == again
    assert len({first, *others}) == 3
