"""The kernels of `normalize`: fill unseen joints, measure tracks, lay the actors out over the stored frames.

Arrays in, arrays out; whoever calls has checked them, as a `Sequence` is.

Axes: B body track, M body kept, T frame as captured, F frame as stored, V joint, C coordinate.
"""

import numpy as np
from numba import njit

MAX_DISTANCE = 1_000.0  # metres; what is farther was not seen by a depth camera
NO_JOINT, NO_JOINTS = -1, np.empty(0, np.int64)
SHORTEST_AXIS = 1e-3  # metres; a spine or shoulder line shorter than this has no direction


@njit(cache=True, nogil=True)
def finish_lone_or_measure(  # type: ignore[no-untyped-def]
    xyz_BTVC, present_BT, outward_V2, centre, position_F, fill_gaps, origin_joint, axis_joints
):
    """Fill unseen joints; then, where one track alone is seen, make its finished sample, else measure only.

    Returns copies of the first two with unseen joints filled, the sample, the largest coordinate's magnitude,
    and the fields of `normalize.Tracks`, by which actors are chosen. In nearly all recordings one track is
    seen, and nothing is to be chosen: then this one call, which needs no interpreter, does everything, and
    the sample is (1, C, F, V) as `lay_out` writes it; else (0, C, F, V).
    """
    xyz_BTVC, present_BT = xyz_BTVC.copy(), present_BT.copy()
    _fill_unseen_joints(xyz_BTVC, present_BT, outward_V2)
    farthest = np.float32(0)
    for coordinate in xyz_BTVC.flat:
        farthest = max(farthest, abs(coordinate))
    first_B, last_B, seen_B, motion_B, spread_B, start_BC, end_BC = _measure(xyz_BTVC, present_BT, centre)
    is_lone = (seen_B > 0).sum() == 1 and farthest <= MAX_DISTANCE
    lone_MCFV = np.zeros((1 if is_lone else 0, 3, len(position_F), xyz_BTVC.shape[2]), np.float32)
    if is_lone:
        actor_B = np.where(seen_B > 0, 0, -1)
        lay_out(xyz_BTVC, present_BT, actor_B, position_F, fill_gaps, origin_joint, axis_joints, lone_MCFV)
    measures = first_B, last_B, seen_B, motion_B, spread_B, start_BC, end_BC
    return xyz_BTVC, present_BT, lone_MCFV, farthest, *measures


@njit(cache=True, nogil=True)
def _fill_unseen_joints(xyz_BTVC, present_BT, outward_V2):  # type: ignore[no-untyped-def]
    """In place: 0 0 0 joints get a position from their own past and future, else from their parent.

    A frame in which no joint of the body is seen is taken out of `present_BT`.
    """
    B, T, V, _ = xyz_BTVC.shape
    for b in range(B):
        for t in range(T):
            if present_BT[b, t]:
                seen = False
                for v in range(V):
                    seen = seen or _is_seen(xyz_BTVC[b, t, v])
                present_BT[b, t] = seen
        stand_in = -1
        ever_seen_V = np.zeros(V, np.bool_)
        for v in range(V):
            ever_seen_V[v] = _fill_over_time(xyz_BTVC[b, :, v], present_BT[b])
            if ever_seen_V[v] and stand_in < 0:
                stand_in = v
        for i in range(V):
            v, parent = outward_V2[i]
            if not ever_seen_V[v] and stand_in >= 0:
                source = parent if parent != v else stand_in
                xyz_BTVC[b, :, v] = xyz_BTVC[b, :, source]


@njit(cache=True, nogil=True)
def _is_seen(xyz_C):  # type: ignore[no-untyped-def]
    return xyz_C[0] != 0 or xyz_C[1] != 0 or xyz_C[2] != 0


@njit(cache=True, nogil=True)
def _fill_over_time(xyz_TC, present_T):  # type: ignore[no-untyped-def]
    """Interpolate one joint over the frames in which its body is present; returns if it was ever seen."""
    last = -1
    for t in range(len(present_T)):
        if not present_T[t] or not _is_seen(xyz_TC[t]):
            continue
        if t > last + 1:
            for gap in range(last + 1, t):
                if present_T[gap]:
                    weight = np.float32(0) if last < 0 else np.float32((t - gap) / (t - last))
                    before = max(last, 0)
                    for c in range(3):
                        xyz_TC[gap, c] = weight * xyz_TC[before, c] + (np.float32(1) - weight) * xyz_TC[t, c]
        last = t
    if last >= 0:
        for t in range(last + 1, len(present_T)):
            if present_T[t]:
                xyz_TC[t] = xyz_TC[last]
    return last >= 0


@njit(cache=True, nogil=True)
def _measure(xyz_BTVC, present_BT, centre):  # type: ignore[no-untyped-def]
    """The fields of `normalize.Tracks`, in order."""
    B, T, V, _ = xyz_BTVC.shape
    first_B, last_B, seen_B = np.full(B, -1, np.int64), np.full(B, -1, np.int64), np.zeros(B, np.int64)
    motion_B, spread_B = np.zeros(B), np.zeros(B)
    start_BC, end_BC = np.zeros((B, 3)), np.zeros((B, 3))
    sum_VC, square_VC = np.zeros((V, 3)), np.zeros((V, 3))
    for b in range(B):
        sum_VC[:] = 0
        square_VC[:] = 0
        wide = 0
        for t in range(T):
            if not present_BT[b, t]:
                continue
            if seen_B[b] == 0:
                first_B[b] = t
                start_BC[b] = xyz_BTVC[b, t, centre]
            last_B[b] = t
            seen_B[b] += 1
            left = right = xyz_BTVC[b, t, 0, 0]
            low = high = xyz_BTVC[b, t, 0, 1]
            for v in range(V):
                for c in range(3):
                    offset = xyz_BTVC[b, t, v, c] - start_BC[b, c]
                    sum_VC[v, c] += offset
                    square_VC[v, c] += offset * offset
                left, right = min(left, xyz_BTVC[b, t, v, 0]), max(right, xyz_BTVC[b, t, v, 0])
                low, high = min(low, xyz_BTVC[b, t, v, 1]), max(high, xyz_BTVC[b, t, v, 1])
            wide += right - left > 0.8 * (high - low)
        if seen_B[b] > 0:
            n = seen_B[b]
            end_BC[b] = xyz_BTVC[b, last_B[b], centre]
            spread_B[b] = wide / n
            motion_B[b] = (square_VC / n - (sum_VC / n) ** 2).sum() / V
    return first_B, last_B, seen_B, motion_B, spread_B, start_BC, end_BC


@njit(cache=True, nogil=True)
def _body_axes(xyz_BTVC, track_T, joints_4, rotation_CC):  # type: ignore[no-untyped-def]
    """Rows: across the shoulders made square to the spine, their cross product, along the spine.

    From the first seen frame or, if the body is degenerate there, from the next one that is not.
    """
    lower, upper, right, left = joints_4
    for t in range(len(track_T)):
        b = track_T[t]
        if b < 0:
            continue
        up = (xyz_BTVC[b, t, upper] - xyz_BTVC[b, t, lower]).astype(np.float64)
        across = (xyz_BTVC[b, t, left] - xyz_BTVC[b, t, right]).astype(np.float64)
        length = np.sqrt((up * up).sum())
        if length < SHORTEST_AXIS:
            continue
        up /= length
        across -= (across * up).sum() * up
        width = np.sqrt((across * across).sum())
        if width < SHORTEST_AXIS:
            continue
        across /= width
        rotation_CC[0] = across
        rotation_CC[1, 0] = up[1] * across[2] - up[2] * across[1]
        rotation_CC[1, 1] = up[2] * across[0] - up[0] * across[2]
        rotation_CC[1, 2] = up[0] * across[1] - up[1] * across[0]
        rotation_CC[2] = up
        return


@njit(cache=True, nogil=True)
def lay_out(  # type: ignore[no-untyped-def]
    xyz_BTVC, present_BT, actor_B, position_F, fill_gaps, origin_joint, axis_joints, out_MCFV
):
    """Write the actors, in the main actor's own frame. actor_B: the body that a track belongs to, or -1.

    origin_joint, axis_joints: NO_JOINT and NO_JOINTS leave position and direction as they are.
    """
    B, T = present_BT.shape
    track_MT = np.full((len(out_MCFV), T), -1, np.int64)
    for b in range(B):
        for t in range(T):
            if present_BT[b, t] and actor_B[b] >= 0:
                track_MT[actor_B[b], t] = b
    origin_C, rotation_CC = np.zeros(3), np.eye(3)
    if origin_joint != NO_JOINT:
        first = 0
        while track_MT[0, first] < 0:
            first += 1
        origin_C[:] = xyz_BTVC[track_MT[0, first], first, origin_joint]
    if len(axis_joints):
        _body_axes(xyz_BTVC, track_MT[0], axis_joints, rotation_CC)
    _write_bodies(xyz_BTVC, track_MT, position_F, fill_gaps, origin_C, rotation_CC, out_MCFV)


@njit(cache=True, nogil=True)
def _write_bodies(  # type: ignore[no-untyped-def]
    xyz_BTVC, track_MT, position_F, fill_gaps, origin_C, rotation_CC, out_MCFV
):
    """Resample, move and turn. Between a seen and an unseen frame the nearer one decides.

    A body that is seen only between two stored positions is stored once all the same, so that none is empty.
    """
    M, T = track_MT.shape
    for m in range(M):
        is_stored = False
        for f in range(len(position_F)):
            if position_F[f] < 0:
                continue
            before = int(position_F[f])
            after = min(before + 1, T - 1)
            weight = position_F[f] - before
            if fill_gaps:
                before, after, weight = _seen_neighbours(track_MT[m], position_F[f], before, after, weight)
            elif track_MT[m, before] < 0 or track_MT[m, after] < 0:
                before = after = before if weight < 0.5 else after
            if track_MT[m, before] < 0 or track_MT[m, after] < 0:
                continue
            xyz_0, xyz_1 = xyz_BTVC[track_MT[m, before], before], xyz_BTVC[track_MT[m, after], after]
            _write_frame(xyz_0, xyz_1, weight, origin_C, rotation_CC, out_MCFV[m, :, f])
            is_stored = True
        if not is_stored:
            f, t = _nearest_seen(track_MT[m], position_F)
            xyz_VC = xyz_BTVC[track_MT[m, t], t]
            _write_frame(xyz_VC, xyz_VC, 0.0, origin_C, rotation_CC, out_MCFV[m, :, f])


@njit(cache=True, nogil=True)
def _write_frame(xyz_0, xyz_1, weight, origin_C, rotation_CC, out_CV):  # type: ignore[no-untyped-def]
    """One body between two of its captured frames, (V, C) each; a weight of 0 is the first of them."""
    for v in range(len(xyz_0)):
        x = xyz_0[v, 0] + weight * (xyz_1[v, 0] - xyz_0[v, 0]) - origin_C[0]
        y = xyz_0[v, 1] + weight * (xyz_1[v, 1] - xyz_0[v, 1]) - origin_C[1]
        z = xyz_0[v, 2] + weight * (xyz_1[v, 2] - xyz_0[v, 2]) - origin_C[2]
        for c in range(3):
            turned = rotation_CC[c, 0] * x + rotation_CC[c, 1] * y + rotation_CC[c, 2] * z
            out_CV[c, v] = turned


@njit(cache=True, nogil=True)
def _nearest_seen(track_T, position_F):  # type: ignore[no-untyped-def]
    """The stored and the captured frame that are nearest to each other, of those in which a body is seen."""
    best_f, best_t, smallest = -1, -1, np.inf
    for t in range(len(track_T)):
        if track_T[t] < 0:
            continue
        for f in range(len(position_F)):
            distance = abs(position_F[f] - t)
            if position_F[f] >= 0 and distance < smallest:
                best_f, best_t, smallest = f, t, distance
    return best_f, best_t


@njit(cache=True, nogil=True)
def _seen_neighbours(track_T, position, before, after, weight):  # type: ignore[no-untyped-def]
    """The nearest frames on either side in which the body is seen; as they were if one side has none."""
    T = len(track_T)
    earlier, later = before, after
    while earlier >= 0 and track_T[earlier] < 0:
        earlier -= 1
    while later < T and track_T[later] < 0:
        later += 1
    if earlier < 0 or later >= T:
        nearer = before if weight < 0.5 else after
        return nearer, nearer, 0.0
    if later == earlier:
        return earlier, later, 0.0
    return earlier, later, (position - earlier) / (later - earlier)
