"""A stored sample and the two views that training would make of it, as one picture."""

from pathlib import Path

from model.pictures.bodies import draw_views
from model.sample_views import make_views, read_sample
from pipeline.augment import ViewConfig
from pipeline.batch import PAPER_VIEWS
from pipeline.store.shards import Shards


def draw_sample(shards: Shards, picture: Path, key: str | None, seed: int) -> str:
    """Draw the sample of that key, or the first; returns its key.

    Raises ValueError if there is none, or if the picture's name is not that of a PNG.
    """
    if picture.suffix.lower() != ".png":
        raise ValueError(f"{picture}: expected a name that ends in .png")
    sample = read_sample(shards, key)
    views = make_views(sample, PAPER_VIEWS, ViewConfig(), skeleton=shards.spec.skeleton, seed=seed)
    draw_views(
        picture,
        shards.spec.skeleton,
        [("original", sample.x_PCTV), *((f"{view.kind} view", view.x_PCTV) for view in views)],
        title=f"{sample.key}: {shards.spec.classes[sample.label]}",
        visible=[None, *(view.visible for view in views)],
    )
    return sample.key
