"""Numba kernels that make a view: the spatial one (rotation, shear, jitter) and the temporal one (tail mask).

The augmentations are those of the CP-STN paper, section 3.2. Every random number is a hash of its identity
(seed, epoch, sample id, view, part, element): the same sample has the same bits in whatever batch, at
whatever position, in whatever thread. `part` is 0 for what both bodies of a sample share, 1 + m for the
jitter of body m, and -1 - m for the lengths of its bones.

Axes: N sample, P packed present body, C coordinate, T frame, V joint, F frame and joint in one (T * V).
"""

import math
import numbers
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numba import njit
from numpy.typing import NDArray

from data_specs.spec import Skeleton
from pipeline.memory import finish_streams, stream_bytes, stream_zeros

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_MULTIPLY_ONCE = np.uint64(0xD6E8FEB86659FD93)

# A table is looked up with 12 bits of a hash, so that one hash holds a distance and three coordinates' noise.
_TABLE_SIZE = 4096
_TABLE_MASK = np.uint64(_TABLE_SIZE - 1)

# x, y and z of this many joints and their results stay in the first-level cache from transform to jitter.
_TILE = 1024

# A bone is never shorter, nor a crop, than a tenth.
MOST_CHANGE = 0.9

# Inputs are finite by construction of the shards: reassociating them cannot meet a NaN.
_FAST = {"contract", "reassoc", "nsz", "arcp"}

# Of a sample's own random numbers, the one behind those of its rotation and shear.
_MIRROR = 9

# In the identity of random numbers, the crops of views that are changed as well stand behind the two views.
CROPS_FROM = 2


@dataclass(frozen=True)
class ViewConfig:
    """How strong the views are. Paper, section 3.2; what it leaves open is our reading.

    rotation: radians; the angle is uniform in [0, rotation], the axis uniform on the sphere.
    shear: the six off-diagonal ratios are uniform in [-shear, shear].
    jitter_probability: of a joint in a frame to be jittered, in all three coordinates.
    jitter_std: metres, of the Gaussian noise in each coordinate.
    mask_min, mask_max: the share of the frames, at the end, that temporal masking hides is uniform between.
        At least one frame is hidden and one stays; where mask_max is 0, all stay.
    bones: each bone of a body in the spatial view is longer or shorter by a share, uniform in
        [-bones, bones]. Not in the paper; 0 leaves them.
    mirror: probability that a sample's spatial view is its mirror image, left and right exchanged. Not in
        the paper; 0 mirrors none.
    crop: the temporal view shows a part of the recording, resampled to its length: a share of it uniform
        in [1 - crop, 1], from anywhere; then its tail is masked. Not in the paper; 0 shows the whole.

    Raises ValueError that names the key, what was found and what was expected.
    """

    rotation: float = math.pi / 6
    shear: float = 1.0
    jitter_probability: float = 0.2
    jitter_std: float = 0.05
    mask_min: float = 0.25
    mask_max: float = 0.75
    bones: float = 0.0
    mirror: float = 0.0
    crop: float = 0.0

    def __post_init__(self) -> None:
        for key, highest in (("rotation", math.pi), ("jitter_probability", 1.0), ("mirror", 1.0)):
            _check_number(key, getattr(self, key), 0.0, highest)
        for key in ("shear", "jitter_std"):
            _check_number(key, getattr(self, key), 0.0, math.inf)
        for key in ("mask_min", "mask_max"):
            _check_number(key, getattr(self, key), 0.0, 1.0)
        for key in ("bones", "crop"):
            _check_number(key, getattr(self, key), 0.0, MOST_CHANGE)
        if self.mask_min > self.mask_max:
            raise ValueError(f"mask_min is {self.mask_min}; expected at most mask_max, {self.mask_max}")


def spatial_view(
    x_PCTV: NDArray[np.float32],
    sample_P: NDArray[np.int64],
    ids_N: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    view: int,
    config: ViewConfig,
    skeleton: Skeleton,
    out_PCTV: NDArray[np.float32],
) -> None:
    """Rotate, then shear, then jitter packed bodies into out_PCTV. Paper, section 3.2, spatial pretext.

    Before that, where `config` says so, the sample is mirrored, and bones get other lengths: what hangs on a
    bone moves with it.

    x_PCTV: float32 metres, C-contiguous, C = 3; a frame that is 0 0 0 in every joint (body absent, padding)
        stays 0. out_PCTV: the same shape and type, no memory in common with x_PCTV.
    sample_P: int64, each body's sample, 0..N-1, non-decreasing. ids_N: int64, the samples' stable ids.
    skeleton: of V joints.
    The bodies of one sample are mirrored, rotated and sheared alike; bones and jitter are each body's own.

    The noise is the Gaussian's inverse CDF at 4,096 midpoints: at most 3.66 standard deviations.
    Thread-safe; holds no GIL while it works.
    """
    _assert_packed(x_PCTV, sample_P, ids_N, out_PCTV)
    assert x_PCTV.shape[1] == 3
    assert skeleton.num_joints == x_PCTV.shape[3]
    _spatial_kernel(
        x_PCTV,
        sample_P,
        ids_N,
        (_word(seed), _word(epoch), _word(view)),
        config.rotation,
        config.shear,
        _distances(config.jitter_probability),
        _noise(config.jitter_std),
        config.mirror,
        _other_sides(skeleton),
        config.bones,
        _bones_outward(skeleton.parents),
        out_PCTV,
    )


def combined_view(
    x_PCTV: NDArray[np.float32],
    sample_P: NDArray[np.int64],
    ids_N: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    view: int,
    crop_view: int,
    config: ViewConfig,
    skeleton: Skeleton,
    out_PCTV: NDArray[np.float32],
    cropped_PCTV: NDArray[np.float32] | None = None,
) -> None:
    """Crop as a temporal view does, mask nothing, then change what is left as a spatial view does.

    Arguments as of the two. crop_view: takes the place of `view` for the crop, which is drawn apart from the
    rest.

    Raises ValueError if there are fewer than two frames. Thread-safe; holds no GIL while it works.
    """
    if config.crop > 0:
        assert cropped_PCTV is not None
        _assert_packed(x_PCTV, sample_P, ids_N, cropped_PCTV)
        _check_frames(x_PCTV)
        identity = _word(seed), _word(epoch), _word(crop_view)
        _crop_kernel(x_PCTV, sample_P, ids_N, *identity, config.crop, cropped_PCTV)
        x_PCTV = cropped_PCTV
    spatial_view(
        *(x_PCTV, sample_P, ids_N),
        seed=seed,
        epoch=epoch,
        view=view,
        config=config,
        skeleton=skeleton,
        out_PCTV=out_PCTV,
    )


def temporal_view(
    x_PCTV: NDArray[np.float32],
    sample_P: NDArray[np.int64],
    ids_N: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    view: int,
    config: ViewConfig,
    out_PCTV: NDArray[np.float32],
    visible_N: NDArray[np.int64],
    cropped_PCTV: NDArray[np.float32] | None = None,
) -> None:
    """Copy the frames before T' into out_PCTV and make the others 0. Paper, section 3.2, temporal pretext.

    x_PCTV, sample_P, ids_N, out_PCTV: as in `spatial_view`. visible_N: int64, receives each sample's T', the
    number of frames that stay, 1 <= T' < T (T where `config` hides none); the same for both bodies.
    cropped_PCTV: needed where `config` crops, receives what was cropped before its tail is masked: linear
    between two frames, the nearer one where the body is absent in either.

    Raises ValueError if there are fewer than two frames. Thread-safe; holds no GIL while it works.
    """
    _assert_packed(x_PCTV, sample_P, ids_N, out_PCTV)
    assert visible_N.shape == ids_N.shape
    assert visible_N.dtype == np.int64
    _check_frames(x_PCTV)
    if config.crop > 0:
        assert cropped_PCTV is not None
        _assert_packed(x_PCTV, sample_P, ids_N, cropped_PCTV)
        identity = _word(seed), _word(epoch), _word(view)
        _crop_kernel(x_PCTV, sample_P, ids_N, *identity, config.crop, cropped_PCTV)
        x_PCTV = cropped_PCTV
    _temporal_kernel(
        x_PCTV,
        sample_P,
        ids_N,
        _word(seed),
        _word(epoch),
        _word(view),
        config.mask_min,
        config.mask_max,
        out_PCTV,
        visible_N,
    )


@njit(cache=True, nogil=True)
def _mix64(z):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64, as in `order`: uint64 -> uint64."""
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLY_2
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _fold(key, value):  # type: ignore[no-untyped-def]
    """The key of everything below `value` in the hierarchy of identities. uint64 both."""
    return _mix64((key ^ value) + _GOLDEN)


@njit(cache=True, nogil=True)
def _part_key(seed, epoch, sample_id, view, part):  # type: ignore[no-untyped-def]
    """The key of one part of one view of one sample. seed, epoch, view: uint64; sample_id, part: int64."""
    key = _fold(_fold(np.uint64(0), seed), epoch)
    return _fold(_fold(_fold(key, np.uint64(sample_id)), view), np.uint64(part))


@njit(cache=True, nogil=True)
def _draw(key, element):  # type: ignore[no-untyped-def]
    """The 64 random bits of one element (int64, from 0): splitmix64 that starts from the key."""
    return _mix64(key + np.uint64(element + 1) * _GOLDEN)


@njit(cache=True, nogil=True)
def _mix64_once(z):  # type: ignore[no-untyped-def]
    """Half of a finaliser, for the many elements of a key that is mixed itself: uint64 -> uint64.

    Of such keys, 4 million draws showed no bias and no correlation between neighbours or fields.
    """
    z = (z ^ (z >> np.uint64(32))) * _MULTIPLY_ONCE
    return z ^ (z >> np.uint64(32))


@njit(cache=True, nogil=True)
def _uniform(key, element, low, high):  # type: ignore[no-untyped-def]
    """A float64, uniform in [low, high)."""
    return low + (high - low) * (np.float64(_draw(key, element) >> np.uint64(11)) * 2.0**-53)


@njit(cache=True, nogil=True)
def _shear_rotation(key, rotation, shear):  # type: ignore[no-untyped-def]
    """The float32 3x3 matrix S @ R of one sample, from its elements 0 (angle), 1, 2 (axis), 3..8 (shear).

    Element 9, _MIRROR, is whether the sample is mirrored.
    """
    angle = _uniform(key, 0, 0.0, rotation)
    height = _uniform(key, 1, -1.0, 1.0)
    turn = _uniform(key, 2, 0.0, 2.0 * math.pi)
    radius = math.sqrt(1.0 - height * height)
    x, y, z = radius * math.cos(turn), radius * math.sin(turn), height
    c, s = math.cos(angle), math.sin(angle)
    d = 1.0 - c
    rotate = (
        (c + d * x * x, d * x * y - s * z, d * x * z + s * y),
        (d * x * y + s * z, c + d * y * y, d * y * z - s * x),
        (d * x * z - s * y, d * y * z + s * x, c + d * z * z),
    )
    matrix = np.empty((3, 3), np.float32)
    for row in range(3):
        one = rotate[row]
        # The two other axes, in the order of their elements.
        first, second = (1 if row == 0 else 0), (1 if row == 2 else 2)
        ratio_1 = _uniform(key, 3 + 2 * row, -shear, shear)
        ratio_2 = _uniform(key, 4 + 2 * row, -shear, shear)
        for column in range(3):
            sheared = one[column] + ratio_1 * rotate[first][column] + ratio_2 * rotate[second][column]
            matrix[row, column] = np.float32(sheared)
    return matrix


@njit(cache=True, nogil=True)
def _clear_empty_frames(x_CF, joints, out_CF):  # type: ignore[no-untyped-def]
    """Take the noise out of the frames in which the body is absent."""
    for start in range(0, x_CF.shape[1], joints):
        flat = start
        while flat < start + joints and x_CF[0, flat] == 0 and x_CF[1, flat] == 0 and x_CF[2, flat] == 0:
            flat += 1
        if flat == start + joints:
            out_CF[:, start:flat] = 0


@njit(cache=True, nogil=True, fastmath=_FAST)
def _transform(x, y, z, matrix, out_x, out_y, out_z):  # type: ignore[no-untyped-def]
    # Arguments and locals of their own for all rows: otherwise the compiler gives up on proving that they are
    # distinct, and does not vectorise.
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 0], matrix[1, 1], matrix[1, 2]
    g, h, i = matrix[2, 0], matrix[2, 1], matrix[2, 2]
    for flat in range(len(out_x)):
        x_, y_, z_ = x[flat], y[flat], z[flat]
        out_x[flat] = a * x_ + b * y_ + c * z_
        out_y[flat] = d * x_ + e * y_ + f * z_
        out_z[flat] = g * x_ + h * y_ + i * z_


@njit(cache=True, nogil=True)
def _spatial_body(x_CF, joints, matrix, key, distances, noise, out_CF):  # type: ignore[no-untyped-def]
    """One body. Element k of `key` is the k-th jittered joint: how far on it lies, and its three noises.

    The distances between the successes of a coin are geometric: to draw them, and not a coin for every joint,
    needs a fifth of the hashes at probability 0.2, and leaves no branch to mispredict.
    """
    counter = key + _GOLDEN
    bits = _mix64_once(counter)
    flat = np.uint64(distances[bits >> np.uint64(52)])
    tile = np.empty((3, _TILE), np.float32)
    for start in range(0, x_CF.shape[1], _TILE):
        end = min(start + _TILE, x_CF.shape[1])
        x, y, z = x_CF[0, start:end], x_CF[1, start:end], x_CF[2, start:end]
        _transform(x, y, z, matrix, tile[0, : end - start], tile[1, : end - start], tile[2, : end - start])
        while flat < np.uint64(end):
            place = flat - np.uint64(start)
            tile[0, place] += noise[bits & _TABLE_MASK]
            tile[1, place] += noise[(bits >> np.uint64(12)) & _TABLE_MASK]
            tile[2, place] += noise[(bits >> np.uint64(24)) & _TABLE_MASK]
            counter += _GOLDEN
            bits = _mix64_once(counter)
            flat += np.uint64(1) + np.uint64(distances[bits >> np.uint64(52)])
        for coordinate in range(3):
            stream_bytes(
                np.uint64(out_CF[coordinate, start:end].ctypes.data),
                np.uint64(tile[coordinate].ctypes.data),
                np.uint64(4 * (end - start)),
            )
    _clear_empty_frames(x_CF, joints, out_CF)


@njit(cache=True, nogil=True)
def _mirror(x_CF, joints, sides, out_CF):  # type: ignore[no-untyped-def]
    """Each joint where its image on the other side is seen in a mirror that stands across x."""
    for start in range(0, x_CF.shape[1], joints):
        for joint in range(joints):
            image = start + sides[joint]
            out_CF[0, start + joint] = -x_CF[0, image]
            for coordinate in range(1, x_CF.shape[0]):
                out_CF[coordinate, start + joint] = x_CF[coordinate, image]


@njit(cache=True, nogil=True)
def _change_bones(x_CF, joints, key, most, bones, out_CF):  # type: ignore[no-untyped-def]
    """Each joint at its parent's new place, plus its bone as long as element `joint` of `key` says."""
    share = np.empty(joints, np.float32)
    for joint in range(joints):
        share[joint] = np.float32(_uniform(key, joint, 1.0 - most, 1.0 + most))
    out_CF[:] = x_CF
    for coordinate in range(x_CF.shape[0]):
        for start in range(0, x_CF.shape[1], joints):
            for bone in range(len(bones)):
                child, parent = start + bones[bone, 0], start + bones[bone, 1]
                length = x_CF[coordinate, child] - x_CF[coordinate, parent]
                longer = share[bones[bone, 0]] * length
                out_CF[coordinate, child] = out_CF[coordinate, parent] + longer


@njit(cache=True, nogil=True)
def _spatial_kernel(  # type: ignore[no-untyped-def]
    x_PCTV, sample_P, ids_N, identity, rotation, shear, distances, noise, mirror, sides, most, bones, out_PCTV
):
    bodies, coordinates, frames, joints = x_PCTV.shape
    x_PCF = x_PCTV.reshape(bodies, coordinates, frames * joints)
    out_PCF = out_PCTV.reshape(bodies, coordinates, frames * joints)
    seed, epoch, view = identity
    body = 0
    for p in range(bodies):
        body = body + 1 if p > 0 and sample_P[p] == sample_P[p - 1] else 0
        sample_id = ids_N[sample_P[p]]
        shared_key = _part_key(seed, epoch, sample_id, view, 0)
        matrix = _shear_rotation(shared_key, rotation, shear)
        key = _part_key(seed, epoch, sample_id, view, 1 + body)
        x_CF = x_PCF[p]
        if _uniform(shared_key, _MIRROR, 0.0, 1.0) < mirror:
            _mirror(x_CF, joints, sides, out_PCF[p])
            x_CF = out_PCF[p].copy()
        if most > 0:
            bones_key = _part_key(seed, epoch, sample_id, view, -1 - body)
            _change_bones(x_CF, joints, bones_key, most, bones, out_PCF[p])
            x_CF = out_PCF[p].copy()
        _spatial_body(x_CF, joints, matrix, key, distances, noise, out_PCF[p])
    finish_streams()


@njit(cache=True, nogil=True)
def _is_absent(x_CTV, frame):  # type: ignore[no-untyped-def]
    """Whether a frame is 0 0 0 in every joint."""
    for coordinate in range(x_CTV.shape[0]):
        for joint in range(x_CTV.shape[2]):
            if x_CTV[coordinate, frame, joint] != 0:
                return False
    return True


@njit(cache=True, nogil=True)
def _crop_kernel(x_PCTV, sample_P, ids_N, seed, epoch, view, most, out_PCTV):  # type: ignore[no-untyped-def]
    """Elements 1 (share of the recording) and 2 (where it begins) of each sample's part 0."""
    bodies, coordinates, frames, joints = x_PCTV.shape
    for p in range(bodies):
        key = _part_key(seed, epoch, ids_N[sample_P[p]], view, 0)
        last = frames - 1
        step = _uniform(key, 1, 1.0 - most, 1.0)
        first = _uniform(key, 2, 0.0, 1.0) * (1.0 - step) * last
        for t in range(frames):
            place = min(first + step * t, np.float64(last))
            before = min(np.int64(place), last - 1)
            weight = place - before
            if _is_absent(x_PCTV[p], before) or _is_absent(x_PCTV[p], before + 1):
                weight = np.float64(weight >= 0.5)
            a, b = np.float32(1.0 - weight), np.float32(weight)
            for c in range(coordinates):
                for v in range(joints):
                    out_PCTV[p, c, t, v] = a * x_PCTV[p, c, before, v] + b * x_PCTV[p, c, before + 1, v]


@njit(cache=True, nogil=True)
def _temporal_kernel(  # type: ignore[no-untyped-def]
    x_PCTV, sample_P, ids_N, seed, epoch, view, mask_min, mask_max, out_PCTV, visible_N
):
    bodies, coordinates, frames, joints = x_PCTV.shape
    least = 1 if mask_max > 0.0 else 0
    for n in range(len(ids_N)):
        share = _uniform(_part_key(seed, epoch, ids_N[n], view, 0), 0, mask_min, mask_max)
        hidden = np.int64(math.floor(share * frames + 0.5))
        visible_N[n] = frames - min(max(hidden, least), frames - 1)
    frame_bytes = np.uint64(4 * joints)
    x, out = np.uint64(x_PCTV.ctypes.data), np.uint64(out_PCTV.ctypes.data)
    for p in range(bodies):
        seen = np.uint64(visible_N[sample_P[p]]) * frame_bytes
        masked = np.uint64(frames) * frame_bytes - seen
        for _ in range(coordinates):
            stream_bytes(out, x, seen)
            stream_zeros(out + seen, masked)
            x += seen + masked
            out += seen + masked
    finish_streams()


@lru_cache(maxsize=8)
def _bones_outward(parents: tuple[int, ...]) -> NDArray[np.int64]:
    """(child, parent) of every bone, a bone after the one that it hangs on. int64 (V - 1, 2)."""
    placed = [joint for joint, parent in enumerate(parents) if joint == parent]
    bones: list[tuple[int, int]] = []
    for parent in placed:  # grows while it is gone through
        children = [joint for joint, its in enumerate(parents) if its == parent and joint != parent]
        bones += [(child, parent) for child in children]
        placed += children
    return np.array(bones, np.int64).reshape(-1, 2)


@lru_cache(maxsize=8)
def _other_sides(skeleton: Skeleton) -> NDArray[np.int64]:
    """The joint that each joint becomes in a mirror: of a pair the other, else itself. int64 (V,)."""
    sides = np.arange(skeleton.num_joints)
    for left, right in skeleton.mirror_pairs:
        sides[left], sides[right] = right, left
    return sides


@lru_cache(maxsize=8)
def _distances(probability: float) -> NDArray[np.int32]:
    """Joints that are skipped before the next jittered one: the geometric inverse CDF at the midpoints."""
    with np.errstate(divide="ignore"):  # probability 0: every distance is infinite
        tail = np.log((np.arange(_TABLE_SIZE) + 0.5) / _TABLE_SIZE) / np.log1p(-np.float64(probability))
    distances: NDArray[np.int32] = np.minimum(np.floor(tail), np.iinfo(np.int32).max).astype(np.int32)
    return distances


@lru_cache(maxsize=8)
def _noise(std: float) -> NDArray[np.float32]:
    """The Gaussian inverse CDF at the midpoints, times std; float32. Its own deviation is 0.99984 std."""
    normal = NormalDist()
    table = [normal.inv_cdf((index + 0.5) / _TABLE_SIZE) for index in range(_TABLE_SIZE)]
    return (np.array(table) * std).astype(np.float32)


def _check_frames(x_PCTV: NDArray[np.float32]) -> None:
    frames = x_PCTV.shape[2]
    if frames < 2:
        raise ValueError(f"the sequences have {frames} frame; a masked tail or a crop needs at least 2")


def _word(number: int) -> np.uint64:
    """Any integer as 64 bits. A plain int is int64 to numba, and a mix with uint64 would be a float."""
    return np.uint64(number % 2**64)


def _assert_packed(
    x_PCTV: NDArray[np.float32],
    sample_P: NDArray[np.int64],
    ids_N: NDArray[np.int64],
    out_PCTV: NDArray[np.float32],
) -> None:
    assert x_PCTV.ndim == 4
    assert x_PCTV.shape == out_PCTV.shape
    assert x_PCTV.dtype == out_PCTV.dtype == np.float32
    assert x_PCTV.flags.c_contiguous
    assert out_PCTV.flags.c_contiguous
    assert sample_P.shape == x_PCTV.shape[:1]
    assert sample_P.dtype == ids_N.dtype == np.int64


def _check_number(key: str, found: object, lowest: float, highest: float) -> None:
    expected = f"a number of {lowest:g} or more" if highest == math.inf else f"{lowest:g} to {highest:.6g}"
    is_number = isinstance(found, numbers.Real) and not isinstance(found, bool)
    if not is_number or not (lowest <= float(found) <= highest and math.isfinite(float(found))):  # type: ignore[arg-type]
        raise ValueError(f"{key} is {found!r}; expected {expected}")
