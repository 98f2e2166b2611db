"""One recording as captured: the form in which every parser hands its data on.

Axes: B body track, T frame, V joint, C coordinate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class RecordingError(ValueError):
    """A recording that cannot be used: which file, which line (from 1; 0 if none applies), and why."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason

    def __reduce__(self) -> tuple[type["RecordingError"], tuple[str, int, str]]:
        return type(self), (self.path, self.line, self.reason)


@dataclass(frozen=True)
class Sequence:
    """Everybody that the sensor tracked in one recording, in camera coordinates.

    ids_B: int64, the sensor's body id of each track, in order of first appearance. An id that occurs twice
        in one frame makes two tracks.
    xyz_BTVC: float32 metres. 0 0 0 where a joint was not seen, and for a body that is absent in a frame.
    states_BTV: uint8 tracking state: 0 not tracked, 1 inferred, 2 tracked. Formats without states say 2 where
        the joint was seen.
    present_BT: bool, whether the body was tracked in the frame. Frames in which nobody was are kept.
    """

    ids_B: NDArray[np.int64]
    xyz_BTVC: NDArray[np.float32]
    states_BTV: NDArray[np.uint8]
    present_BT: NDArray[np.bool_]

    def __post_init__(self) -> None:
        bodies, frames, joints, coordinates = self.xyz_BTVC.shape
        assert coordinates == 3
        assert self.ids_B.shape == (bodies,)
        assert self.states_BTV.shape == (bodies, frames, joints)
        assert self.present_BT.shape == (bodies, frames)

    @property
    def num_frames(self) -> int:
        return int(self.xyz_BTVC.shape[1])
