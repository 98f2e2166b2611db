"""NTU RGB+D `.skeleton` text -> Sequence.

A file is a frame count; for every frame a body count; for every body a line of 10 values, a joint count, and
for every joint a line of 12 values. Kept are the body's id, and each joint's x, y, z and tracking state.

One kernel goes once over the bytes. It reads the plain lines, which are nearly all. A body or joint line with
anything out of the ordinary on it (NaN, an exponent or many digits in a coordinate, damage) is odd: the
kernel counts its values and leaves the line to Python, where `float()` decides. No buffer is sized from what
the file claims, and no kernel reads past the text: it ends in a newline, where every loop over bytes stops.

Axes: B body track, T frame, V joint, C coordinate, P record (one body in one frame, in file order).
"""

import math
import re
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.tokens import BYTE_ORDER_MARK, INFINITE_FROM, NUMBER, quoted

NEWLINE, HASH, PLUS, MINUS, POINT = (ord(sign) for sign in "\n#+-.")

# Offsets and digits are unsigned: signed offsets cost a check for every byte, and what is below "0" wraps
# around to a huge digit.
ONE, TWO, NINE, TEN, ZERO = (np.uint64(number) for number in (1, 2, 9, 10, ord("0")))

# What a byte can be, as bits. The bytes of a usual number have none of them.
BLANK, END_OF_LINE, ODD = (np.uint64(bit) for bit in (1, 2, 4))
KINDS = np.full(256, ODD, np.uint64)
KINDS[[ord(sign) for sign in "0123456789+-.eE"]] = 0
KINDS[[ord(sign) for sign in " \t\r"]] = BLANK
KINDS[NEWLINE] = BLANK | END_OF_LINE

# Doubles hold these powers of ten, and whole numbers of so many digits, exactly: a division rounds only once.
MAX_DIGITS = np.uint64(15)
POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(int(MAX_DIGITS) + 1)])
MAX_WHOLE_DIGITS = np.uint64(18)  # an int64 holds them, whatever they are

# The lines of a file, how errors call them, and how many values they have.
FRAME_COUNT, BODY_COUNT, BODY, JOINT_COUNT, JOINT, NOTHING = range(6)
LINE_NAMES = ("frame count line", "body count line", "body line", "joint count line", "joint line")
NUM_VALUES = (1, 1, 10, 1, 12)
LEAST_BYTES_OF_A_FRAME = 2
LEAST_BYTES_OF_A_BODY_LINE = 20

# What the kernel itself can find wrong.
FINE, TRUNCATED, WRONG_VALUES, NOT_WHOLE, TOO_MANY, WRONG_JOINTS, GOES_ON = range(7)

NO_JOINT = -1  # an odd line that is a body line

# For odd lines.
TOKEN = re.compile(rb"[^ \t\r]+")
WHOLE = re.compile(rb"\+?\d{1,40}")

# A Sequence is dense, 326 bytes for a track and frame of 25 joints: what needs more of them is no recording.
MAX_BODY_FRAMES = 1_000_000


class _Notes(NamedTuple):
    """How far the kernel came, which keeps it in one int64 array, at the positions below.

    offset: where to read on.  line, begin, due: number (from 1), offset and kind of the line in hand.
    num_found: how many values it has, or the count on it.  frame: the one in hand, from 0.
    """

    offset: int
    line: int
    begin: int
    due: int
    problem: int
    num_found: int
    frame: int
    num_frames: int
    num_records: int
    num_odd: int


OFFSET, LINE, BEGIN, DUE, PROBLEM, NUM_FOUND, FRAME, NUM_FRAMES, NUM_RECORDS, NUM_ODD = range(10)


def parse_ntu(data: bytes, path: str, num_joints: int = 25) -> Sequence:
    """One NTU RGB+D recording, from the bytes of its `.skeleton` file.

    Every coordinate is `np.float32(float(token))`, in metres. A joint with NaN among its coordinates was not
    seen: 0 0 0 with state 0. A NaN state is 0. A recording in which nobody is ever seen has zero tracks.
    `path` only names the file in errors.

    Raises RecordingError, with the line, for all that is not one complete file of this format, and for
    infinite coordinates. Columns that are not kept are only checked for bytes that no number has.
    """
    assert num_joints > 0
    content = data.removeprefix(BYTE_ORDER_MARK)
    text = content if content.endswith(b"\n") else content + b"\n"
    room = len(text) // _least_bytes_of_a_body(num_joints) + 1
    ids_P = np.empty(room, np.int64)
    frames_P = np.empty(room, np.int64)
    xyz_PVC = np.empty((room, num_joints, 3), np.float32)
    states_PV = np.empty((room, num_joints), np.uint8)
    odd_lines = np.empty((room * (1 + num_joints), 5), np.int64)
    notes = np.zeros(len(_Notes._fields), np.int64)
    _read(np.frombuffer(text, np.uint8), notes, ids_P, frames_P, xyz_PVC, states_PV, odd_lines)
    end = _Notes(*notes.tolist())
    for record, joint, line, begin, behind in odd_lines[: end.num_odd].tolist():
        tokens = _odd_tokens(text[begin:behind], path, line)
        if joint == NO_JOINT:
            ids_P[record] = _odd_id(tokens, path, line)
        else:
            xyz_PVC[record, joint], states_PV[record, joint] = _odd_joint(tokens, path, line)
    if end.problem != FINE:
        raise RecordingError(path, end.line, _reason(end, text, len(content), num_joints))
    known = slice(end.num_records)
    return _sequence(end.num_frames, ids_P[known], frames_P[known], xyz_PVC[known], states_PV[known], path)


def _least_bytes_of_a_body(num_joints: int) -> int:
    """The fewest bytes that a body can take: every value has one, and something behind it."""
    return 2 * (NUM_VALUES[BODY] + NUM_VALUES[JOINT_COUNT] + num_joints * NUM_VALUES[JOINT])


def _odd_tokens(text: bytes, path: str, line: int) -> list[bytes]:
    """The values of an odd line. Raises RecordingError if one is not a number."""
    tokens = TOKEN.findall(text)
    for token in tokens:
        if not NUMBER.fullmatch(token):
            reason = "NUL byte" if b"\0" in text else f"{quoted(token)} is not a number"
            raise RecordingError(path, line, reason)
    return tokens


def _odd_id(tokens: list[bytes], path: str, line: int) -> int:
    """The id on an odd body line. Raises RecordingError unless it is a whole number that an int64 holds."""
    if WHOLE.fullmatch(tokens[0]) and int(tokens[0]) < 2**63:
        return int(tokens[0])
    raise RecordingError(path, line, f"{quoted(tokens[0])} where a body id belongs")


def _odd_joint(tokens: list[bytes], path: str, line: int) -> tuple[tuple[float, float, float], int]:
    """x, y, z and tracking state of an odd joint line. Raises RecordingError if they cannot be that."""
    x, y, z, state = (float(token) for token in (*tokens[:3], tokens[-1]))
    if state not in (0, 1, 2) and not math.isnan(state):
        raise RecordingError(path, line, f"{quoted(tokens[-1])} where a tracking state belongs (0, 1 or 2)")
    if any(abs(value) >= INFINITE_FROM for value in (x, y, z)):
        raise RecordingError(path, line, "an infinite coordinate")
    if math.isnan(x + y + z):
        return (0, 0, 0), 0
    return (x, y, z), 0 if math.isnan(state) else int(state)


def _reason(end: _Notes, text: bytes, num_bytes: int, num_joints: int) -> str:
    """Why the kernel gave up. num_bytes: of the file itself, which may lack its last newline."""
    line_end = text.find(b"\n", end.begin)
    line = text[end.begin : line_end]
    if b"\0" in line:
        return "NUL byte"
    is_cut = line_end == num_bytes and end.due > FRAME_COUNT and end.problem in (WRONG_VALUES, WRONG_JOINTS)
    if end.problem == TRUNCATED or is_cut:
        return _truncation(end)
    if end.problem == WRONG_VALUES:
        values = "value" if end.num_found == 1 else "values"
        return f"{end.num_found} {values} where a {LINE_NAMES[end.due]} has {NUM_VALUES[end.due]}"
    if end.problem == NOT_WHOLE:
        return f"{quoted(line.strip())} where a {LINE_NAMES[end.due].removesuffix(' line')} belongs"
    if end.problem == TOO_MANY and end.num_found == 0:
        return "claims 0 frames"
    if end.problem == TOO_MANY:
        things = "frames" if end.due == FRAME_COUNT else "bodies"
        return f"claims {end.num_found} {things}, which the file cannot hold: a truncated download?"
    if end.problem == WRONG_JOINTS:
        return f"{end.num_found} joints where {num_joints} belong"
    assert end.problem == GOES_ON
    return f"claims {end.num_frames} frames but goes on after them"


def _truncation(end: _Notes) -> str:
    if end.due == FRAME_COUNT:
        return "empty file"
    if end.due == BODY_COUNT:
        return f"the file ends after frame {end.frame} of {end.num_frames}: a truncated download?"
    return f"the file ends in frame {end.frame + 1} of {end.num_frames}: a truncated download?"


def _sequence(
    num_frames: int,
    ids_P: NDArray[np.int64],
    frames_P: NDArray[np.int64],
    xyz_PVC: NDArray[np.float32],
    states_PV: NDArray[np.uint8],
    path: str,
) -> Sequence:
    """The records as tracks. Raises RecordingError if they are too scattered to be one recording."""
    num_joints = states_PV.shape[1]
    tracks_P = np.empty(len(ids_P), np.int64)
    ids_B = np.empty(len(ids_P), np.int64)
    num_tracks = _assign_tracks(ids_P, frames_P, tracks_P, ids_B)
    if num_tracks * num_frames > MAX_BODY_FRAMES:
        raise RecordingError(path, 0, f"{num_tracks} bodies in {num_frames} frames: not one recording")
    xyz_BTVC = np.zeros((num_tracks, num_frames, num_joints, 3), np.float32)
    states_BTV = np.zeros((num_tracks, num_frames, num_joints), np.uint8)
    present_BT = np.zeros((num_tracks, num_frames), np.bool_)
    _scatter(tracks_P, frames_P, xyz_PVC, states_PV, xyz_BTVC, states_BTV, present_BT)
    return Sequence(ids_B[:num_tracks].copy(), xyz_BTVC, states_BTV, present_BT)


@njit(cache=True, nogil=True)
def _read(
    text: Any, notes: Any, ids_P: Any, frames_P: Any, xyz_PVC: Any, states_PV: Any, odd_lines: Any
) -> None:
    """Read text (uint8, ends in a newline) into records and odd lines, up to its end or to a problem."""
    data = _without_blank_end(text)
    num_joints = states_PV.shape[1]
    notes[NUM_FRAMES] = _read_count(data, notes, FRAME_COUNT)
    for frame in range(notes[NUM_FRAMES]):
        notes[FRAME] = frame
        for _ in range(_read_count(data, notes, BODY_COUNT)):
            record = notes[NUM_RECORDS]
            frames_P[record] = frame
            ids_P[record] = _read_id(data, notes, odd_lines)
            num_claimed = _read_count(data, notes, JOINT_COUNT)
            if notes[PROBLEM] == FINE and num_claimed != num_joints:
                notes[PROBLEM] = WRONG_JOINTS
            _read_joints(data, notes, xyz_PVC[record], states_PV[record], odd_lines)
            if notes[PROBLEM] != FINE:
                return
            notes[NUM_RECORDS] += 1
        if notes[PROBLEM] != FINE:
            return
    if _go_to_line(data, notes, NOTHING):
        notes[PROBLEM] = GOES_ON


@njit(cache=True, nogil=True)
def _without_blank_end(text: Any) -> Any:
    """The text up to the end of the last line that is not blank."""
    size = len(text)
    while size > 0 and KINDS[text[size - 1]] & BLANK:
        size -= 1
    if size > 0:
        while text[size - 1] != NEWLINE:
            size += 1
    return text[:size]


@njit(cache=True, nogil=True)
def _go_to_line(data: Any, notes: Any, due: int) -> bool:
    """Take the next line in hand, past comments. False if none is left or if there already is a problem."""
    if notes[PROBLEM] != FINE:
        return False
    notes[DUE] = due
    i = np.uint64(notes[OFFSET])
    line = notes[LINE]
    while i < np.uint64(len(data)):
        begin = i
        line += 1
        while KINDS[data[i]] == BLANK:
            i += ONE
        is_blank = data[i] == NEWLINE and due == NOTHING
        if data[i] != HASH and not is_blank:
            notes[OFFSET] = notes[BEGIN] = begin
            notes[LINE] = line
            return True
        while data[i] != NEWLINE:
            i += ONE
        i += ONE
    if due != NOTHING:
        notes[PROBLEM] = TRUNCATED
    return False


@njit(cache=True, nogil=True)
def _read_count(data: Any, notes: Any, due: int) -> Any:
    """The whole number that is alone on the next line; 0 if there is a problem."""
    if not _go_to_line(data, notes, due):
        return 0
    begin = np.uint64(notes[OFFSET])
    num_found, _, newline = _values(data, begin)
    notes[OFFSET] = newline + ONE
    notes[NUM_FOUND] = num_found
    if num_found != ONE:
        notes[PROBLEM] = WRONG_VALUES
        return 0
    count = _whole(data, begin)
    notes[NUM_FOUND] = count
    if count < 0:
        notes[PROBLEM] = NOT_WHOLE
    elif due == FRAME_COUNT:
        if count == 0 or count > len(data) // LEAST_BYTES_OF_A_FRAME:
            notes[PROBLEM] = TOO_MANY
    elif due == BODY_COUNT and count > len(data) // LEAST_BYTES_OF_A_BODY_LINE:
        notes[PROBLEM] = TOO_MANY
    return count if notes[PROBLEM] == FINE else 0


@njit(cache=True, nogil=True)
def _read_id(data: Any, notes: Any, odd_lines: Any) -> Any:
    """The id on the next line, a body line; 0 if there is a problem or the line is odd."""
    if not _go_to_line(data, notes, BODY):
        return 0
    begin = np.uint64(notes[OFFSET])
    num_found, kinds, newline = _values(data, begin)
    body_id = _whole(data, begin)
    if num_found != np.uint64(NUM_VALUES[BODY]) or kinds & ODD or body_id < 0:
        _leave_odd_line(data, notes, NO_JOINT, odd_lines)
        return 0
    notes[OFFSET] = newline + ONE
    return body_id


@njit(cache=True, nogil=True)
def _read_joints(data: Any, notes: Any, xyz_VC: Any, states_V: Any, odd_lines: Any) -> None:
    """Read the joint lines of one body, up to a problem."""
    for joint in range(len(states_V)):
        if notes[PROBLEM] != FINE:
            return
        offset = np.uint64(notes[OFFSET])
        behind = np.uint64(0)
        if offset < np.uint64(len(data)):
            behind = _plain_joint(data, offset, joint, xyz_VC, states_V)
        if behind:
            notes[OFFSET] = behind
            notes[LINE] += 1
        elif _go_to_line(data, notes, JOINT):
            _leave_odd_line(data, notes, joint, odd_lines)


@njit(cache=True, nogil=True)
def _leave_odd_line(data: Any, notes: Any, joint: int, odd_lines: Any) -> None:
    """Leave the line in hand to Python, if only it has as many values as it should."""
    begin = np.uint64(notes[OFFSET])
    num_found, _, newline = _values(data, begin)
    notes[OFFSET] = newline + ONE
    notes[NUM_FOUND] = num_found
    if num_found != np.uint64(NUM_VALUES[notes[DUE]]):
        notes[PROBLEM] = WRONG_VALUES
        return
    row = notes[NUM_ODD]
    odd_lines[row, 0] = notes[NUM_RECORDS]
    odd_lines[row, 1] = joint
    odd_lines[row, 2] = notes[LINE]
    odd_lines[row, 3] = begin
    odd_lines[row, 4] = newline
    notes[NUM_ODD] = row + 1


@njit(cache=True, nogil=True)
def _plain_joint(data: Any, i: Any, joint: int, xyz_VC: Any, states_V: Any) -> Any:
    """Read the joint line at offset i if it is plain: the offset of the next line, or 0 if it is not."""
    for coordinate in range(3):
        is_negative = data[i] == MINUS
        if is_negative:
            i += ONE
        begin = i
        mantissa, i = _digits(data, i, np.uint64(0))
        num_places = np.uint64(0)
        num_digits = i - begin
        if data[i] == POINT:
            point = i
            mantissa, i = _digits(data, i + ONE, mantissa)
            num_places = i - point - ONE
            num_digits += num_places
        if num_digits == 0 or num_digits > MAX_DIGITS or KINDS[data[i]] != BLANK:
            return np.uint64(0)
        magnitude = np.float64(np.int64(mantissa)) / POWERS_OF_TEN[num_places]
        xyz_VC[joint, coordinate] = -magnitude if is_negative else magnitude
        i += ONE
    num_found, kinds, newline = _values(data, i)
    last = newline - ONE
    while KINDS[data[last]] & BLANK:
        last -= ONE
    state = np.uint64(data[last]) - ZERO
    if num_found != np.uint64(NUM_VALUES[JOINT] - 3) or kinds & ODD:
        return np.uint64(0)
    if state > TWO or not KINDS[data[last - ONE]] & BLANK:
        return np.uint64(0)
    states_V[joint] = state
    return newline + ONE


@njit(cache=True, nogil=True, inline="always")
def _digits(data: Any, i: Any, value: Any) -> tuple[Any, Any]:
    """`value` with the digits from i on put behind its own (modulo 2**64), and the offset behind them."""
    digit = np.uint64(data[i]) - ZERO
    while digit <= NINE:
        value = value * TEN + digit
        i += ONE
        digit = np.uint64(data[i]) - ZERO
    return value, i


@njit(cache=True, nogil=True, inline="always")
def _values(data: Any, i: Any) -> tuple[Any, Any, Any]:
    """How many values there are from i to the line's end, the kinds of their bytes, and the newline's offset.

    Most of a file's bytes are read here alone, and so without a branch but the one that ends the line.
    """
    num_found = kinds = np.uint64(0)
    previous = BLANK
    kind = KINDS[data[i]]
    while not kind & END_OF_LINE:
        num_found += previous & ~kind & BLANK
        kinds |= kind
        previous = kind
        i += ONE
        kind = KINDS[data[i]]
    return num_found, kinds, i


@njit(cache=True, nogil=True)
def _whole(data: Any, i: Any) -> Any:
    """The number at i, past blanks, if it is whole, not negative and short enough for an int64; else -1."""
    while KINDS[data[i]] == BLANK:
        i += ONE
    if data[i] == PLUS:
        i += ONE
    begin = i
    number, i = _digits(data, i, np.uint64(0))
    if i == begin or i - begin > MAX_WHOLE_DIGITS or not KINDS[data[i]] & BLANK:
        return -1
    return np.int64(number)


@njit(cache=True, nogil=True)
def _assign_tracks(ids_P: Any, frames_P: Any, tracks_P: Any, ids_B: Any) -> int:
    """Write the track of every record, by id and occurrence in its frame, and the tracks' ids: how many."""
    last_frames_B = np.empty(len(ids_B), np.int64)
    num_tracks = 0
    for record in range(len(ids_P)):
        track = 0
        while track < num_tracks and (
            ids_B[track] != ids_P[record] or last_frames_B[track] == frames_P[record]
        ):
            track += 1
        if track == num_tracks:
            ids_B[track] = ids_P[record]
            num_tracks += 1
        last_frames_B[track] = frames_P[record]
        tracks_P[record] = track
    return num_tracks


@njit(cache=True, nogil=True)
def _scatter(
    tracks_P: Any,
    frames_P: Any,
    xyz_PVC: Any,
    states_PV: Any,
    xyz_BTVC: Any,
    states_BTV: Any,
    present_BT: Any,
) -> None:
    """Put every record into its track and frame."""
    for record in range(len(tracks_P)):
        track, frame = tracks_P[record], frames_P[record]
        present_BT[track, frame] = True
        for joint in range(states_PV.shape[1]):
            states_BTV[track, frame, joint] = states_PV[record, joint]
            for coordinate in range(3):
                xyz_BTVC[track, frame, joint, coordinate] = xyz_PVC[record, joint, coordinate]
