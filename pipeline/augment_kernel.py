"""The kernels that make a view: mirror, bones, turn and jitter; crop and tail mask.

Every random number is a hash of its identity (seed, epoch, sample id, view, part, element): the same sample
has the same bits in whatever batch, at whatever position, in whatever thread. `part` is 0 for what both
bodies of a sample share, 1 + m for the jitter of body m, and -1 - m for the lengths of its bones.

Axes: N sample, P packed present body, C coordinate, T frame, V joint, F frame and joint in one (T * V).
"""

import math

import numpy as np
from numba import njit

from pipeline.memory import finish_streams, stream_bytes, stream_zeros

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_MULTIPLY_ONCE = np.uint64(0xD6E8FEB86659FD93)

# A table is looked up with 12 bits of a hash, so that one hash holds a distance and three coordinates' noise.
TABLE_SIZE = 4096
_TABLE_MASK = np.uint64(TABLE_SIZE - 1)

# x, y and z of this many joints and their results stay in the first-level cache from transform to jitter.
_TILE = 1024

# Inputs are finite by construction of the shards: reassociating them cannot meet a NaN.
_FAST = {"contract", "reassoc", "nsz", "arcp"}

# Of a sample's own random numbers, the one behind those of its rotation and shear.
_MIRROR = 9


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
def spatial_kernel(  # type: ignore[no-untyped-def]
    x_PCTV, sample_P, ids_N, identity, rotation, shear, distances, noise, mirror, sides, most, bones, out_PCTV
):
    """Every body mirrored or not, with other bones, turned, sheared and jittered, into out_PCTV (paper, 3.2).

    x_PCTV, out_PCTV: float32 metres, C-contiguous, no memory in common; absent frames, 0 0 0, stay so.
    sample_P, ids_N: int64. identity: seed, epoch and view. rotation: radians. distances, noise: tables of
    4,096, int32 and float32 metres. mirror, most: shares. sides: int64 (V,), the joint on the other side.
    bones: int64 (V - 1, 2), child and parent. Nothing is checked here: see `augment.spatial_view`.
    """
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
def crop_kernel(x_PCTV, sample_P, ids_N, seed, epoch, view, most, out_PCTV):  # type: ignore[no-untyped-def]
    """A part of every recording, resampled to its length: elements 1 (the share) and 2 (its begin) of part 0.

    most: greatest share that is cut off. out_PCTV: float32 metres, linear between two frames, the nearer one
    beside an absent frame. Needs at least two frames; the rest as in `spatial_kernel`.
    """
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
def temporal_kernel(  # type: ignore[no-untyped-def]
    x_PCTV, sample_P, ids_N, seed, epoch, view, mask_min, mask_max, out_PCTV, visible_N
):
    """The frames before T' copied, the others 0 (paper, 3.2): element 0 of part 0 is the hidden share.

    mask_min, mask_max: shares. visible_N: int64, receives T'. The rest as in `spatial_kernel`.
    """
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
