"""The views: what the encoder learns to ignore must be exactly what the settings say, and repeatable.

Axes: N sample, P packed present body, C coordinate, T frame, V joint.
"""

import dataclasses
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import Any, TypedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from pipeline.augment import ViewConfig, combined_view, spatial_view, temporal_view

C, T, V = 3, 7, 25
WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15
STILL = ViewConfig(rotation=0, shear=0, jitter_probability=0)
# Joint 3 hangs on a joint behind it; joint 0 is the root.
PARENTS = (0, 0, 1, 4, 0, *range(4, V - 1))
SIDES = ((5, 9), (6, 10), (24, 2))
SKELETON = Skeleton(
    joints=tuple(f"joint {joint}" for joint in range(V)),
    bones=tuple((joint, parent) for joint, parent in enumerate(PARENTS) if joint != parent),
    root=0,
    centre=0,
    spine=(0, 1),
    shoulders=(9, 5),
    mirror_pairs=SIDES,
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def mix64_slowly(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def key_slowly(identity: tuple[int, ...]) -> int:
    key = 0
    for number in identity:
        key = mix64_slowly(((key ^ (number % WORD)) + GOLDEN) % WORD)
    return key


def bits_slowly(identity: tuple[int, ...], element: int) -> int:
    return mix64_slowly((key_slowly(identity) + (element + 1) * GOLDEN) % WORD)


def jitter_bits_slowly(identity: tuple[int, ...], element: int) -> int:
    z = (key_slowly(identity) + (element + 1) * GOLDEN) % WORD
    z = ((z ^ (z >> 32)) * 0xD6E8FEB86659FD93) % WORD
    return z ^ (z >> 32)


def uniform_slowly(identity: tuple[int, ...], element: int, low: float, high: float) -> float:
    return low + (high - low) * (bits_slowly(identity, element) >> 11) / 2**53


def matrix_slowly(identity: tuple[int, ...], config: ViewConfig) -> NDArray[np.float64]:
    angle = uniform_slowly(identity, 0, 0, config.rotation)
    z = uniform_slowly(identity, 1, -1, 1)
    turn = uniform_slowly(identity, 2, 0, 2 * math.pi)
    x, y = math.sqrt(1 - z * z) * math.cos(turn), math.sqrt(1 - z * z) * math.sin(turn)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    shear = np.eye(3)
    places = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for element, place in enumerate(places, start=3):
        shear[place] = uniform_slowly(identity, element, -config.shear, config.shear)
    matrix: NDArray[np.float64] = shear @ rotation
    return matrix


def jitter_slowly(identity: tuple[int, ...], config: ViewConfig, frames: int) -> NDArray[np.float64]:
    """(C, T, V) noise, 0 where a joint is left alone."""
    noise = np.zeros((C, frames * V))
    place = -1
    for element in itertools.count():
        bits = jitter_bits_slowly(identity, element)
        tail = ((bits >> 52) + 0.5) / 4096
        place += 1 + math.floor(math.log(tail) / math.log(1 - config.jitter_probability))
        if place >= frames * V:
            return noise.reshape(C, frames, V)
        for c in range(C):
            midpoint = ((bits >> 12 * c) % 4096 + 0.5) / 4096
            noise[c, place] = config.jitter_std * NormalDist().inv_cdf(midpoint)
    raise AssertionError


def spatial_slowly(
    x_PCTV: Floats, sample_P: Integers, ids_N: Integers, seed: int, epoch: int, view: int, config: ViewConfig
) -> NDArray[np.float64]:
    out_PCTV = np.zeros(x_PCTV.shape)
    bodies_seen = dict.fromkeys(sample_P.tolist(), 0)
    for p, sample in enumerate(sample_P.tolist()):
        identity = (seed, epoch, int(ids_N[sample]), view)
        matrix = matrix_slowly((*identity, 0), config)
        noise = jitter_slowly((*identity, 1 + bodies_seen[sample]), config, x_PCTV.shape[2])
        bodies_seen[sample] += 1
        for t in range(x_PCTV.shape[2]):
            if np.any(x_PCTV[p, :, t]):
                out_PCTV[p, :, t] = matrix @ x_PCTV[p, :, t].astype(np.float64) + noise[:, t]
    return out_PCTV


class Identity(TypedDict, total=False):
    seed: int
    epoch: int
    view: int


def run_spatial(
    x_PCTV: Floats,
    sample_P: Integers,
    ids_N: Integers,
    config: ViewConfig | None = None,
    *,
    seed: int = 1,
    epoch: int = 2,
    view: int = 0,
) -> Floats:
    config, out_PCTV = config or ViewConfig(), np.full_like(x_PCTV, np.nan)
    who = Identity(seed=seed, epoch=epoch, view=view)
    spatial_view(x_PCTV, sample_P, ids_N, **who, config=config, skeleton=SKELETON, out_PCTV=out_PCTV)
    return out_PCTV


def run_temporal(
    x_PCTV: Floats,
    sample_P: Integers,
    ids_N: Integers,
    config: ViewConfig | None = None,
    *,
    seed: int = 1,
    epoch: int = 2,
    view: int = 1,
) -> tuple[Floats, Integers]:
    out_PCTV, visible_N = np.full_like(x_PCTV, np.nan), np.full(len(ids_N), -1)
    temporal_view(
        x_PCTV,
        sample_P,
        ids_N,
        seed=seed,
        epoch=epoch,
        view=view,
        config=config or ViewConfig(),
        out_PCTV=out_PCTV,
        visible_N=visible_N,
    )
    return out_PCTV, visible_N


def bodies(num_bodies: int, frames: int = T) -> Floats:
    """Metres, about the size of a person; joint 20 is the centre, 0 0 0 in every frame."""
    x_PCTV = np.random.default_rng(3).normal(0, 0.5, (num_bodies, C, frames, V)).astype(np.float32)
    x_PCTV[..., 20] = 0
    return x_PCTV


# Four samples, the first and the third with two bodies.
SAMPLE_P = np.array([0, 0, 1, 2, 2, 3])
IDS_N = np.array([11, 5, 40_000, 0])


def skeletons(num_samples: int) -> tuple[Floats, Integers, Integers]:
    """Joints 0, 1, 2 are the unit vectors, so that a view without jitter shows its matrix."""
    x_PCTV = np.zeros((num_samples, C, 1, V), np.float32)
    x_PCTV[:, :, 0, :3] = np.eye(3)
    return x_PCTV, np.arange(num_samples), np.arange(num_samples)


@pytest.mark.parametrize("frames", [T, 101])
def test_spatial_view_equals_the_slow_one(frames: int) -> None:
    """Any slip in the fused pass (axis, tile border, noise of the wrong joint) would corrupt every batch."""
    x_PCTV = bodies(6, frames)
    x_PCTV[1, :, 4:] = 0
    x_PCTV[3, :, 2] = 0
    fast = run_spatial(x_PCTV, SAMPLE_P, IDS_N, seed=-9, epoch=3, view=1)
    slow = spatial_slowly(x_PCTV, SAMPLE_P, IDS_N, seed=-9, epoch=3, view=1, config=ViewConfig())
    assert_allclose(fast, slow, rtol=1e-5, atol=1e-6)


def test_temporal_view_equals_the_slow_one() -> None:
    """The loss is taken on the frames after T': a wrong T' would reward copying what is in sight."""
    x_PCTV = bodies(6)
    fast_PCTV, visible_N = run_temporal(x_PCTV, SAMPLE_P, IDS_N)
    for n, sample_id in enumerate(IDS_N.tolist()):
        hidden = math.floor(uniform_slowly((1, 2, sample_id, 1, 0), 0, 0.25, 0.75) * T + 0.5)
        assert visible_N[n] == T - hidden
    for p, sample in enumerate(SAMPLE_P):
        visible = visible_N[sample]
        assert_array_equal(fast_PCTV[p, :, :visible], x_PCTV[p, :, :visible])
        assert not fast_PCTV[p, :, visible:].any()


@given(st.integers(2, 40), st.floats(0, 1), st.floats(1e-9, 1), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_a_frame_is_seen_and_a_frame_is_hidden(frames: int, one: float, other: float, sample_id: int) -> None:
    """With nothing hidden the temporal loss is a mean of nothing: NaN in the middle of a run."""
    config = ViewConfig(mask_min=min(one, other), mask_max=max(one, other))
    x_PCTV = np.ones((1, C, frames, V), np.float32)
    out_PCTV, visible_N = run_temporal(x_PCTV, np.array([0]), np.array([sample_id]), config)
    assert 1 <= visible_N[0] < frames
    assert out_PCTV.sum() == visible_N[0] * C * V


def test_nothing_is_hidden_where_nothing_is_to_be() -> None:
    """A contrast alone may want crops without masks."""
    x_PCTV = np.ones((1, C, 9, V), np.float32)
    config = ViewConfig(mask_min=0, mask_max=0)
    out_PCTV, visible_N = run_temporal(x_PCTV, np.array([0]), np.array([3]), config)
    assert visible_N[0] == 9
    assert_array_equal(out_PCTV, x_PCTV)


def test_hidden_share_covers_its_range() -> None:
    """A share that never reaches its bounds is another augmentation than the recipe says."""
    ids_N = np.arange(2000)
    x_PCTV = np.ones((2000, 1, 100, 2), np.float32)
    _, visible_N = run_temporal(x_PCTV, ids_N, ids_N, ViewConfig(mask_min=0.3, mask_max=0.6))
    assert visible_N.min() == 40
    assert visible_N.max() == 70
    assert abs(visible_N.mean() - 55) < 1


def test_one_frame_cannot_be_masked() -> None:
    """The user must read why, rather than get a view that hides everything."""
    with pytest.raises(ValueError, match="1 frame; a masked tail or a crop needs at least 2"):
        run_temporal(bodies(1, frames=1), np.array([0]), np.array([0]))
    x_PCTV = bodies(1, frames=1)
    with pytest.raises(ValueError, match="1 frame; a masked tail or a crop needs at least 2"):
        combined_view(
            *(x_PCTV, np.array([0]), np.array([0])),
            **Identity(seed=1, epoch=2, view=0),
            crop_view=2,
            config=ViewConfig(crop=0.5),
            skeleton=SKELETON,
            out_PCTV=np.empty_like(x_PCTV),
            cropped_PCTV=np.empty_like(x_PCTV),
        )


def test_rotation_keeps_lengths_and_stays_under_its_angle() -> None:
    """A rotation that scales, or turns too far, changes the pose and not the camera."""
    limit = math.pi / 6
    config = ViewConfig(rotation=limit, shear=0, jitter_probability=0)
    matrix_NCV = run_spatial(*skeletons(3000), config)[:, :, 0, :3].astype(np.float64)
    assert_allclose(matrix_NCV @ matrix_NCV.swapaxes(1, 2), np.tile(np.eye(3), (3000, 1, 1)), atol=1e-6)
    assert np.all(np.linalg.det(matrix_NCV) > 0)
    angle_N = np.arccos(np.clip((np.trace(matrix_NCV, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angle_N.max() <= limit + 1e-3
    assert angle_N.max() > 0.99 * limit
    assert abs(angle_N.mean() - limit / 2) < 0.02
    turn = np.stack([matrix_NCV[:, 2, 1], matrix_NCV[:, 0, 2], matrix_NCV[:, 1, 0]])
    turn -= np.stack([matrix_NCV[:, 1, 2], matrix_NCV[:, 2, 0], matrix_NCV[:, 0, 1]])
    axis_CN = turn / np.linalg.norm(turn, axis=0)
    assert_allclose(axis_CN.mean(axis=1), 0, atol=0.06)
    assert_allclose((axis_CN**2).mean(axis=1), 1 / 3, atol=0.03)


def test_shear_ratios_are_uniform_off_the_diagonal() -> None:
    """A ratio on the diagonal would scale the body; equal ratios would shear along one line only."""
    config = ViewConfig(rotation=0, shear=0.5, jitter_probability=0)
    matrix_NCV = run_spatial(*skeletons(3000), config)[:, :, 0, :3]
    assert np.all(np.diagonal(matrix_NCV, axis1=1, axis2=2) == 1)
    ratios_NS = matrix_NCV[:, ~np.eye(3, dtype=bool)]
    assert np.abs(ratios_NS).max() <= 0.5
    assert_allclose(ratios_NS.min(axis=0), -0.5, atol=0.01)
    assert_allclose(ratios_NS.max(axis=0), 0.5, atol=0.01)
    assert_allclose(ratios_NS.mean(axis=0), 0, atol=0.03)
    assert_allclose(np.corrcoef(ratios_NS.T), np.eye(6), atol=0.08)


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.7])
def test_jitter_has_the_probability_and_deviation_that_were_asked_for(probability: float) -> None:
    """Skipping ahead by geometric distances must be the same as a coin for every joint of every frame."""
    x_PCTV = np.ones((400, C, 40, V), np.float32)
    who = np.arange(400)
    config = dataclasses.replace(STILL, jitter_probability=probability, jitter_std=0.05)
    noise_PCTV = run_spatial(x_PCTV, who, who, config).astype(np.float64) - 1
    hit_PTV = np.any(noise_PCTV != 0, axis=1)
    tolerance = 5 * math.sqrt(probability * (1 - probability) / hit_PTV.size)
    assert abs(hit_PTV.mean() - probability) < tolerance + 2e-4
    per_joint = 5 * math.sqrt(probability * (1 - probability) / (400 * 40))
    assert_allclose(hit_PTV.mean(axis=(0, 1)), probability, atol=per_joint)
    both = (hit_PTV[..., 1:] & hit_PTV[..., :-1]).mean()
    assert abs(both - probability**2) < 5 * probability / math.sqrt(hit_PTV.size) + 2e-4
    noise_CS = noise_PCTV.transpose(1, 0, 2, 3)[:, hit_PTV]
    assert_allclose(noise_CS.std(axis=1), 0.05, rtol=0.05)
    assert_allclose(noise_CS.mean(axis=1), 0, atol=0.0025)
    assert_allclose(np.corrcoef(noise_CS), np.eye(3), atol=0.08)
    assert_allclose((np.abs(noise_CS) < 0.05).mean(), 0.6827, atol=0.02)


@pytest.mark.parametrize(("probability", "share"), [(0, 0), (1e-12, 0), (1, 1)])
def test_jitter_at_the_ends(probability: float, share: float) -> None:
    """Switching jitter off, or on everywhere, must not divide by zero nor miss a joint."""
    x_PCTV = bodies(6)
    config = dataclasses.replace(STILL, jitter_probability=probability)
    changed = np.any(run_spatial(x_PCTV, SAMPLE_P, IDS_N, config) != x_PCTV, axis=1)
    assert changed.mean() == share


def test_padding_stays_empty_and_the_centre_is_jittered() -> None:
    """Noise in padding would show the encoder where a recording ends; a centre that never moves, too."""
    x_PCTV = bodies(6)
    x_PCTV[:, :, 5:] = 0
    out_PCTV = run_spatial(x_PCTV, SAMPLE_P, IDS_N, ViewConfig(jitter_probability=1))
    assert not out_PCTV[:, :, 5:].any()
    assert np.all(out_PCTV[:, :, :5, 20] != 0)


def test_a_body_in_a_plane_is_no_padding() -> None:
    """A frame is empty where all three coordinates are 0, and only there: a body would vanish."""
    for coordinate in range(C):
        x_PCTV = np.zeros((6, C, T, V), np.float32)
        x_PCTV[:, coordinate] = 1
        assert_array_equal(run_spatial(x_PCTV, SAMPLE_P, IDS_N, STILL), x_PCTV)


def test_both_bodies_turn_alike_but_jitter_apart() -> None:
    """Bodies turned apart would destroy the interaction; equal noise would be a signal common to both."""
    x_PCTV = np.repeat(bodies(1), 2, axis=0)
    sample_P, ids_N = np.array([0, 0]), np.array([4])
    plain = run_spatial(x_PCTV, sample_P, ids_N, ViewConfig(jitter_probability=0))
    assert_array_equal(plain[0], plain[1])
    jittered = run_spatial(x_PCTV, sample_P, ids_N)
    assert np.any(jittered[0] != jittered[1])
    alone = run_spatial(x_PCTV[:1], sample_P[:1], ids_N)
    assert_array_equal(jittered[0], alone[0])


@given(st.permutations(range(4)), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_a_sample_does_not_depend_on_its_batch(order: list[int], count: int) -> None:
    """Otherwise a resumed run, or another batch size, would train on other views."""
    x_PCTV = bodies(6)
    whole_PCTV = run_spatial(x_PCTV, SAMPLE_P, IDS_N)
    masked_PCTV, visible_N = run_temporal(x_PCTV, SAMPLE_P, IDS_N)
    chosen = np.array(order[:count])
    packed = np.concatenate([np.flatnonzero(n == SAMPLE_P) for n in chosen])
    sample_P = np.repeat(np.arange(count), [np.sum(n == SAMPLE_P) for n in chosen])
    assert_array_equal(run_spatial(x_PCTV[packed], sample_P, IDS_N[chosen]), whole_PCTV[packed])
    part_PCTV, part_N = run_temporal(x_PCTV[packed], sample_P, IDS_N[chosen])
    assert_array_equal(part_PCTV, masked_PCTV[packed])
    assert_array_equal(part_N, visible_N[chosen])


def test_every_part_of_the_identity_counts() -> None:
    """An epoch without effect on the views would show the same view of a sample over and over."""
    x_PCTV, sample_P = bodies(1, frames=200), np.array([0])
    identities = [(1, 2, 0, 5), (2, 1, 0, 5), (1, 3, 0, 5), (1, 2, 1, 5), (1, 2, 0, 6), (1, 0, 2, 5)]
    spatial, lengths = set(), set()
    for seed, epoch, view, sample_id in identities:
        who = Identity(seed=seed, epoch=epoch, view=view)
        spatial.add(run_spatial(x_PCTV, sample_P, np.array([sample_id]), **who).tobytes())
        lengths.add(int(run_temporal(x_PCTV, sample_P, np.array([sample_id]), **who)[1][0]))
    assert len(spatial) == len(identities)
    assert len(lengths) > 1


def test_eight_threads_give_the_bits_of_one() -> None:
    """A result that depends on the number of threads cannot be reproduced on another machine."""
    x_PCTV = bodies(6)
    epochs = range(64)
    alone = [run_spatial(x_PCTV, SAMPLE_P, IDS_N, epoch=epoch) for epoch in epochs]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda epoch: run_spatial(x_PCTV, SAMPLE_P, IDS_N, epoch=epoch), epochs)
        for one, other in zip(alone, together, strict=True):
            assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"rotation": -0.1}, r"rotation is -0\.1; expected 0 to 3\.14159"),
        ({"rotation": 30}, "rotation is 30; expected"),
        ({"shear": -1}, "shear is -1; expected a number of 0 or more"),
        ({"shear": math.inf}, "shear is inf; expected a number"),
        ({"jitter_probability": 1.5}, r"jitter_probability is 1\.5; expected 0 to 1"),
        ({"jitter_std": math.nan}, "jitter_std is nan; expected a number"),
        ({"jitter_std": "5 cm"}, "jitter_std is '5 cm'; expected a number"),
        ({"mirror": 1.5}, r"mirror is 1\.5; expected 0 to 1"),
        ({"mask_max": 1.5}, r"mask_max is 1\.5; expected 0 to 1"),
        ({"bones": 0.95}, r"bones is 0\.95; expected 0 to 0\.9"),
        ({"crop": 0.95}, r"crop is 0\.95; expected 0 to 0\.9"),
        ({"mask_min": True}, "mask_min is True; expected 0 to 1"),
        ({"mask_min": 0.8}, r"mask_min is 0\.8; expected at most mask_max, 0\.75"),
    ],
)
def test_impossible_settings_are_named(settings_: dict[str, Any], message: str) -> None:
    """A recipe in degrees, or with a typing error, must fail before the training and name its key."""
    with pytest.raises(ValueError, match=message):
        ViewConfig(**settings_)


def test_views_are_the_papers_where_nothing_is_set() -> None:
    """A run of our defaults would stand beside the paper's figures with other augmentations than it has."""
    assert dataclasses.asdict(ViewConfig()) == {
        "rotation": math.pi / 6,
        "shear": 1.0,
        "jitter_probability": 0.2,
        "jitter_std": 0.05,
        "mask_min": 0.25,
        "mask_max": 0.75,
        "bones": 0.0,
        "mirror": 0.0,
        "crop": 0.0,
    }


def test_mirrored_samples_change_sides() -> None:
    """A mirror image with arms and legs left where they were would teach joints that no body has."""
    x_PCTV, sample_P, ids_N = some_bodies()
    config = dataclasses.replace(STILL, mirror=0.4)
    found_PCTV = run_spatial(x_PCTV, sample_P, ids_N, config)
    mirrored_N = [uniform_slowly((1, 2, int(sample_id), 0, 0), 9, 0, 1) < 0.4 for sample_id in ids_N]
    assert 0 < sum(mirrored_N) < len(ids_N)
    expected_PCTV = x_PCTV.copy()
    for p, sample in enumerate(sample_P):
        if mirrored_N[sample]:
            for left, right in SIDES:
                expected_PCTV[p, :, :, [left, right]] = x_PCTV[p, :, :, [right, left]]
            expected_PCTV[p, 0] *= -1
    assert_array_equal(found_PCTV, expected_PCTV)


def test_a_mirrored_sample_is_turned_and_has_other_bones_as_well() -> None:
    """What else is changed is changed of the mirror image, for both bodies of a sample."""
    x_PCTV, sample_P, ids_N = some_bodies()
    changes = dataclasses.replace(STILL, rotation=1.0, shear=0.2, bones=0.3)
    mirror_PCTV = run_spatial(x_PCTV, sample_P, ids_N, dataclasses.replace(STILL, mirror=1.0))
    expected_PCTV = run_spatial(mirror_PCTV, sample_P, ids_N, changes)
    found_PCTV = run_spatial(x_PCTV, sample_P, ids_N, dataclasses.replace(changes, mirror=1.0))
    assert_array_equal(found_PCTV, expected_PCTV)


def bones_slowly(x_PCTV: Floats, sample_P: Integers, ids_N: Integers, most: float) -> NDArray[np.float64]:
    """Seed 1, epoch 2, view 0: every joint by the bones on its way from the root."""
    out_PCTV = np.zeros(x_PCTV.shape)
    bodies_seen = dict.fromkeys(sample_P.tolist(), 0)
    for p, sample in enumerate(sample_P.tolist()):
        identity = (1, 2, int(ids_N[sample]), 0, -1 - bodies_seen[sample])
        bodies_seen[sample] += 1
        for joint in range(V):
            place, outer = np.zeros((C, x_PCTV.shape[2])), joint
            while PARENTS[outer] != outer:
                share = uniform_slowly(identity, outer, 1 - most, 1 + most)
                place += share * (x_PCTV[p, :, :, outer] - x_PCTV[p, :, :, PARENTS[outer]])
                outer = PARENTS[outer]
            out_PCTV[p, :, :, joint] = place + x_PCTV[p, :, :, 0]
    return out_PCTV


def test_bones_change_their_lengths_and_nothing_else() -> None:
    """A recipe's other bodies would be broken ones, or the same for both people."""
    x_PCTV, sample_P, ids_N = some_bodies()
    config = dataclasses.replace(STILL, bones=0.3)
    found_PCTV = run_spatial(x_PCTV, sample_P, ids_N, config)
    absent_PT = ~x_PCTV.any(axis=(1, 3))
    assert absent_PT.any()
    expected_PCTV = bones_slowly(x_PCTV, sample_P, ids_N, 0.3)
    assert_allclose(found_PCTV, expected_PCTV, rtol=1e-4, atol=1e-5)
    assert not found_PCTV.transpose(0, 2, 1, 3)[absent_PT].any()
    both = dataclasses.replace(config, rotation=1.0, shear=0.3)
    turned_PCTV = run_spatial(x_PCTV, sample_P, ids_N, both)
    matrices = {int(n): matrix_slowly((1, 2, int(ids_N[n]), 0, 0), both) for n in set(sample_P.tolist())}
    for p, sample in enumerate(sample_P.tolist()):
        expected = np.einsum("ij,jtv->itv", matrices[sample], expected_PCTV[p])
        assert_allclose(turned_PCTV[p], expected, rtol=1e-4, atol=1e-5)


def crop_slowly(x_CTV: Floats, sample_id: int, most: float) -> NDArray[np.float64]:
    frames, identity = x_CTV.shape[1], (1, 2, sample_id, 1, 0)
    share = uniform_slowly(identity, 1, 1 - most, 1)
    first = uniform_slowly(identity, 2, 0, 1) * (1 - share) * (frames - 1)
    out_CTV = np.zeros(x_CTV.shape)
    for t in range(frames):
        place = min(first + share * t, frames - 1)
        before = min(int(place), frames - 2)
        pair = x_CTV[:, before].astype(np.float64), x_CTV[:, before + 1].astype(np.float64)
        weight = place - before
        if not pair[0].any() or not pair[1].any():
            weight = round(weight + 1e-12)
        out_CTV[:, t] = (1 - weight) * pair[0] + weight * pair[1]
    return out_CTV


def test_a_crop_is_a_stretched_part_whose_tail_is_masked() -> None:
    """The decoder would owe frames that the view was not cut from, or a body fade in from nowhere."""
    x_PCTV, sample_P, ids_N = some_bodies()
    cropped_PCTV, out_PCTV = np.full_like(x_PCTV, np.nan), np.full_like(x_PCTV, np.nan)
    visible_N = np.zeros(len(ids_N), np.int64)
    temporal_view(
        *(x_PCTV, sample_P, ids_N),
        **Identity(seed=1, epoch=2, view=1),
        config=ViewConfig(crop=0.5),
        out_PCTV=out_PCTV,
        visible_N=visible_N,
        cropped_PCTV=cropped_PCTV,
    )
    for p, sample in enumerate(sample_P.tolist()):
        expected = crop_slowly(x_PCTV[p], int(ids_N[sample]), 0.5)
        assert_allclose(cropped_PCTV[p], expected, rtol=1e-5, atol=1e-5)
        seen = visible_N[sample]
        assert_array_equal(out_PCTV[p, :, :seen], cropped_PCTV[p, :, :seen])
        assert not out_PCTV[p, :, seen:].any()
    _, without_N = run_temporal(x_PCTV, sample_P, ids_N)
    assert_array_equal(visible_N, without_N)


def some_bodies() -> tuple[Floats, Integers, Integers]:
    """Five bodies of three samples; one comes late, another is away for two frames."""
    x_PCTV = np.random.default_rng(3).normal(0, 1, (5, C, T, V)).astype(np.float32)
    x_PCTV[1, :, :2] = 0
    x_PCTV[3, :, 3:5] = 0
    return x_PCTV, np.array([0, 0, 1, 2, 2]), np.array([11, 5, 2**40])
