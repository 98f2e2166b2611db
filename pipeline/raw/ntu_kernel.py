"""The kernels that read NTU RGB+D text: bytes to records, records to tracks.

No kernel reads past the text: it ends in a newline, where every loop over bytes stops, and words are read
only where a whole one is left.

Axes: B body track, T frame, V joint, C coordinate, P record (one body in one frame, in file order).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

NEWLINE, HASH, PLUS, MINUS, POINT, SMALL_E = (ord(sign) for sign in "\n#+-.e")
LOWER_CASE = 0x20  # the bit that makes a capital letter small

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
MAX_DIGITS, MAX_PLACES = np.uint64(15), np.uint64(22)
POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(int(MAX_PLACES) + 1)])
MAX_WHOLE_DIGITS = np.uint64(18)  # an int64 holds them, whatever they are

SIGNS = np.array([1.0, -1.0])

# Text is read a word at a time where it can be: eight bytes as one number, the first lowest. HIGH are their
# top bits, which ASCII leaves free: additions carry into them what a byte is.
SEVEN, EIGHT, TOP_BYTE = (np.uint64(number) for number in (7, 8, 56))
LOW = np.uint64(0x0101010101010101)
HIGH = LOW << SEVEN
ALL_BUT_HIGH = ~HIGH
NEWLINES, SPACES, SLASHES, ZEROS = (np.uint64(ord(sign)) * LOW for sign in "\n /0")
FROM_MINUS = np.uint64(128 - ord("-")) * LOW  # added to a byte: reaches the top bit if that is "-" or more,
BEYOND_NINE = np.uint64(127 - ord("9")) * LOW  # more than "9",
BEYOND_9 = np.uint64(127 - 9) * LOW  # or more than 9
PLACES = np.uint64(0x0001020304050607)  # times 256**n: n, in the top byte
TENS_OF_PAIRS = np.uint64(100 + (1_000_000 << 32))
ONES_OF_PAIRS = np.uint64(1 + (10_000 << 32))
EVERY_OTHER_PAIR = np.uint64(0x000000FF000000FF)
WHOLE_POWERS_OF_TEN = np.array([10**power for power in range(9)], np.uint64)

# The lines of a file, how errors call them, and how many values they have.
FRAME_COUNT, BODY_COUNT, BODY, JOINT_COUNT, JOINT, NOTHING = range(6)
LINE_NAMES = ("frame count line", "body count line", "body line", "joint count line", "joint line")
NUM_VALUES = (1, 1, 10, 1, 12)
LEAST_BYTES_OF_A_FRAME = 2
LEAST_BYTES_OF_A_BODY_LINE = 20

# What the kernel itself can find wrong.
FINE, TRUNCATED, WRONG_VALUES, NOT_WHOLE, TOO_MANY, WRONG_JOINTS, GOES_ON = range(7)

NO_JOINT = -1  # an odd line that is a body line


class Notes(NamedTuple):
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


NUM_NOTES = len(Notes._fields)
OFFSET, LINE, BEGIN, DUE, PROBLEM, NUM_FOUND, FRAME, NUM_FRAMES, NUM_RECORDS, NUM_ODD = range(NUM_NOTES)


@njit(cache=True, nogil=True)
def read_records(text: Any, num_joints: int) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Read text (uint8, ends in a newline) up to its end or to a problem.

    Returns the fields of Notes (int64); the odd lines, int64 (_, 5): record, joint or NO_JOINT, line, offsets
    of its first byte and behind its last; ids_P, frames_P (int64), xyz_PVC (float32) and states_PV (uint8),
    with room behind the records that the notes count. What stands on odd lines is left to be filled in.
    """
    values_of_a_body = NUM_VALUES[BODY] + NUM_VALUES[JOINT_COUNT] + num_joints * NUM_VALUES[JOINT]
    room = len(text) // (2 * values_of_a_body) + 1  # every value has a byte, and something behind it
    notes = np.zeros(NUM_NOTES, np.int64)
    odd_lines = np.empty((room * (1 + num_joints), 5), np.int64)
    ids_P, frames_P = np.empty(room, np.int64), np.empty(room, np.int64)
    xyz_PVC = np.empty((room, num_joints, 3), np.float32)
    states_PV = np.empty((room, num_joints), np.uint8)
    _read(text, notes, ids_P, frames_P, xyz_PVC, states_PV, odd_lines)
    return notes, odd_lines[: notes[NUM_ODD]], ids_P, frames_P, xyz_PVC, states_PV


@njit(cache=True, nogil=True)
def make_tracks(
    notes: Any, ids_P: Any, frames_P: Any, xyz_PVC: Any, states_PV: Any, max_body_frames: int
) -> tuple[Any, Any, Any, Any]:
    """The fields of a Sequence; its arrays have no frames if it needed more than max_body_frames."""
    num_records, num_frames = notes[NUM_RECORDS], notes[NUM_FRAMES]
    tracks_P, ids_B = np.empty(num_records, np.int64), np.empty(num_records, np.int64)
    num_tracks = _assign_tracks(ids_P[:num_records], frames_P, tracks_P, ids_B)
    fits = num_tracks * num_frames <= max_body_frames
    shape_BTV = num_tracks, num_frames if fits else 0, states_PV.shape[1]
    xyz_BTVC = np.zeros((*shape_BTV, 3), np.float32)
    states_BTV = np.zeros(shape_BTV, np.uint8)
    present_BT = np.zeros(shape_BTV[:2], np.bool_)
    if fits:
        _scatter(tracks_P, frames_P, xyz_PVC, states_PV, xyz_BTVC, states_BTV, present_BT)
    return ids_B[:num_tracks].copy(), xyz_BTVC, states_BTV, present_BT


@njit(cache=True, nogil=True)
def _read(
    text: Any, notes: Any, ids_P: Any, frames_P: Any, xyz_PVC: Any, states_PV: Any, odd_lines: Any
) -> None:
    """As `read_records`, into arrays that have room."""
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
        is_negative = np.uint64(data[i] == MINUS)
        i += is_negative
        begin = i
        mantissa, i = _digits(data, i, np.uint64(0))
        num_places = np.uint64(0)
        num_digits = i - begin
        if data[i] == POINT:
            point = i
            mantissa, i = _many_digits(data, i + ONE, mantissa)
            num_places = i - point - ONE
            num_digits += num_places
        if data[i] | LOWER_CASE == SMALL_E and data[i + ONE] == MINUS:
            exponent, behind = _digits(data, i + TWO, np.uint64(0))
            num_places += exponent
            i = behind if i + TWO < behind < i + TEN else i
        if num_digits == 0 or num_digits > MAX_DIGITS or num_places > MAX_PLACES or KINDS[data[i]] != BLANK:
            return np.uint64(0)
        magnitude = np.float64(np.int64(mantissa)) / POWERS_OF_TEN[num_places]
        xyz_VC[joint, coordinate] = SIGNS[is_negative] * magnitude
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
def _eight_bytes(data: Any, i: Any) -> Any:
    """The eight bytes from i on as one number, the first lowest. The compiler makes one load of it."""
    word = np.uint64(data[i])
    for place in range(1, 8):
        word |= np.uint64(data[i + np.uint64(place)]) << np.uint64(8 * place)
    return word


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
def _many_digits(data: Any, i: Any, value: Any) -> tuple[Any, Any]:
    """As `_digits`, but a word at a time: its digits are moved to its end, behind zeros."""
    size = np.uint64(len(data))
    while i + EIGHT <= size:
        digits = _eight_bytes(data, i) ^ ZEROS
        no_digit = (digits | (digits + BEYOND_9)) & HIGH  # right up to the first
        num_digits = EIGHT
        if no_digit:
            first = (no_digit & (~no_digit + ONE)) >> SEVEN
            num_digits = (first * PLACES) >> TOP_BYTE
            if num_digits == 0:
                return value, i
            digits <<= np.uint64(64) - EIGHT * num_digits
        value = value * WHOLE_POWERS_OF_TEN[num_digits] + _eight_digits(digits)
        i += num_digits
        if no_digit:
            return value, i
    return _digits(data, i, value)


@njit(cache=True, nogil=True)
def _eight_digits(digits: Any) -> Any:
    """The number that eight digits make, a byte each, the first lowest: first pairs, then all four."""
    pairs = digits * TEN + (digits >> EIGHT)
    hundreds = (pairs & EVERY_OTHER_PAIR) * TENS_OF_PAIRS
    ones = ((pairs >> np.uint64(16)) & EVERY_OTHER_PAIR) * ONES_OF_PAIRS
    return (hundreds + ones) >> np.uint64(32)


@njit(cache=True, nogil=True, inline="always")
def _values(data: Any, i: Any) -> tuple[Any, Any, Any]:
    """How many values there are from i to the line's end, the kinds of their bytes, and the newline's offset.

    Most of a file's bytes are read here alone: a word at a time while there are only digits, points, minus
    signs and spaces, then byte by byte without a branch but the one that ends the line.
    """
    num_found = kinds = np.uint64(0)
    previous = BLANK
    size = np.uint64(len(data))
    while i + EIGHT <= size:
        word = _eight_bytes(data, i)
        newlines = ~((word ^ NEWLINES) + ALL_BUT_HIGH) & ~word & HIGH
        newline = (newlines & (~newlines + ONE)) >> SEVEN
        if newline:
            word = (word & (newline - ONE)) | (SPACES & ~(newline - ONE))
        no_space = (word ^ SPACES) + ALL_BUT_HIGH
        is_number = (word + FROM_MINUS) & ~(word + BEYOND_NINE) & ((word ^ SLASHES) + ALL_BUT_HIGH)
        if (is_number | ~no_space) & ~word & HIGH != HIGH:
            break
        blanks = (~no_space & HIGH) >> SEVEN
        starts = ~blanks & ((blanks << EIGHT) | previous) & LOW
        num_found += (starts * LOW) >> TOP_BYTE
        if newline:
            return num_found, kinds, i + ((newline * PLACES) >> TOP_BYTE)
        previous = blanks >> TOP_BYTE
        i += EIGHT
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
