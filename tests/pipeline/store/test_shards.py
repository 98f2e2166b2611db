"""What shards say of themselves."""

from pipeline.store.shards import reject_kinds


def test_reasons_that_differ_by_numbers_alone_are_one_kind() -> None:
    cut = ["the file ends after frame 3 of 9", "the file ends after frame 4 of 7"]
    kinds = reject_kinds(["13 values where a joint line has 12", *cut])
    assert list(kinds.items()) == [
        ("the file ends after frame … of …", 2),
        ("13 values where a joint line has 12", 1),
    ]
    assert reject_kinds(["0 frames"] * 2) == {"0 frames": 2}
    assert reject_kinds([]) == {}
