"""What rebuilds a whole recording from the encoder's final state: all of an objective but decoder and error.

Axes: P packed present body, C channel of the features, T frame, V joint.
"""

from abc import abstractmethod

from torch import Tensor

from model.baselines.baseline import Baseline
from model.baselines.reconstruction import count_seen
from model.device import mixed_precision
from pipeline.batch import Batch


class FromState(Baseline):
    """Rebuilds recordings as they are stored; there are no views.

    head: the decoder, (P, C) final states and the original (P, 3, T, V), of which it may use the shape and
    the first frame -> the rebuilt (P, 3, T, V).
    """

    loss_names = ("reconstruction", "total")

    def count(self, parts: list[Batch]) -> Tensor:
        """The coordinates in seen frames of the whole batch."""
        return count_seen([batch.original_PCTV for batch in parts], self.ranks)

    def losses(self, batch: Batch, step: int, count: Tensor | int) -> Tensor:  # noqa: ARG002
        """The error, and once more as the total."""
        x_PCTV = batch.original_PCTV
        q_PCTV = self.encode(x_PCTV)
        with mixed_precision(self.recipe.precision, x_PCTV.device):
            rebuilt_PCTV = self.head(self.model.final_state(q_PCTV), x_PCTV)
        return self.error(rebuilt_PCTV, x_PCTV, count).repeat(2)

    @abstractmethod
    def error(self, rebuilt_PCTV: Tensor, original_PCTV: Tensor, count: Tensor | int) -> Tensor:
        """Sum over the seen frames, divided by `count`. Scalar float32."""
