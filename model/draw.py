"""A stored sample and the two views that training would make of it, as one picture."""

from pathlib import Path

import numpy as np

from model.pictures import draw_views
from pipeline.augment import ViewConfig, spatial_view, temporal_view
from pipeline.store.shards import Shards


def draw_sample(shards: Shards, picture: Path, key: str | None, seed: int) -> str:
    """Draw the sample of that key, or the first; returns its key. Raises ValueError if there is none."""
    rows = shards.table if key is None else shards.table[shards.table["key"] == key]
    if len(rows) == 0:
        raise ValueError(
            f"{shards.location}: no sample {key!r}; samples.csv lists them, such as {shards.table['key'][0]}"
        )
    facts = rows.iloc[0]
    x_MCTV = shards.source.read(int(facts["row"]))
    ids_N = np.array([facts["row"]], np.int64)
    sample_P = np.zeros(int(facts["num_bodies"]), np.int64)
    x_PCTV = np.ascontiguousarray(x_MCTV[: len(sample_P)])
    spatial_PCTV, temporal_PCTV = np.empty_like(x_PCTV), np.empty_like(x_PCTV)
    visible_N = np.empty(1, np.int64)
    config = ViewConfig()
    spatial_view(
        x_PCTV,
        sample_P,
        ids_N,
        seed=seed,
        epoch=0,
        view=0,
        config=config,
        parents=shards.spec.skeleton.parents,
        out_PCTV=spatial_PCTV,
    )
    temporal_view(
        x_PCTV,
        sample_P,
        ids_N,
        seed=seed,
        epoch=0,
        view=1,
        config=config,
        out_PCTV=temporal_PCTV,
        visible_N=visible_N,
    )
    draw_views(
        picture,
        shards.spec.skeleton,
        [("original", x_PCTV), ("spatial view", spatial_PCTV), ("temporal view", temporal_PCTV)],
        title=f"{facts['key']}: {shards.spec.classes[int(facts['label'])]}",
        visible=[None, None, int(visible_N[0])],
    )
    return str(facts["key"])
