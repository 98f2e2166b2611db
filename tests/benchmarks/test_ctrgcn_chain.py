"""The chain that `preprocess` is measured against must do its job."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.references.ctrgcn_chain import SPINE, run_chain

SPREAD = np.linspace(-0.2, 0.2, 25)


def recording(path: Path, bodies: dict[str, tuple[range, float, float]]) -> Path:
    """20 frames of these bodies: when they are seen, the x where they begin, how far they go to and fro."""
    lines = ["20"]
    for frame in range(20):
        seen = {name: body for name, body in bodies.items() if frame in body[0]}
        lines.append(str(len(seen)))
        for name, (frames, x, swing) in seen.items():
            moved = x + swing * (frame % 2) * (frame > frames[0])
            lines += [f"{name} 0 1 1 1 1 0 0 0 2", "25"]
            width, height = (4, 1) if name == "chair" else (1, 4)
            lines += [f"{moved + width * dx:.4f} {height * dx:.4f} 2 1 2 3 4 0 0 0 0 2" for dx in SPREAD]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_actors_are_kept_centred_padded_and_labelled(tmp_path: Path) -> None:
    """A chain that did less than the real one would make ours look slower, one that did more, faster."""
    alone = recording(tmp_path / "S001C001P001R001A007.skeleton", {"11": (range(20), 1.0, 1.0)})
    pair = recording(
        tmp_path / "S001C001P001R001A050.skeleton",
        {"21": (range(20), 1.0, 1.0), "22": (range(20), 3.0, 1.4), "23": (range(5), 8.0, 1.0)},
    )
    seated = recording(
        tmp_path / "S001C002P001R001A001.skeleton",
        {"31": (range(20), 0.0, 1.0), "chair": (range(20), 5.0, 1.0)},
    )
    empty = recording(tmp_path / "S001C002P001R001A002.skeleton", {})
    with np.load(run_chain([alone, pair, seated, empty], tmp_path)) as found:
        x, y, names = found["x"], found["y"], found["names"].tolist()
    assert names == [alone.stem, pair.stem, seated.stem]
    assert x.shape == (3, 300, 150)
    assert x.dtype == np.float32
    assert y.argmax(axis=1).tolist() == [6, 49, 0]
    assert y.sum() == 3
    x_of_spine = x[:, :3, 3 * SPINE]
    assert x_of_spine == pytest.approx(np.array([[0, 1, 0], [0, 1.4, 0], [0, 1, 0]]), abs=1e-3)
    assert np.allclose(x[1, :3, 75 + 3 * SPINE], [-2, -1, -2], atol=1e-3)
    assert not x[[0, 2], :, 75:].any()
    assert not x[:, 20:].any()
