"""Views of packed bodies: the spatial one (rotation, shear, jitter), the temporal one (tail mask), and both.

The augmentations are those of the CP-STN paper, section 3.2; the work is done in `augment_kernel`. What a
view looks like follows from seed, epoch, the sample's id and the view's number alone.

Axes: N sample, P packed present body, C coordinate, T frame, V joint.
"""

import math
import numbers
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from pipeline.augment_kernel import TABLE_SIZE, crop_kernel, spatial_kernel, temporal_kernel

# A bone is never shorter, nor a crop, than a tenth.
MOST_CHANGE = 0.9

# In training, a combined view draws its crop under this number plus its own, apart from how it is turned.
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
    bones: each bone of a body in a spatial or combined view is longer or shorter by a share, uniform in
        [-bones, bones]. Not in the paper; 0 leaves them.
    mirror: probability that a sample's spatial or combined view is its mirror image, left and right
        exchanged. Not in the paper; 0 mirrors none.
    crop: a temporal or combined view shows a part of the recording, resampled to its length: a share of it
        uniform in [1 - crop, 1], from anywhere; of a temporal one the tail is masked after that. Not in the
        paper; 0 shows the whole.

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
            raise ValueError(
                f"mask_min is {self.mask_min}; expected at most mask_max, {self.mask_max}; set both"
            )


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

    The noise is the Gaussian's inverse CDF at 4,096 midpoints: at most 3.67 standard deviations.
    Thread-safe; holds no GIL while it works.
    """
    _assert_packed(x_PCTV, sample_P, ids_N, out_PCTV)
    assert x_PCTV.shape[1] == 3
    assert skeleton.num_joints == x_PCTV.shape[3]
    spatial_kernel(
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
        _bones_outward(skeleton),
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
        x_PCTV = _cropped(x_PCTV, sample_P, ids_N, (seed, epoch, crop_view), config.crop, cropped_PCTV)
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
        x_PCTV = _cropped(x_PCTV, sample_P, ids_N, (seed, epoch, view), config.crop, cropped_PCTV)
    temporal_kernel(
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


def make_view(
    kind: str,
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
    visible_N: NDArray[np.int64],
    cropped_PCTV: NDArray[np.float32] | None = None,
) -> None:
    """What training sees as its view of that kind, of `pipeline.batch.VIEW_KINDS`. Arguments as of the three.

    visible_N: receives T where nothing is masked.  cropped_PCTV: needed where `crops` says so.
    """
    bodies = (x_PCTV, sample_P, ids_N)
    drawn: _Drawn = {"seed": seed, "epoch": epoch, "view": view, "config": config, "out_PCTV": out_PCTV}
    if kind == "temporal":
        temporal_view(*bodies, **drawn, visible_N=visible_N, cropped_PCTV=cropped_PCTV)
        return
    visible_N[:] = x_PCTV.shape[2]
    if kind == "spatial":
        spatial_view(*bodies, **drawn, skeleton=skeleton)
        return
    assert kind == "combined"
    crop_view = CROPS_FROM + view
    combined_view(*bodies, **drawn, crop_view=crop_view, skeleton=skeleton, cropped_PCTV=cropped_PCTV)


class _Drawn(TypedDict):
    """What all views are told."""

    seed: int
    epoch: int
    view: int
    config: ViewConfig
    out_PCTV: NDArray[np.float32]


def crops(kind: str, config: ViewConfig) -> bool:
    """Whether a view of that kind is of a part of the recording."""
    return config.crop > 0 and kind != "spatial"


def _cropped(
    x_PCTV: NDArray[np.float32],
    sample_P: NDArray[np.int64],
    ids_N: NDArray[np.int64],
    identity: tuple[int, int, int],
    most: float,
    cropped_PCTV: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """A part of each recording over all frames, in cropped_PCTV."""
    assert cropped_PCTV is not None
    _assert_packed(x_PCTV, sample_P, ids_N, cropped_PCTV)
    _check_frames(x_PCTV)
    seed, epoch, view = map(_word, identity)
    crop_kernel(x_PCTV, sample_P, ids_N, seed, epoch, view, most, cropped_PCTV)
    return cropped_PCTV


@lru_cache(maxsize=8)
def _bones_outward(skeleton: Skeleton) -> NDArray[np.int64]:
    """(child, parent) of every bone, a bone after the one that it hangs on. int64 (V - 1, 2)."""
    return np.array(skeleton.outward[1:], np.int64).reshape(-1, 2)


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
        tail = np.log((np.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE) / np.log1p(-np.float64(probability))
    distances: NDArray[np.int32] = np.minimum(np.floor(tail), np.iinfo(np.int32).max).astype(np.int32)
    return distances


@lru_cache(maxsize=8)
def _noise(std: float) -> NDArray[np.float32]:
    """The Gaussian inverse CDF at the midpoints, times std; float32. Its own deviation is 0.99984 std."""
    normal = NormalDist()
    table = [normal.inv_cdf((index + 0.5) / TABLE_SIZE) for index in range(TABLE_SIZE)]
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
