"""What a player of skeletons shows: a sample, its two views and, with a run, what its decoders rebuilt.

Axes: P body of the sample, M body, C coordinate, T frame (t after the encoder's strides), V joint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.pictures.style import sides_of
from model.sample_views import Sample, SampleView, make_views, read_sample
from pipeline.augment import ViewConfig
from pipeline.batch import PAPER_VIEWS
from pipeline.store.shards import Shards

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.cpstn import CPSTN


@dataclass(frozen=True, eq=False)
class Panel:
    """One of the moving pictures that are shown side by side.

    x_MTVC: float32 metres, x across, y depth, z up; NaN in all joints where a body is absent or not known.
    hidden_from: frames from this one on are masked; None where nothing is.
    target_MTVC: what should have been rebuilt; None where nothing was.
    rebuilt_from: the frames before it were seen and were not asked of the decoder; x_MTVC is NaN there.
    """

    name: str
    x_MTVC: NDArray[np.float32]
    hidden_from: int | None = None
    target_MTVC: NDArray[np.float32] | None = None
    rebuilt_from: int = 0


@dataclass(frozen=True, eq=False)
class Scene:
    """A sample to look at.

    title: the data set's.  note: how far the run that rebuilt it was trained, or "".
    bones: (child, parent) joints.  sides: for every joint its index into `pictures.SIDES`.
    frame_seconds: from one stored frame to the next.  panels: the first is the sample as stored.
    """

    title: str
    key: str
    class_name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]
    frame_seconds: float
    panels: tuple[Panel, ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert self.panels
        assert len(self.sides) == len(self.joints)
        for panel in self.panels:
            assert panel.x_MTVC.shape == (*self.shape, 3)
            assert panel.target_MTVC is None or panel.target_MTVC.shape == (*self.shape, 3)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, T, V): bodies, frames, joints."""
        bodies, frames, joints, _ = self.panels[0].x_MTVC.shape
        return bodies, frames, joints

    @property
    def rebuilds(self) -> bool:
        """Whether any panel shows what a decoder made of a view."""
        return any(panel.target_MTVC is not None for panel in self.panels)


def scene_of(
    shards: Shards,
    key: str | None,
    *,
    checkpoint: "Checkpoint | None" = None,
    config: ViewConfig | None = None,
    seed: int = 0,
) -> Scene:
    """The sample of that key, or the first, with its two views and what a run's decoders make of them.

    config: how strong the views are; by default as the run was trained, or without a run the paper's. seed
    decides the views. A run without decoders of views rebuilds nothing, its views are shown all the same.

    Raises ValueError if there is no such sample, or its joints are not those that the run was trained on.
    """
    sample = read_sample(shards, key)
    kinds: tuple[str, ...] = PAPER_VIEWS
    if checkpoint is not None:
        from model.question import check_fit  # and torch

        check_fit(shards, checkpoint)
        recipe = checkpoint.recipe()
        kinds, config = recipe.views, config or recipe.view
    views = make_views(sample, kinds, config or ViewConfig(), skeleton=shards.spec.skeleton, seed=seed)
    panels = [Panel("original", _absent_as_nan(sample.x_PCTV)), *_view_panels(views)]
    note = ""
    if checkpoint is not None:
        rebuilt = _rebuilt_panels(checkpoint.build_model(), views)
        panels += rebuilt
        note = f"rebuilt after step {checkpoint.step:,} of {checkpoint.steps:,}" if rebuilt else ""
    skeleton = shards.spec.skeleton
    return Scene(
        title=shards.spec.title,
        key=sample.key,
        class_name=shards.spec.classes[sample.label],
        joints=skeleton.joints,
        bones=skeleton.bones,
        sides=sides_of(skeleton),
        frame_seconds=_frame_seconds(shards, sample),
        panels=tuple(panels),
        note=note,
    )


def _view_panels(views: Sequence[SampleView]) -> list[Panel]:
    """Two views of one kind are told apart by their place."""
    alike = len({view.kind for view in views}) < len(views)
    return [
        Panel(
            f"{place} {view.kind} view" if alike else f"{view.kind} view",
            _absent_as_nan(view.x_PCTV),
            hidden_from=view.visible if view.visible < view.x_PCTV.shape[2] else None,
        )
        for place, view in zip(("first", "second"), views, strict=True)
    ]


def _rebuilt_panels(model: "CPSTN", views: Sequence[SampleView]) -> list[Panel]:
    """The spatial decoder rebuilds from the first view, the temporal one from the second, as in training.

    Of a view with a masked tail that tail is asked for, of any other the whole (Eq. 6, 7).
    """
    import torch

    model.eval()
    panels = []
    for name, view in zip(PAPER_VIEWS, views, strict=True):
        if not hasattr(model, f"{name}_decoder"):
            continue
        rebuild = model.reconstruct_spatial if name == "spatial" else model.reconstruct_temporal
        frames = view.x_PCTV.shape[2]
        with torch.no_grad():
            rebuilt_PCTV = rebuild(model.encode(torch.from_numpy(view.x_PCTV)), frames).numpy()
        target_MTVC = _absent_as_nan(view.target_PCTV)
        x_MTVC = np.ascontiguousarray(rebuilt_PCTV.transpose(0, 2, 3, 1))
        x_MTVC[np.isnan(target_MTVC)] = np.nan
        rebuilt_from = view.visible if view.kind == "temporal" else 0
        x_MTVC[:, :rebuilt_from] = np.nan
        title = f"rebuilt by the {name} decoder"
        panels.append(Panel(title, x_MTVC, target_MTVC=target_MTVC, rebuilt_from=rebuilt_from))
    return panels


def _absent_as_nan(x_PCTV: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same as (M, T, V, C), with NaN in every joint of a body in a frame where all of it is 0."""
    x_MTVC = np.ascontiguousarray(x_PCTV.transpose(0, 2, 3, 1))
    x_MTVC[~x_MTVC.any(axis=(2, 3))] = np.nan
    return x_MTVC


def _frame_seconds(shards: Shards, sample: Sample) -> float:
    """Resampled frames spread evenly over the recording; padded ones follow each other as captured."""
    stored, captured = sample.x_PCTV.shape[2], sample.num_frames
    if captured < 2 or stored < 2 or (shards.manifest.settings["resample"] == "pad" and captured <= stored):
        return 1 / shards.spec.fps
    captured_frames: float = (captured - 1) / (stored - 1)
    return captured_frames / shards.spec.fps
