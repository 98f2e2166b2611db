"""What the baselines leave to choose: a group of a recipe's keys for each that has any.

Apart from the objectives, because a recipe holds these and an objective holds a recipe.
"""

from dataclasses import dataclass

from model.checks import check_above_zero, check_choice, check_not_negative

AS_CAL, PC, MS2L, AUTOENCODER = "as_cal_like", "pc_like", "ms2l_like", "autoencoder"
# Each with the built-in recipe that is made for it.
BASELINES = {AS_CAL: "as-cal-like", PC: "pc-like", MS2L: "ms2l-like", AUTOENCODER: "lstm-autoencoder"}
WEAKENED = ("weights", "states")
MOST_SEGMENTS = 5


@dataclass(frozen=True)
class AsCalConfig:
    """See `model.baselines.as_cal`; the defaults are its authors' for NW-UCLA.

    momentum: the share of its old weights that the key encoder keeps in a step, from 0 to below 1.
    queue: keys that are remembered as negatives; at least the batch's size.
    Raises ValueError that names the key.
    """

    momentum: float = 0.999
    queue: int = 500

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected a number from 0 to below 1")
        check_above_zero(self, "queue")


@dataclass(frozen=True)
class PCConfig:
    """See `model.baselines.predict_cluster`.

    weakened: what the decoder must not do: "weights", its cell is never trained; "states", its state is the
    encoder's last one in every frame.
    Raises ValueError that names the key.
    """

    weakened: str = "weights"

    def __post_init__(self) -> None:
        check_choice("weakened", self.weakened, WEAKENED)


@dataclass(frozen=True)
class MS2LConfig:
    """See `model.baselines.ms2l`.

    segments: of equal length, whose order the jigsaw shuffles.
    prediction_weight, jigsaw_weight, contrast_weight: of the three tasks in the total.
    Raises ValueError that names the key.
    """

    segments: int = 3
    prediction_weight: float = 1.0
    jigsaw_weight: float = 1.0
    contrast_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.segments <= MOST_SEGMENTS:
            raise ValueError(f"segments is {self.segments}; expected 2 to {MOST_SEGMENTS}")
        check_not_negative(self, "prediction_weight", "jigsaw_weight", "contrast_weight")
        if not self.prediction_weight + self.jigsaw_weight + self.contrast_weight:
            raise ValueError(
                "prediction_weight, jigsaw_weight, contrast_weight are all 0; expected one above 0"
            )

    def check_frames(self, num_frames: int) -> None:
        """Raises ValueError if recordings of that many frames cannot be cut into the segments."""
        if num_frames < self.segments:
            raise ValueError(
                f"ms2l_like.segments is {self.segments}; expected at most the {num_frames} frames of a "
                f"recording"
            )
