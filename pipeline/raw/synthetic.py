"""Believable recordings of acting people, written in the data sets' true raw formats under true file names.

A body with limbs (forward kinematics over the spec's own bones) stands, walks, sits or bends in front of a
sensor and moves its arms in the way of its class. Class, person, performance and camera each have their own
random source, so the same performance can be seen from several cameras, and the same person does everything
in the same manner. What a class looks like depends on its name alone: recordings of another seed show other
people and performances, but the same classes.

Axes: T frame, V joint, C coordinate, J movable joint, W wave. World and camera, in metres: x to the right of
somebody who faces the sensor, y up, z away from the sensor. A person who is not turned faces -z.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.spec import DatasetSpec, Skeleton

Array = NDArray[np.float64]

LAYOUTS = ("json", "text")

# What may be odd about a file. All of it has been seen in downloads of the real data sets.
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
ODDITIES: tuple[str, ...] = tuple(dict.fromkeys(NTU_ODDITIES + UCLA_ODDITIES))

# Oddities that a reader must refuse with a message that names the file. It reads all others; of those,
# "nobody" yields a recording without a body, which has nothing to learn from and is refused later.
UNREADABLE: frozenset[str] = frozenset({"13 values", "nul", "truncated", "overclaimed"})

PAIR_ACTIONS = frozenset({*range(50, 61), *range(106, 121)})  # NTU's two-person classes
JOINTS = {"ntu": 25, "ucla": 20}

PELVIS, SPINE, NECK = 0, 1, 2
# (left, right)
SHOULDERS, ELBOWS, WRISTS = (4, 8), (5, 9), (6, 10)
HIPS, KNEES, ANKLES = (12, 16), (13, 17), (14, 18)
MOVABLE = (PELVIS, SPINE, NECK, *SHOULDERS, *ELBOWS, *WRISTS, *HIPS, *KNEES, *ANKLES)
LEAVES = (3, 15, 19, 21, 22, 23, 24)  # Kinect v2 gives these no orientation

# Upright, arms hanging: the middle and the right side of a Kinect v2 body in units of its height above the
# floor, from the usual segment lengths (Drillis and Contini, 1966). The left side is the mirror image.
_MIDDLE = {0: (0, 0.53, 0), 1: (0, 0.665, 0.005), 20: (0, 0.8, 0.01), 2: (0, 0.845, 0), 3: (0, 0.93, -0.01)}
_RIGHT = {
    8: (0.105, 0.79, 0.01),
    9: (0.112, 0.615, 0.015),
    10: (0.112, 0.47, 0),
    11: (0.112, 0.435, -0.005),
    23: (0.112, 0.39, -0.01),
    24: (0.1, 0.42, -0.04),
    16: (0.052, 0.515, 0),
    17: (0.057, 0.285, -0.01),
    18: (0.06, 0.05, 0.01),
    19: (0.07, 0.02, -0.065),
}
_LEFT_OF = {8: 4, 9: 5, 10: 6, 11: 7, 23: 21, 24: 22, 16: 12, 17: 13, 18: 14, 19: 15}
_BELOW_SHOULDERS = (5, 6, 7, 9, 10, 11, 21, 22, 23, 24)

# A body after its id, and its joints: x y z, depth x y, colour x y, orientation w x y z, tracking state.
_JOINT_FORM = "%.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %d\n"
_LEAF_FORM = "%.7G %.7G %.7G %.7G %.7G %.7G %.7G 0 0 0 0 %d\n"
_BODY_FORM = "0 1 1 1 1 0 %.7G %.7G 2\n25\n" + "".join(
    _LEAF_FORM if joint in LEAVES else _JOINT_FORM for joint in range(JOINTS["ntu"])
)
# Which of a body's 25 x 12 values are printed; a leaf's orientation is constant.
_PRINTED = np.ones((JOINTS["ntu"], 12), np.bool_)
_PRINTED[list(LEAVES), 7:11] = False


@dataclass(frozen=True)
class Plan:
    """One recording to be written: its name, and what is odd about it (one of ODDITIES, or None)."""

    name: str
    oddity: str | None


@dataclass(frozen=True)
class _Posture:
    """What trunk and legs do once: bend to these angles (radians), and return unless it `stays`.

    trunk: (pelvis, spine), negative is forwards.  left, right: (hip, knee, ankle), positive is forwards.
    """

    stays: bool
    trunk: tuple[float, float]
    left: tuple[float, float, float]
    right: tuple[float, float, float]


@dataclass(frozen=True)
class _Gait:
    """What legs do over and over: steps a second, angles in radians, metres a second, metres off the floor.

    turn: how far the walker's path bends in all.  together: both legs do the same.
    """

    hertz: float
    stride: float
    knee: float
    speed: float = 0.0
    lift: float = 0.0
    turn: float = 0.0
    together: bool = False


_STANDING = _Posture(True, (0, 0), (0, 0, 0), (0, 0, 0))
_SITTING = _Posture(True, (-0.15, -0.1), (1.5, -1.45, 0.05), (1.5, -1.45, 0.05))
_BENDING = _Posture(False, (-0.7, -0.6), (1.0, -0.5, 0.2), (1.0, -0.5, 0.2))
_STOOPING = _Posture(False, (-0.2, -0.5), (0.25, -0.1, 0.05), (0.25, -0.1, 0.05))
_SQUATTING = _Posture(False, (-0.45, -0.15), (1.8, -1.9, 0.6), (1.8, -1.9, 0.6))
_KICKING = _Posture(False, (0.15, -0.15), (-0.2, -0.1, 0), (1.2, -0.5, -0.3))
_FALLING = _Posture(True, (-1.35, -0.1), (0.1, -0.3, -0.4), (0.2, -0.5, -0.4))

# The first of these words in a class's name decides; without one, people stand.
_BODIES: tuple[tuple[str, _Posture | _Gait], ...] = (
    ("sit down", _SITTING),
    ("pick up", _BENDING),
    ("shoe", _BENDING),
    ("toe touch", _BENDING),
    ("heavy", _BENDING),
    ("drop", _STOOPING),
    ("bow", _STOOPING),
    ("nausea", _STOOPING),
    ("squat", _SQUATTING),
    ("fall", _FALLING),
    ("walk around", _Gait(0.9, 0.45, 0.55, 0.9, turn=4.5)),
    ("walking", _Gait(0.9, 0.45, 0.55, 0.6)),
    ("follow", _Gait(0.9, 0.45, 0.55, 0.7)),
    ("support", _Gait(0.7, 0.3, 0.4, 0.4)),
    ("carry", _Gait(0.8, 0.4, 0.5, 0.6, turn=0.8)),
    ("stagger", _Gait(0.7, 0.3, 0.5, 0.35, turn=1.2)),
    ("butt kicks", _Gait(1.5, 0.15, 1.6, lift=0.02)),
    ("run", _Gait(1.5, 0.6, 1.2, lift=0.03)),
    ("hop", _Gait(1.6, 0.0, 0.5, lift=0.12, together=True)),
    ("jump", _Gait(0.9, 0.0, 0.9, lift=0.3, together=True)),
    ("kick", _KICKING),
)
# A class that undoes another is that other one, played backwards.
_UNDONE = (("take off", "put on"), ("doffing", "donning"), ("stand up", "sit down"))

# Where a right arm can go: shoulder forwards, shoulder inwards, shoulder outwards, elbow (radians).
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
    """What makes a class: see `_act`. Angles in radians; arms as in `_REACHES`."""

    body: _Posture | _Gait
    backwards: bool
    seconds: float
    start: float
    end: float
    both_arms: bool
    alternating: bool
    reach: Array
    then: Array
    swing: Array
    hertz: float
    nod: Array
    lean: Array


@dataclass(frozen=True)
class _Person:
    """Who acts. rest_VC: standing upright over the origin, metres."""

    rest_VC: Array
    left_handed: bool
    tempo: float
    strength: float
    manner: Array
    habit: Array


@dataclass(frozen=True)
class _Track:
    """One tracked body, as a sensor reports it. present_T: in which frames."""

    body_id: int
    present_T: NDArray[np.bool_]
    xyz_TVC: Array
    states_TV: NDArray[np.uint8]


def synthesize(
    spec: DatasetSpec,
    out: Path,
    samples: int,
    *,
    seed: int = 0,
    oddities: float = 0.0,
    layout: str = "json",
    on_file: Callable[[], None] | None = None,
) -> int:
    """Write `samples` recordings of the data set into the folder `out` and return the number of files.

    layout: "json", one file a recording; "text", NW-UCLA's original release, one file a frame.
    oddities: the share of recordings, 0 to 1, that carry one of ODDITIES, each kind in turn; a reader must
        refuse those in UNREADABLE.
    on_file: called once for every recording written.
    The same arguments give the same bytes. Raises ValueError for arguments that make no data set.
    """
    plans = plan(spec, samples, seed=seed, oddities=oddities)
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if layout == "text" and spec.reader != "ucla":
        raise ValueError(f"layout 'text' is NW-UCLA's original release; {spec.name} has no such layout")
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for planned in plans:
        for file, content in _files(spec, planned, seed, layout):
            path = out / file
            if path.parent != out:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written += 1
        if on_file is not None:
            on_file()
    return written


def plan(spec: DatasetSpec, samples: int, *, seed: int = 0, oddities: float = 0.0) -> list[Plan]:
    """Which recordings `synthesize` writes, in order, and which of them are odd.

    Classes take turns. Within a class, subjects, cameras, setups and replications that train and that test
    take turns, so that three rounds over the classes, and mostly two, give every class of every protocol
    both. Raises ValueError if there are fewer names than samples, or the spec's bodies are not Kinect's.
    """
    if samples < 1:
        raise ValueError(f"{samples} samples; there must be at least 1")
    if not 0 <= oddities <= 1:
        raise ValueError(f"oddities is {oddities}; it is a share, from 0 to 1")
    if spec.skeleton.num_joints != JOINTS[spec.reader]:
        found, expected = spec.skeleton.num_joints, JOINTS[spec.reader]
        raise ValueError(f"{spec.name} has {found} joints; the {spec.reader} reader's bodies have {expected}")
    names = _names(spec, samples)
    # Who is odd is drawn by hash: a fixed stride would step in time with the classes.
    drawn = sorted(range(samples), key=lambda i: _digest(seed, "oddity", names[i]))
    plans = [Plan(name, None) for name in names]
    kinds = _kinds(spec)
    for index, (kind, listed_name) in zip(drawn[: round(oddities * samples)], kinds, strict=False):
        plans[index] = Plan(listed_name or names[index], kind)
    return plans


def _kinds(spec: DatasetSpec) -> Iterator[tuple[str, str | None]]:
    """The oddities in turn, for ever; each "missing list" with its name, as long as there are names."""
    listed = iter(sorted(name for name in spec.missing if spec.parse_name(name)))
    while True:
        for kind in NTU_ODDITIES if spec.reader == "ntu" else UCLA_ODDITIES:
            name = next(listed, None) if kind == "missing list" else None
            if kind != "missing list" or name is not None:
                yield kind, name


def _names(spec: DatasetSpec, samples: int) -> list[str]:
    of_action = _ntu_names if spec.reader == "ntu" else _ucla_names
    sources = [
        (name for name in of_action(spec, action) if spec.parse_name(name) and name not in spec.missing)
        for action in spec.labels
    ]
    names: list[str] = []
    while len(names) < samples:
        for source in sources[: samples - len(names)]:
            if (name := next(source, None)) is None:
                raise ValueError(f"{samples} samples are more than {spec.name} has names ({len(names)})")
            names.append(name)
    return names


def _ntu_names(spec: DatasetSpec, action: int) -> Iterator[str]:
    """Every name of an action. Actions from 61 on came with NTU-120, recorded with other people elsewhere."""
    first_part = action <= 60
    subjects = _take_turns(spec, "subject", range(1, 41) if first_part else range(41, 107))
    setups = _take_turns(spec, "setup", range(1, 18) if first_part else range(18, 33))
    # e o o e, where subjects go e o e o: otherwise X-Set and X-Sub would be one and the same split
    setups = [setups[i ^ 1] if i % 4 > 1 and i ^ 1 < len(setups) else setups[i] for i in range(len(setups))]
    count = len(subjects)
    takes = [(subjects[i % count], 1 + (i % count // 2 + i // count) % 2) for i in range(2 * count)]
    turn = 2 * spec.labels[action] % len(takes)
    cameras = _take_turns(spec, "camera", range(1, 4))
    for take, camera, setup in _walk(len(takes), len(cameras), len(setups)):
        subject, replication = takes[(take + turn) % len(takes)]
        yield f"S{setups[setup]:03d}C{cameras[camera]:03d}P{subject:03d}R{replication:03d}A{action:03d}"


def _ucla_names(spec: DatasetSpec, action: int) -> Iterator[str]:
    subjects = _take_turns(spec, "subject", range(1, 11))
    cameras = _take_turns(spec, "camera", range(1, 4))
    turn = 2 * spec.labels[action]
    for replication in range(100):
        for subject, camera in _walk(len(subjects), len(cameras)):
            person = subjects[(subject + turn) % len(subjects)]
            yield f"a{action:02d}_s{person:02d}_e{replication:02d}_v{cameras[camera]:02d}"


def _take_turns(spec: DatasetSpec, field: str, values: range) -> list[int]:
    """The values of a field, those that train and those that test by turns."""
    default = spec.protocol(spec.default_protocol)
    protocols = [p for p in (default, *spec.protocols.values()) if p.field == field]
    if not protocols:
        return list(values)
    train = [value for value in values if protocols[0].split({field: value}) == "train"]
    others = [value for value in values if value not in train]
    return [value for pair in zip_longest(train, others) for value in pair if value is not None]


def _walk(*sizes: int) -> Iterator[tuple[int, ...]]:
    """Every combination of indices once, all indices moving on at every step."""
    for step in range(math.prod(sizes)):
        period, indices = 1, []
        for size in sizes:
            # Two wheels of a and b teeth meet again after lcm(a, b) steps; then one slips by a tooth.
            turned = step % (period * size)
            indices.append((turned + turned // math.lcm(period, size)) % size)
            period *= size
        yield tuple(indices)


def _digest(seed: int, *key: str) -> bytes:
    return hashlib.sha256("/".join((str(seed), *key)).encode()).digest()


def _random(seed: int, *key: str) -> np.random.Generator:
    """The random source of whatever the key names."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, *key)[:16], "little")))


# ---- what a class is, and who acts


@functools.cache
def _act(name: str) -> _Act:
    """The motion of a class, drawn from its name."""
    forward_name = name
    for undoing, doing in _UNDONE:
        forward_name = forward_name.replace(undoing, doing)
    body = next((body for word, body in _BODIES if word in forward_name), _STANDING)
    rng = _random(0, "class", forward_name)
    reach, then = rng.choice(len(_REACHES), 2, replace=False)
    swinging = rng.random(4) < 0.5
    return _Act(
        body=body,
        backwards=forward_name != name,
        seconds=rng.uniform(1.7, 3.4),
        start=rng.uniform(0.02, 0.2),
        end=rng.uniform(0.75, 1.0),
        both_arms=bool(rng.random() < 0.45),
        alternating=bool(rng.random() < 0.3),
        reach=np.array(_REACHES[reach]) + rng.normal(0, 0.15, 4),
        then=np.array(_REACHES[then if rng.random() < 0.4 else reach]) + rng.normal(0, 0.15, 4),
        swing=rng.uniform(0.1, 0.5, 4) * swinging,
        hertz=rng.uniform(0.5, 2.5),
        nod=rng.normal(0, 0.15, 2) + (rng.random(2) < 0.15) * 0.35,
        lean=rng.normal(0, 0.12, 3),
    )


@functools.lru_cache(maxsize=256)
def _person(seed: int, who: str, num_joints: int) -> _Person:
    """Somebody, with a height, limbs in proportion, a tempo and habits of their own."""
    rng = _random(seed, "person", who)
    height = float(np.clip(rng.normal(1.7, 0.09), 1.45, 1.98))
    width, legs, arms = rng.normal(1, [0.06, 0.025, 0.04])
    rest_VC = _upright(num_joints)
    hands = [joint for joint in _BELOW_SHOULDERS if joint < num_joints]
    shoulder = rest_VC[SHOULDERS[0], 1]
    rest_VC[hands, 1] = shoulder + arms * (rest_VC[hands, 1] - shoulder)
    rest_VC[:, 1] *= np.where(rest_VC[:, 1] > 0.53, 1, legs)
    rest_VC[:, 0] *= width
    return _Person(
        rest_VC=rest_VC * height,
        left_handed=bool(rng.random() < 0.1),
        tempo=math.exp(rng.normal(0, 0.12)),
        strength=math.exp(rng.normal(0, 0.12)),
        manner=rng.normal(0, 0.15, 4),
        habit=rng.normal(0, 0.04, (len(MOVABLE), 3)),
    )


def _upright(num_joints: int) -> Array:
    """Rest positions in units of height, (V, 3). Kinect v1 has no neck, and its spine is low."""
    rest_VC = np.zeros((JOINTS["ntu"], 3))
    for joint, place in (_MIDDLE | _RIGHT).items():
        rest_VC[joint] = place
    for right, left in _LEFT_OF.items():
        rest_VC[left] = rest_VC[right] * np.array([-1, 1, 1])
    if num_joints == JOINTS["ucla"]:
        rest_VC[1] = 0.0, 0.59, 0.005
        rest_VC[2] = rest_VC[20]
    return rest_VC[:num_joints]


# ---- how a body moves


def _play(
    skeleton: Skeleton, act: _Act, person: _Person, frames: int, fps: float, rng: np.random.Generator
) -> Array:
    """One performance, (T, V, 3) metres in the world: the feet on the floor, the start over the origin."""
    clock_T = np.arange(frames) / fps
    phase_T = np.linspace(0, 1, frames) ** math.exp(rng.normal(0, 0.15))
    if act.backwards:
        clock_T, phase_T = clock_T[::-1], 1 - phase_T
    strength = person.strength * math.exp(rng.normal(0, 0.1))
    angles_TJC = person.habit + _fidget(clock_T, rng)
    _move_arms(angles_TJC, act, person, phase_T, clock_T, rng)
    nod_T = _bump(phase_T, act.start, act.end) * np.sin(2 * np.pi * act.hertz * clock_T)
    angles_TJC[:, MOVABLE.index(NECK), :2] += nod_T[:, None] * act.nod
    angles_TJC[:, MOVABLE.index(SPINE)] += _bump(phase_T, act.start, act.end)[:, None] * act.lean
    if isinstance(act.body, _Gait):
        heading_T, path_TC, lift_T = _step(angles_TJC, act.body, strength, phase_T, clock_T, rng)
        pinned: tuple[int, ...] = ()
    else:
        pinned = _take_posture(angles_TJC, act, strength, phase_T)
        heading_T, path_TC, lift_T = np.zeros(frames), np.zeros((frames, 3)), np.zeros(frames)
    xyz_TVC = _pose(skeleton, person.rest_VC, angles_TJC)
    for axis in (0, 2) if pinned else ():
        xyz_TVC[..., axis] -= xyz_TVC[:, list(pinned), axis].mean(axis=1, keepdims=True)
    xyz_TVC[..., 1] += (lift_T - xyz_TVC[..., 1].min(axis=1) + 0.02)[:, None]
    return _turn(xyz_TVC, heading_T) + path_TC[:, None]


def _smooth(x: Array) -> Array:
    """From 0 at 0 to 1 at 1, without a jerk."""
    within: Array = np.clip(x, 0, 1)
    return within**2 * (3 - 2 * within)


def _bump(phase_T: Array, start: float, end: float, ramp: float = 0.22) -> Array:
    """Up from 0 to 1 after `start`, back down before `end`."""
    return _smooth(np.minimum(phase_T - start, end - phase_T) / ramp)


def _fidget(clock_T: Array, rng: np.random.Generator) -> Array:
    """Nobody stands still: slow small turns of every joint, (T, J, 3) radians."""
    shape = (3, len(MOVABLE), 3)  # three waves each
    hertz, start = rng.uniform(0.1, 0.7, shape), rng.uniform(0, 2 * np.pi, shape)
    size = rng.normal(0, 0.02, shape)
    # Shaky legs would make the whole body swim: it stands on them.
    size[:, [MOVABLE.index(joint) for joint in (PELVIS, *HIPS, *KNEES, *ANKLES)]] *= 0.4
    angles_TWJC = size * np.sin(2 * np.pi * hertz * clock_T[:, None, None, None] + start)
    return np.asarray(angles_TWJC.sum(axis=1))


def _move_arms(
    angles_TJC: Array, act: _Act, person: _Person, phase_T: Array, clock_T: Array, rng: np.random.Generator
) -> None:
    """Add the class's reach and swing to the acting arms; the others hang."""
    effort_T = _bump(phase_T, act.start + rng.normal(0, 0.04), act.end + rng.normal(0, 0.04))
    moving_T = _smooth((phase_T - 0.35) / 0.3)
    jitter = person.manner + rng.normal(0, 0.12, 4)
    hertz, start = act.hertz * person.tempo * math.exp(rng.normal(0, 0.08)), rng.normal(0, 0.6)
    left_acts = person.left_handed != (rng.random() < 0.05)
    for side, sign in ((0, -1), (1, 1)):
        acts = act.both_arms or side == (0 if left_acts else 1)
        shift = math.pi if act.alternating and side == 0 else 0.0
        wave_T = np.sin(2 * np.pi * hertz * clock_T + start + shift)[:, None]
        reach_T = act.reach + moving_T[:, None] * (act.then - act.reach) + jitter + wave_T * act.swing
        arm_T = _REST + (acts * effort_T)[:, None] * (reach_T - _REST)
        shoulder, elbow = MOVABLE.index(SHOULDERS[side]), MOVABLE.index(ELBOWS[side])
        angles_TJC[:, shoulder] += arm_T[:, :3] * (1, sign, sign)
        angles_TJC[:, elbow, 0] += np.maximum(arm_T[:, 3], 0.05)


def _take_posture(angles_TJC: Array, act: _Act, strength: float, phase_T: Array) -> tuple[int, ...]:
    """Add a posture of trunk and legs; returns the joints that stay where they stand."""
    posture = act.body
    assert isinstance(posture, _Posture)
    effort_T = _smooth((phase_T - 0.15) / 0.5) if posture.stays else _bump(phase_T, 0.1, 0.9, 0.35)
    limit = min(strength, 1.1)
    turns = zip((PELVIS, SPINE), posture.trunk, strict=True)
    legs = zip((*_leg(0), *_leg(1)), posture.left + posture.right, strict=True)
    for joint, angle in (*turns, *legs):
        angles_TJC[:, MOVABLE.index(joint), 0] += limit * angle * effort_T
    if posture is _SITTING:  # nobody can sit down without leaning forward on the way
        angles_TJC[:, MOVABLE.index(PELVIS), 0] -= 0.5 * np.sin(np.pi * effort_T)
    return ANKLES[:1] if posture is _KICKING else ANKLES


def _step(
    angles_TJC: Array, gait: _Gait, strength: float, phase_T: Array, clock_T: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Add steps or jumps; returns heading (T) in radians, path (T, 3) in metres, height off the floor (T)."""
    hertz, start = gait.hertz * math.exp(rng.normal(0, 0.08)), rng.uniform(0, 2 * np.pi)
    pace_T = _bump(phase_T, -0.05, 1.05, 0.15)
    for side in (0, 1):
        shift = 0.0 if gait.together else math.pi * side
        wave_T = 2 * np.pi * hertz * clock_T + start + shift
        hip, knee, _ = (MOVABLE.index(joint) for joint in _leg(side))
        bent_T = pace_T * gait.knee * strength * (0.5 + 0.5 * np.sin(wave_T + 0.9))
        angles_TJC[:, hip, 0] += pace_T * gait.stride * strength * np.sin(wave_T) + 0.5 * bent_T
        angles_TJC[:, knee, 0] -= bent_T
        angles_TJC[:, MOVABLE.index(SHOULDERS[side]), 0] -= pace_T * 0.6 * gait.stride * np.sin(wave_T)
    turn = gait.turn * math.exp(rng.normal(0, 0.2)) * (1 if rng.random() < 0.7 else -1)
    heading_T = turn * phase_T
    speed_T = gait.speed * strength * pace_T * (clock_T[1] - clock_T[0] if len(clock_T) > 1 else 0.0)
    path_TC = np.stack([-np.sin(heading_T), np.zeros_like(heading_T), -np.cos(heading_T)], axis=1)
    path_TC = np.cumsum(path_TC * speed_T[:, None], axis=0)
    in_air_T = np.maximum(-np.sin(2 * np.pi * hertz * clock_T + start + 0.9), 0)
    return heading_T, path_TC, gait.lift * strength * pace_T * in_air_T


def _leg(side: int) -> tuple[int, int, int]:
    return HIPS[side], KNEES[side], ANKLES[side]


def _pose(skeleton: Skeleton, rest_VC: Array, angles_TJC: Array) -> Array:
    """Forward kinematics from the pelvis outwards, (T, V, 3): a turn of a joint moves all beyond it."""
    local_JT = _rotations(angles_TJC)
    xyz_VTC = np.zeros((len(rest_VC), len(angles_TJC), 3))
    turned = {PELVIS: local_JT[MOVABLE.index(PELVIS)]}
    for joint, parent in _outwards(skeleton):
        xyz_VTC[joint] = xyz_VTC[parent] + turned[parent] @ (rest_VC[joint] - rest_VC[parent])
        turned[joint] = turned[parent]
        if joint in MOVABLE:
            turned[joint] = turned[parent] @ local_JT[MOVABLE.index(joint)]
    return xyz_VTC.transpose(1, 0, 2).copy()


@functools.lru_cache(maxsize=8)
def _outwards(skeleton: Skeleton) -> tuple[tuple[int, int], ...]:
    """The spec's bones as (joint, nearer to the pelvis), nearest first."""
    order, border = [], [PELVIS]
    seen = {PELVIS}
    while border:
        near = border.pop(0)
        for bone in skeleton.bones:
            if near in bone and (far := sum(bone) - near) not in seen:
                order.append((far, near))
                seen.add(far)
                border.append(far)
    return tuple(order)


def _rotations(angles_TJC: Array) -> Array:
    """About the joint's own length (y), then outwards (z), then forwards (x); (J, T, 3, 3)."""
    sx, sy, sz = np.sin(angles_TJC).transpose(2, 1, 0)
    cx, cy, cz = np.cos(angles_TJC).transpose(2, 1, 0)
    rows = (
        (cz * cy, -sz, cz * sy),
        (cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy),
        (sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _turn(xyz_TVC: Array, angle: Array | float) -> Array:
    """About the vertical, by one angle or one a frame."""
    sine, cosine = np.sin(angle), np.cos(angle)
    if isinstance(angle, np.ndarray):
        sine, cosine = sine[:, None], cosine[:, None]
    x, y, z = xyz_TVC.transpose(2, 0, 1)
    return np.stack([x * cosine + z * sine, y, z * cosine - x * sine], axis=-1)


# ---- who stands where, and what the sensor sees


def _record(spec: DatasetSpec, name: str, seed: int, frames: int | None = None) -> list[_Track]:
    """The tracks of a healthy recording. frames: how many, where the name shall not decide."""
    seen = {"camera": 1, "setup": 1, "subject": 1, "replication": 1} | (spec.parse_name(name) or {})
    performance = _performance(seen)
    rng = _random(seed, spec.name, "performance", performance)
    title = spec.classes[seen["label"]]
    act, person = _act(title), _person(seed, f"{spec.name}/{seen['subject']}", spec.skeleton.num_joints)
    frames = frames or _length(spec, act.seconds * person.tempo**-1 * math.exp(rng.normal(0, 0.18)))
    bodies = [_play(spec.skeleton, act, person, frames, spec.fps, rng)]
    if _is_pair(spec, seen["action"]):
        bodies = _face_each_other(spec, seed, title, performance, bodies[0], rng)
    facing = rng.normal(0, 0.15)
    if spec.reader == "ntu":  # every action was done twice, towards the left and towards the right camera
        facing += math.pi / 4 * (1 if seen["replication"] == 1 else -1)
    place = rng.normal(0, [0.12, 0, 0.12])
    sensor = _random(seed, spec.name, "sensor", name)
    first_id = int(2**56 + sensor.integers(3000, 30000))
    return [
        _sense(_look(_turn(body, facing) + place, seen), first_id + 7 * index, sensor, spec.reader)
        for index, body in enumerate(bodies)
    ]


def _performance(seen: dict[str, int]) -> str:
    """What was done, whichever camera saw it."""
    return "/".join(f"{key}{value}" for key, value in sorted(seen.items()) if key != "camera")


def _length(spec: DatasetSpec, seconds: float) -> int:
    shortest, longest = (40, 180) if spec.reader == "ntu" else (10, 120)
    return int(np.clip(round(seconds * spec.fps), shortest, longest))


def _is_pair(spec: DatasetSpec, action: int) -> bool:
    return spec.reader == "ntu" and spec.max_bodies > 1 and action in PAIR_ACTIONS


def _face_each_other(
    spec: DatasetSpec, seed: int, title: str, performance: str, first_TVC: Array, rng: np.random.Generator
) -> list[Array]:
    """Give a performer, whose body is first_TVC, a partner with a part of their own."""
    who = f"{spec.name}/partner/{performance}"
    act = _act(f"{title}, the other one")
    person = _person(seed, who, spec.skeleton.num_joints)
    second_TVC = _play(spec.skeleton, act, person, len(first_TVC), spec.fps, rng)
    gap = rng.normal(0.95, 0.08)
    outwards = "apart" in title
    if "towards" in title:
        gap += 2 * np.ptp(first_TVC[:, PELVIS, 2])
    same_way = not outwards and "towards" not in title and isinstance(act.body, _Gait)
    quarter = math.pi / 2 * (-1 if outwards else 1)
    first_TVC = _turn(first_TVC, -quarter)
    second_TVC = _turn(second_TVC, -quarter if same_way else quarter)
    first_TVC[..., 0] -= gap / 2
    second_TVC[..., 0] += gap / 2
    return [first_TVC, second_TVC]


def _look(xyz_TVC: Array, seen: dict[str, int]) -> Array:
    """From the world to the camera: three cameras 45 degrees apart, at a height and distance by setup."""
    setup = seen["setup"]
    distance, height = 2.8 + 1.2 * (setup * 5 % 17) / 17, 1.0 + 0.9 * (setup * 7 % 16) / 16
    xyz_TVC = _turn(xyz_TVC, {2: math.pi / 4, 3: -math.pi / 4}.get(seen["camera"], 0.0))
    tilt = math.atan2(height - 0.9, distance)
    x, y, z = (xyz_TVC + np.array([0, -height, distance])).transpose(2, 0, 1)
    return np.stack(
        [x, y * math.cos(tilt) + z * math.sin(tilt), z * math.cos(tilt) - y * math.sin(tilt)], axis=-1
    )


def _sense(xyz_TVC: Array, body_id: int, rng: np.random.Generator, reader: str) -> _Track:
    """Add what a sensor adds: noise of millimetres that grows with distance, and guesses at hidden joints."""
    frames, joints, _ = xyz_TVC.shape
    states_TV = np.full((frames, joints), 2, np.uint8)
    noise = 0.0025 if reader == "ntu" else 0.005
    noise_TVC = rng.standard_normal(xyz_TVC.shape, np.float32) * noise
    noise_TVC[:, 6:8] *= 2
    noise_TVC[:, 10:12] *= 2
    xyz_TVC = xyz_TVC + noise_TVC * (xyz_TVC[:, :1, 2:] / 3) ** 2
    for _ in range(rng.poisson(0.06 * frames)):
        joint, start, length = rng.integers(joints), rng.integers(frames), rng.integers(2, 20)
        hidden = slice(start, start + length)
        states_TV[hidden, joint] = 1
        xyz_TVC[hidden, joint] += rng.normal(0, 0.03, 3)
    return _Track(body_id, np.ones(frames, np.bool_), xyz_TVC, states_TV)


# ---- what is written


def _files(spec: DatasetSpec, planned: Plan, seed: int, layout: str) -> Iterator[tuple[str, bytes]]:
    """(path below the folder, content) of every file of one recording."""
    short = planned.oddity == "one frame"
    tracks = _record(spec, planned.name, seed, 1 if short else None)
    rng = _random(seed, spec.name, "oddity", planned.name)
    if spec.reader == "ntu":
        tracks = _spoil_tracks(spec, tracks, planned.oddity, rng)
        text = _ntu_text(spec, tracks, rng, planned.oddity)
        yield f"{planned.name}.skeleton", _spoil_text(text, planned.oddity, rng)
        return
    track = _spoil_joints(tracks[0], planned.oddity, rng)
    if layout == "json":
        yield f"{planned.name}.json", _ucla_json(spec, planned, track)
        return
    yield from _ucla_frames(planned, track, rng)


def _ntu_text(spec: DatasetSpec, tracks: list[_Track], rng: np.random.Generator, oddity: str | None) -> str:
    """A whole `.skeleton` file. A joint is x y z, depth x y, colour x y, orientation w x y z, state."""
    rows = [_ntu_columns(spec, track, rng, oddity).tolist() for track in tracks]
    frames = len(tracks[0].present_T)
    parts = [f"{frames}\n"]
    for frame in range(frames):
        here = [index for index, track in enumerate(tracks) if track.present_T[frame]]
        parts.append(f"{len(here)}\n")
        for index in here:
            parts.append(f"{tracks[index].body_id} {_BODY_FORM % tuple(rows[index][frame])}")
    text = "".join(parts)
    return text.replace("NAN", "NaN") if oddity == "nan" else text


def _ntu_columns(spec: DatasetSpec, track: _Track, rng: np.random.Generator, oddity: str | None) -> Array:
    """What `_BODY_FORM` takes, (T, lean x, lean y, then the printed values of every joint)."""
    xyz_TVC = track.xyz_TVC
    values = np.empty((*xyz_TVC.shape[:2], 12))
    values[..., :3] = xyz_TVC
    x, y, z = xyz_TVC.transpose(2, 0, 1)
    z = np.maximum(z, 0.3)
    values[..., 3], values[..., 4] = 257 + 366 * x / z, 208 - 366 * y / z
    values[..., 5], values[..., 6] = 962 + 1070 * (x - 0.052) / z, 538 - 1070 * y / z
    values[..., 7:11] = _orientations(spec.skeleton, xyz_TVC)
    values[..., 11] = track.states_TV
    unseen = track.states_TV == 0
    values[unseen] = [0, 0, 0, np.nan, np.nan, np.nan, np.nan, 0, 0, 0, 0, 0]
    if oddity == "exponents":
        tiny = rng.random(values[..., 0].shape) < 0.02
        values[tiny, 0] = rng.uniform(-9.9e-5, 9.9e-5, tiny.sum())
        values[0, 0, 0] = 9.999e-05
    trunk = xyz_TVC[:, SHOULDERS, :].mean(axis=1) - xyz_TVC[:, PELVIS]
    return np.concatenate([trunk[:, (0, 2)], values[:, _PRINTED]], axis=1)


def _orientations(skeleton: Skeleton, xyz_TVC: Array) -> Array:
    """Unit quaternions (T, V, w x y z) that turn a body's +y along the bone which leads to the joint."""
    bones_TVC = np.empty_like(xyz_TVC)
    bones_TVC[:, PELVIS] = xyz_TVC[:, SPINE] - xyz_TVC[:, PELVIS]
    for joint, parent in _outwards(skeleton):
        bones_TVC[:, joint] = xyz_TVC[:, joint] - xyz_TVC[:, parent]
    x, y, z = bones_TVC.transpose(2, 0, 1)
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    w = np.sqrt(np.maximum(1 + y / length, 1e-6) / 2)
    half = 0.5 / (w * length)
    i, k = z * half, -x * half
    cosine, sine = math.cos(1.4), math.sin(1.4)  # of half the turn that faces the sensor
    quaternions: Array = np.stack(
        [w * cosine, i * cosine - k * sine, w * sine, k * cosine + i * sine], axis=-1
    )
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    return quaternions


def _ucla_json(spec: DatasetSpec, planned: Plan, track: _Track) -> bytes:
    seen = spec.parse_name(planned.name)
    assert seen is not None
    joint = "[%.6g, %.6g, %.6g]"
    frame = f"[{', '.join([joint] * JOINTS['ucla'])}]"
    rows = track.xyz_TVC.reshape(len(track.xyz_TVC), -1).tolist()
    skeletons = ", ".join([frame % tuple(row) for row in rows]).replace("nan", "NaN")
    text = (
        f'{{"file_name": "{planned.name}", "skeletons": [{skeletons}], "label": {seen["label"] + 1}}}'
    ).encode()
    return text[: len(text) // 2] if planned.oddity == "truncated" else text


def _ucla_frames(planned: Plan, track: _Track, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """The original release: a folder a recording, a text file a frame, stamped in tenths of microseconds."""
    take, _, view = planned.name.rpartition("_v")
    stamp = 130138284281855000 + int(rng.integers(10**12))
    form = "1\n" + "%.6g,%.6g,%.6g,%d\n" * JOINTS["ucla"]
    rows = np.concatenate([track.xyz_TVC, track.states_TV[..., None]], axis=2)
    for frame, row in enumerate(rows.reshape(len(rows), -1).tolist()):
        content = (form % tuple(row)).encode()
        if planned.oddity == "truncated" and frame == len(rows) - 1:
            content = content[: len(content) // 2]
        name = f"frame_{frame}_tc_{stamp + frame * 833333}_skeletons.txt"
        yield f"view_{int(view)}/{take}/{name}", content


# ---- what goes wrong


def _spoil_tracks(
    spec: DatasetSpec, tracks: list[_Track], oddity: str | None, rng: np.random.Generator
) -> list[_Track]:
    """The oddities of an NTU file that lie in who was tracked when."""
    first = tracks[0]
    frames = len(first.present_T)
    frame_T = np.arange(frames)
    third_T = (frame_T >= frames // 3) & (frame_T < 2 * frames // 3)
    match oddity:
        case "nan":
            return [_lose_joints(first, rng), *tracks[1:]]
        case "nobody":
            return [_during(track, frame_T < 0) for track in tracks]
        case "gap":
            late = dataclasses.replace(first, body_id=first.body_id + 1)
            return [_during(first, frame_T < frames // 3), _during(late, frame_T >= 2 * frames // 3)]
        case "passer-by":
            return [first, _during(_beside(first, 40), third_T)]
        case "new id":
            other = _during(_beside(first, 1), frame_T == 0)
            renamed = dataclasses.replace(first, body_id=first.body_id + 2)
            return [_during(first, frame_T == 0), other, _during(renamed, frame_T > 0)]
        case "neighbouring ids":
            second = tracks[1] if len(tracks) > 1 else _beside(first, 1)
            return [first, dataclasses.replace(second, body_id=first.body_id + 1)]
        case "chair":
            return [first, _chair(spec, first, rng)]
    return tracks


def _during(track: _Track, present_T: NDArray[np.bool_]) -> _Track:
    return dataclasses.replace(track, present_T=present_T)


def _beside(track: _Track, later_id: int) -> _Track:
    """Somebody else, a metre away."""
    return dataclasses.replace(
        track, body_id=track.body_id + later_id, xyz_TVC=track.xyz_TVC[::-1] * (-1, 1, 1) + (1.1, 0, 0.3)
    )


def _chair(spec: DatasetSpec, first: _Track, rng: np.random.Generator) -> _Track:
    still_VC = rng.uniform(-1, 1, (spec.skeleton.num_joints, 3)) * (0.5, 0.06, 0.1) + (0.9, -0.4, 3.4)
    xyz_TVC = still_VC + rng.normal(0, 0.02, first.xyz_TVC.shape)
    return dataclasses.replace(
        first, body_id=first.body_id + 3, xyz_TVC=xyz_TVC, states_TV=np.ones_like(first.states_TV)
    )


def _lose_joints(track: _Track, rng: np.random.Generator) -> _Track:
    states_TV = track.states_TV.copy()
    frames, joints = states_TV.shape
    for joint in rng.choice(joints, 4, replace=False):
        start = rng.integers(frames)
        states_TV[start : start + 12, joint] = 0
    return dataclasses.replace(track, states_TV=states_TV)


def _spoil_joints(track: _Track, oddity: str | None, rng: np.random.Generator) -> _Track:
    """The oddities of an NW-UCLA recording that lie in its numbers."""
    if oddity not in ("zero joints", "nan"):
        return track
    lost = _lose_joints(track, rng)
    xyz_TVC = lost.xyz_TVC.copy()
    xyz_TVC[lost.states_TV == 0] = 0 if oddity == "zero joints" else np.nan
    return dataclasses.replace(lost, xyz_TVC=xyz_TVC)


def _spoil_text(text: str, oddity: str | None, rng: np.random.Generator) -> bytes:
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
