"""How people act: a class, a person and a camera go in, the tracks that a sensor would report come out.

A body with limbs (forward kinematics over the spec's own bones) stands, walks, sits or bends in front of a
sensor and moves its arms in the way of its class. Class, person, performance and sensor each have their own
random source, so the same performance can be seen from several cameras, and the same person does everything
in the same manner. What a class looks like depends on its name alone: recordings of another seed show other
people and performances, but the same classes.

Axes: T frame, V joint, C coordinate, A angle of an arm, W wave. World and camera, in metres: x to the right
of somebody who faces the sensor, y up, z away from the sensor. A person who is not turned faces -z. Angles
in radians; a joint's three (C) turn what is beyond it: forwards for an arm or a leg (about x), about its own
length (y), outwards to the right (z).
"""

import functools
import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.spec import DatasetSpec, Skeleton

Array = NDArray[np.float64]

# What the sensor behind a reader delivers: Kinect v2 and Kinect v1.
NUM_JOINTS = {"ntu": 25, "ucla": 20}
_NUM_FRAMES = {"ntu": (40, 180), "ucla": (10, 120)}  # fewest, most
_NOISE = {"ntu": 0.0025, "ucla": 0.005}  # metres, at a distance of 3 m

# Both number the joints alike.
PELVIS, SPINE, NECK = 0, 1, 2
LEFT, RIGHT = 0, 1  # the places in each of these
SHOULDERS, ELBOWS, WRISTS, HANDS = (4, 8), (5, 9), (6, 10), (7, 11)
HIPS, KNEES, ANKLES = (12, 16), (13, 17), (14, 18)
_LEGS = (PELVIS, *HIPS, *KNEES, *ANKLES)
_MOVABLE = (PELVIS, SPINE, NECK, *SHOULDERS, *ELBOWS, *WRISTS, *HIPS, *KNEES, *ANKLES)

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
class Track:
    """One tracked body, as a sensor reports it, in camera coordinates.

    present_T: in which frames it was tracked.  xyz_TVC: metres, a guess where the state says so.
    states_TV: 0 not tracked, 1 inferred, 2 tracked.
    """

    body_id: int
    present_T: NDArray[np.bool_]
    xyz_TVC: Array
    states_TV: NDArray[np.uint8]


@dataclass(frozen=True)
class _Posture:
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
class _Gait:
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


_STANDING = _Posture((0, 0), (0, 0, 0), (0, 0, 0))
# The first of these whose words, or a word that begins so, are in a class's name decides; else people stand.
_BODIES: dict[str, _Posture | _Gait] = {
    "sit down": _Posture((-0.15, -0.1), (1.5, -1.45, 0.05), (1.5, -1.45, 0.05), stays=True, dip=0.5),
    "pick up|shoe|toe touch|heavy": _Posture((-0.7, -0.6), (1.0, -0.5, 0.2), (1.0, -0.5, 0.2)),
    "drop|bow|nausea": _Posture((-0.2, -0.5), (0.25, -0.1, 0.05), (0.25, -0.1, 0.05)),
    "squat": _Posture((-0.45, -0.15), (1.8, -1.9, 0.6), (1.8, -1.9, 0.6)),
    "fall": _Posture((-1.35, -0.1), (0.1, -0.3, -0.4), (0.2, -0.5, -0.4), stays=True),
    "walk around": _Gait(0.9, 0.45, 0.55, 0.9, turn=4.5),
    "walking": _Gait(0.9, 0.45, 0.55, 0.6),
    "follow": _Gait(0.9, 0.45, 0.55, 0.7),
    "support": _Gait(0.7, 0.3, 0.4, 0.4),
    "carry": _Gait(0.8, 0.4, 0.5, 0.6, turn=0.8),
    "stagger": _Gait(0.7, 0.3, 0.5, 0.35, turn=1.2),
    "butt kicks": _Gait(1.5, 0.15, 1.6, lift=0.02),
    "run": _Gait(1.5, 0.6, 1.2, lift=0.03),
    "hop": _Gait(1.6, 0.0, 0.5, lift=0.12, together=True),
    "jump": _Gait(0.9, 0.0, 0.9, lift=0.3, together=True),
    "kick": _Posture((0.15, -0.15), (-0.2, -0.1, 0), (1.2, -0.5, -0.3), stands_on=ANKLES[:1]),
}
# A class that undoes another is that other one, played backwards.
_UNDONE = (("take off", "put on"), ("doffing", "donning"), ("stand up", "sit down"))

# Where a right arm can go: shoulder forwards, shoulder inwards, shoulder outwards, elbow.
_REST = (0.05, 0.25, 0.1, 0.2)
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
class _Act:
    """What makes a class. Arms as in `_REACHES`.

    body: what trunk and legs do.  backwards: all is played backwards.  seconds: at an average tempo.
    start, end: when arms, neck and spine act, as shares of the whole.  alternating: the arms swing by turns.
    reach_A, then_A: where the arms go, and where from half-time on.  swing_A: how far they swing about it.
    hertz: of swings and nods.  nod: the neck's first two angles.  lean_C: the spine's.
    """

    body: _Posture | _Gait
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
class _Person:
    """Who acts. rest_VC: standing upright over the origin, metres.

    tempo, strength: around 1.  manner_A: what their arms add to every reach.  habit_VC: how they hold joints.
    """

    rest_VC: Array
    left_handed: bool
    tempo: float
    strength: float
    manner_A: Array
    habit_VC: Array


def digest(seed: int, *key: str) -> bytes:
    """32 bytes that depend on seed and key alone: whatever is random about what the key names."""
    return hashlib.sha256("/".join((str(seed), *key)).encode()).digest()


def random_of(seed: int, *key: str) -> np.random.Generator:
    """The random source of whatever the key names; the same seed and key start it anew."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(seed, *key)[:16], "little")))


def record(spec: DatasetSpec, name: str, seed: int, num_frames: int | None = None) -> list[Track]:
    """What the sensor tracks while the recording `name` is made: one body, or two in the spec's pair actions.

    name: of the spec's pattern; it says who does what, and which camera looks on.  num_frames: for a given
    length; otherwise class and person decide, within the real data sets' range.
    Every body is present in every frame, and no joint is lost: states are 2, or 1 where the sensor guesses.
    Depends on spec, name and seed alone; names that differ in the camera show the same performance.
    """
    metadata = spec.parse_name(name)
    assert metadata is not None, name
    seen = {"camera": 1, "setup": 1, "subject": 1, "replication": 1} | metadata  # a user's names may say less
    performance = "/".join(f"{key}{value}" for key, value in sorted(seen.items()) if key != "camera")
    rng = random_of(seed, spec.name, "performance", performance)
    title = spec.classes[seen["label"]]
    act, person = _act(title), _person(seed, f"{spec.name}/{seen['subject']}", spec.skeleton.num_joints)
    if num_frames is None:
        seconds = act.seconds / person.tempo * math.exp(rng.normal(0, 0.18))
        num_frames = int(np.clip(round(seconds * spec.fps), *_NUM_FRAMES[spec.reader]))
    bodies = [_play(spec.skeleton, act, person, num_frames, spec.fps, rng)]
    if spec.max_bodies > 1 and seen["action"] in spec.pair_actions:
        partner = _person(seed, f"{spec.name}/partner/{performance}", spec.skeleton.num_joints)
        part = _act(f"{title}, the other one")
        second_TVC = _play(spec.skeleton, part, partner, num_frames, spec.fps, rng)
        walking, gap = isinstance(act.body, _Gait), rng.normal(0.95, 0.08)
        bodies = _pair_up(title, walking, bodies[0], second_TVC, gap)
    facing = rng.normal(0, 0.15)
    if spec.reader == "ntu":  # every action was done twice, towards the left and towards the right camera
        facing += math.pi / 4 * (1 if seen["replication"] == 1 else -1)
    place_C = rng.normal(0, [0.12, 0, 0.12])
    sensor = random_of(seed, spec.name, "sensor", name)
    first_id = int(2**56 + sensor.integers(3000, 30000))
    views = [_look(_turn(body, facing) + place_C, seen["camera"], seen["setup"]) for body in bodies]
    noise = _NOISE[spec.reader]
    return [_sense(view, first_id + 7 * index, noise, sensor) for index, view in enumerate(views)]


@functools.lru_cache(maxsize=8)
def outwards(skeleton: Skeleton) -> tuple[tuple[int, int], ...]:
    """The spec's bones as (joint, its neighbour nearer to the pelvis), nearest first; 0-based joints."""
    bones, reached = [], [PELVIS]
    for near in reached:  # which grows meanwhile
        for bone in skeleton.bones:
            if near in bone and (far := sum(bone) - near) not in reached:
                bones.append((far, near))
                reached.append(far)
    return tuple(bones)


# ---- what a class is, and who acts


@functools.cache
def _act(name: str) -> _Act:
    """The motion of a class, drawn from its name."""
    forward_name = name
    for undoing, doing in _UNDONE:
        forward_name = forward_name.replace(undoing, doing)
    found = (body for words, body in _BODIES.items() if re.search(rf"\b(?:{words})", forward_name))
    body = next(found, _STANDING)
    rng = random_of(0, "class", forward_name)
    reach, then = rng.choice(len(_REACHES), 2, replace=False)
    swinging_A = rng.random(4) < 0.5
    return _Act(
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
def _person(seed: int, who: str, num_joints: int) -> _Person:
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
    habit_VC[list(_MOVABLE)] = rng.normal(0, 0.04, (len(_MOVABLE), 3))
    return _Person(rest_VC * height, left_handed, tempo, strength, manner_A, habit_VC)


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


# ---- how a body moves


def _play(
    skeleton: Skeleton, act: _Act, person: _Person, num_frames: int, fps: float, rng: np.random.Generator
) -> Array:
    """One performance, (T, V, 3) metres in the world: the feet on the floor, the start over the origin."""
    clock_T = np.arange(num_frames) / fps
    phase_T = np.linspace(0, 1, num_frames) ** math.exp(rng.normal(0, 0.15))
    if act.backwards:
        clock_T, phase_T = clock_T[::-1], 1 - phase_T
    strength = person.strength * math.exp(rng.normal(0, 0.1))
    angles_TVC = person.habit_VC + _fidget(skeleton.num_joints, clock_T, rng)
    _move_arms(angles_TVC, act, person, phase_T, clock_T, rng)
    acting_T = _bump(phase_T, act.start, act.end)
    nod_T = acting_T * np.sin(2 * np.pi * act.hertz * clock_T)
    angles_TVC[:, NECK, :2] += nod_T[:, None] * act.nod
    angles_TVC[:, SPINE] += acting_T[:, None] * act.lean_C
    if isinstance(act.body, _Gait):
        heading_T, path_TC, lift_T = _step(angles_TVC, act.body, strength, phase_T, clock_T, rng)
        xyz_TVC = _pose(skeleton, person.rest_VC, angles_TVC)
        xyz_TVC[..., 1] += (lift_T - xyz_TVC[..., 1].min(axis=1) + 0.02)[:, None]
        return _turn(xyz_TVC, heading_T) + path_TC[:, None]
    _take_posture(angles_TVC, act.body, strength, phase_T)
    xyz_TVC = _pose(skeleton, person.rest_VC, angles_TVC)
    xyz_TVC[..., ::2] -= xyz_TVC[:, act.body.stands_on, ::2].mean(axis=1, keepdims=True)
    xyz_TVC[..., 1] += (0.02 - xyz_TVC[..., 1].min(axis=1))[:, None]
    return xyz_TVC


def _smooth(x: Array) -> Array:
    """From 0 at 0 to 1 at 1, without a jerk."""
    within: Array = np.clip(x, 0, 1)
    return within**2 * (3 - 2 * within)


def _bump(phase_T: Array, start: float, end: float, ramp: float = 0.22) -> Array:
    """Up from 0 to 1 after `start`, back down before `end`."""
    return _smooth(np.minimum(phase_T - start, end - phase_T) / ramp)


def _fidget(num_joints: int, clock_T: Array, rng: np.random.Generator) -> Array:
    """Nobody stands still: slow small turns of every movable joint, (T, V, 3)."""
    shape = (3, len(_MOVABLE), 3)  # three waves each
    hertz, start = rng.uniform(0.1, 0.7, shape), rng.uniform(0, 2 * np.pi, shape)
    size = rng.normal(0, 0.02, shape)
    size[:, np.isin(_MOVABLE, _LEGS)] *= 0.4  # shaky legs would make the whole body swim: it stands on them
    angles_TWVC = size * np.sin(2 * np.pi * hertz * clock_T[:, None, None, None] + start)
    angles_TVC = np.zeros((len(clock_T), num_joints, 3))
    angles_TVC[:, _MOVABLE] = angles_TWVC.sum(axis=1)
    return angles_TVC


def _move_arms(
    angles_TVC: Array, act: _Act, person: _Person, phase_T: Array, clock_T: Array, rng: np.random.Generator
) -> None:
    """Add the class's reach and swing to the acting arms; the others hang."""
    effort_T = _bump(phase_T, act.start + rng.normal(0, 0.04), act.end + rng.normal(0, 0.04))
    half_time_T = _smooth((phase_T - 0.35) / 0.3)
    jitter_A = person.manner_A + rng.normal(0, 0.12, 4)
    hertz, start = act.hertz * person.tempo * math.exp(rng.normal(0, 0.08)), rng.normal(0, 0.6)
    uses_left = person.left_handed != (rng.random() < 0.05)  # now and then it is the other hand
    for side, sign in ((LEFT, -1), (RIGHT, 1)):
        acts = act.both_arms or uses_left == (side == LEFT)
        shift = math.pi if act.alternating and side == LEFT else 0.0
        wave_T = np.sin(2 * np.pi * hertz * clock_T + start + shift)
        goal_TA = act.reach_A + half_time_T[:, None] * (act.then_A - act.reach_A)
        goal_TA = goal_TA + jitter_A + wave_T[:, None] * act.swing_A
        arm_TA = _REST + (acts * effort_T)[:, None] * (goal_TA - _REST)
        angles_TVC[:, SHOULDERS[side]] += arm_TA[:, :3] * (1, sign, sign)
        angles_TVC[:, ELBOWS[side], 0] += np.maximum(arm_TA[:, 3], 0.05)


def _take_posture(angles_TVC: Array, posture: _Posture, strength: float, phase_T: Array) -> None:
    """Add a posture of trunk and legs."""
    effort_T = _smooth((phase_T - 0.15) / 0.5) if posture.stays else _bump(phase_T, 0.1, 0.9, 0.35)
    left, right = zip(HIPS, KNEES, ANKLES, strict=True)
    bent = (*posture.trunk, *posture.left, *posture.right)
    for joint, angle in zip((PELVIS, SPINE, *left, *right), bent, strict=True):
        angles_TVC[:, joint, 0] += min(strength, 1.1) * angle * effort_T
    angles_TVC[:, PELVIS, 0] -= posture.dip * np.sin(np.pi * effort_T)


def _step(
    angles_TVC: Array, gait: _Gait, strength: float, phase_T: Array, clock_T: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Add steps or jumps; returns heading (T), path (T, 3) in metres, height off the floor (T) in metres."""
    hertz, start = gait.hertz * math.exp(rng.normal(0, 0.08)), rng.uniform(0, 2 * np.pi)
    pace_T = _bump(phase_T, -0.05, 1.05, 0.15)
    for side in (LEFT, RIGHT):
        shift = 0.0 if gait.together else math.pi * side
        wave_T = 2 * np.pi * hertz * clock_T + start + shift
        bent_T = pace_T * gait.knee * strength * (0.5 + 0.5 * np.sin(wave_T + 0.9))
        angles_TVC[:, HIPS[side], 0] += pace_T * gait.stride * strength * np.sin(wave_T) + 0.5 * bent_T
        angles_TVC[:, KNEES[side], 0] -= bent_T
        angles_TVC[:, SHOULDERS[side], 0] -= pace_T * 0.6 * gait.stride * np.sin(wave_T)
    turn = gait.turn * math.exp(rng.normal(0, 0.2)) * (1 if rng.random() < 0.7 else -1)
    heading_T = turn * phase_T
    speed_T = gait.speed * strength * pace_T * (clock_T[1] - clock_T[0] if len(clock_T) > 1 else 0.0)
    path_TC = np.stack([-np.sin(heading_T), np.zeros_like(heading_T), -np.cos(heading_T)], axis=1)
    path_TC = np.cumsum(path_TC * speed_T[:, None], axis=0)
    in_air_T = np.maximum(-np.sin(2 * np.pi * hertz * clock_T + start + 0.9), 0)
    return heading_T, path_TC, gait.lift * strength * pace_T * in_air_T


def _pose(skeleton: Skeleton, rest_VC: Array, angles_TVC: Array) -> Array:
    """Forward kinematics from the pelvis outwards, (T, V, 3): a turn of a joint moves all beyond it."""
    own_VT = _rotations(angles_TVC)
    xyz_TVC = np.zeros_like(angles_TVC)
    turned = {PELVIS: own_VT[PELVIS]}
    for joint, parent in outwards(skeleton):
        xyz_TVC[:, joint] = xyz_TVC[:, parent] + turned[parent] @ (rest_VC[joint] - rest_VC[parent])
        turned[joint] = turned[parent] @ own_VT[joint]
    return xyz_TVC


def _rotations(angles_TVC: Array) -> Array:
    """About the joint's own length (y), then outwards (z), then forwards (x); (V, T, 3, 3)."""
    sx, sy, sz = np.sin(angles_TVC).transpose(2, 1, 0)
    cx, cy, cz = np.cos(angles_TVC).transpose(2, 1, 0)
    rows = (
        (cz * cy, -sz, cz * sy),
        (cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy),
        (sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _turn(xyz_TVC: Array, angle: Array | float) -> Array:
    """About the vertical, by one angle or one a frame."""
    sine, cosine = np.sin(angle)[..., None], np.cos(angle)[..., None]
    x, y, z = xyz_TVC.transpose(2, 0, 1)
    return np.stack([x * cosine + z * sine, y, z * cosine - x * sine], axis=-1)


# ---- who stands where, and what the sensor sees


def _pair_up(title: str, walking: bool, first_TVC: Array, second_TVC: Array, gap: float) -> list[Array]:
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
    return [_turn(first_TVC, headings[0]) - aside_C, _turn(second_TVC, headings[1]) + aside_C]


def _look(xyz_TVC: Array, camera: int, setup: int) -> Array:
    """From the world to the camera: three cameras 45 degrees apart, at a height and distance by setup."""
    distance, height = 2.8 + 1.2 * (setup * 5 % 17) / 17, 1.0 + 0.9 * (setup * 7 % 16) / 16
    xyz_TVC = _turn(xyz_TVC, {2: math.pi / 4, 3: -math.pi / 4}.get(camera, 0.0))
    tilt = math.atan2(height - 0.9, distance)
    x, y, z = (xyz_TVC + np.array([0, -height, distance])).transpose(2, 0, 1)
    return np.stack(
        [x, y * math.cos(tilt) + z * math.sin(tilt), z * math.cos(tilt) - y * math.sin(tilt)], axis=-1
    )


def _sense(xyz_TVC: Array, body_id: int, noise: float, rng: np.random.Generator) -> Track:
    """Add what a sensor adds: noise of millimetres that grows with distance, and guesses at hidden joints."""
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
