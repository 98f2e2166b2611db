"""Believable recordings of acting people, written in the data sets' true raw formats under true file names.

`names` says which recordings, `motion` what the sensor tracks, `oddities` what goes wrong with it; here it
gets its bytes.

Axes: T frame, V joint, C coordinate.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from data_specs.spec import DatasetSpec
from pipeline.raw.acts import NUM_JOINTS, PELVIS, SHOULDERS, SPINE
from pipeline.raw.chance import random_of
from pipeline.raw.motion import outwards, record
from pipeline.raw.names import PlannedRecording, plan
from pipeline.raw.oddities import spoil_joints, spoil_text, spoil_tracks
from pipeline.raw.sensor import Track
from pipeline.store.publish import writing

Array = NDArray[np.float64]

LAYOUTS = ("json", "text")

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
    oddities: the share of recordings, 0 to 1, that carry one of `oddities.NTU_ODDITIES` or `UCLA_ODDITIES`,
        each kind in turn; which of them a reader must refuse stands there.
    on_recording: called once for every recording written.
    The same arguments give the same bytes; what ends the writing early leaves none of them. Raises ValueError
    for arguments that make no data set, and for a folder that cannot be made, or holds something: two calls'
    recordings would mix.
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
    written: list[Path] = []
    try:
        for planned in plans:
            for file, content in _files(spec, planned, seed, layout):
                with writing(out / file):
                    (out / file).parent.mkdir(parents=True, exist_ok=True)
                    written.append(out / file)
                    (out / file).write_bytes(content)
            on_recording()
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        folders = {folder for path in written for folder in path.parents if out in folder.parents}
        for folder in sorted(folders, reverse=True):  # a folder after those within it
            with suppress(OSError):
                folder.rmdir()
        raise


def _files(
    spec: DatasetSpec, planned: PlannedRecording, seed: int, layout: str
) -> Iterator[tuple[str, bytes]]:
    """(path below the folder, content) of every file of one recording."""
    oddity = planned.oddity
    tracks = record(spec, planned.name, seed, 1 if oddity == "one frame" else None)
    rng = random_of(seed, spec.name, "oddity", planned.name)
    if spec.reader == "ntu":
        text = _ntu_text(spec, spoil_tracks(tracks, oddity, rng), oddity, rng)
        yield f"{planned.name}.skeleton", spoil_text(text, oddity, rng)
    elif layout == "json":
        yield f"{planned.name}.json", _ucla_json(spec, planned, spoil_joints(tracks[0], oddity, rng))
    else:
        yield from _ucla_frames(planned, spoil_joints(tracks[0], oddity, rng), rng)


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


def _ucla_json(spec: DatasetSpec, planned: PlannedRecording, track: Track) -> bytes:
    metadata = spec.parse_name(planned.name)
    assert metadata is not None
    joint = "[%.6g, %.6g, %.6g]"
    frame = f"[{', '.join([joint] * NUM_JOINTS['ucla'])}]"
    rows = track.xyz_TVC.reshape(len(track.xyz_TVC), -1).tolist()
    skeletons = ", ".join(frame % tuple(row) for row in rows).replace("nan", "NaN")
    label = metadata["label"] + 1
    text = f'{{"file_name": "{planned.name}", "skeletons": [{skeletons}], "label": {label}}}'.encode()
    return text[: len(text) // 2] if planned.oddity == "truncated" else text


def _ucla_frames(
    planned: PlannedRecording, track: Track, rng: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
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
