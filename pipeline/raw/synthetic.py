"""Believable recordings of acting people, written in the data sets' true raw formats under true file names.

`motion` says what the sensor tracks; here it gets its name, what goes wrong with it, and its bytes.

Axes: T frame, V joint, C coordinate.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_specs.spec import DatasetSpec, Skeleton
from pipeline.raw.acts import NUM_JOINTS, PELVIS, SHOULDERS, SPINE
from pipeline.raw.chance import digest, random_of
from pipeline.raw.motion import outwards, record
from pipeline.raw.sensor import Track

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

LEAVES = (3, 15, 19, 21, 22, 23, 24)  # Kinect v2 gives these no orientation

# A body after its id, and its joints: x y z, depth x y, colour x y, orientation w x y z, tracking state.
_JOINT_FORM = "%.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %.7G %d\n"
_LEAF_FORM = "%.7G %.7G %.7G %.7G %.7G %.7G %.7G 0 0 0 0 %d\n"
_BODY_FORM = "0 1 1 1 1 0 %.7G %.7G 2\n25\n" + "".join(
    _LEAF_FORM if joint in LEAVES else _JOINT_FORM for joint in range(NUM_JOINTS["ntu"])
)
# Which of a body's 25 x 12 values are printed; a leaf's orientation is constant.
_PRINTED = np.ones((NUM_JOINTS["ntu"], 12), np.bool_)
_PRINTED[list(LEAVES), 7:11] = False


@dataclass(frozen=True)
class Plan:
    """One recording to be written: its name, and what is odd about it (one of ODDITIES, or None)."""

    name: str
    oddity: str | None


def synthesize(
    spec: DatasetSpec,
    out: Path,
    samples: int,
    *,
    seed: int = 0,
    oddities: float = 0.0,
    layout: str = "json",
    on_recording: Callable[[], None] = lambda: None,
) -> None:
    """Write `samples` recordings of the data set into the folder `out`, which is new or empty.

    layout: "json", one file a recording; "text", NW-UCLA's original release, one file a frame.
    oddities: the share of recordings, 0 to 1, that carry one of ODDITIES, each kind in turn; a reader must
        refuse those in UNREADABLE.
    on_recording: called once for every recording written.
    The same arguments give the same bytes. Raises ValueError for arguments that make no data set, and for a
    folder that cannot be made, or holds something: two calls' recordings would mix.
    """
    plans = plan(spec, samples, seed=seed, oddities=oddities)
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if layout == "text" and spec.reader != "ucla":
        raise ValueError(f"layout 'text' is NW-UCLA's original release; {spec.name} has no such layout")
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_empty = not any(out.iterdir())
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}; choose another folder") from None
    if not is_empty:
        raise ValueError(f"{out}: holds files already; expected a new or an empty folder")
    for planned in plans:
        for file, content in _files(spec, planned, seed, layout):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_bytes(content)
        on_recording()


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
    if spec.skeleton.num_joints != NUM_JOINTS[spec.reader]:
        found, expected = spec.skeleton.num_joints, NUM_JOINTS[spec.reader]
        raise ValueError(f"{spec.name} has {found} joints; the {spec.reader} reader's bodies have {expected}")
    names = _names(spec, samples)
    # Who is odd is drawn by hash: a fixed stride would step in time with the classes.
    drawn = sorted(range(samples), key=lambda i: digest(seed, "oddity", names[i]))
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
            if kind != "missing list":
                yield kind, None
            elif (name := next(listed, None)) is not None:
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
    for i in range(2, len(setups) - 1, 4):
        setups[i], setups[i + 1] = setups[i + 1], setups[i]
    takes = [
        (subject, 1 + (index // 2 + again) % 2) for again in (0, 1) for index, subject in enumerate(subjects)
    ]
    cameras = _take_turns(spec, "camera", range(1, 4))
    for (subject, replication), camera, setup in _walk(_rotate(spec, action, takes), cameras, setups):
        yield f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}"


def _ucla_names(spec: DatasetSpec, action: int) -> Iterator[str]:
    """Every name of an action, with as many replications as two digits can tell."""
    subjects = _rotate(spec, action, _take_turns(spec, "subject", range(1, 11)))
    cameras = _take_turns(spec, "camera", range(1, 4))
    for replication in range(100):
        for subject, camera in _walk(subjects, cameras):
            yield f"a{action:02d}_s{subject:02d}_e{replication:02d}_v{camera:02d}"


def _rotate(spec: DatasetSpec, action: int, takes: list[Any]) -> list[Any]:
    """The takes from another one on for every class: few samples shall not all be of the same people."""
    start = 2 * spec.labels[action] % len(takes)  # even: who trains and who tests keep their turns
    return takes[start:] + takes[:start]


def _take_turns(spec: DatasetSpec, field: str, values: range) -> list[int]:
    """The values of a field, those that train and those that test by turns."""
    default = spec.protocol(spec.default_protocol)
    protocols = [p for p in (default, *spec.protocols.values()) if p.field == field]
    if not protocols:
        return list(values)
    train = [value for value in values if protocols[0].split({field: value}) == "train"]
    others = [value for value in values if value not in train]
    return [value for pair in zip_longest(train, others) for value in pair if value is not None]


def _walk(*wheels: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Every combination once, as `itertools.product`, but all wheels turn at every step."""
    for step in range(math.prod(map(len, wheels))):
        period, teeth = 1, []
        for wheel in wheels:
            # Two wheels of a and b teeth meet again after lcm(a, b) steps; then one slips by a tooth.
            turned = step % (period * len(wheel))
            teeth.append(wheel[(turned + turned // math.lcm(period, len(wheel))) % len(wheel)])
            period *= len(wheel)
        yield tuple(teeth)


# ---- what is written


def _files(spec: DatasetSpec, planned: Plan, seed: int, layout: str) -> Iterator[tuple[str, bytes]]:
    """(path below the folder, content) of every file of one recording."""
    oddity = planned.oddity
    tracks = record(spec, planned.name, seed, 1 if oddity == "one frame" else None)
    rng = random_of(seed, spec.name, "oddity", planned.name)
    if spec.reader == "ntu":
        text = _ntu_text(spec, _spoil_tracks(tracks, oddity, rng), oddity, rng)
        yield f"{planned.name}.skeleton", _spoil_text(text, oddity, rng)
    elif layout == "json":
        yield f"{planned.name}.json", _ucla_json(spec, planned, _spoil_joints(tracks[0], oddity, rng))
    else:
        yield from _ucla_frames(planned, _spoil_joints(tracks[0], oddity, rng), rng)


def _ntu_text(spec: DatasetSpec, tracks: list[Track], oddity: str | None, rng: np.random.Generator) -> str:
    """A whole `.skeleton` file, of the lines that `_BODY_FORM` makes."""
    rows = [_ntu_columns(spec.skeleton, track, oddity, rng).tolist() for track in tracks]
    num_frames = len(tracks[0].present_T)
    parts = [f"{num_frames}\n"]
    for frame in range(num_frames):
        present = [
            (track.body_id, row[frame])
            for track, row in zip(tracks, rows, strict=True)
            if track.present_T[frame]
        ]
        parts.append(f"{len(present)}\n")
        parts.extend(f"{body_id} {_BODY_FORM % tuple(values)}" for body_id, values in present)
    return "".join(parts).replace("NAN", "NaN")


def _ntu_columns(skeleton: Skeleton, track: Track, oddity: str | None, rng: np.random.Generator) -> Array:
    """What `_BODY_FORM` takes, a row a frame: lean x, lean y, then the printed values of every joint."""
    xyz_TVC = track.xyz_TVC
    values = np.empty((*xyz_TVC.shape[:2], 12))
    values[..., :3] = xyz_TVC
    x, y, z = xyz_TVC.transpose(2, 0, 1)
    z = np.maximum(z, 0.3)
    values[..., 3], values[..., 4] = 257 + 366 * x / z, 208 - 366 * y / z
    values[..., 5], values[..., 6] = 962 + 1070 * (x - 0.052) / z, 538 - 1070 * y / z
    values[..., 7:11] = _orientations(skeleton, xyz_TVC)
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
    for joint, parent in outwards(skeleton):
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


def _ucla_json(spec: DatasetSpec, planned: Plan, track: Track) -> bytes:
    metadata = spec.parse_name(planned.name)
    assert metadata is not None
    joint = "[%.6g, %.6g, %.6g]"
    frame = f"[{', '.join([joint] * NUM_JOINTS['ucla'])}]"
    rows = track.xyz_TVC.reshape(len(track.xyz_TVC), -1).tolist()
    skeletons = ", ".join(frame % tuple(row) for row in rows).replace("nan", "NaN")
    label = metadata["label"] + 1
    text = f'{{"file_name": "{planned.name}", "skeletons": [{skeletons}], "label": {label}}}'.encode()
    return text[: len(text) // 2] if planned.oddity == "truncated" else text


def _ucla_frames(planned: Plan, track: Track, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """The original release: a folder a recording, a text file a frame, stamped in tenths of microseconds."""
    take, _, view = planned.name.rpartition("_v")
    stamp = 130138284281855000 + int(rng.integers(10**12))
    form = "1\n" + "%.6g,%.6g,%.6g,%d\n" * NUM_JOINTS["ucla"]
    rows = np.concatenate([track.xyz_TVC, track.states_TV[..., None]], axis=2)
    for frame, row in enumerate(rows.reshape(len(rows), -1).tolist()):
        content = (form % tuple(row)).encode()
        if planned.oddity == "truncated" and frame == len(rows) - 1:
            content = content[: len(content) // 2]
        name = f"frame_{frame}_tc_{stamp + frame * 833333}_skeletons.txt"
        yield f"view_{int(view)}/{take}/{name}", content


# ---- what goes wrong


def _spoil_tracks(tracks: list[Track], oddity: str | None, rng: np.random.Generator) -> list[Track]:
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


def _spoil_joints(track: Track, oddity: str | None, rng: np.random.Generator) -> Track:
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
