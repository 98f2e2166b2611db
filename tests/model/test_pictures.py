"""Pictures are checked by their pixels: colours, places and sizes, never by what matplotlib was asked to do.

Axes: M body, C coordinate, T frame, V joint, K class, Y X pixel.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_specs.read import load_spec
from data_specs.skeleton import Skeleton
from model.pictures.bodies import draw_views
from model.pictures.confusion import SHARE_STOPS, UNTESTED, _per_cent, _shorten, draw_confusion, of_occurring
from model.pictures.style import TONES

M, C, T, V = 2, 3, 7, 25
LEFT, RIGHT, TRUNK = TONES[0]
LEGEND = 100  # pixels at the foot of a picture of views, which show every colour once more

Row = tuple[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return load_spec("ntu60").skeleton


@pytest.fixture(scope="module")
def standing(skeleton: Skeleton) -> NDArray[np.float32]:
    """Two people who stand 1.5 m apart: joints at believable heights, the left side at positive x."""
    x_MCTV = np.zeros((M, C, T, V), np.float32)
    heights = {
        "head": 0.6,
        "neck": 0.5,
        "shoulder": 0.4,
        "elbow": 0.15,
        "hip": -0.2,
        "knee": -0.6,
        "ankle": -1.0,
    }
    for joint, name in enumerate(skeleton.joints):
        side = 0.2 * (("left" in name) - ("right" in name))
        x_MCTV[:, 0, :, joint] = side
        x_MCTV[:, 2, :, joint] = next((up for word, up in heights.items() if word in name), 0.0)
    x_MCTV[1, 0] += 1.5
    return x_MCTV


def read(path: Path) -> NDArray[np.uint8]:
    """(Y, X, 3) colours, 0 to 255."""
    with Image.open(path, formats=["PNG"]) as picture:
        return np.asarray(picture.convert("RGB"))


def has(pixels_YXC: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    """(Y, X) where a picture has exactly this colour."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    found_YX = (pixels_YXC[..., 0] == red) & (pixels_YXC[..., 1] == green) & (pixels_YXC[..., 2] == blue)
    return np.asarray(found_YX)


def views(path: Path, skeleton: Skeleton, rows: list[Row], **options: object) -> NDArray[np.uint8]:
    draw_views(path, skeleton, rows, title="a recording", **options)  # type: ignore[arg-type]
    return read(path)[:-LEGEND]


def test_left_right_and_up_are_where_a_viewer_expects_them(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """A mirrored or upside-down body would teach a reader the wrong thing about every view."""
    one = standing.copy()
    one[1] = 0
    pixels = views(tmp_path / "one.png", skeleton, [("original", one)], num_frames=1)
    left_x, right_x = np.nonzero(has(pixels, LEFT))[1], np.nonzero(has(pixels, RIGHT))[1]
    limbs_y, trunk_y = np.nonzero(has(pixels, LEFT))[0], np.nonzero(has(pixels, TRUNK))[0]
    assert right_x.max() < left_x.min()
    assert trunk_y.min() < limbs_y.min()
    assert trunk_y.max() < limbs_y.max()


def test_a_second_body_has_its_own_tones_and_an_absent_one_is_not_drawn(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """Zeros drawn as a body would put a ghost at the origin; one tone for both would entangle two people."""
    alone = standing.copy()
    alone[1] = 0
    both_pixels = views(tmp_path / "both.png", skeleton, [("original", standing)], num_frames=1)
    alone_pixels = views(tmp_path / "alone.png", skeleton, [("original", alone)], num_frames=1)
    for first, second in zip(TONES[0][:2], TONES[1][:2], strict=True):  # writing has greys too
        assert has(both_pixels, first).any()
        assert has(both_pixels, second).any()
        assert has(alone_pixels, first).any()
        assert not has(alone_pixels, second).any()
    seconds_legend = has(read(tmp_path / "both.png")[-LEGEND:], TONES[1][0])
    assert seconds_legend.any()
    assert not has(read(tmp_path / "alone.png")[-LEGEND:], TONES[1][0]).any()


def test_masked_frames_are_empty_whatever_the_array_holds(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """A temporal view that showed its hidden frames would show what the model never saw."""
    rows = [("original", standing), ("temporal view", standing)]
    plain = views(tmp_path / "plain.png", skeleton, rows, num_frames=4)
    masked = views(tmp_path / "masked.png", skeleton, rows, num_frames=4, visible=[None, 3])
    assert plain.shape == masked.shape
    differs_y, differs_x = np.nonzero((plain != masked).any(axis=2))
    assert differs_y.min() > plain.shape[0] / 2  # the second row only
    assert differs_x.min() > plain.shape[1] / 2  # frames 0, 2, 4, 6: the last two cells only
    hidden = masked[differs_y.min() : differs_y.max(), differs_x.min() : differs_x.max()]
    assert not any(has(hidden, tone).any() for tones in TONES for tone in tones[:2])  # writing has greys too


def test_bodies_have_one_scale_over_all_rows(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """With a scale per row, a view that doubles a body would look like the original."""
    pixels = views(tmp_path / "x.png", skeleton, [("once", standing), ("twice", 2 * standing)], num_frames=3)
    lines_y = np.flatnonzero(has(pixels, LEFT).any(axis=1))
    gap = int(np.argmax(np.diff(lines_y)))
    once, twice = lines_y[gap] - lines_y[0], lines_y[-1] - lines_y[gap + 1]
    assert twice / once == pytest.approx(2, rel=0.05)


def test_a_walk_does_not_shrink_the_body(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """Somebody who crosses the room would otherwise be a speck in every cell."""
    walk = standing + np.linspace(0, 4, T, dtype=np.float32)[:, None] * np.array([1, 0, 0])[:, None, None]
    still = views(tmp_path / "still.png", skeleton, [("walk", standing)], num_frames=3)
    walking = views(tmp_path / "walking.png", skeleton, [("walk", walk.astype(np.float32))], num_frames=3)
    assert has(walking, LEFT).sum() == pytest.approx(has(still, LEFT).sum(), rel=0.02)


def test_only_the_evenly_spaced_frames_matter_and_there_are_never_more_than_exist(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """The first and the last frame must be seen; a short recording must still give a picture."""
    paths = [tmp_path / f"{name}.png" for name in ("three", "between", "last", "seven", "fifty")]
    between, last = standing.copy(), standing.copy()
    between[:, :, 1] *= 1.2
    last[:, :, -1] *= 1.2
    inputs = [(standing, 3), (between, 3), (last, 3), (standing, T), (standing, 50)]
    for path, (x_MCTV, num_frames) in zip(paths, inputs, strict=True):
        views(path, skeleton, [("original", x_MCTV)], num_frames=num_frames)
    three, unseen, ended, seven, fifty = (path.read_bytes() for path in paths)
    assert three == unseen
    assert three != ended
    assert seven == fifty != three


def test_views_fill_a_readme_and_grow_by_row(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """2,400 pixels stay sharp at 1,200; everything keeps off the edge, so nothing is cut off."""
    long = "a name of a view that takes more than one line"
    one = views(tmp_path / "one.png", skeleton, [(long, standing)], visible=[0])
    two = views(tmp_path / "two.png", skeleton, [(long, standing), ("$a_{view", standing)])
    assert 2200 <= one.shape[1] == two.shape[1] <= 2400
    assert two.shape[0] > one.shape[0] + 200
    assert edge_is_white(read(tmp_path / "two.png"))


def edge_is_white(pixels_YXC: NDArray[np.uint8]) -> bool:
    edges = (pixels_YXC[:10], pixels_YXC[-10:], pixels_YXC[:, :10], pixels_YXC[:, -10:])
    return all(bool((edge == 255).all()) for edge in edges)


def test_bytes_repeat_and_a_picture_is_published_whole(
    tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]
) -> None:
    """A report that changes by itself cannot be compared; a temporary file must not stay behind."""
    for path in (tmp_path / "first.png", tmp_path / "second.png", tmp_path / "second.png"):
        draw_views(path, skeleton, [("original", standing)], title="a recording", num_frames=2)
        draw_confusion(path.with_suffix(".confusion.png"), np.eye(3, dtype=np.int64), "abc", title="t")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    first, second = tmp_path / "first.confusion.png", tmp_path / "second.confusion.png"
    assert first.read_bytes() == second.read_bytes()
    assert b"Software" not in first.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError):
        draw_confusion(tmp_path / "folder.png", np.eye(3, dtype=np.int64), "abc", title="t")
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([], {}, "expected the recording"),
        ([(M, C, T)], {}, r"'row 0' has shape \(2, 3, 7\)"),
        ([(M, T, C, V)], {}, r"'row 0' has shape \(2, 7, 3, 25\)"),
        ([(M, C, T, 20)], {}, r"'row 0' has shape \(2, 3, 7, 20\)"),
        ([(M, C, 0, V)], {}, r"'row 0' has shape \(2, 3, 0, 25\)"),
        ([(M, C, T, V), (M, C, T - 1, V)], {}, "'row 1' has shape .*, 'row 0' "),
        ([(M, C, T, V)], {"num_frames": 0}, "num_frames is 0"),
        ([(M, C, T, V)], {"visible": [None, 3]}, "2 entries for 1 rows"),
        ([(M, C, T, V)], {"visible": [T + 1]}, r"visible is \[8\] of 7 frames"),
        ([(M, C, T, V)], {"visible": [-1]}, r"visible is \[-1\] of 7 frames"),
    ],
)
def test_views_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path,
    skeleton: Skeleton,
    shapes: list[tuple[int, ...]],
    options: dict[str, object],
    message: str,
) -> None:
    """A swapped axis would otherwise come out as a picture of noise."""
    rows = [(f"row {number}", np.ones(shape, np.float32)) for number, shape in enumerate(shapes)]
    with pytest.raises(AssertionError, match=message):
        views(tmp_path / "x.png", skeleton, rows, **options)
    assert not list(tmp_path.iterdir())


def test_a_nan_is_refused(tmp_path: Path, skeleton: Skeleton, standing: NDArray[np.float32]) -> None:
    """A view with NaN is a fault of the kernel that made it; a blank cell would hide it."""
    broken = standing.copy()
    broken[1, 2, 3, 4] = np.nan
    with pytest.raises(AssertionError, match="'view' holds values that are not finite"):
        views(tmp_path / "x.png", skeleton, [("original", standing), ("view", broken)])


def test_true_classes_run_down_and_predicted_ones_across(tmp_path: Path) -> None:
    """A transposed matrix blames the wrong class."""
    counts_KK = np.zeros((4, 4), np.int64)
    counts_KK[0, 3] = 9
    draw_confusion(tmp_path / "x.png", counts_KK, ["walk", "sit", "stand", "wave"], title="t")
    pixels = read(tmp_path / "x.png")
    dark_y, dark_x = np.nonzero(has(pixels, SHARE_STOPS[-1]))
    grey_y, grey_x = np.nonzero(has(pixels, UNTESTED))
    assert np.median(dark_y) < np.median(grey_y)  # rows without samples, below, are grey
    assert np.median(dark_x) > np.median(grey_x)


def test_rows_are_shares_and_only_untested_classes_are_grey(tmp_path: Path) -> None:
    """Without normalising, a class with many samples would look the best recognised."""
    counts_KK = np.array([[6, 2, 0], [1, 3, 0], [0, 2, 2]])
    scaled_KK = counts_KK * np.array([[1], [50], [7]])
    for name, counts in (("plain", counts_KK), ("scaled", scaled_KK)):
        draw_confusion(tmp_path / name, counts, ["a", "b", "c"], title="t")
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "scaled").read_bytes()
    assert not has(read(tmp_path / "plain"), UNTESTED).any()


def test_classes_that_are_neither_tested_nor_predicted_are_left_out() -> None:
    """Of 120 classes a run on ten would be a picture of nothing."""
    counts_KK = np.array([[0, 0, 0, 0], [0, 5, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    left_KK, names = of_occurring(counts_KK, ["a", "b", "c", "d"])
    assert (left_KK.tolist(), names) == ([[5, 2], [0, 0]], ["b", "d"])
    nothing_KK = np.zeros((2, 2), np.int64)
    assert of_occurring(nothing_KK, "ab")[1] == ["a", "b"]


@pytest.mark.parametrize("num_classes", [1, 20, 21, 61])
def test_long_names_are_not_cut_off(tmp_path: Path, num_classes: int) -> None:
    """Whatever touches the edge of a picture was cut there; the numbers lie around the changes of layout."""
    names = [f"an action with a long description that costs ${number}" for number in range(num_classes)]
    counts_KK = np.eye(num_classes, dtype=np.int64)
    counts_KK[0] = 0
    draw_confusion(tmp_path / "x.png", counts_KK, names, title="Confusion of many classes " * 3)
    pixels = read(tmp_path / "x.png")
    assert has(pixels, UNTESTED).any()
    assert edge_is_white(pixels)
    assert max(pixels.shape) < 4000


@pytest.mark.parametrize(
    ("counts", "classes", "message"),
    [
        (np.zeros((3, 3), np.int64), ["a", "b"], "each of the 2 classes"),
        (np.zeros((3, 2), np.int64), ["a", "b", "c"], "each of the 3 classes"),
        (np.zeros((0, 0), np.int64), [], "each of the 0 classes"),
        (np.array([[1, -4], [0, 1]]), ["a", "b"], "hold -4"),
    ],
)
def test_counts_that_do_not_fit_the_classes_are_refused(
    tmp_path: Path, counts: NDArray[np.int64], classes: list[str], message: str
) -> None:
    """A matrix of another data set would be drawn under the wrong names."""
    with pytest.raises(ValueError, match=message):
        draw_confusion(tmp_path / "x.png", counts, classes, title="t")


def test_numbers_in_cells_never_claim_nothing_or_everything() -> None:
    """A share of 99.8 % shown as 100 hides the sample that was missed."""
    shares = (0.0049, 0.0051, 0.125, 0.9949, 0.998, 1.0)
    assert [_per_cent(share) for share in shares] == ["<1", "1", "12", "99", ">99", "100"]


def test_long_names_keep_both_ends() -> None:
    """`put object into bag` and `take object out of bag` differ at the start, `... one hand` at the end."""
    assert _shorten("pick up with one hand") == "pick up with one hand"
    short = _shorten("pick up something from the floor of a room with two hands")
    assert short == "pick up something from …th two hands"


def test_equal_differences_of_share_look_equal() -> None:
    """A colour map with a bright band would draw an edge where the counts have none."""
    rgb_KC = (
        np.array([[int(stop[start : start + 2], 16) for start in (1, 3, 5)] for stop in SHARE_STOPS]) / 255
    )
    linear_KC = np.where(rgb_KC <= 0.04045, rgb_KC / 12.92, ((rgb_KC + 0.055) / 1.055) ** 2.4)
    lightness_K = 116 * np.cbrt(linear_KC @ [0.2126, 0.7152, 0.0722]) - 16  # CIE L*
    steps = -np.diff(lightness_K)
    assert lightness_K[0] == pytest.approx(100, abs=0.01)
    assert steps.min() > 0.75 * steps.max()
