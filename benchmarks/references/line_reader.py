"""An NTU `.skeleton` file read the usual way: line by line, `split()`, `float()`.

Axes: B body track, T frame, V joint, C coordinate.
"""

from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

JOINTS = 25

# Body id, and which of the tracks of that id it is in a frame that has the id twice.
Track = tuple[int, int]


def read_skeleton(
    path: Path, *, sparing: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.uint8]]:
    """(ids_B, xyz_BTVC in metres, states_BTV) of one file; zeros where a body is absent.

    Expects a sound file. A joint with NaN among its coordinates is 0 0 0 with state 0.
    sparing: only the four numbers of a joint that are kept are made of its line's twelve words.
    """
    found: dict[Track, list[tuple[int, list[list[float]]]]] = {}
    with path.open() as file:
        num_frames = int(file.readline())
        for frame in range(num_frames):
            ids_seen: list[int] = []
            for _ in range(int(file.readline())):
                body_id = int(file.readline().split()[0])
                track = (body_id, ids_seen.count(body_id))
                ids_seen.append(body_id)
                found.setdefault(track, []).append((frame, _read_joints(file, sparing)))
    xyzs_BTV4 = np.zeros((len(found), num_frames, JOINTS, 4))
    for body, frames in enumerate(found.values()):
        for frame, joints in frames:
            xyzs_BTV4[body, frame] = joints
    xyzs_BTV4[np.isnan(xyzs_BTV4).any(axis=-1)] = 0
    ids_B = np.array([body_id for body_id, _ in found], np.int64)
    return ids_B, xyzs_BTV4[..., :3].astype(np.float32), xyzs_BTV4[..., 3].astype(np.uint8)


def _read_joints(file: TextIO, sparing: bool) -> list[list[float]]:
    """x, y, z and tracking state of every joint of the body at hand."""
    joints = []
    for _ in range(int(file.readline())):
        words = file.readline().split()
        if sparing:
            words = [*words[:3], words[-1]]
        values = [float(word) for word in words]
        joints.append([*values[:3], values[-1]])
    return joints
