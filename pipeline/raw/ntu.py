"""NTU RGB+D `.skeleton` text -> Sequence.

A file is a frame count; for every frame a body count; for every body a line of 10 values, a joint count, and
for every joint a line of 12 values. Kept are the body's id, and each joint's x, y, z and tracking state.

One kernel (in `ntu_kernel`) goes once over the bytes. It reads the plain lines, which are nearly all. A body
or joint line with anything out of the ordinary on it (NaN, an exponent or many digits in a coordinate,
damage) is odd: the kernel counts its values and leaves the line to Python, where `float()` decides. No buffer
is sized from what the file claims.

Axes: B body track, T frame, V joint, C coordinate, P record (one body in one frame, in file order).
"""

import math
import re

import numpy as np

from pipeline.raw.ntu_kernel import (
    BODY_COUNT,
    FINE,
    FRAME_COUNT,
    GOES_ON,
    LINE_NAMES,
    NO_JOINT,
    NOT_WHOLE,
    NUM_VALUES,
    TOO_MANY,
    TRUNCATED,
    WRONG_JOINTS,
    WRONG_VALUES,
    Notes,
    make_tracks,
    read_records,
)
from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.tokens import BYTE_ORDER_MARK, INFINITE_FROM, NUMBER, quoted

# What odd lines are made of.
TOKEN = re.compile(rb"[^ \t\r]+")
WHOLE = re.compile(rb"\+?\d{1,40}")

# A Sequence is dense, 326 bytes for a track and frame of 25 joints: what needs more of them is no recording.
MAX_BODY_FRAMES = 1_000_000


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
    text_bytes = np.frombuffer(text, np.uint8)
    notes, odd_lines, ids_P, frames_P, xyz_PVC, states_PV = read_records(text_bytes, num_joints)
    end = Notes(*notes.tolist())
    for record, joint, line, begin, behind in odd_lines.tolist():
        tokens = _odd_tokens(text[begin:behind], path, line)
        if joint == NO_JOINT:
            ids_P[record] = _odd_id(tokens, path, line)
        else:
            xyz_PVC[record, joint], states_PV[record, joint] = _odd_joint(tokens, path, line)
    if end.problem != FINE:
        raise RecordingError(path, end.line, _reason(end, text, len(content), num_joints))
    found = Sequence(*make_tracks(notes, ids_P, frames_P, xyz_PVC, states_PV, MAX_BODY_FRAMES))
    if found.num_frames < end.num_frames:
        reason = f"{len(found.ids_B)} bodies in {end.num_frames} frames: not one recording"
        raise RecordingError(path, 0, reason)
    return found


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


def _reason(end: Notes, text: bytes, num_bytes: int, num_joints: int) -> str:
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


def _truncation(end: Notes) -> str:
    if end.due == FRAME_COUNT:
        return "empty file"
    if end.due == BODY_COUNT:
        return f"the file ends after frame {end.frame} of {end.num_frames}: a truncated download?"
    return f"the file ends in frame {end.frame + 1} of {end.num_frames}: a truncated download?"
