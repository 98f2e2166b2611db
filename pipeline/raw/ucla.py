"""Northwestern-UCLA recordings -> Sequence: the JSON files in common use, and the original per-frame text.

Both hold one body. Axes: B body track, T frame, V joint, C coordinate; F fields of a joint: x, y, z, state.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.tokens import BYTE_ORDER_MARK, INFINITE_FROM, NUMBER, quoted

JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
TRACKED = 2
NUM_FIELDS = 4


def parse_ucla_json(data: bytes, path: str, num_joints: int = 20) -> Sequence:
    """One recording, from a JSON object whose `skeletons` are numbers of shape (T, V, 3).

    Every coordinate is `np.float32(float(token))`, in metres. A joint with NaN among its coordinates, or at
    0 0 0, was not seen: 0 0 0 with state 0; every other has state 2. There is one track, of id 0, absent from
    the frames without a seen joint. `path` only names the file in errors.

    Raises RecordingError for what is not such an object, and for infinite coordinates.
    """
    document = _document(data, path)
    skeletons = document.get("skeletons") if isinstance(document, dict) else None
    if not isinstance(skeletons, list):
        raise RecordingError(path, 0, "no list `skeletons` where the recording belongs")
    if not skeletons:
        raise RecordingError(path, 0, "0 frames")
    for number, frame in enumerate(skeletons, start=1):
        fault = _fault_of_frame(frame, num_joints)
        if fault:
            raise RecordingError(path, 0, f"frame {number}: {fault}")
    xyz_TVC = np.array(skeletons, np.float64)
    return _one_track(xyz_TVC, np.full(xyz_TVC.shape[:2], TRACKED, np.uint8))


def parse_ucla_text(frames: Iterable[tuple[str, bytes]], path: str, num_joints: int = 20) -> Sequence:
    """One recording, from the original release's text files: (file name, bytes) of every frame, in order.

    A file has a line with one number, then for every joint a line `x,y,z,state`, in metres. If it has no
    joints at all, nobody was seen in the frame. Missing joints and the track are as in `parse_ucla_json`, but
    a seen joint has the state that the file gives (NaN: 0). `path` names the recording in errors.

    Raises RecordingError, which names the frame's file and line, for what is not such a file, and for
    infinite coordinates; also if there are no frames.
    """
    fields = [_frame_fields(data, f"{path}/{name}", num_joints) for name, data in frames]
    if not fields:
        raise RecordingError(path, 0, "0 frames")
    fields_TVF = np.array(fields, np.float64)
    return _one_track(fields_TVF[..., :3], fields_TVF[..., 3].astype(np.uint8))


def _one_track(xyz_TVC: NDArray[np.float64], states_TV: NDArray[np.uint8]) -> Sequence:
    """The only body, with joints that were not seen set to 0."""
    xyz_TVC32 = xyz_TVC.astype(np.float32)
    is_seen_TV = ~np.isnan(xyz_TVC32).any(-1) & (xyz_TVC32 != 0).any(-1)
    return Sequence(
        ids_B=np.zeros(1, np.int64),
        xyz_BTVC=np.where(is_seen_TV[..., None], xyz_TVC32, np.float32(0))[None],
        states_BTV=np.where(is_seen_TV, states_TV, np.uint8(0))[None],
        present_BT=is_seen_TV.any(-1)[None],
    )


def _document(data: bytes, path: str) -> Any:
    """The JSON document, with all its numbers as floats. Raises RecordingError if it is none."""
    if not data.strip():
        raise RecordingError(path, 0, "empty file")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_int=float)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecordingError(path, line, f"byte {data[error.start]:#04x} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RecordingError(path, error.lineno, f"not JSON: {error.msg}") from None
    except RecursionError:
        raise RecordingError(path, 0, "not a recording: brackets nested too deep") from None


def _fault_of_frame(frame: Any, num_joints: int) -> str | None:
    """What keeps a JSON value from being `num_joints` points."""
    if not isinstance(frame, list):
        return f"{JSON_NAMES[type(frame)]} where a list of joints belongs"
    if len(frame) != num_joints:
        return f"{len(frame)} joints where {num_joints} belong"
    for number, point in enumerate(frame, start=1):
        if not isinstance(point, list):
            return f"joint {number}: {JSON_NAMES[type(point)]} where x, y, z belong"
        if len(point) != 3:
            return f"joint {number}: {len(point)} values where x, y, z belong"
        for value in point:
            if type(value) is not float:
                return f"joint {number}: {JSON_NAMES[type(value)]} where a number belongs"
            if abs(value) >= INFINITE_FROM:
                return f"joint {number}: an infinite coordinate"
    return None


def _frame_fields(data: bytes, path: str, num_joints: int) -> list[list[float]]:
    """x, y, z and state of every joint in a frame's file; zeros if it has none. Raises RecordingError."""
    text = data.removeprefix(BYTE_ORDER_MARK).rstrip()
    if b"\0" in text:
        raise RecordingError(path, text[: text.index(b"\0")].count(b"\n") + 1, "NUL byte")
    lines = text.split(b"\n")
    if text and not NUMBER.fullmatch(lines[0].strip()):
        raise RecordingError(path, 1, f"{quoted(lines[0].strip())} where the frame's number belongs")
    if len(lines) == 1:
        return [[0.0] * NUM_FIELDS] * num_joints
    joints = [_joint_fields(line, path, number) for number, line in enumerate(lines[1:], start=2)]
    if len(joints) != num_joints:
        raise RecordingError(path, len(lines), f"{len(joints)} joints where {num_joints} belong")
    return joints


def _joint_fields(line: bytes, path: str, number: int) -> list[float]:
    """x, y, z and state (0 for NaN) of a joint's line. Raises RecordingError if it does not hold them."""
    tokens = [token.strip() for token in line.split(b",")]
    if len(tokens) != NUM_FIELDS:
        values = "value" if len(tokens) == 1 else "values"
        raise RecordingError(path, number, f"{len(tokens)} {values} where a joint line has {NUM_FIELDS}")
    for token in tokens:
        if not NUMBER.fullmatch(token):
            raise RecordingError(path, number, f"{quoted(token)} is not a number")
    *xyz, state = (float(token) for token in tokens)
    if any(abs(value) >= INFINITE_FROM for value in xyz):
        raise RecordingError(path, number, "an infinite coordinate")
    if state not in (0, 1, 2) and not math.isnan(state):
        raise RecordingError(path, number, f"{quoted(tokens[-1])} where a tracking state belongs (0, 1 or 2)")
    return [*xyz, 0.0 if math.isnan(state) else state]
