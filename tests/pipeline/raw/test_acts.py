"""Acting people: what they do must be what their class's name says."""

import pytest

from pipeline.raw import acts


@pytest.mark.parametrize(
    ("title", "moves"),
    [
        ("take a bow", True),
        ("bowing", True),
        ("touch elbow", False),
        ("walk around", True),
        ("cakewalk around", False),
    ],
)
def test_what_the_body_does_is_told_by_whole_words(title: str, moves: bool) -> None:
    """Or who touches an elbow would bow."""
    assert (acts.act_of(title).body is not acts._STANDING) == moves
