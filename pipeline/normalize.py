"""Sequence -> one float32 array: who acts, since when, where, and at which frames. Every choice has a name.

Axes: B body track, M body kept, T frame as captured, F frame as stored, V joint, C coordinate.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from pipeline.normalize_kernel import MAX_DISTANCE, NO_JOINT, NO_JOINTS, finish_lone_or_measure, lay_out
from pipeline.raw.sequence import Sequence

RESAMPLINGS = ("linear", "nearest", "pad")
GAPS = ("zero", "interpolate")
MOST_FRAMES = 100_000  # to store: far more than any recording has


@dataclass(frozen=True)
class NormalizeConfig:
    """The choices that turn a recording into a sample.

    frames: stored frames F.
    resample: "linear" interpolates F positions spread evenly over the recording; "nearest" takes the nearest
        captured frame; "pad" keeps the captured frames and fills up with zeros (longer ones: as "linear").
    max_bodies: how many bodies are kept, the most active first.
    stitch: join tracks that follow each other in time and place: the sensor gave one person several ids.
    denoise: drop bodies that are no actors: seen in fewer than `min_body_frames` frames, wider than tall in
        at least `max_spread` of their frames (furniture: its width, along the sensor's x, is above 0.8 of its
        height, along y, which points up), or moving
        less than `min_motion` or more than `max_motion` (variance of a joint's position over time, mean over
        joints, square metres). The body that is seen longest, of those that are not furniture, is never
        dropped as noise; but `max_bodies` keeps the most active ones, and it need not be one of them.
    gaps: frames in which a body is not seen are kept in time, as zeros ("zero") or, between two frames in
        which it is seen, interpolated ("interpolate").
    centre: the centre joint of the main actor's first seen frame becomes the origin.
    align: in that frame the spine points along z and the line from the right to the left shoulder along x.
    """

    frames: int = 200
    resample: str = "linear"
    max_bodies: int = 2
    stitch: bool = True
    denoise: bool = True
    min_body_frames: int = 11
    max_spread: float = 0.6
    min_motion: float = 0.001
    max_motion: float = 2.0
    gaps: str = "zero"
    centre: bool = True
    align: bool = True

    def __post_init__(self) -> None:
        if not 3 <= self.frames <= MOST_FRAMES:
            raise ValueError(f"frames is {self.frames}; expected 3 to {MOST_FRAMES:,}")
        if self.max_bodies < 1:
            raise ValueError(f"max_bodies is {self.max_bodies}; it must be at least 1")
        if self.resample not in RESAMPLINGS:
            raise ValueError(f"resample is {self.resample!r}; expected one of {', '.join(RESAMPLINGS)}")
        if self.gaps not in GAPS:
            raise ValueError(f"gaps is {self.gaps!r}; expected one of {', '.join(GAPS)}")


class UnusableError(ValueError):
    """A recording in which there is nothing to normalise."""


@dataclass(frozen=True)
class Tracks:
    """What `finish_lone_or_measure` finds out about each track, after unseen joints were filled in.

    first_B, last_B, seen_B: first and last frame, and number of frames, in which the track is present.
    motion_B: variance over time of a joint's position, mean over joints, square metres.
    spread_B: share of the track's frames in which the body is wider than 0.8 of its height.
    start_BC, end_BC: the centre joint in the first and the last frame, metres.
    """

    first_B: NDArray[np.int64]
    last_B: NDArray[np.int64]
    seen_B: NDArray[np.int64]
    motion_B: NDArray[np.float64]
    spread_B: NDArray[np.float64]
    start_BC: NDArray[np.float64]
    end_BC: NDArray[np.float64]


def normalize(
    sequence: Sequence, skeleton: Skeleton, config: NormalizeConfig, fps: float = 30.0
) -> NDArray[np.float32]:
    """The actors of a recording as float32 (B, C, F, V), 1 <= B <= max_bodies, the main actor first.

    Metres, in the frame that `config` describes; 0 0 0 in frames in which a body is not seen. Joints that the
    sensor lost are interpolated over time, or follow their parent if they were never seen.
    Raises UnusableError if nobody is ever seen, or a joint is a kilometre away.
    """
    layout = (
        _stored_positions(sequence.num_frames, config.frames, config.resample),
        config.gaps == "interpolate",
        skeleton.centre if config.centre else NO_JOINT,
        _axis_joints(skeleton) if config.align else NO_JOINTS,
    )
    out_MCFV: NDArray[np.float32]
    found = finish_lone_or_measure(
        sequence.xyz_BTVC, sequence.present_BT, _outward_parents(skeleton), skeleton.centre, *layout
    )
    xyz_BTVC, present_BT, out_MCFV, farthest, *measures = found
    if len(out_MCFV):
        return out_MCFV
    tracks = Tracks(*measures)
    if not tracks.seen_B.any():
        raise UnusableError("nobody is seen in any frame")
    if farthest > MAX_DISTANCE:
        raise UnusableError(f"a joint is {farthest:.3g} metres away")
    actors = _choose_actors(_people(tracks, config, fps), tracks, sequence.num_frames, config)
    actor_B = np.full(len(tracks.seen_B), -1, np.int64)
    for m, person in enumerate(actors):
        actor_B[person] = m
    out_MCFV = np.zeros((len(actors), 3, config.frames, skeleton.num_joints), np.float32)
    lay_out(xyz_BTVC, present_BT, actor_B, *layout, out_MCFV)
    return out_MCFV


def _people(tracks: Tracks, config: NormalizeConfig, fps: float) -> list[list[int]]:
    """Tracks grouped by person: a track that begins near where an earlier one ended, after it, continues it.

    "Near" is half a metre, and a metre and a half for every second in between. Furniture is nobody, unless
    there is nothing else.
    """
    seen = [int(b) for b in np.argsort(tracks.first_B, kind="stable") if tracks.seen_B[b] > 0]
    if config.denoise:
        seen = [b for b in seen if tracks.spread_B[b] < config.max_spread] or seen
    people: list[list[int]] = []
    for b in seen:
        best, best_distance = None, np.inf
        for person in people if config.stitch else []:
            previous = person[-1]
            wait = (tracks.first_B[b] - tracks.last_B[previous]) / fps
            distance = float(np.linalg.norm(tracks.start_BC[b] - tracks.end_BC[previous]))
            if wait > 0 and distance < min(0.5 + 1.5 * wait, best_distance):
                best, best_distance = person, distance
        if best is None:
            people.append([b])
        else:
            best.append(b)
    return people


def _choose_actors(
    people: list[list[int]], tracks: Tracks, num_frames: int, config: NormalizeConfig
) -> list[list[int]]:
    """Up to max_bodies people, the most active first: by motion times the share of frames seen."""

    def seen(person: list[int]) -> int:
        return sum(int(tracks.seen_B[b]) for b in person)

    def motion(person: list[int]) -> float:
        return sum(float(tracks.motion_B[b]) * int(tracks.seen_B[b]) for b in person) / seen(person)

    def acts(person: list[int]) -> bool:
        is_plausible = config.min_motion <= motion(person) <= config.max_motion
        return seen(person) >= config.min_body_frames and is_plausible

    longest = max(people, key=lambda person: (seen(person), motion(person)))
    actors = [person for person in people if not config.denoise or person is longest or acts(person)]
    by_activity = sorted(actors, key=lambda person: -motion(person) * seen(person) / num_frames)
    return by_activity[: config.max_bodies]


@functools.lru_cache(maxsize=1024)
def _stored_positions(num_frames: int, stored_frames: int, resample: str) -> NDArray[np.float64]:
    """Where in the recording (in frames, fractional) each stored frame lies; -1 for padding. Read only."""
    if resample == "pad" and num_frames <= stored_frames:
        position_F = np.arange(stored_frames, dtype=np.float64)
        position_F[num_frames:] = -1
    else:
        position_F = np.linspace(0, num_frames - 1, stored_frames, dtype=np.float64)
        if resample == "nearest":
            position_F = np.rint(position_F)
    position_F.flags.writeable = False
    return position_F


@functools.cache
def _axis_joints(skeleton: Skeleton) -> NDArray[np.int64]:
    """The joints that show which way a body faces: lower and upper spine, right and left shoulder."""
    return np.array((*skeleton.spine, *skeleton.shoulders), np.int64)


@functools.cache
def _outward_parents(skeleton: Skeleton) -> NDArray[np.int64]:
    """`Skeleton.outward` as an array, (V, 2)."""
    return np.array(skeleton.outward, np.int64)
