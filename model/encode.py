"""Representations for other programs: what an encoder makes of every sample, in files that any program reads.

NAME.npy     float32 (N, D), a row for each sample
NAME.csv     a line for each in the same order: key, part of the split, class, and what the shards' table says
NAME.json    what it was made from; written last

Axes: N sample, D feature.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from model.calibrate import calibrated
from model.checkpoint import Checkpoint
from model.features import encoder_extractor, extracted
from model.question import check_fit
from model.run import Run
from model.whitening import whitened
from pipeline.samples import Samples, all_samples, in_any_order, split_samples
from pipeline.store.publish import check_writable, publish_bytes, published, writing
from pipeline.store.shards import Shards

BATCH = 64


@dataclass(frozen=True)
class EncodedFiles:
    """What was written: `samples` rows of `features` numbers."""

    paths: tuple[Path, ...]
    samples: int
    features: int


def encode(
    shards: Shards,
    run: Run,
    checkpoint: Checkpoint,
    protocol: str,
    path: Path,
    *,
    trained: bool = True,
    whiten: bool = False,
    device: torch.device,
    on_samples: Callable[[int], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> EncodedFiles:
    """Write what `eval` classifies of every sample of these shards, whichever part it is in, to `path`, whose
    name ends in .npy, and the two files beside it.

    checkpoint: of the run.  trained: or the same encoder with its first weights.  whiten: as `eval --whiten`.
    Its batch normalisation, and what whitens, is measured on the protocol's training samples among these;
    where there are none, on those that the run was trained on. on_samples hears how many more are done.
    Raises ValueError if the shards do not fit the run, there is no such protocol, or nothing to whiten;
    OSError if `path` cannot be written.
    """
    if path.suffix != ".npy":
        raise ValueError(f"{path}: expected a name that ends in .npy; a .csv and a .json are put beside it")
    check_writable(path.parent)
    check_fit(shards, checkpoint)
    table = _described(shards, protocol)
    (samples,) = in_any_order(all_samples(shards))
    own = np.flatnonzero(table["split"] == "train")
    if len(own) == 0:
        on_note(
            f"protocol {protocol} finds no training sample in {shards.location}; batch normalisation"
            f"{' and whitening are' if whiten else ' is'} measured on those that the run was trained on"
        )
    fitted_on = samples.take(own) if len(own) else _trained_on(run, checkpoint, on_note)
    model = calibrated(checkpoint.build_model(trained=trained).to(device), fitted_on, device)
    extractor = encoder_extractor(model)
    if whiten:
        extractor = whitened(extractor, fitted_on, device)
    batches = extracted(extractor, samples, device, BATCH)
    made_from = _made_from(shards, run, checkpoint, protocol, trained, whiten)
    beside, last = path.with_suffix(".csv"), path.with_suffix(".json")
    if _manifest_before(last) not in (None, shards.manifest.digest):
        on_note(f"{path} was of other shards, and is written over")
    with writing(last):
        last.unlink(missing_ok=True)  # where it is, the others are of its time
    features = _write(batches, len(samples), path, on_samples)
    publish_bytes(beside, table.to_csv(index=False).encode())
    publish_bytes(last, json.dumps(made_from, indent=1, ensure_ascii=False).encode() + b"\n")
    return EncodedFiles((path, beside, last), len(samples), features)


def _described(shards: Shards, protocol: str) -> pd.DataFrame:
    """The shards' table, with names of classes and which part each sample is in; "" for neither."""
    table = shards.table.drop(columns=["row", "shard"])
    table.insert(1, "class", [shards.spec.classes[label] for label in table["label"]])
    table.insert(1, "split", "")
    for part in ("train", "test"):
        table.loc[shards.split(protocol, part).index, "split"] = part
    return table


def _made_from(
    shards: Shards, run: Run, checkpoint: Checkpoint, protocol: str, trained: bool, whiten: bool
) -> dict[str, Any]:
    """What the numbers belong to, as plain data for JSON."""
    return {
        "run": run.name,
        "step": checkpoint.step if trained else 0,
        "weights": checkpoint.weights_digest,
        "trained": trained,
        "whitened": whiten or bool(checkpoint.recipe().model.whitened),
        "recipe": checkpoint.recipe().to_table(),
        "protocol": protocol,
        "shards": {"name": shards.location.name, "manifest": shards.manifest.digest},
    }


def _manifest_before(path: Path) -> Any:
    """What a file that is there already says of its shards' manifest; None where it says nothing."""
    try:
        return json.loads(path.read_bytes())["shards"]["manifest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trained_on(run: Run, checkpoint: Checkpoint, on_note: Callable[[str], None]) -> Samples:
    """The training samples of the run's own shards. Raises ValueError if they are not there."""
    shards = run.open_shards(
        on_note=on_note,
        way_out="put them back, encode shards with training samples of the protocol, or take another by "
        "--protocol",
    )
    return in_any_order(split_samples(shards, checkpoint.recipe().protocol_on(shards.spec), "train"))[0]


def _write(batches: Iterable[Tensor], num_samples: int, path: Path, on_samples: Callable[[int], None]) -> int:
    """One batch after the other, so that memory need not hold all; how many features they have."""
    with published(path) as temporary, temporary.open("wb") as file:
        for batch_ND in batches:
            if file.tell() == 0:
                features = batch_ND.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (num_samples, features)}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(batch_ND.cpu().numpy().astype("<f4", copy=False).tobytes())
            on_samples(len(batch_ND))
    return features
