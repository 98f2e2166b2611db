"""A plain chain in the style of the three scripts that go with CTR-GCN: text to pickle, denoise, dense array.

1. Every file is read line by line into its bodies: joints, colour pixels, and the frames in which they are
   seen. Frames without a body are left out. All of it is pickled.
2. Bodies that are no actors are dropped by length, spread and motion; the two that move most are kept. All
   pickled again.
3. Every recording is centred on the first frame's spine and padded with zeros to 300 frames: one dense array
   (N, 300, 150) with one-hot labels, saved as .npz.

The thresholds are those in common use: 11 frames, 0.8 and 0.69754, 0.089925 and 2. Everything stays in memory
from step to step as well, and only one dense copy is written where the original writes one per protocol.

Axes: N sample, T frame seen, V joint, C coordinate, F stored frame, D = 2 bodies x V x C.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JOINTS, SPINE = 25, 1
FRAMES, CLASSES = 300, 120
SHORTEST, WIDEST, MOST_WIDE_FRAMES, LEAST_MOTION, MOST_MOTION = 11, 0.8, 0.69754, 0.089925, 2.0


@dataclass
class Body:
    """One body id of one recording.

    joints_TVC: float32 metres.  colors_TV2: float32 pixels.  frames_T: which of the recording's frames with
    somebody in them.  motion: variance of its joints' positions over joints and frames, square metres.
    """

    joints_TVC: NDArray[np.float32]
    colors_TV2: NDArray[np.float32]
    frames_T: NDArray[np.int64]

    @property
    def motion(self) -> float:
        return float(self.joints_TVC.reshape(-1, 3).var(axis=0).sum())


Recording = tuple[str, int, list[Body]]  # name, frames with somebody in them, bodies


def run_chain(files: Sequence[Path], out: Path) -> Path:
    """All three steps; the dense array's path."""
    read_raw(files, out / "raw.pkl")
    denoise(out / "raw.pkl", out / "denoised.pkl")
    return make_dense(out / "denoised.pkl", out / "dense.npz")


def read_raw(files: Sequence[Path], target: Path) -> None:
    """Step 1."""
    with target.open("wb") as file:
        pickle.dump([_read_file(path) for path in files], file, pickle.HIGHEST_PROTOCOL)


def _read_file(path: Path) -> Recording:
    joints: dict[str, list[Any]] = {}
    colors: dict[str, list[Any]] = {}
    frames: dict[str, list[int]] = {}
    seen = 0
    with path.open() as file:
        for _ in range(int(file.readline())):
            num_bodies = int(file.readline())
            for _ in range(num_bodies):
                body_id = file.readline().split()[0]
                rows = [file.readline().split() for _ in range(int(file.readline()))]
                joints.setdefault(body_id, []).append([[float(word) for word in row[:3]] for row in rows])
                colors.setdefault(body_id, []).append([[float(word) for word in row[5:7]] for row in rows])
                frames.setdefault(body_id, []).append(seen)
            seen += num_bodies > 0
    bodies = [
        Body(
            np.array(joints[body_id], np.float32),
            np.array(colors[body_id], np.float32),
            np.array(frames[body_id], np.int64),
        )
        for body_id in joints
    ]
    return path.stem, seen, bodies


def denoise(source: Path, target: Path) -> None:
    """Step 2: of every recording, the frames of its one or two actors, (T, 150)."""
    with source.open("rb") as file:
        recordings: list[Recording] = pickle.load(file)
    actors = [(name, _two_actors(seen, bodies)) for name, seen, bodies in recordings if bodies]
    with target.open("wb") as file:
        pickle.dump(actors, file, pickle.HIGHEST_PROTOCOL)


def _two_actors(seen: int, bodies: list[Body]) -> NDArray[np.float32]:
    """float32 (T, 150), the main actor in the first half; a body that follows fills a gap."""
    for is_actor in (_is_long, _is_upright, _moves):
        bodies = [body for body in bodies if is_actor(body)] or bodies
    slots_T2VC = np.zeros((seen, 2, JOINTS, 3), np.float32)
    taken_T2 = np.zeros((seen, 2), np.bool_)
    for body in sorted(bodies, key=lambda body: -body.motion):
        for slot in (0, 1):
            if not taken_T2[body.frames_T, slot].any():
                slots_T2VC[body.frames_T, slot] = body.joints_TVC
                taken_T2[body.frames_T, slot] = True
                break
    return slots_T2VC[taken_T2.any(axis=1)].reshape(-1, 2 * JOINTS * 3)


def _is_long(body: Body) -> bool:
    return len(body.frames_T) > SHORTEST


def _is_upright(body: Body) -> bool:
    """Few of its frames are wide for their height; those of furniture are."""
    wide = 0
    for frame_VC in body.joints_TVC:
        width, height = np.ptp(frame_VC[:, 0]), np.ptp(frame_VC[:, 1])
        wide += width > WIDEST * height
    return wide < MOST_WIDE_FRAMES * len(body.joints_TVC)


def _moves(body: Body) -> bool:
    return LEAST_MOTION <= body.motion <= MOST_MOTION


def make_dense(source: Path, target: Path) -> Path:
    """Step 3."""
    with source.open("rb") as file:
        actors: list[tuple[str, NDArray[np.float32]]] = pickle.load(file)
    dense_NFD = np.zeros((len(actors), FRAMES, 2 * JOINTS * 3), np.float32)
    labels_N = np.zeros((len(actors), CLASSES))
    for index, (name, frames_TD) in enumerate(actors):
        kept_TD = frames_TD[:FRAMES]
        origin_C = frames_TD[0, 3 * SPINE : 3 * SPINE + 3].copy()
        for frame, row_D in enumerate(kept_TD):
            for half in (slice(0, 75), slice(75, 150)):
                if row_D[half].any():
                    dense_NFD[index, frame, half] = row_D[half] - np.tile(origin_C, JOINTS)
        labels_N[index, int(name[-3:]) - 1] = 1
    np.savez(target, x=dense_NFD, y=labels_N, names=[name for name, _ in actors])
    return target
