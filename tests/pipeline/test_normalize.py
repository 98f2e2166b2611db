"""Normalising decides who acts and where: each choice against a plain computation or a small known case."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.spec import Skeleton, load_spec
from pipeline.normalize import NormalizeConfig, UnusableError, normalize
from pipeline.raw.sequence import Sequence

# B track, T captured frame, F stored frame, V joint, C coordinate
T, V = 23, 25
RAW = NormalizeConfig(stitch=False, denoise=False, centre=False, align=False)


@pytest.fixture
def skeleton() -> Skeleton:
    return load_spec("ntu60").skeleton


def person(at: tuple[float, float, float], frames: int = T, seed: int = 0) -> NDArray[np.float32]:
    """(T, V, C): an upright body near a place, moving smoothly."""
    random = np.random.default_rng(seed)
    rest_VC = random.normal(size=(V, 3)) * (0.15, 0.5, 0.1)
    sway_TVC = np.cumsum(random.normal(size=(frames, V, 3)) * 0.03, axis=0)
    return np.asarray(rest_VC + sway_TVC + np.array(at), np.float32)


def sequence(*tracks: tuple[NDArray[np.float32], slice], frames: int = T) -> Sequence:
    """Tracks (frames, V, C), each present in a span of the recording."""
    xyz_BTVC = np.zeros((len(tracks), frames, V, 3), np.float32)
    present_BT = np.zeros((len(tracks), frames), bool)
    for b, (xyz_TVC, span) in enumerate(tracks):
        xyz_BTVC[b, span] = xyz_TVC[span]
        present_BT[b, span] = True
    states_BTV = np.full(xyz_BTVC.shape[:3], 2, np.uint8)
    return Sequence(np.arange(len(tracks)), xyz_BTVC, states_BTV, present_BT)


def test_linear_resampling_equals_numpy_interpolation(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    out_BCFV = normalize(sequence((xyz_TVC, slice(T))), skeleton, replace(RAW, frames=50))
    position_F = np.linspace(0, T - 1, 50)
    for v in (0, 7, V - 1):
        for c in range(3):
            expected_F = np.interp(position_F, np.arange(T), xyz_TVC[:, v, c])
            np.testing.assert_allclose(out_BCFV[0, c, :, v], expected_F, atol=1e-5)


def test_nearest_resampling_takes_captured_frames(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    config = replace(RAW, frames=9, resample="nearest")
    out_BCFV = normalize(sequence((xyz_TVC, slice(T))), skeleton, config)
    captured_F = np.rint(np.linspace(0, T - 1, 9)).astype(int)
    np.testing.assert_allclose(out_BCFV[0].transpose(1, 2, 0), xyz_TVC[captured_F], atol=1e-6)


def test_padding_keeps_captured_frames_and_ends_in_zeros(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    config = replace(RAW, frames=40, resample="pad")
    out_BCFV = normalize(sequence((xyz_TVC, slice(T))), skeleton, config)
    np.testing.assert_allclose(out_BCFV[0, :, :T].transpose(1, 2, 0), xyz_TVC, atol=1e-6)
    assert not out_BCFV[0, :, T:].any()


def test_one_captured_frame_is_held(skeleton: Skeleton) -> None:
    out_BCFV = normalize(
        sequence((person((0, 0, 3)), slice(1)), frames=1), skeleton, NormalizeConfig(frames=5)
    )
    np.testing.assert_array_equal(out_BCFV, np.repeat(out_BCFV[:, :, :1], 5, axis=2))


@pytest.mark.parametrize("resample", ["linear", "nearest", "pad"])
@pytest.mark.parametrize("gaps", ["zero", "interpolate"])
def test_who_is_seen_between_stored_positions_only_is_stored_all_the_same(
    skeleton: Skeleton, resample: str, gaps: str
) -> None:
    """A body of zeros would train, and be counted, as if somebody had been there."""
    config = replace(RAW, frames=200, resample=resample, gaps=gaps)
    xyz_TVC = person((0, 0, 3), frames=300)
    (alone_CFV,) = normalize(sequence((xyz_TVC, slice(1, 2)), frames=300), skeleton, config)
    stored = 0 if resample == "nearest" else 1  # at 0 or 1.5025, where frame 0 or 2 would be taken
    assert np.flatnonzero(alone_CFV.any(axis=(0, 2))).tolist() == [stored]
    np.testing.assert_allclose(alone_CFV[:, stored].T, xyz_TVC[1], atol=1e-6)

    one, other = (np.tile(person((x, 0, 3), frames=12), (15, 1, 1)) for x in (0, 2))
    config = NormalizeConfig(frames=16, resample=resample, gaps=gaps, centre=False, align=False)
    both = sequence((one, slice(180)), (other, slice(13, 24)), frames=180)
    _, other_CFV = sorted(normalize(both, skeleton, config), key=lambda body_CFV: -np.count_nonzero(body_CFV))
    stored, captured = (1, 13) if resample == "nearest" else (2, 23)  # at 12 or 23.87; not seen before 13
    assert np.flatnonzero(other_CFV.any(axis=(0, 2))).tolist() == [stored]
    np.testing.assert_allclose(other_CFV[:, stored].T, other[captured], atol=1e-6)


def test_first_seen_frame_is_centred_and_upright(skeleton: Skeleton) -> None:
    xyz_TVC = person((0.7, -0.2, 3.1))
    out_BCFV = normalize(sequence((xyz_TVC, slice(4, T))), skeleton, NormalizeConfig(frames=T))
    first_CV = out_BCFV[0, :, 4]
    lower, upper = skeleton.spine
    right, left = skeleton.shoulders
    np.testing.assert_allclose(first_CV[:, skeleton.centre], 0, atol=1e-6)
    spine_C = first_CV[:, upper] - first_CV[:, lower]
    shoulders_C = first_CV[:, left] - first_CV[:, right]
    np.testing.assert_allclose(spine_C[:2], 0, atol=1e-5)
    assert spine_C[2] > 0
    assert abs(shoulders_C[1]) < 1e-5
    assert shoulders_C[0] > 0
    distances = np.linalg.norm(xyz_TVC[4] - xyz_TVC[4, 0], axis=1)
    np.testing.assert_allclose(np.linalg.norm(first_CV - first_CV[:, :1], axis=0), distances, atol=1e-5)


def test_time_in_which_nobody_is_seen_is_kept(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    one = (xyz_TVC, slice(9))
    later = (xyz_TVC, slice(15, T))
    config = NormalizeConfig(frames=T, denoise=False)
    out_BCFV = normalize(sequence(one, later), skeleton, config)
    assert len(out_BCFV) == 1  # the second id continues the first person
    assert not out_BCFV[0, :, 9:15].any()
    assert out_BCFV[0, :, :9].any(axis=(0, 2)).all()
    assert out_BCFV[0, :, 15:].any(axis=(0, 2)).all()


def test_gaps_can_be_interpolated(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    tracks = sequence((xyz_TVC, slice(9)), (xyz_TVC, slice(15, T)))
    config = replace(RAW, frames=T, gaps="interpolate", stitch=True)
    out_BCFV = normalize(tracks, skeleton, config)
    middle_VC = xyz_TVC[8] + (xyz_TVC[15] - xyz_TVC[8]) * (4 / 7)
    np.testing.assert_allclose(out_BCFV[0, :, 12].T, middle_VC, atol=1e-5)


def test_a_new_id_far_away_is_another_person(skeleton: Skeleton) -> None:
    here, there = person((0, 0, 3)), person((2.5, 0, 3), seed=1)
    out_BCFV = normalize(
        sequence((here, slice(9)), (there, slice(9, T))), skeleton, NormalizeConfig(denoise=False)
    )
    assert len(out_BCFV) == 2


def test_furniture_and_ghosts_are_dropped(skeleton: Skeleton) -> None:
    actor = person((0, 0, 3))
    chair = person((1, 0, 3), seed=2) * np.array((8, 0.2, 1), np.float32)  # wider than tall
    ghost = person((-1, 0, 3), seed=3)
    tracks = sequence((chair, slice(T)), (ghost, slice(3)), (actor, slice(T)))
    alone = normalize(sequence((actor, slice(T))), skeleton, NormalizeConfig())
    np.testing.assert_array_equal(normalize(tracks, skeleton, NormalizeConfig()), alone)
    assert len(normalize(tracks, skeleton, NormalizeConfig(denoise=False, max_bodies=3))) == 3


def test_the_main_actor_comes_first(skeleton: Skeleton) -> None:
    quiet, lively = person((0, 0, 3)), person((1, 0, 3), seed=1)
    lively = lively + np.linspace(0, 1, T, dtype=np.float32)[:, None, None]
    first = normalize(sequence((quiet, slice(T)), (lively, slice(T))), skeleton, NormalizeConfig(frames=T))
    alone = normalize(sequence((lively, slice(T))), skeleton, NormalizeConfig(frames=T))
    np.testing.assert_array_equal(first[0], alone[0])
    assert len(first) == 2


def test_a_lost_joint_is_interpolated_and_a_never_seen_one_follows_its_parent(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    lost, never = 7, 22
    xyz_TVC[5:8, lost] = 0
    xyz_TVC[:, never] = 0
    out_BCFV = normalize(sequence((xyz_TVC, slice(T))), skeleton, replace(RAW, frames=T))
    expected_C = xyz_TVC[4, lost] + (xyz_TVC[8, lost] - xyz_TVC[4, lost]) * 0.5
    np.testing.assert_allclose(out_BCFV[0, :, 6, lost], expected_C, atol=1e-6)
    np.testing.assert_array_equal(out_BCFV[0, :, :, never], out_BCFV[0, :, :, skeleton.parents[never]])


def test_nobody_seen_is_an_error(skeleton: Skeleton) -> None:
    with pytest.raises(UnusableError, match="nobody is seen in any frame"):
        normalize(sequence(), skeleton, NormalizeConfig())
    with pytest.raises(UnusableError, match="nobody is seen in any frame"):
        normalize(sequence((np.zeros((T, V, 3), np.float32), slice(T))), skeleton, NormalizeConfig())


def test_the_recording_itself_is_left_as_it_was(skeleton: Skeleton) -> None:
    recording = sequence((person((0, 0, 3)), slice(T)))
    recording.xyz_BTVC[0, 3, 4] = 0
    before = recording.xyz_BTVC.copy()
    normalize(recording, skeleton, NormalizeConfig())
    np.testing.assert_array_equal(recording.xyz_BTVC, before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 2}, "frames is 2; it must be at least 3"),
        ({"resample": "cubic"}, "resample is 'cubic'; expected one of linear, nearest, pad"),
        ({"gaps": "close"}, "gaps is 'close'; expected one of zero, interpolate"),
        ({"max_bodies": 0}, "max_bodies is 0"),
    ],
)
def test_settings_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NormalizeConfig(**values)  # type: ignore[arg-type]


def test_a_still_actor_is_not_outdone_by_a_passer_by(skeleton: Skeleton) -> None:
    still = np.repeat(person((0, 0, 3))[:1], 60, axis=0)
    passer_by = person((2, 0, 3), frames=60, seed=1)
    tracks = sequence((still, slice(60)), (passer_by, slice(15)), frames=60)
    out_BCFV = normalize(tracks, skeleton, NormalizeConfig(frames=60))
    assert len(out_BCFV) == 2
    assert out_BCFV[1].any(axis=(0, 2)).all()  # the one who is there all the time


def test_a_joint_beyond_reason_is_an_error(skeleton: Skeleton) -> None:
    xyz_TVC = person((0, 0, 3))
    xyz_TVC[3, 4, 1] = 3e38
    with pytest.raises(UnusableError, match=r"a joint is 3e\+38 metres away"):
        normalize(sequence((xyz_TVC, slice(T))), skeleton, NormalizeConfig())
