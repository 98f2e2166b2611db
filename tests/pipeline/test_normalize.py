"""Normalising decides who acts and where: each choice against a plain computation or a small known case."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.read import load_spec
from data_specs.skeleton import Skeleton
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
        ({"frames": 2}, "frames is 2; expected 3 to 100,000"),
        ({"frames": 100_001}, "frames is 100001; expected 3 to 100,000"),
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


@pytest.mark.parametrize("far", [3e38, -3e38])
def test_a_joint_beyond_reason_is_an_error(skeleton: Skeleton, far: float) -> None:
    xyz_TVC = person((0, 0, 3))
    xyz_TVC[3, 4, 1] = far
    with pytest.raises(UnusableError, match=r"a joint is 3e\+38 metres away"):
        normalize(sequence((xyz_TVC, slice(T))), skeleton, NormalizeConfig())


def still(at: tuple[float, float, float], frames: int = T) -> NDArray[np.float32]:
    """(T, V, C): an upright body that does not move."""
    return np.repeat(person(at)[:1], frames, axis=0)


@pytest.mark.parametrize(
    ("begins", "metres", "fps", "people"),
    [
        (9, 0.5, 30, 1),  # after 1/30 s: 0.55 metres
        (9, 0.6, 30, 2),
        (23, 1.2, 30, 1),  # after half a second: 1.25
        (23, 1.3, 30, 2),
        (23, 1.3, 12, 1),  # which are 1.25 seconds of a slower sensor: 2.375
        (23, 2.4, 12, 2),
        (8, 0.0, 30, 2),  # both are seen in frame 8: two people, however close
        (4, 0.0, 30, 2),
    ],
)
def test_a_new_id_is_the_same_person_within_reach(
    skeleton: Skeleton, begins: int, metres: float, fps: float, people: int
) -> None:
    """A person would be cut in two, or two who embrace made one, of whom half is lost."""
    tracks = sequence(
        (still((0, 0, 3), 40), slice(9)), (still((metres, 0, 3), 40), slice(begins, 40)), frames=40
    )
    assert len(normalize(tracks, skeleton, NormalizeConfig(denoise=False), fps)) == people


def test_a_new_id_continues_the_nearest_person(skeleton: Skeleton) -> None:
    """Two who lose their ids at once would exchange bodies."""
    near, far = still((0, 0, 3)), still((0.5, 0, 3))
    config = replace(RAW, frames=T, stitch=True)
    for first, second in ((near, far), (far, near)):
        tracks = sequence((first, slice(9)), (second, slice(9)), (near, slice(9, T)), (far, slice(9, T)))
        out_BCFV = normalize(tracks, skeleton, config)
        assert len(out_BCFV) == 2
        np.testing.assert_allclose(np.ptp(out_BCFV, axis=2), 0, atol=1e-6)


def test_a_person_goes_on_from_the_last_id(skeleton: Skeleton) -> None:
    """Who walks through the room under three ids is one person; the tracks come in any order."""
    places = (0.0, 0.5, 1.0)
    spans = (slice(0, 8), slice(8, 16), slice(16, T))
    tracks = [(still((x, 0, 3)), span) for x, span in zip(places, spans, strict=True)]
    for order in ((0, 1, 2), (2, 0, 1)):
        found = normalize(sequence(*(tracks[i] for i in order)), skeleton, NormalizeConfig(denoise=False))
        assert len(found) == 1


def test_furniture_alone_is_better_than_nothing(skeleton: Skeleton) -> None:
    """Somebody who lies on the floor is wider than tall."""
    lying = person((0, 0, 3)) * np.array((8, 0.2, 1), np.float32)
    tracks = sequence((lying, slice(T)), (lying + np.float32(3), slice(5)))
    assert len(normalize(tracks, skeleton, NormalizeConfig())) == 1


@pytest.mark.parametrize(("wide_frames", "bodies"), [(11, 2), (12, 1)])
def test_furniture_is_wide_in_most_of_its_frames(skeleton: Skeleton, wide_frames: int, bodies: int) -> None:
    """Who bends down for a moment is no chair."""
    actor, other = person((0, 0, 3), 40), person((2, 0, 3), 40, seed=1)
    middle_TVC = other.mean(axis=1, keepdims=True)
    wide_TVC = middle_TVC + (other - middle_TVC) * np.array((6, 0.3, 1), np.float32)
    other[:wide_frames] = wide_TVC[:wide_frames]
    tracks = sequence((actor, slice(40)), (other, slice(20)), frames=40)
    assert len(normalize(tracks, skeleton, NormalizeConfig())) == bodies


@pytest.mark.parametrize(
    ("frames", "stride", "bodies"),
    [
        (11, 0.05, 2),
        (10, 0.05, 1),  # seen too shortly
        (22, 0.003, 1),  # still: variance 0.0004
        (22, 0.006, 2),  # 0.0014
        (22, 0.2, 2),  # 1.6
        (22, 0.25, 1),  # 2.5: flying about
    ],
)
def test_who_is_seen_shortly_or_is_still_or_flies_about_is_no_actor(
    skeleton: Skeleton, frames: int, stride: float, bodies: int
) -> None:
    """The sensor's ghosts would stand beside the actor, or take the place of the second."""
    other = still((3, 0, 3))
    other[..., 2] += (np.arange(T, dtype=np.float32) * np.float32(stride))[:, None]
    tracks = sequence((person((0, 0, 3)), slice(T)), (other, slice(frames)))
    assert len(normalize(tracks, skeleton, NormalizeConfig())) == bodies
    assert len(normalize(tracks, skeleton, NormalizeConfig(denoise=False))) == 2


def test_a_person_moves_as_its_ids_do_by_their_frames(skeleton: Skeleton) -> None:
    """A last twitch under a new id would make an actor of somebody who only stood there."""
    other = still((3, 0, 3))
    other[18:, :, 2] += np.arange(5, dtype=np.float32)[:, None] * np.float32(0.05)
    tracks = sequence((person((0, 0, 3)), slice(T)), (other, slice(18)), (other, slice(18, 22)))
    assert len(normalize(tracks, skeleton, NormalizeConfig())) == 1  # 0.0031 in 4 of 22 frames


def test_activity_is_motion_times_the_share_of_frames(skeleton: Skeleton) -> None:
    """Otherwise whoever rushes past would be the main actor."""
    steady, brief = still((0, 0, 3)), still((3, 0, 3))
    steady[..., 2] += np.arange(T, dtype=np.float32)[:, None] * np.float32(0.05)  # variance: 0.11
    brief[:12, :, 2] += np.arange(12, dtype=np.float32)[:, None] * np.float32(0.12)  # 0.17, half of the time
    tracks = sequence((brief, slice(12)), (steady, slice(T)))
    config = NormalizeConfig(frames=T, max_bodies=1)
    (main_CFV,) = normalize(tracks, skeleton, config)
    assert main_CFV.any(axis=(0, 2)).all()


def test_who_is_seen_longest_is_kept_and_of_those_the_livelier(skeleton: Skeleton) -> None:
    """Both are still: one has to stay, and it is not the stiller one."""
    one, other = still((0, 0, 3)), still((3, 0, 3))
    other[..., 1] += (np.arange(T, dtype=np.float32) * np.float32(0.002))[:, None]
    for tracks in (((one, slice(T)), (other, slice(T))), ((other, slice(T)), (one, slice(T)))):
        (kept_CFV,) = normalize(sequence(*tracks), skeleton, NormalizeConfig(frames=T, align=False))
        np.testing.assert_allclose(np.ptp(kept_CFV[1], axis=0), 0.044, atol=1e-5)


@pytest.mark.parametrize("collapsed", ["spine", "shoulders"])
def test_a_body_without_direction_is_turned_by_its_next_frame(skeleton: Skeleton, collapsed: str) -> None:
    """One bad first frame would leave the whole recording as the camera saw it, on its side."""
    xyz_TVC = person((0.7, -0.2, 3.1))
    whole = normalize(sequence((xyz_TVC, slice(T))), skeleton, NormalizeConfig(frames=T, centre=False))
    first, second = getattr(skeleton, collapsed)
    spoilt_TVC = np.concatenate([xyz_TVC[:1], xyz_TVC[:-1]])
    spoilt_TVC[0, first] = spoilt_TVC[0, second]
    out = normalize(sequence((spoilt_TVC, slice(T))), skeleton, NormalizeConfig(frames=T, centre=False))
    np.testing.assert_allclose(out[0, :, 1:], whole[0, :, :-1], atol=1e-5)


@pytest.mark.parametrize("gaps", ["zero", "interpolate"])
def test_between_a_seen_and_an_unseen_frame_the_nearer_decides(skeleton: Skeleton, gaps: str) -> None:
    """Whoever comes late would be there half a frame too early, or leave too early."""
    xyz_TVC = person((0, 0, 3))
    config = replace(RAW, frames=4 * (T - 1) + 1, gaps=gaps)
    out_BCFV = normalize(sequence((xyz_TVC, slice(5, 9))), skeleton, config)
    seen_F = np.flatnonzero(out_BCFV[0].any(axis=(0, 2)))
    assert seen_F.tolist() == list(range(4 * 5 - 2, 4 * 8 + 2))
    np.testing.assert_allclose(out_BCFV[0, :, 4 * 5 - 1].T, xyz_TVC[5], atol=1e-6)
    np.testing.assert_allclose(out_BCFV[0, :, 4 * 8 + 1].T, xyz_TVC[8], atol=1e-6)


def test_a_joint_lost_at_an_end_is_held_and_a_never_seen_root_is_where_a_seen_joint_is(
    skeleton: Skeleton,
) -> None:
    """A hand would shoot in from the origin, or the body hang on a joint at the sensor."""
    xyz_TVC = person((0, 0, 3))
    early, late = 7, 11
    xyz_TVC[:3, early] = 0
    xyz_TVC[T - 4 :, late] = 0
    xyz_TVC[:, skeleton.root] = 0
    (out_CFV,) = normalize(sequence((xyz_TVC, slice(T))), skeleton, replace(RAW, frames=T))
    np.testing.assert_allclose(out_CFV[:, :3, early].T, np.tile(xyz_TVC[3, early], (3, 1)), atol=1e-6)
    np.testing.assert_allclose(out_CFV[:, T - 4 :, late].T, np.tile(xyz_TVC[T - 5, late], (4, 1)), atol=1e-6)
    np.testing.assert_array_equal(out_CFV[:, :, skeleton.root], out_CFV[:, :, 0])
