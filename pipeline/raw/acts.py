"""Who acts, and what a class is: people with limbs and habits, and what they do, as a class's name decides.

Axes and angles: as in `pipeline.raw.motion`, which moves these people.
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.raw.chance import random_of

Array = NDArray[np.float64]

# What the sensor behind a reader delivers: Kinect v2 and Kinect v1.
NUM_JOINTS = {"ntu": 25, "ucla": 20}

# Both number the joints alike.
PELVIS, SPINE, NECK = 0, 1, 2
LEFT, RIGHT = 0, 1  # the places in each of these
SHOULDERS, ELBOWS, WRISTS, HANDS = (4, 8), (5, 9), (6, 10), (7, 11)
HIPS, KNEES, ANKLES = (12, 16), (13, 17), (14, 18)
LEGS = (PELVIS, *HIPS, *KNEES, *ANKLES)
MOVABLE = (PELVIS, SPINE, NECK, *SHOULDERS, *ELBOWS, *WRISTS, *HIPS, *KNEES, *ANKLES)

# Upright, arms hanging: the middle and the right side of a Kinect v2 body in units of its height above the
# floor, from the usual segment lengths (Drillis and Contini, 1966). The left side is the mirror image.
_MIDDLE = {0: (0, 0.53, 0), 1: (0, 0.665, 0.005), 20: (0, 0.8, 0.01), 2: (0, 0.845, 0), 3: (0, 0.93, -0.01)}
_SIDES = {  # (right, left)
    (8, 4): (0.105, 0.79, 0.01),
    (9, 5): (0.112, 0.615, 0.015),
    (10, 6): (0.112, 0.47, 0),
    (11, 7): (0.112, 0.435, -0.005),
    (23, 21): (0.112, 0.39, -0.01),
    (24, 22): (0.1, 0.42, -0.04),
    (16, 12): (0.052, 0.515, 0),
    (17, 13): (0.057, 0.285, -0.01),
    (18, 14): (0.06, 0.05, 0.01),
    (19, 15): (0.07, 0.02, -0.065),
}
_BELOW_SHOULDERS = (5, 6, 7, 9, 10, 11, 21, 22, 23, 24)


@dataclass(frozen=True)
class Posture:
    """What trunk and legs do once: bend to these angles about x, and return unless it `stays`.

    trunk: (pelvis, spine), negative is forwards.  left, right: (hip, knee, ankle), positive is forwards.
    dip: how far the pelvis leans forwards on the way.  stands_on: the joints that stay over their place.
    """

    trunk: tuple[float, float]
    left: tuple[float, float, float]
    right: tuple[float, float, float]
    stays: bool = False
    dip: float = 0.0
    stands_on: tuple[int, ...] = ANKLES


@dataclass(frozen=True)
class Gait:
    """What legs do over and over: steps a second, angles, metres a second, metres off the floor.

    turn: how far the walker's path bends in all.  together: both legs do the same.
    """

    hertz: float
    stride: float
    knee: float
    speed: float = 0.0
    lift: float = 0.0
    turn: float = 0.0
    together: bool = False


_STANDING = Posture((0, 0), (0, 0, 0), (0, 0, 0))
# The first of these that begin a word of a class's name decides; without one, people stand.
_BODIES: dict[str, Posture | Gait] = {
    "sit down": Posture((-0.15, -0.1), (1.5, -1.45, 0.05), (1.5, -1.45, 0.05), stays=True, dip=0.5),
    "pick up|shoe|toe touch|heavy": Posture((-0.7, -0.6), (1.0, -0.5, 0.2), (1.0, -0.5, 0.2)),
    "drop|bow|nausea": Posture((-0.2, -0.5), (0.25, -0.1, 0.05), (0.25, -0.1, 0.05)),
    "squat": Posture((-0.45, -0.15), (1.8, -1.9, 0.6), (1.8, -1.9, 0.6)),
    "fall": Posture((-1.35, -0.1), (0.1, -0.3, -0.4), (0.2, -0.5, -0.4), stays=True),
    "walk around": Gait(0.9, 0.45, 0.55, 0.9, turn=4.5),
    "walking": Gait(0.9, 0.45, 0.55, 0.6),
    "follow": Gait(0.9, 0.45, 0.55, 0.7),
    "support": Gait(0.7, 0.3, 0.4, 0.4),
    "carry": Gait(0.8, 0.4, 0.5, 0.6, turn=0.8),
    "stagger": Gait(0.7, 0.3, 0.5, 0.35, turn=1.2),
    "butt kicks": Gait(1.5, 0.15, 1.6, lift=0.02),
    "run": Gait(1.5, 0.6, 1.2, lift=0.03),
    "hop": Gait(1.6, 0.0, 0.5, lift=0.12, together=True),
    "jump": Gait(0.9, 0.0, 0.9, lift=0.3, together=True),
    "kick": Posture((0.15, -0.15), (-0.2, -0.1, 0), (1.2, -0.5, -0.3), stands_on=ANKLES[:1]),
}
# A class that undoes another is that other one, played backwards.
_UNDONE = (("take off", "put on"), ("doffing", "donning"), ("stand up", "sit down"))

# Where a right arm can go: shoulder forwards, shoulder inwards, shoulder outwards, elbow.
REST = (0.05, 0.25, 0.1, 0.2)
_REACHES = (
    (0.7, 0.7, 0.3, 2.2),  # to the mouth
    (1.5, 0.3, 0.5, 2.2),  # to the head
    (0.45, 0.9, 0.2, 1.7),  # to the chest
    (0.5, 0.5, 0.1, 1.2),  # before the belly
    (1.4, 0.0, 0.1, 0.3),  # straight ahead
    (0.1, 0.0, 1.5, 0.2),  # out to the side
    (2.8, 0.0, 0.2, 0.4),  # overhead
    (-0.5, 0.5, 0.3, 1.3),  # behind the back
    (0.3, -1.3, 1.2, 1.6),  # beside the head, as in waving
    (-0.2, 0.3, 0.3, 0.7),  # to the pocket
)


@dataclass(frozen=True)
class Act:
    """What makes a class. Arms as in `_REACHES`.

    body: what trunk and legs do.  backwards: all is played backwards.  seconds: at an average tempo.
    start, end: when arms, neck and spine act, as shares of the whole.  alternating: the arms swing by turns.
    reach_A, then_A: where the arms go, and where from half-time on.  swing_A: how far they swing about it.
    hertz: of swings and nods.  nod: the neck's first two angles.  lean_C: the spine's.
    """

    body: Posture | Gait
    backwards: bool
    seconds: float
    start: float
    end: float
    both_arms: bool
    alternating: bool
    reach_A: Array
    then_A: Array
    swing_A: Array
    hertz: float
    nod: Array
    lean_C: Array


@dataclass(frozen=True)
class Person:
    """Who acts. rest_VC: standing upright over the origin, metres.

    tempo, strength: around 1.  manner_A: what their arms add to every reach.  habit_VC: how they hold joints.
    """

    rest_VC: Array
    left_handed: bool
    tempo: float
    strength: float
    manner_A: Array
    habit_VC: Array


@functools.cache
def act_of(name: str) -> Act:
    """The motion of a class, drawn from its name."""
    forward_name = name
    for undoing, doing in _UNDONE:
        forward_name = forward_name.replace(undoing, doing)
    found = (body for words, body in _BODIES.items() if re.search(rf"\b(?:{words})", forward_name))
    body = next(found, _STANDING)
    rng = random_of(0, "class", forward_name)
    reach, then = rng.choice(len(_REACHES), 2, replace=False)
    swinging_A = rng.random(4) < 0.5
    return Act(
        body=body,
        backwards=forward_name != name,
        seconds=rng.uniform(1.7, 3.4),
        start=rng.uniform(0.02, 0.2),
        end=rng.uniform(0.75, 1.0),
        both_arms=bool(rng.random() < 0.45),
        alternating=bool(rng.random() < 0.3),
        reach_A=np.array(_REACHES[reach]) + rng.normal(0, 0.15, 4),
        then_A=np.array(_REACHES[then if rng.random() < 0.4 else reach]) + rng.normal(0, 0.15, 4),
        swing_A=rng.uniform(0.1, 0.5, 4) * swinging_A,
        hertz=rng.uniform(0.5, 2.5),
        nod=rng.normal(0, 0.15, 2) + (rng.random(2) < 0.15) * 0.35,
        lean_C=rng.normal(0, 0.12, 3),
    )


@functools.lru_cache(maxsize=256)
def person_of(seed: int, who: str, num_joints: int) -> Person:
    """Somebody, with a height, limbs in proportion, a tempo and habits of their own."""
    rng = random_of(seed, "person", who)
    height = float(np.clip(rng.normal(1.7, 0.09), 1.45, 1.98))
    width, legs, arms = rng.normal(1, [0.06, 0.025, 0.04])
    rest_VC, habit_VC = _upright(num_joints), np.zeros((num_joints, 3))
    below = [joint for joint in _BELOW_SHOULDERS if joint < num_joints]
    shoulder = rest_VC[SHOULDERS[LEFT], 1]
    rest_VC[below, 1] = shoulder + arms * (rest_VC[below, 1] - shoulder)
    rest_VC[:, 1] *= np.where(rest_VC[:, 1] > rest_VC[PELVIS, 1], 1, legs)
    rest_VC[:, 0] *= width
    left_handed = bool(rng.random() < 0.1)
    tempo, strength = math.exp(rng.normal(0, 0.12)), math.exp(rng.normal(0, 0.12))
    manner_A = rng.normal(0, 0.15, 4)
    habit_VC[list(MOVABLE)] = rng.normal(0, 0.04, (len(MOVABLE), 3))
    return Person(rest_VC * height, left_handed, tempo, strength, manner_A, habit_VC)


def _upright(num_joints: int) -> Array:
    """Rest positions in units of height, (V, 3). Kinect v1 has no neck, and its spine is low."""
    rest_VC = np.zeros((NUM_JOINTS["ntu"], 3))
    for joint, place in _MIDDLE.items():
        rest_VC[joint] = place
    for (right, left), (x, y, z) in _SIDES.items():
        rest_VC[right], rest_VC[left] = (x, y, z), (-x, y, z)
    if num_joints == NUM_JOINTS["ucla"]:
        rest_VC[1] = 0.0, 0.59, 0.005
        rest_VC[2] = rest_VC[20]
    return rest_VC[:num_joints]
