"""NTU text: exact numbers, every oddity in circulation, every damage by its line, no crash on any bytes.

Axes: B body track, T frame, V joint, C coordinate.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.raw import ntu
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.tokens import INFINITE_FROM, NUMBER

ROOT = Path(__file__).parents[3]
V = 3  # joints of the small files here
ID = 72057594037931243


def joint_line(x: str = "0.5", y: str = "-1.25", z: str = "3.75", state: str = "2") -> str:
    return (
        f"{x} {y} {z} 277.419 191.8218 1036.233 519.1677 -0.2059419 0.05349901 0.9692109 -0.1239193 {state}"
    )


def body(
    body_id: int | str = ID, joints: list[str] | None = None, count: int | str | None = None
) -> list[str]:
    joints = [joint_line(x=f"{joint}.5") for joint in range(V)] if joints is None else joints
    count = len(joints) if count is None else count
    return [f"{body_id} 0 1 1 1 1 0 0.02764709 0.05745083 2", str(count), *joints]


def recording(*frames: list[list[str]], claimed: int | str | None = None) -> list[str]:
    """The lines of a file. Each frame is a list of bodies, each body a list of lines."""
    lines = [str(len(frames) if claimed is None else claimed)]
    for bodies in frames:
        lines += [str(len(bodies)), *(line for one in bodies for line in one)]
    return lines


def encoded(lines: list[str], newline: str = "\n") -> bytes:
    return "".join(line + newline for line in lines).encode()


def parse(lines: list[str]) -> Sequence:
    return parse_ntu(encoded(lines), "some.skeleton", V)


def fault(data: bytes | list[str]) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        parse_ntu(data if isinstance(data, bytes) else encoded(data), "some.skeleton", V)
    assert caught.value.path == "some.skeleton"
    return caught.value


def parse_slowly(data: bytes, num_joints: int) -> Sequence:
    """The plain twin: line by line, with `float()`."""
    lines = iter(data.decode("ascii").splitlines())
    num_frames = int(next(lines))
    tracks: dict[tuple[int, int], tuple[list[list[list[float]]], list[list[int]], list[bool]]] = {}
    for frame in range(num_frames):
        ids_in_frame: list[int] = []
        for _ in range(int(next(lines))):
            body_id = int(next(lines).split()[0])
            key = body_id, ids_in_frame.count(body_id)
            ids_in_frame.append(body_id)
            if key not in tracks:
                absent_xyz = [[[0.0] * 3 for _ in range(num_joints)] for _ in range(num_frames)]
                tracks[key] = absent_xyz, [[0] * num_joints for _ in range(num_frames)], [False] * num_frames
            xyz, states, present = tracks[key]
            present[frame] = True
            assert int(next(lines)) == num_joints
            for joint in range(num_joints):
                values = [float(token) for token in next(lines).split()]
                assert len(values) == 12
                if not any(np.isnan(values[:3])):
                    xyz[frame][joint], states[frame][joint] = values[:3], int(values[-1])
    shape = len(tracks), num_frames, num_joints
    return Sequence(
        np.array([body_id for body_id, _ in tracks], np.int64),
        np.array([xyz for xyz, _, _ in tracks.values()]).reshape(*shape, 3).astype(np.float32),
        np.array([states for _, states, _ in tracks.values()], np.uint8).reshape(shape),
        np.array([present for _, _, present in tracks.values()], np.bool_).reshape(shape[:2]),
    )


def assert_same(found: Sequence, expected: Sequence) -> None:
    for name in ("ids_B", "xyz_BTVC", "states_BTV", "present_BT"):
        left, right = getattr(found, name), getattr(expected, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)


# What a good file says


def test_real_files_equal_the_plain_reader(real_ntu: Path) -> None:
    """Else every figure that is computed from a real file would be off, and nobody could see why."""
    files = sorted(real_ntu.glob("*.skeleton"))[::20]
    assert files
    for file in files:
        data = file.read_bytes()
        assert_same(parse_ntu(data, file.name), parse_slowly(data, 25))


def test_two_bodies_in_a_file_of_full_size() -> None:
    """Else joints, frames, bodies or coordinates would trade places unnoticed."""
    rng = np.random.default_rng(5)
    values_BTVC = rng.normal(0, 2, (2, 7, 25, 3)).astype(np.float32)
    states_BTV = rng.integers(0, 3, (2, 7, 25))
    frames = []
    for t in range(7):
        bodies = []
        for b in range(2):
            joints = []
            for v in range(25):
                x, y, z = (f"{value:.7g}" for value in values_BTVC[b, t, v])
                joints.append(joint_line(x, y, z, str(states_BTV[b, t, v])))
            bodies.append(body(ID + b, joints))
        frames.append(bodies)
    data = encoded(recording(*frames))
    found = parse_ntu(data, "some.skeleton")
    assert found.xyz_BTVC.shape == (2, 7, 25, 3)
    assert found.ids_B.tolist() == [ID, ID + 1]
    np.testing.assert_allclose(found.xyz_BTVC, values_BTVC, rtol=1e-6)
    assert_same(found, parse_slowly(data, 25))


PLAIN_TOKENS = st.from_regex(r"[+-]?[0-9]{1,12}(\.[0-9]{0,12})?", fullmatch=True)
ANY_TOKENS = st.from_regex(
    r"[+-]?([0-9]{1,25}(\.[0-9]{0,25})?|\.[0-9]{1,25})([eE][+-]?[0-9])?", fullmatch=True
)
REAL_TOKENS = st.floats(-100, 100).map(lambda value: f"{value:.7G}") | st.floats(-9, 9).map(repr)


@settings(max_examples=300, deadline=None)
@given(st.lists(PLAIN_TOKENS | ANY_TOKENS | REAL_TOKENS, min_size=3, max_size=3))
def test_every_number_is_what_float_makes_of_it(tokens: list[str]) -> None:
    """Else our coordinates would differ in the last bit from those of the authors' own scripts."""
    found = parse(recording([body(joints=[joint_line(), joint_line(*tokens), joint_line()])]))
    expected = np.array([float(token) for token in tokens]).astype(np.float32)
    assert found.xyz_BTVC[0, 0, 1].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "token",
    [
        *("0.1", "-0", "+2.5", "5.", ".5", "9.999E-05", "-1e-7", "1E+2", "1e-400", "1e-45", "3.4028235e38"),
        *("123456789012345", "1234567890123456", "9007199254740993", "16777217.0000000001"),
        *("0.30000001192092896", "0.300000026822090148925781250000001"),
        *("00000000000000000000000001.5", "0.00000000000000000000000000000001"),
    ],
)
def test_numbers_on_the_edge(token: str) -> None:
    """Else the kernel's shortcut would be taken where it is not exact."""
    found = parse(recording([body(joints=[joint_line(y=token)] * V)]))
    assert found.xyz_BTVC[0, 0, 2, 1].tobytes() == np.float32(float(token)).tobytes()


@pytest.mark.parametrize(
    "token", ["0.5e-", "0.5e", "e-5", ".", "-", "0.5e-+5", "1e--5", "0.5.5", "5-5", "0x5", ":.5"]
)
def test_what_is_nearly_a_number_is_none(token: str) -> None:
    """Half of a number, where a disk or a transfer was cut, would pass for the whole."""
    with pytest.raises(RecordingError, match=re.escape(token)):
        parse(recording([body(joints=[joint_line(y=token)] * V)]))


def test_ids_that_floats_cannot_tell_apart() -> None:
    """Else two people would become one."""
    assert float(ID) == float(ID + 1)
    ids = [ID, ID + 1, 0, 2**63 - 1]
    assert parse(recording([body(each) for each in ids])).ids_B.tolist() == ids


def test_people_come_and_go() -> None:
    """Else absent people would be taken for present ones, or frames without anybody would be lost."""
    found = parse(recording([], [body(7)], [body(8), body(7)], [], [body(9)], []))
    assert found.ids_B.tolist() == [7, 8, 9]
    assert found.present_BT.tolist() == [
        [False, True, True, False, False, False],
        [False, False, True, False, False, False],
        [False, False, False, False, True, False],
    ]
    assert found.xyz_BTVC.any(axis=(2, 3)).tolist() == found.present_BT.tolist()


def test_an_id_twice_in_a_frame_makes_two_tracks() -> None:
    """Else the second body would overwrite the first."""
    second = body(7, [joint_line(x="9")] * V)
    found = parse(recording([body(7), second], [body(7)], [body(8), body(7), second]))
    assert found.ids_B.tolist() == [7, 7, 8]
    assert found.present_BT.tolist() == [[True, True, True], [True, False, True], [False, False, True]]
    assert found.xyz_BTVC[1, :, 0, 0].tolist() == [9, 0, 9]


def test_nobody_is_seen_in_the_whole_recording() -> None:
    """Else such files, which exist, could not be told from damaged ones."""
    found = parse(recording([], [], []))
    assert found.xyz_BTVC.shape == (0, 3, V, 3)
    assert found.present_BT.shape == (0, 3)
    assert found.num_frames == 3


@pytest.mark.parametrize("spelling", ["NaN", "nan", "-NaN"])
def test_a_joint_with_nan_was_not_seen(spelling: str) -> None:
    """Else NaN would spread through centring into the whole recording."""
    joints = [joint_line(), joint_line(z=spelling), joint_line(state=spelling)]
    found = parse(recording([body(joints=joints)]))
    assert found.xyz_BTVC[0, 0].tolist() == [[0.5, -1.25, 3.75], [0, 0, 0], [0.5, -1.25, 3.75]]
    assert found.states_BTV[0, 0].tolist() == [2, 0, 0]


def test_nan_where_it_does_not_matter() -> None:
    """Else real files, which have NaN among depth and colour, would be turned away."""
    lines = [line.replace("277.419", "NaN").replace("0.02764709", "NaN") for line in recording([body()], [])]
    assert_same(parse(lines), parse(recording([body()], [])))


PLAIN = recording([body(7)], [body(8), body(7)])


CLOTHES = {
    "CRLF": encoded(PLAIN, "\r\n"),
    "trailing spaces": encoded(PLAIN, " \n"),
    "trailing mix": encoded(PLAIN, "\t \r\n"),
    "leading spaces": encoded([f"  {line}" for line in PLAIN]),
    "wide gaps": encoded([line.replace(" ", "\t  ") for line in PLAIN]),
    "no last newline": encoded(PLAIN).removesuffix(b"\n"),
    "blank end": encoded(PLAIN) + b"\n \r\n\n",
    "byte order mark": b"\xef\xbb\xbf" + encoded(PLAIN),
    "remarks": encoded([part for line in PLAIN for part in ("# a remark", line, " #")]),
    "remark among blank lines": encoded([*PLAIN, "", "# the end", ""]),
    "plus signs": encoded([f"+{line}" for line in PLAIN]),
}


@pytest.mark.parametrize("name", CLOTHES)
def test_the_same_recording_in_other_clothes(name: str) -> None:
    """Else a file that passed through another system or a hand would be turned away, or read differently."""
    assert_same(parse_ntu(CLOTHES[name], "some.skeleton", V), parse(PLAIN))


def test_many_odd_lines() -> None:
    """Else a file in which nothing is plain would run over the buffer for odd lines."""
    odd = body("+7", [joint_line(x="5E-1")] * V)
    found = parse(recording([odd] * 9, *([[odd]] * 40)))
    assert found.present_BT.sum() == 49
    assert (found.xyz_BTVC[found.present_BT][..., 0] == 0.5).all()


# What a bad file is told

SPOILT = joint_line()
DAMAGES = {
    "empty": ([], 0, "empty file"),
    "blank": (["", " "], 0, "empty file"),
    "stray space": (
        recording([body(joints=[SPOILT, SPOILT.replace(".", ". ", 1), SPOILT])]),
        6,
        "13 values where a joint line has 12",
    ),
    "blank line": (recording([body(joints=["", SPOILT, SPOILT])]), 5, "0 values where a joint line has 12"),
    "short body line": (recording([["7 0 1", *body()[1:]]]), 3, "3 values where a body line has 10"),
    "long count": (recording([body()], claimed="1 1"), 1, "2 values where a frame count line has 1"),
    "page": (["<html>", "<body>"], 1, "'<html>' where a frame count belongs"),
    "joints": (recording([body(count=V - 1)]), 4, "2 joints where 3 belong"),
    "joint too few": (
        recording([body(joints=[SPOILT] * (V - 1), count=V)], []),
        7,
        "1 value where a joint line has 12",
    ),
    "joint too many": (
        recording([body(joints=[SPOILT] * (V + 1), count=V)], []),
        8,
        "12 values where a body count line has 1",
    ),
    "letters": (recording([body(joints=[joint_line("abc")] * V)]), 5, "'abc' is not a number"),
    "letters in a column not kept": (
        recording([body(joints=[SPOILT, SPOILT.replace("519.1677", "5l9"), SPOILT])]),
        6,
        "'5l9' is not a number",
    ),
    "letters in a body line": (
        recording([[line.replace("0.0276", "0.O276") for line in body()]]),
        3,
        "'0.O2764709' is not a number",
    ),
    "underscore": (recording([body(joints=[joint_line("1_0")] * V)]), 5, "'1_0' is not a number"),
    "two points": (recording([body(joints=[joint_line("1.2.3")] * V)]), 5, "'1.2.3' is not a number"),
    "no digits": (recording([body(joints=[joint_line(".")] * V)]), 5, "'.' is not a number"),
    "form feed": (recording([body(joints=[joint_line("1\f")] * V)]), 5, r"'1\\x0c' is not a number"),
    "NUL": (recording([body(joints=[SPOILT, joint_line("\0\0"), SPOILT])]), 6, "NUL byte"),
    "NULs between": (recording([body()], [["\0" * 50]]), 9, "NUL byte"),
    "NULs at the end": ([*recording([body()]), "\0\0\0"], 8, "NUL byte"),
    "infinite": (recording([body(joints=[joint_line("Infinity")] * V)]), 5, "an infinite coordinate"),
    "infinite as float32": (
        recording([body(joints=[joint_line("-3.5e38")] * V)]),
        5,
        "an infinite coordinate",
    ),
    "state 3": (
        recording([body(joints=[joint_line(state="3")] * V)]),
        5,
        "'3' where a tracking state belongs",
    ),
    "state 1.5": (recording([body(joints=[joint_line(state="1.5")] * V)]), 5, "'1.5' where a tracking state"),
    "negative id": (recording([body(-7)]), 3, "'-7' where a body id belongs"),
    "fractional id": (recording([body("7.0")]), 3, "'7.0' where a body id belongs"),
    "overflowing id": (recording([body(2**63)]), 3, "'9223372036854775808' where a body id belongs"),
    "NaN id": (recording([body("NaN")]), 3, "'NaN' where a body id belongs"),
    "no frames": (recording([body()], claimed=0), 1, "claims 0 frames"),
    "negative frames": (recording([body()], claimed=-2), 1, "'-2' where a frame count belongs"),
    "absurd frames": (
        recording([body()], claimed=10**12),
        1,
        "claims 1000000000000 frames, which .* cannot hold",
    ),
    "overflowing frames": (recording([body()], claimed=10**30), 1, "'1000.*' where a frame count belongs"),
    "negative bodies": (["1", "-1"], 2, "'-1' where a body count belongs"),
    "absurd bodies": (["2", "99999", *body()], 2, "claims 99999 bodies, which .* cannot hold"),
    "fractional joints": (recording([body(count="3.0")]), 4, "'3.0' where a joint count belongs"),
    "goes on": (recording([body()], [body()], claimed=1), 8, "claims 1 frames but goes on after them"),
    "goes on after blanks": (
        [*recording([body()]), "", "0"],
        9,
        "claims 1 frames but goes on after them",
    ),
    "frames are missing": (
        recording([body()], [], claimed=5),
        8,
        "the file ends after frame 2 of 5: a truncated download?",
    ),
    "joints are missing": (
        recording([body()], [body()], claimed=5)[:-1],
        12,
        "the file ends in frame 2 of 5: a truncated download?",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_by_line_and_reason(name: str) -> None:
    """Else a user would not find the one bad file among 114,000, or the one bad line in it."""
    lines, line, reason = DAMAGES[name]
    error = fault(lines)
    assert error.line == line
    with pytest.raises(ValueError, match=reason):
        raise error


def test_a_tail_cut_within_a_line() -> None:
    """Else a truncated download would look like damage in its last line."""
    lines = recording([body()], [body()])
    error = fault(encoded(lines)[:-40])
    assert error.line == len(lines)
    assert error.reason == "the file ends in frame 2 of 2: a truncated download?"


def test_the_first_damage_is_told() -> None:
    """Else a later fault would hide the odd line that comes before it."""
    lines = recording([body(joints=[SPOILT, joint_line("abc"), SPOILT])], [body(count=99)])
    assert fault(lines).line == 6


def test_lines_are_counted_past_remarks() -> None:
    """Else a remark in a file would shift the line that an error names."""
    lines = recording([body(joints=[SPOILT, joint_line("abc"), SPOILT])])
    lines[5:5] = ["# a remark", "# another"]
    assert fault(lines).line == 8


def test_long_damage_is_shown_short() -> None:
    """Else one bad file could fill the table of rejected ones, or take minutes to be turned away."""
    for token in ("9" * 200_000 + "x", "x" * 200_000, "." * 200_000):
        assert len(fault(recording([body(joints=[joint_line(token)] * V)])).reason) < 100


def test_ever_new_ids_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a small damaged file could ask for many gigabytes, and end the whole job."""
    monkeypatch.setattr(ntu, "MAX_BODY_FRAMES", 30)
    parse(recording(*([body(t)] for t in range(5))))
    assert fault(recording(*([body(t)] for t in range(6)))).reason.startswith("6 bodies in 6 frames")


def joint_slowly(line: bytes) -> tuple[list[float], int] | None:
    """x, y, z and state of a joint's line; None if it has to be turned away."""
    tokens = [token for token in re.split(rb"[ \t\r]", line) if token]
    kept = [*tokens[:3], *tokens[-1:]]
    if len(tokens) != 12 or not all(NUMBER.fullmatch(token) for token in kept):
        return None
    if not all(re.fullmatch(rb"[0-9+.eE-]+", token) for token in tokens):
        return None
    x, y, z, state = (float(token) for token in (*tokens[:3], tokens[-1]))
    if state not in (0, 1, 2) or any(abs(value) >= INFINITE_FROM for value in (x, y, z)):
        return None
    return [float(np.float32(value)) for value in (x, y, z)], int(state)


@pytest.mark.parametrize("replacement", b"\0 \t\r!,-./0159:;E_ae\x7f\x80\xad\xae\xb0\xff")
def test_any_byte_anywhere_in_a_joint_line(replacement: int) -> None:
    """Else a damaged byte would pass unseen where the kernel reads eight at once."""
    good = joint_line("0.2181153", "-0.05785033", "3.737364").encode()
    frame = encoded([*recording([body()])[:-1], "LINE"])
    for place in range(len(good)):
        line = good[:place] + bytes([replacement]) + good[place + 1 :]
        if line.lstrip().startswith(b"#"):
            continue  # a remark
        expected = joint_slowly(line)
        data = frame.replace(b"LINE", line)
        if expected is None:
            assert fault(data).line == 7, line
        else:
            found = parse_ntu(data, "some.skeleton", V)
            assert (found.xyz_BTVC[0, 0, -1].tolist(), found.states_BTV[0, 0, -1]) == expected, line


# What no bytes can do

SMALL = encoded(recording([body(7), body(8)], [], [body(7, [joint_line("9.9E-05", "NaN", "1")] * V)]))


def read_or_reject(data: bytes) -> Sequence | RecordingError:
    """What comes out; any other exception fails the test."""
    try:
        found = parse_ntu(data, "some.skeleton", V)
    except RecordingError as error:
        return error
    assert found.xyz_BTVC.shape == (len(found.ids_B), found.num_frames, V, 3)
    assert np.isfinite(found.xyz_BTVC).all()
    assert found.states_BTV.max(initial=0) <= 2
    return found


def spoil(data: bytes, rng: random.Random) -> bytes:
    """The file with one to four damages of various kinds."""
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(5)
        begin, behind = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        lines = data.split(b"\n")
        if kind == 0:
            flipped = bytearray(data or b"0")
            flipped[rng.randrange(len(flipped))] = rng.choice(b"0123456789+-.eEnaNiI# \t\r\n\0\xff")
            data = bytes(flipped)
        elif kind == 1:
            data = data[:begin] + data[behind:] if rng.random() < 0.5 else data[:behind]
        elif kind == 2:
            data = data[:begin] + rng.randbytes(rng.randrange(9)) + data[begin:]
        elif kind == 3:
            first, second = (rng.randrange(len(lines)) for _ in range(2))
            lines[first], lines[second] = lines[second], lines[first]
            if rng.random() < 0.2:
                rng.shuffle(lines)
            data = b"\n".join(lines)
        else:
            lines[rng.randrange(len(lines))] = rng.choice((b"", b"#", b"1", b"0", b"99", b"-1", b"1" * 30))
            data = b"\n".join(lines)
    return data


def fuzz(rounds: int) -> int:
    """Truncate at every byte, then spoil at random. Returns how many files were still readable."""
    rng = random.Random(20)
    cut = [read_or_reject(SMALL[:size]) for size in range(len(SMALL))]
    assert all(isinstance(result, RecordingError) for result in cut[:-1])
    spoilt = [spoil(SMALL, rng) for _ in range(rounds)]
    spoilt += [rng.randbytes(rng.randrange(60)) for _ in range(rounds // 10)]
    results = [read_or_reject(data) for data in spoilt]
    for data, result in zip(spoilt, results, strict=True):
        if isinstance(result, RecordingError):
            assert 0 <= result.line <= data.count(b"\n") + 1
    return sum(isinstance(result, Sequence) for result in results)


def test_no_bytes_crash_the_parser() -> None:
    """Else one damaged file would end a job of hours."""
    num_read = fuzz(3_000)
    assert 0 < num_read < 3_000


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([*SMALL.split(b"\n"), b"", b"#", b"0", b"1", b"2", b"3"]), max_size=40))
def test_no_order_of_lines_crashes_the_parser(lines: list[bytes]) -> None:
    """Else a file with lost or repeated blocks would end a job of hours."""
    read_or_reject(b"\n".join(lines))


def test_no_bytes_are_read_beyond_the_file(tmp_path: Path) -> None:
    """Else a truncated file could be read on into foreign memory: no kernel checks by itself."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    script = "import test_ntu, test_ucla; assert test_ntu.fuzz(2_000) > 0; assert test_ucla.fuzz(2_000) > 0"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
