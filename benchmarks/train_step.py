"""How fast is a training step, beside an ST-GCN written the usual way? `python -m benchmarks.train_step`

Both have the same layers and weights and get the same batch; ours only the bodies that are there.

Axes: N sample, P packed present body, B present body of one sample, C channel, T frame, V joint.
"""

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import views
from benchmarks.command import benchmark
from benchmarks.data import SPEC, find_recordings, mixed_samples, scratch_folder
from benchmarks.limits import Machine, costliest, measure_demand, measure_machine
from benchmarks.pairs import CPU, WALL, Clock, Pair, Work, compare
from benchmarks.references.plain_stgcn import PlainBatch, PlainCPSTN, plain_batch
from benchmarks.report import Report
from model.checkpoint import new_model
from model.cpstn import CPSTN
from model.device import choose_device
from model.objective import batch_losses
from model.recipe import Recipe, load_recipe
from pipeline.loader import Batch, View
from pipeline.normalize import NormalizeConfig

ENCODER, STEP = "encoder, forward and backward", "training step"
HOLD_TO = {"cpu": 1.8, "cuda": 3.0}
BATCH = {"cpu": 32, "cuda": 256}
PRECISION = {"cpu": torch.float32, "cuda": torch.bfloat16}  # ours; the plain one's is float32
SMALL = ("model.encoder.widths=[4, 4, 4, 4, 8, 8]", "model.decoder.widths=[4, 4, 4, 4, 4]")
QUICK_FRAMES, QUICK_BATCH = 16, 4
STATUS = Path("/proc/self/status")


@benchmark("How fast is a training step, beside an ST-GCN written the usual way?", rounds=7)
@click.option("--frames", type=click.IntRange(8), default=200, show_default=True, help="Of every sample.")
@click.option("--batch", type=click.IntRange(2), help="Samples of a batch.  [default: 32, on a GPU 256]")
@click.option("--recipe", default="compact", show_default=True, help="Built-in recipe or TOML file.")
@click.option("--device", help="cpu, cuda or cuda:1.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of torch, on a CPU.")
def main(
    raw: Path | None,
    rounds: int,
    quick: bool,
    frames: int,
    batch: int | None,
    recipe: str,
    device: str | None,
    threads: int,
) -> None:
    kind = choose_device(device).type
    if kind not in HOLD_TO:
        raise click.BadParameter(f"device {kind}: expected cpu or cuda")
    count = QUICK_BATCH if quick else batch or BATCH[kind]
    config = NormalizeConfig(frames=QUICK_FRAMES if quick else frames)
    with scratch_folder() as scratch:
        recordings = find_recordings(raw, scratch, quick=quick)
        samples = mixed_samples(recordings, count, config)
    contest = Contest(load_recipe(recipe, SMALL if quick else ()), tuple(samples), device, threads)
    contest.check()
    what = f"{count} samples of {config.frames} frames, {recordings.origin}; {threads} threads; {kind}"
    clocks = [gpu_clock()] if kind == "cuda" else [WALL, CPU]
    names = [f"{name}, {clock.name}" for name in (ENCODER, STEP) for clock in clocks]
    report = Report("train_step", what, dict.fromkeys(names, HOLD_TO[kind]))
    for clock in clocks:
        report.ratio(*compare(contest.pairs(clock), rounds, clock))
    tell_limits(contest, clocks[0], report)
    for name in (ENCODER, STEP):
        for side in ("ours", "plain"):
            report.figure(f"{name}, peak memory, {side}", peak_megabytes(contest, name, side), "MB")
    report.figure("bodies of a sample", len(contest.batch().sample_P) / count, "on average")
    report.show()


@dataclass(frozen=True, eq=False)
class Contest:
    """Ours and the plain network, with the same weights, on one batch of these samples (B, C, T, V).

    device: as the command's option.  threads: of torch.
    """

    recipe: Recipe
    samples: tuple[NDArray[np.float32], ...]
    device_name: str | None
    threads: int

    @property
    def device(self) -> torch.device:
        return choose_device(self.device_name)

    def batch(self) -> Batch:
        """The samples and their two views, on the device."""
        packed = views.batch_of(self.samples, 0)
        empty_PCTV = np.zeros_like(packed.x_PCTV)
        made = views.Views(empty_PCTV, empty_PCTV.copy(), np.zeros_like(packed.ids_N))
        views.ours(packed, made)
        to = partial(torch.Tensor.to, device=self.device)
        original_PCTV, spatial_PCTV, temporal_PCTV, sample_P, ids_N, visible_N = (
            to(torch.from_numpy(array))
            for array in (
                packed.x_PCTV,
                made.spatial_PCTV,
                made.temporal_PCTV,
                packed.sample_P,
                packed.ids_N,
                made.visible_N,
            )
        )
        whole_N = torch.full_like(visible_N, original_PCTV.shape[2])
        both = (View("spatial", spatial_PCTV, whole_N), View("temporal", temporal_PCTV, visible_N))
        return Batch(original_PCTV, both, sample_P, ids_N, torch.zeros_like(ids_N), len(ids_N))

    def model(self) -> CPSTN:
        """Ours, in training mode; always with the same weights."""
        return new_model(SPEC, self.recipe).to(self.device).train()

    def pairs(self, clock: Clock) -> list[Pair]:
        """The encoder alone, and the whole step."""
        count = len(self.samples)
        return [
            Pair(
                f"{name}, {clock.name}",
                "samples",
                Work(self.work(name, "ours"), count),
                Work(self.work(name, "plain"), count),
            )
            for name in (ENCODER, STEP)
        ]

    def work(self, name: str, side: str) -> Callable[[], None]:
        """One forward and backward of the encoder on one view, or one whole step."""
        torch.set_num_threads(self.threads)
        model, batch = self.model(), self.batch()
        if side == "ours":
            mixed = torch.autocast(
                self.device.type, torch.bfloat16, enabled=PRECISION[self.device.type] == torch.bfloat16
            )
            if name == ENCODER:
                return partial(encode_both_ways, model.encoder, batch.views[0].x_PCTV, mixed)
            return training_step(model, lambda: batch_losses(model, batch, self.recipe, self.device).total, mixed)
        plain, dense = PlainCPSTN(model).to(self.device), plain_batch(batch)
        no_mixed = torch.autocast(self.device.type, enabled=False)
        if name == ENCODER:
            return partial(encode_both_ways, plain.encoder, dense.views_NMCTV[0], no_mixed)
        return training_step(plain, lambda: self.plain_total(plain, dense), no_mixed)

    def plain_total(self, plain: PlainCPSTN, dense: PlainBatch) -> Tensor:
        """The plain network's loss, Eq. 3."""
        contrast, spatial, temporal = plain.losses(dense, self.recipe.temperature)
        recipe = self.recipe
        return (
            recipe.contrast_weight * contrast
            + recipe.spatial_weight * spatial
            + recipe.temporal_weight * temporal
        )

    @torch.no_grad()
    def check(self) -> None:
        """Raises ValueError unless both give the same features and losses in evaluation mode."""
        model, batch = self.model().eval(), self.batch()
        plain, dense = PlainCPSTN(model).to(self.device).eval(), plain_batch(batch)
        q_PCTV = model.encode(batch.views[0].x_PCTV)
        q_BCTV = plain.encoder(dense.views_NMCTV[0])[dense.present_NM.flatten()]
        ours = batch_losses(model, batch, self.recipe, self.device).total
        theirs = self.plain_total(plain, dense)
        for name, one, other in (("features", q_PCTV, q_BCTV), ("loss", ours, theirs)):
            apart = float((one - other).abs().max() / other.abs().max())
            if not apart < 1e-3:
                raise ValueError(f"{name}: ours and the plain ones are {apart:.2g} apart: nothing to compare")


def encode_both_ways(encoder: nn.Module, x: Tensor, mixed: torch.autocast) -> None:
    """Features, and the gradients of all weights."""
    encoder.zero_grad(set_to_none=True)
    with mixed:
        features = encoder(x)
    features.backward(torch.ones_like(features))


def training_step(model: nn.Module, loss: Callable[[], Tensor], mixed: torch.autocast) -> Callable[[], None]:
    """Losses, gradients and what the optimiser makes of them."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        with mixed:
            total = loss()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()

    return step


def tell_limits(contest: Contest, clock: Clock, report: Report) -> None:
    """How near our step comes to what this machine could do, and what takes its time."""
    machine = measure_machine(contest.device, PRECISION[contest.device.type], clock)
    report.figure("the machine: copy", machine.bandwidth / 1e9, "GB/s read + written")
    report.figure("the machine: matrix product", machine.peak / 1e9, "GFLOP/s")
    for name in (ENCODER, STEP):
        work = contest.work(name, "ours")
        demand = measure_demand(work)
        seconds = min(Work(work, 1).seconds(clock) for _ in range(3))
        report.figure(f"{name}, operations", demand.operations / 1e9, "GFLOP")
        report.figure(f"{name}, read and written", demand.moved / 1e9, "GB")
        report.figure(f"{name}, of the limit", 100 * demand.least_seconds(machine) / seconds, "%")
        shares = ", ".join(f"{what} {share:.0%}" for what, share in costliest(work, contest.device))
        report.note(f"{name}, where ours spends its time: {shares}.")
    report.note(
        "The limit is the larger of bytes / bandwidth and operations / peak. Every operation counts as if it "
        "read its inputs from memory and wrote its outputs there."
    )


def peak_megabytes(contest: Contest, name: str, side: str) -> float:
    """What the work takes at most beyond the loaded program and its data, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_megabytes, contest, name, side).result()


def _peak_megabytes(contest: Contest, name: str, side: str) -> float:
    work = contest.work(name, side)
    on_gpu = contest.device.type == "cuda"
    before = 0.0 if on_gpu else _status_megabytes("VmRSS")
    for _ in range(2):
        work()
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else _status_megabytes("VmHWM")
    return peak - before


def _status_megabytes(key: str) -> float:
    """A line of the process's status, which Linux keeps."""
    found = re.search(rf"^{key}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def gpu_clock() -> Clock:
    """Seconds by the GPU's own events; asking waits until the work that was sent there is done."""
    origin = torch.cuda.Event(enable_timing=True)
    origin.record()

    def now() -> float:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        return float(origin.elapsed_time(event)) / 1e3

    return Clock("GPU", now)


if __name__ == "__main__":
    main()
