"""How people act: a class, a person and a camera go in, the tracks that a sensor would report come out.

A body with limbs (forward kinematics over the spec's own bones) stands, walks, sits or bends in front of a
sensor and moves its arms in the way of its class. `acts` knows classes and people, `sensor` what is seen of
them; here they move. Class, person, performance and sensor each have their own random source, so the same
performance can be seen from several cameras, and the same person does everything in the same manner. What a
class looks like depends on its name alone: recordings of another seed show other people and performances, but
the same classes.

Axes: T frame, V joint, C coordinate, A angle of an arm, W wave. World and camera, in metres: x to the right
of somebody who faces the sensor, y up, z away from the sensor. A person who is not turned faces -z. Angles
in radians; a joint's three (C) turn what is beyond it: forwards for an arm or a leg (about x), about its own
length (y), outwards to the right (z).
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from data_specs.spec import DatasetSpec
from pipeline.raw.acts import (
    ANKLES,
    ELBOWS,
    HIPS,
    KNEES,
    LEFT,
    LEGS,
    MOVABLE,
    NECK,
    PELVIS,
    REST,
    RIGHT,
    SHOULDERS,
    SPINE,
    Act,
    Gait,
    Person,
    Posture,
    act_of,
    person_of,
)
from pipeline.raw.chance import random_of
from pipeline.raw.sensor import NOISE, Track, look, pair_up, sense, turn

Array = NDArray[np.float64]

_NUM_FRAMES = {"ntu": (40, 180), "ucla": (10, 120)}  # fewest, most


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
    act, person = act_of(title), person_of(seed, f"{spec.name}/{seen['subject']}", spec.skeleton.num_joints)
    if num_frames is None:
        seconds = act.seconds / person.tempo * math.exp(rng.normal(0, 0.18))
        num_frames = int(np.clip(round(seconds * spec.fps), *_NUM_FRAMES[spec.reader]))
    bodies = [_play(spec.skeleton, act, person, num_frames, spec.fps, rng)]
    if spec.max_bodies > 1 and seen["action"] in spec.pair_actions:
        partner = person_of(seed, f"{spec.name}/partner/{performance}", spec.skeleton.num_joints)
        part = act_of(f"{title}, the other one")
        second_TVC = _play(spec.skeleton, part, partner, num_frames, spec.fps, rng)
        walking, gap = isinstance(act.body, Gait), rng.normal(0.95, 0.08)
        bodies = pair_up(title, walking, bodies[0], second_TVC, gap)
    facing = rng.normal(0, 0.15)
    if spec.reader == "ntu":  # every action was done twice, towards the left and towards the right camera
        facing += math.pi / 4 * (1 if seen["replication"] == 1 else -1)
    place_C = rng.normal(0, [0.12, 0, 0.12])
    sensor = random_of(seed, spec.name, "sensor", name)
    first_id = int(2**56 + sensor.integers(3000, 30000))
    views = [look(turn(body, facing) + place_C, seen["camera"], seen["setup"]) for body in bodies]
    noise = NOISE[spec.reader]
    return [sense(view, first_id + 7 * index, noise, sensor) for index, view in enumerate(views)]


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


def _play(
    skeleton: Skeleton, act: Act, person: Person, num_frames: int, fps: float, rng: np.random.Generator
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
    if isinstance(act.body, Gait):
        heading_T, path_TC, lift_T = _step(angles_TVC, act.body, strength, phase_T, clock_T, rng)
        xyz_TVC = _pose(skeleton, person.rest_VC, angles_TVC)
        xyz_TVC[..., 1] += (lift_T - xyz_TVC[..., 1].min(axis=1) + 0.02)[:, None]
        return turn(xyz_TVC, heading_T) + path_TC[:, None]
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
    shape = (3, len(MOVABLE), 3)  # three waves each
    hertz, start = rng.uniform(0.1, 0.7, shape), rng.uniform(0, 2 * np.pi, shape)
    size = rng.normal(0, 0.02, shape)
    size[:, np.isin(MOVABLE, LEGS)] *= 0.4  # shaky legs would make the whole body swim: it stands on them
    angles_TWVC = size * np.sin(2 * np.pi * hertz * clock_T[:, None, None, None] + start)
    angles_TVC = np.zeros((len(clock_T), num_joints, 3))
    angles_TVC[:, MOVABLE] = angles_TWVC.sum(axis=1)
    return angles_TVC


def _move_arms(
    angles_TVC: Array, act: Act, person: Person, phase_T: Array, clock_T: Array, rng: np.random.Generator
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
        arm_TA = REST + (acts * effort_T)[:, None] * (goal_TA - REST)
        angles_TVC[:, SHOULDERS[side]] += arm_TA[:, :3] * (1, sign, sign)
        angles_TVC[:, ELBOWS[side], 0] += np.maximum(arm_TA[:, 3], 0.05)


def _take_posture(angles_TVC: Array, posture: Posture, strength: float, phase_T: Array) -> None:
    """Add a posture of trunk and legs."""
    effort_T = _smooth((phase_T - 0.15) / 0.5) if posture.stays else _bump(phase_T, 0.1, 0.9, 0.35)
    left, right = zip(HIPS, KNEES, ANKLES, strict=True)
    bent = (*posture.trunk, *posture.left, *posture.right)
    for joint, angle in zip((PELVIS, SPINE, *left, *right), bent, strict=True):
        angles_TVC[:, joint, 0] += min(strength, 1.1) * angle * effort_T
    angles_TVC[:, PELVIS, 0] -= posture.dip * np.sin(np.pi * effort_T)


def _step(
    angles_TVC: Array, gait: Gait, strength: float, phase_T: Array, clock_T: Array, rng: np.random.Generator
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
