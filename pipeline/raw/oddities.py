"""What goes wrong: the oddities that downloads of the real data sets have, done to synthetic recordings.

Those of a number's or a file's form, "exponents" and NW-UCLA's "truncated", are up to the writers.

Axes: T frame, V joint, C coordinate.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipeline.raw.sensor import Track

# What may be odd about a file. All of it has been seen in downloads of the real data sets. A reader must
# refuse "13 values", "nul", "truncated" and "overclaimed" with a message that names the file. It reads all
# others; of those, "nobody" yields a recording without a body, which has nothing to learn from and is refused
# later.
NTU_ODDITIES = (
    "crlf",  # Windows line ends
    "exponents",  # values such as 9.999E-05
    "nan",  # unseen joints: 0 0 0, NaN in the depth and colour columns, state 0
    "nobody",  # no body in any frame
    "gap",  # nobody for some frames, then a new id
    "passer-by",  # body count 1, 2, 1
    "new id",  # two ids in frame 0, one other id from frame 1 on
    "neighbouring ids",  # two people whose ids differ by 1: equal once they are floats
    "chair",  # a static, wide, flat, jittery thing taken for a second body
    "13 values",  # a stray space cuts a number in two
    "comment",  # a line that starts with '#'
    "nul",  # a run of NUL bytes in place of text
    "truncated",  # ends within a line
    "overclaimed",  # line 1 promises more frames than follow
    "one frame",
    "missing list",  # nothing wrong but the name: the authors list it as a sample with missing skeletons
)
UCLA_ODDITIES = (
    "one frame",
    "zero joints",  # a few joints at 0 0 0
    "nan",  # a few joints at NaN NaN NaN
    "truncated",  # the JSON file, or the last frame's text file, ends halfway
)


def spoil_tracks(tracks: list[Track], oddity: str | None, rng: np.random.Generator) -> list[Track]:
    """The oddities of an NTU file that lie in who was tracked when."""
    first = tracks[0]
    num_frames = len(first.present_T)
    frame_T = np.arange(num_frames)
    first_third_T, last_third_T = frame_T < num_frames // 3, frame_T >= 2 * num_frames // 3
    match oddity:
        case "nan":
            return [_lose_joints(first, rng), *tracks[1:]]
        case "nobody":
            return [_during(track, frame_T < 0) for track in tracks]
        case "gap":
            return [_during(first, first_third_T), _during(_renamed(first, 1), last_third_T)]
        case "passer-by":
            return [first, _during(_beside(first, 40), ~first_third_T & ~last_third_T)]
        case "new id":
            here_T = frame_T == 0
            return [
                _during(first, here_T),
                _during(_beside(first, 1), here_T),
                _during(_renamed(first, 2), ~here_T),
            ]
        case "neighbouring ids":
            second = tracks[1] if len(tracks) > 1 else _beside(first, 1)
            return [first, dataclasses.replace(second, body_id=first.body_id + 1)]
        case "chair":
            return [first, _chair(first, rng)]
    return tracks


def _during(track: Track, present_T: NDArray[np.bool_]) -> Track:
    return dataclasses.replace(track, present_T=present_T)


def _renamed(track: Track, later: int) -> Track:
    """The same body under an id that the sensor gave out later."""
    return dataclasses.replace(track, body_id=track.body_id + later)


def _beside(track: Track, later: int) -> Track:
    """Somebody else, a metre away."""
    xyz_TVC = track.xyz_TVC[::-1] * (-1, 1, 1) + (1.1, 0, 0.3)
    return dataclasses.replace(_renamed(track, later), xyz_TVC=xyz_TVC)


def _chair(track: Track, rng: np.random.Generator) -> Track:
    """A chair beside whom the track shows."""
    still_VC = rng.uniform(-1, 1, track.xyz_TVC.shape[1:]) * (0.5, 0.06, 0.1) + (0.9, -0.4, 3.4)
    xyz_TVC = still_VC + rng.normal(0, 0.02, track.xyz_TVC.shape)
    guessed_TV = np.ones_like(track.states_TV)
    return dataclasses.replace(_renamed(track, 3), xyz_TVC=xyz_TVC, states_TV=guessed_TV)


def _lose_joints(track: Track, rng: np.random.Generator) -> Track:
    """Four joints go unseen for up to twelve frames: state 0."""
    states_TV = track.states_TV.copy()
    num_frames, num_joints = states_TV.shape
    for joint in rng.choice(num_joints, 4, replace=False):
        start = rng.integers(num_frames)
        states_TV[start : start + 12, joint] = 0
    return dataclasses.replace(track, states_TV=states_TV)


def spoil_joints(track: Track, oddity: str | None, rng: np.random.Generator) -> Track:
    """The oddities of an NW-UCLA recording that lie in its numbers."""
    if oddity not in ("zero joints", "nan"):
        return track
    lost = _lose_joints(track, rng)
    xyz_TVC = lost.xyz_TVC.copy()
    xyz_TVC[lost.states_TV == 0] = 0 if oddity == "zero joints" else np.nan
    return dataclasses.replace(lost, xyz_TVC=xyz_TVC)


def spoil_text(text: str, oddity: str | None, rng: np.random.Generator) -> bytes:
    """The oddities of an NTU file that lie in its text."""
    if oddity is None:
        return text.encode()
    lines = text.splitlines(keepends=True)
    joints = [index for index, line in enumerate(lines) if line.count(" ") == 11]
    at = joints[int(rng.integers(len(joints)))] if joints else 0
    match oddity:
        case "crlf":
            return text.replace("\n", "\r\n").encode()
        case "13 values":
            x, others = lines[at].split(" ", 1)
            lines[at] = f"{x[:-1]} {x[-1]} {others}"
        case "comment":
            lines.insert(at, "# exported by hand\n")
        case "nul":
            lines[at] = "\0" * len(lines[at])
        case "truncated":  # at a decimal point, so that what is left of the line is never a whole one
            return text[: text.rindex(".", 0, len(text) * 7 // 10)].encode()
        case "overclaimed":
            lines[0] = f"{int(lines[0]) + 10}\n"
    return "".join(lines).encode()
