"""NW-UCLA recordings: exact numbers from both releases, every damage by its place, no crash on any bytes.

Axes: B body track, T frame, V joint, C coordinate.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.ucla import parse_ucla_json, parse_ucla_text

T, V = 7, 5
POINT = [0.5, -1.25, 3.75]


def document(skeletons: Any) -> bytes:
    return json.dumps({"file_name": "a01_s01_e00_v01", "skeletons": skeletons, "label": 1}).encode()


def parse_json(skeletons: Any) -> Sequence:
    return parse_ucla_json(document(skeletons), "a.json", V)


def frame_text(points: list[list[float]], state: str = "2") -> str:
    return "".join(["17\n", *(f"{x!r},{y!r},{z!r},{state}\n" for x, y, z in points)])


def parse_text(*texts: str) -> Sequence:
    frames = [(f"{number}.txt", text.encode()) for number, text in enumerate(texts)]
    return parse_ucla_text(frames, "a01_s01_e00", V)


def some_points(seed: int = 3) -> list[list[list[float]]]:
    points: list[list[list[float]]] = np.random.default_rng(seed).normal(0, 2, (T, V, 3)).round(6).tolist()
    return points


# The JSON release


def test_real_files_equal_json_and_numpy(real_ucla: Path) -> None:
    """Else every figure that is computed from a real file would be off, and nobody could see why."""
    files = sorted(real_ucla.glob("*.json"))[::4]
    assert files
    for file in files:
        found = parse_ucla_json(file.read_bytes(), file.name)
        expected = np.array(json.loads(file.read_text())["skeletons"]).astype(np.float32)[None]
        np.testing.assert_array_equal(found.xyz_BTVC, expected)
        np.testing.assert_array_equal(found.states_BTV, 2 * expected.any(-1))
        np.testing.assert_array_equal(found.present_BT, expected.any((-1, -2)))
        assert found.ids_B.tolist() == [0]


def test_json_keeps_axes_and_types() -> None:
    """Else frames, joints or coordinates would trade places unnoticed."""
    points = some_points()
    found = parse_json(points)
    assert found.xyz_BTVC.shape == (1, T, V, 3)
    arrays = found.ids_B, found.xyz_BTVC, found.states_BTV, found.present_BT
    assert [str(array.dtype) for array in arrays] == ["int64", "float32", "uint8", "bool"]
    np.testing.assert_array_equal(found.xyz_BTVC[0], np.array(points).astype(np.float32))
    assert (found.states_BTV == 2).all()
    assert found.present_BT.all()


NAN = float("nan")


def test_joints_that_were_not_seen() -> None:
    """Else a NaN would spread through the recording, and a missing joint would be a joint at the camera."""
    frames = [
        [POINT, [NAN, 1.0, 1.0], [0.0, 0.0, 0.0], [0, 0, 1], [1, 1, NAN]],
        [[0.0, -0.0, 0]] * V,
        [[NAN] * 3] * V,
        [POINT] * V,
    ]
    found = parse_json(frames)
    assert found.xyz_BTVC[0, 0].tolist() == [POINT, [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert found.states_BTV[0, 0].tolist() == [2, 0, 0, 2, 0]
    assert found.present_BT.tolist() == [[True, False, False, True]]
    assert not found.xyz_BTVC[0, 1:3].any()


def test_whole_numbers_of_any_length() -> None:
    """Else a file whose coordinates happen to be whole would be turned away."""
    found = parse_json([[[1, -2, 16777217]] * V])
    assert found.xyz_BTVC[0, 0, 0].tolist() == [1, -2, 16777216]


JSON_DAMAGES = {
    "empty": (b"", 0, "empty file"),
    "blank": (b" \n", 0, "empty file"),
    "cut": (document(some_points())[:-9], 1, "not JSON"),
    "not JSON": (b'{"skeletons":\n\n [[[1, 2, x]]]}', 3, "not JSON: Expecting value"),
    "not UTF-8": (b'{"label": 1,\n "file_name": "\xff"}', 2, "byte 0xff is not UTF-8"),
    "NULs": (b"\0" * 99, 1, "not JSON"),
    "nested": (b"[" * 200_000, 0, "nested too deep"),
    "a list": (b"[1, 2]", 0, "no list `skeletons`"),
    "no skeletons": (b'{"label": 1}', 0, "no list `skeletons`"),
    "skeletons is text": (document("none"), 0, "no list `skeletons`"),
    "no frames": (document([]), 0, "0 frames"),
    "frame is null": (document([[POINT] * V, None]), 0, "frame 2: null where a list of joints belongs"),
    "joints": (document([[POINT] * V, [POINT] * (V - 1)]), 0, "frame 2: 4 joints where 5 belong"),
    "ragged": (
        document([[POINT] * V, [POINT, POINT[:2]] + [POINT] * 3]),
        0,
        "frame 2: joint 2: 2 values where",
    ),
    "flat": (document([[1.0] * V]), 0, "frame 1: joint 1: a number where x, y, z belong"),
    "deeper": (document([[[POINT] * 3] * V]), 0, "frame 1: joint 1: a list where a number belongs"),
    "text": (document([[[1.0, "2.0", 3.0]] * V]), 0, "frame 1: joint 1: a string where a number belongs"),
    "true": (document([[[1.0, 2.0, True]] * V]), 0, "joint 1: true or false where a number belongs"),
    "object": (document([[[1.0, 2.0, {}]] * V]), 0, "joint 1: an object where a number belongs"),
    "infinite": (document([[POINT] * V, [[1.0, float("inf"), 0]] * V]), 0, "frame 2: joint 1: an infinite"),
    "infinite as float32": (
        document([[[1.0, -3.5e38, 0]] * V]),
        0,
        "frame 1: joint 1: an infinite coordinate",
    ),
    "endless": (document([[[1.0, 2.0, 3.0]] * V]).replace(b"3.0", b"9" * 5000), 0, "an infinite coordinate"),
}


@pytest.mark.parametrize("name", JSON_DAMAGES)
def test_damaged_json_is_told_by_place_and_reason(name: str) -> None:
    """Else a user would not find the one bad file, or what is wrong with it."""
    data, line, reason = JSON_DAMAGES[name]
    with pytest.raises(RecordingError, match=reason) as caught:
        parse_ucla_json(data, "a.json", V)
    assert (caught.value.path, caught.value.line) == ("a.json", line)


# The original text release


def test_text_says_what_json_says() -> None:
    """Else the two releases of one data set would give different results."""
    points = some_points()
    found, expected = parse_text(*(frame_text(frame) for frame in points)), parse_json(points)
    np.testing.assert_array_equal(found.xyz_BTVC, expected.xyz_BTVC)
    np.testing.assert_array_equal(found.states_BTV, expected.states_BTV)
    np.testing.assert_array_equal(found.present_BT, expected.present_BT)
    assert found.ids_B.tolist() == [0]


def test_text_as_it_may_be_written() -> None:
    """Else a file that passed through another system would be turned away, or read differently."""
    plain = frame_text([POINT] * V)
    clothes = (
        plain.replace("\n", "\r\n"),
        plain.replace(",", ", "),
        plain.removesuffix("\n"),
        plain + "\n \r\n",
        frame_text([POINT] * V, "2.0"),
        "\ufeff" + plain.replace("17", " 17.5 "),
        plain.replace("0.5", "+5E-1"),
    )
    found = parse_text(plain, *clothes)
    assert (found.xyz_BTVC == np.array(POINT, np.float32)).all()
    assert (found.states_BTV == 2).all()


def test_text_keeps_states_and_absence() -> None:
    """Else guessed joints would pass for seen ones, and empty frames for damage."""
    joints = ["0.5,-1.25,3.75,1", "0.5,-1.25,3.75,0.0", "0,0,0,2", "1,NaN,1,2", "1,1,1,nan"]
    found = parse_text("", "17\n", "\n".join(["17", *joints]), frame_text([[0.0] * 3] * V), " \r\n")
    assert found.present_BT.tolist() == [[False, False, True, False, False]]
    assert found.states_BTV[0, 2].tolist() == [1, 0, 0, 0, 0]
    assert found.xyz_BTVC[0, 2].tolist() == [POINT, POINT, [0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert not found.xyz_BTVC[0, [0, 1, 3, 4]].any()


LINE = "0.5,-1.25,3.75,2\n"
TEXT_DAMAGES = {
    "number": ("1,2\n" + LINE * V, 1, "'1,2' where the frame's number belongs"),
    "joints": ("1\n" + LINE * (V - 1), 5, "4 joints where 5 belong"),
    "too many joints": ("1\n" + LINE * (V + 1), 7, "6 joints where 5 belong"),
    "values": ("1\n" + LINE + "1,2,3\n" + LINE * 3, 3, "3 values where a joint line has 4"),
    "blank line": ("1\n\n" + LINE * 4, 2, "1 value where a joint line has 4"),
    "letters": ("1\n" + LINE * 4 + "1,x,3,2\n", 6, "'x' is not a number"),
    "underscore": ("1\n" + LINE * 4 + "1,1_0,3,2\n", 6, "'1_0' is not a number"),
    "missing": ("1\n" + LINE * 4 + "1,,3,2\n", 6, "'' is not a number"),
    "NUL": ("1\n" + LINE * 4 + "1,\0,3,2\n", 6, "NUL byte"),
    "infinite": ("1\n" + LINE * 4 + "1,inf,3,2\n", 6, "an infinite coordinate"),
    "infinite as float32": ("1\n" + LINE * 4 + "1,1e39,3,2\n", 6, "an infinite coordinate"),
    "state": ("1\n" + LINE * 4 + "1,2,3,4\n", 6, "'4' where a tracking state belongs"),
    "state between": ("1\n" + LINE * 4 + "1,2,3,1.5\n", 6, "'1.5' where a tracking state belongs"),
    "state infinite": ("1\n" + LINE * 4 + "1,2,3,inf\n", 6, "'inf' where a tracking state belongs"),
}


@pytest.mark.parametrize("name", TEXT_DAMAGES)
def test_damaged_text_is_told_by_frame_and_line(name: str) -> None:
    """Else a user would not find the one bad file among those of a recording."""
    text, line, reason = TEXT_DAMAGES[name]
    with pytest.raises(RecordingError, match=reason) as caught:
        parse_text("1\n" + LINE * V, text)
    assert (caught.value.path, caught.value.line) == ("a01_s01_e00/1.txt", line)


def test_text_without_frames() -> None:
    """Else an empty folder would become a recording."""
    with pytest.raises(RecordingError, match="a01_s01_e00: 0 frames"):
        parse_text()


# What no bytes can do


def assert_sound(found: Sequence) -> None:
    assert found.xyz_BTVC.shape == (1, found.num_frames, V, 3)
    assert np.isfinite(found.xyz_BTVC).all()
    assert found.states_BTV.max() <= 2
    assert not found.xyz_BTVC[~found.present_BT].any()


def spoil(data: bytes, rng: random.Random) -> bytes:
    """The file with a byte changed, a piece lost, or its end."""
    begin, behind = sorted(rng.randrange(len(data)) for _ in range(2))
    kind = rng.randrange(3)
    if kind == 0:
        return data[:begin] + bytes([rng.choice(b'0123456789+-.eEnaN,[]{}" \n\0\xff')]) + data[begin + 1 :]
    return data[:begin] if kind == 1 else data[:begin] + data[behind:]


def shuffled(data: bytes, rng: random.Random) -> bytes:
    """The file's lines or, where it has too few, its bytes in another order."""
    pieces = data.split(b"\n") if data.count(b"\n") > 2 else [bytes([byte]) for byte in data]
    rng.shuffle(pieces)
    return (b"\n" if data.count(b"\n") > 2 else b"").join(pieces)


def fuzz(rounds: int) -> int:
    """Give both parsers spoilt, shuffled and random bytes. Returns how many files were still readable."""
    rng = random.Random(21)
    good_json, good_text = document(some_points()[:2]), frame_text(some_points()[0]).encode()
    num_read = 0
    for number in range(rounds):
        good = good_json if number % 2 else good_text
        data = (spoil(good, rng), shuffled(good, rng), rng.randbytes(rng.randrange(60)))[number // 2 % 3]
        try:
            if number % 2:
                found = parse_ucla_json(data, "a.json", V)
            else:
                found = parse_ucla_text([("0.txt", good_text), ("1.txt", data)], "a", V)
        except RecordingError:
            continue
        assert_sound(found)
        num_read += 1
    return num_read


def test_no_bytes_crash_the_parsers() -> None:
    """Else one damaged file would end a whole job."""
    assert 0 < fuzz(6_000) < 6_000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=V) | st.dictionaries(st.just("skeletons"), inner, max_size=1),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES)
def test_no_json_crashes_the_parser(value: Any) -> None:
    """Else a valid file of another kind, put among the recordings, would end a whole job."""
    for data in (json.dumps(value).encode(), document(value), document([value] * 2), document([[value] * V])):
        try:
            found = parse_ucla_json(data, "a.json", V)
        except RecordingError:
            continue
        assert_sound(found)
