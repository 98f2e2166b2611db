"""Who stands where before a camera, and what its sensor reports of them.

Axes, world and camera: as in `pipeline.raw.motion`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.raw.acts import HANDS, PELVIS, WRISTS

Array = NDArray[np.float64]

NOISE = {"ntu": 0.0025, "ucla": 0.005}  # metres, at a distance of 3 m


@dataclass(frozen=True)
class Track:
    """One tracked body, as a sensor reports it, in camera coordinates.

    present_T: in which frames it was tracked.  xyz_TVC: metres, a guess where the state says so.
    states_TV: 0 not tracked, 1 inferred, 2 tracked.
    """

    body_id: int
    present_T: NDArray[np.bool_]
    xyz_TVC: Array
    states_TV: NDArray[np.uint8]


def turn(xyz_TVC: Array, angle: Array | float) -> Array:
    """Bodies turned about the vertical, z towards x.

    xyz_TVC: float64 (T, V, C) metres, as is what comes back.  angle: radians, one for all frames or (T,).
    """
    sine, cosine = np.sin(angle)[..., None], np.cos(angle)[..., None]
    x, y, z = xyz_TVC.transpose(2, 0, 1)
    return np.stack([x * cosine + z * sine, y, z * cosine - x * sine], axis=-1)


def pair_up(title: str, walking: bool, first_TVC: Array, second_TVC: Array, gap: float) -> list[Array]:
    """Place two performers `gap` metres apart, the first to the left: face to face, unless they walk on."""
    to_right, to_left = -math.pi / 2, math.pi / 2
    headings = to_right, to_left
    if "apart" in title:
        headings = to_left, to_right
    elif "towards" in title:
        gap += 2 * np.ptp(first_TVC[:, PELVIS, 2])  # what both of them walk
    elif walking:  # one behind the other
        headings = to_right, to_right
    aside_C = np.array([gap / 2, 0, 0])
    return [turn(first_TVC, headings[0]) - aside_C, turn(second_TVC, headings[1]) + aside_C]


def look(xyz_TVC: Array, camera: int, setup: int) -> Array:
    """From the world to the camera: three cameras 45 degrees apart, at a height and distance by setup.

    xyz_TVC: float64 (T, V, C) metres, as is what comes back.  camera: 1 to 3; 1 stands in the middle.
    setup: its number in a file's name.
    """
    distance, height = 2.8 + 1.2 * (setup * 5 % 17) / 17, 1.0 + 0.9 * (setup * 7 % 16) / 16
    xyz_TVC = turn(xyz_TVC, {2: math.pi / 4, 3: -math.pi / 4}.get(camera, 0.0))
    tilt = math.atan2(height - 0.9, distance)
    x, y, z = (xyz_TVC + np.array([0, -height, distance])).transpose(2, 0, 1)
    return np.stack(
        [x, y * math.cos(tilt) + z * math.sin(tilt), z * math.cos(tilt) - y * math.sin(tilt)], axis=-1
    )


def sense(xyz_TVC: Array, body_id: int, noise: float, rng: np.random.Generator) -> Track:
    """Add what a sensor adds: noise of millimetres that grows with distance, and guesses at hidden joints.

    xyz_TVC: float64 (T, V, C) metres, in camera coordinates, every joint known. The track has all frames.
    noise: standard deviation of a coordinate in metres, 3 m from the sensor; it grows with the distance's
        square, and is twice as large at wrists and hands.
    """
    num_frames, num_joints, _ = xyz_TVC.shape
    states_TV = np.full((num_frames, num_joints), 2, np.uint8)
    noise_TVC = rng.standard_normal(xyz_TVC.shape, np.float32) * noise
    noise_TVC[:, WRISTS + HANDS] *= 2
    xyz_TVC = xyz_TVC + noise_TVC * (xyz_TVC[:, :1, 2:] / 3) ** 2
    for _ in range(rng.poisson(0.06 * num_frames)):
        joint, start, length = rng.integers(num_joints), rng.integers(num_frames), rng.integers(2, 20)
        hidden = slice(start, start + length)
        states_TV[hidden, joint] = 1
        xyz_TVC[hidden, joint] += rng.normal(0, 0.03, 3)
    return Track(body_id, np.ones(num_frames, np.bool_), xyz_TVC, states_TV)
