"""What training is given at a time: samples, as stored and as views, as torch tensors.

Axes: N sample, P packed present body, C coordinate, T frame, V joint. "Packed" means that only the bodies
that are present are there, those of one sample beside each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

PAPER_VIEWS = ("spatial", "temporal")
VIEW_KINDS = (*PAPER_VIEWS, "combined")


@dataclass(frozen=True, eq=False)
class View:
    """One augmented copy of a batch.

    kind: of VIEW_KINDS. "spatial" is turned, sheared and so on, "temporal" cropped and its tail masked,
    "combined" cropped, then changed as a spatial one, and not masked.
    x_PCTV: float32 metres.  visible_N: int64, frames that are not masked, from the first: T' of a temporal
    view, T of any other.  target_PCTV: what there is to rebuild from it, where that is not the batch's
    original: what a view was cropped to before it was masked or changed, or another camera's recording.
    sample_P: int64, each body's sample where its bodies are not the batch's, but another camera's.
    """

    kind: str
    x_PCTV: Tensor
    visible_N: Tensor
    target_PCTV: Tensor | None = None
    sample_P: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "View":
        """With every tensor changed."""
        return replace(
            self,
            x_PCTV=change(self.x_PCTV),
            visible_N=change(self.visible_N),
            target_PCTV=None if self.target_PCTV is None else change(self.target_PCTV),
            sample_P=None if self.sample_P is None else change(self.sample_P),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that are worked on together.

    original_PCTV: float32 metres, as stored.  sample_P: int64, each body's sample, 0..N-1, non-decreasing.
    ids_N: int64, the samples' rows.  labels_N: int64 class index.  performances_N: as in Samples.
    num_samples: N.
    """

    original_PCTV: Tensor
    views: tuple[View, ...]
    sample_P: Tensor
    ids_N: Tensor
    labels_N: Tensor
    performances_N: Tensor
    num_samples: int

    def bodies_of(self, view: View) -> Tensor:
        """sample_P of a view's bodies: the batch's, or those of the recording that it shows instead."""
        return self.sample_P if view.sample_P is None else view.sample_P

    def target_of(self, view: View) -> Tensor:
        """float32 (P, C, T, V): what is to be rebuilt from a view."""
        return self.original_PCTV if view.target_PCTV is None else view.target_PCTV

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """With every tensor changed but the ids, by which the host knows its samples."""
        return replace(
            self,
            original_PCTV=change(self.original_PCTV),
            views=tuple(view.map(change) for view in self.views),
            sample_P=change(self.sample_P),
            labels_N=change(self.labels_N),
            performances_N=change(self.performances_N),
        )
