"""CP-STN training: one readable loop, for pre-training without labels, its baselines and supervised training.

Axes: N sample, L number of a step: its losses, then the wishes of all ranks.
"""

import math
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from model.baselines.baseline import Baseline
from model.baselines.choose import new_baseline
from model.baselines.settings import BASELINES
from model.batch_norm import share_batch_norm
from model.checkpoint import Checkpoint, load_checkpoint, new_model, save_checkpoint
from model.cpstn import CPSTN
from model.device import reuse_freed_memory
from model.memory import memory_explained
from model.objective import Pretraining
from model.parallel import ALONE, Ranks
from model.recipe import SUPERVISED_OBJECTIVE, Recipe, views_of
from model.run import Run
from model.share import share_out
from model.stop import Stopped, StopSign, stop_sign
from model.subset import write_subset
from model.supervised import Supervised
from model.training_set import notes_on_training, training_samples
from model.watch import Outcome, Watch
from model.whitening import fit_encoder
from pipeline.batch import Batch
from pipeline.loader import train_batches
from pipeline.order import steps_per_epoch
from pipeline.samples import Samples
from pipeline.store.publish import alone, check_writable
from pipeline.store.shards import Shards

Objective = Pretraining | Supervised | Baseline
# Of a batch, in an error; a file has them all.
KEYS_NAMED = 5


@dataclass(frozen=True)
class Progress:
    """What the training loop reports after a step: steps done of all, and what this step was made of.

    epoch counts from 0; samples: of this step, on all ranks.
    """

    step: int
    steps: int
    epochs: int
    samples: int
    losses: dict[str, float]

    @property
    def epoch(self) -> int:
        return (self.step - 1) * self.epochs // self.steps

    @property
    def epoch_done(self) -> bool:
        return self.step * self.epochs % self.steps == 0


OnProgress = Callable[[Progress], None]


def train(
    shards: Shards,
    recipe: Recipe,
    run: Run,
    *,
    device: torch.device,
    threads: int = 2,
    resume: bool = False,
    keep: int = 3,
    save_minutes: float = 10.0,
    ranks: Ranks = ALONE,
    on_progress: OnProgress = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> CPSTN:
    """Train in `run`, which exists; with `resume`, go on from its checkpoint, if any. Returns the model.

    The state is saved after every epoch, every `save_minutes` and when a signal asks to stop; the last `keep`
    checkpoints stay. A run that ended early, in whichever way, goes on from there, on the CPU to the very
    same weights. With several ranks all call this and see the run's folder; the first writes and reports.
    `on_note` hears of damaged checkpoints, of what is fitted before the first step, and where nothing is
    left to test on.

    Raises ValueError if the shards or the recipe are not those of the run, or cannot be trained on, or if
    another process trains the run; RuntimeError if a number stops being one or memory does not suffice;
    Stopped after SIGINT or SIGTERM.
    """
    reuse_freed_memory(device)
    if run.manifest() != shards.manifest.digest:
        raise ValueError(
            f"{shards.location}: other shards than those that {run.folder} was started on; say by --shards "
            f"where these are, or start a new run"
        )
    samples = training_samples(shards, recipe, ranks.world)
    if ranks.is_first:
        for note in notes_on_training(shards, recipe, samples):
            on_note(note)
    per_epoch = steps_per_epoch(len(samples), recipe.batch_size)
    steps = recipe.epochs * per_epoch
    with (
        _the_only_one(run, ranks),
        memory_explained(recipe, samples.source.shape[3], device),
        stop_sign() as sign,
    ):
        checkpoint = _to_go_on_from(run, recipe, ranks, on_note) if resume else None
        step = checkpoint.step if checkpoint else 0
        if step == steps and ranks.is_first:
            on_note(f"{run.folder} was finished already, at step {step} of {steps}")
        objective = _objective(shards, recipe, checkpoint, ranks, device)
        if checkpoint is None:
            fit_encoder(objective.model, samples, recipe, ranks, on_note)
        optimiser = _optimiser(objective, recipe, checkpoint, device)
        saver = _Saver(shards, recipe, run, objective, optimiser, len(samples), steps, keep, save_minutes)
        watch = Watch(objective.loss_names, late=reads_late(device))
        batches = _batches(samples, recipe, range(step, steps), threads, ranks, device)
        with _teller(shards, recipe, run, ranks, step, steps, on_progress) as tell, closing(batches):
            for batch in batches:
                for group in optimiser.param_groups:
                    group["lr"] = recipe.lr_at(step, steps)
                optimiser.zero_grad(set_to_none=True)
                share = share_out(batch, recipe.accumulate, device, ranks)
                losses_L = objective.backward(share, step)
                ranks.sum_gradients(objective)
                optimiser.step()
                step += 1
                is_due = ranks.is_first and saver.is_due  # the others never save, and would be due for ever
                numbers_L = _of_all_ranks(losses_L, sign.number > 0, is_due, ranks)
                wish = tell(watch.add(step, batch.ids_N, numbers_L))
                share.wait_until_copied()
                if step % per_epoch == 0 or wish.stop or wish.save:
                    wish = wish | tell(watch.settle())
                    if ranks.is_first:
                        saver.save(step)
                    ranks.wait_for_first()  # who says "saved", or ends and takes the others along
                    if wish.stop:
                        raise _stopped(sign, step, steps, run)
        if sign.number:  # while the last step was saved
            raise _stopped(sign, step, steps, run)
    return objective.model


def _batches(
    samples: Samples, recipe: Recipe, steps: range, threads: int, ranks: Ranks, device: torch.device
) -> Generator[Batch, None, None]:
    """This rank's, with their views, of these steps."""
    return train_batches(
        samples,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start_step=steps.start,
        end_step=steps.stop,
        views=views_of(recipe),
        config=recipe.view,
        positives=recipe.positives,
        threads=threads,
        rank=ranks.rank,
        world=ranks.world,
        pin_memory=device.type == "cuda",
    )


def reads_late(device: torch.device) -> bool:
    """Whether a step's numbers are read when the next one is underway: where the device works by itself."""
    return device.type == "cuda"


def _the_only_one(run: Run, ranks: Ranks) -> AbstractContextManager[None]:
    """Two trainings of one run would remove each other's checkpoints."""
    if not ranks.is_first:
        return nullcontext()
    return alone(run.folder, "another training", "start a new run")


def _objective(
    shards: Shards, recipe: Recipe, checkpoint: Checkpoint | None, ranks: Ranks, device: torch.device
) -> Objective:
    """What is trained, on the device; every rank begins with the same weights."""
    model = new_model(shards.spec, recipe)
    objective: Objective
    if recipe.objective == SUPERVISED_OBJECTIVE:
        objective = Supervised(model, recipe, len(shards.spec.classes), ranks)
    elif recipe.objective in BASELINES:
        objective = new_baseline(model, recipe, ranks)
    else:
        objective = Pretraining(model, recipe, ranks)
    if checkpoint:
        model.load_state_dict(checkpoint.content["model"])
        if objective.head is not None:
            objective.head.load_state_dict(checkpoint.content["head"])
    share_batch_norm(objective, ranks, device)
    return objective.to(device).train()


def _optimiser(
    objective: torch.nn.Module, recipe: Recipe, checkpoint: Checkpoint | None, device: torch.device
) -> torch.optim.Optimizer:
    optimiser = torch.optim.Adam(
        objective.parameters(),
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cpu", "cuda", "mps"),
    )
    if checkpoint:
        optimiser.load_state_dict(checkpoint.content["optimiser"])
    return optimiser


def _to_go_on_from(
    run: Run, recipe: Recipe, ranks: Ranks, on_note: Callable[[str], None]
) -> Checkpoint | None:
    """The run's newest whole checkpoint, the same on all ranks; None if it stopped before its first.

    Raises ValueError if it is of another recipe.
    """
    tell = on_note if ranks.is_first else lambda _: None
    checkpoint = load_checkpoint(run, tell) if run.has_checkpoint else None
    step = checkpoint.step if checkpoint else 0
    first = ranks.first_says(lambda: str(step))
    if str(step) != first:
        raise ValueError(
            f"{run.folder}: process {ranks.rank} finds step {step} there, the first finds {first}; all "
            f"processes must see one folder"
        )
    if checkpoint and checkpoint.recipe() != recipe:
        found, expected = recipe.to_table(), checkpoint.recipe().to_table()
        changed = ", ".join(key for key in found if found[key] != expected[key])
        raise ValueError(
            f"{run.folder}: was trained so far by another recipe, which differs in {changed}; a run goes on "
            f"with its own: start a new one"
        )
    return checkpoint


def _of_all_ranks(losses_L: Tensor, stop: bool, save: bool, ranks: Ranks) -> Tensor:
    """The losses of the whole batch, and how many ranks want to stop and to save."""
    # Filled on the device: copying two numbers there would wait for it.
    wishes = [losses_L.new_full((1,), wish) for wish in (stop, save)]
    return ranks.sum(torch.cat([losses_L, *wishes]))


def _stopped(sign: StopSign, step: int, steps: int, run: Run) -> Stopped:
    where = f"stopped at step {step} of {steps}, saved in {run.checkpoint}"
    way_on = f"go on with train --resume {run.folder}" if step < steps else "its training is finished"
    # Where only another rank heard the signal, it was torchrun's.
    return Stopped(f"{where}; {way_on}", sign.number or signal.SIGTERM)


@dataclass
class _Saver:
    """Writes checkpoints, and says when it is time for one."""

    shards: Shards
    recipe: Recipe
    run: Run
    objective: Objective
    optimiser: torch.optim.Optimizer
    samples: int
    steps: int
    keep: int
    minutes: float
    last: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self.last >= 60 * self.minutes

    def save(self, step: int) -> None:
        save_checkpoint(
            self.run,
            self.objective.model,
            self.objective.head,
            self.optimiser,
            recipe=self.recipe,
            spec=self.shards.spec,
            manifest=self.shards.manifest.digest,
            samples=self.samples,
            step=step,
            steps=self.steps,
            keep=self.keep,
        )
        self.last = time.monotonic()


@dataclass(frozen=True)
class _Wish:
    """What some rank asked for."""

    stop: bool = False
    save: bool = False

    def __or__(self, other: "_Wish") -> "_Wish":
        return _Wish(self.stop or other.stop, self.save or other.save)


@contextmanager
def _teller(
    shards: Shards,
    recipe: Recipe,
    run: Run,
    ranks: Ranks,
    step: int,
    steps: int,
    on_progress: OnProgress,
) -> Iterator[Callable[[Iterable[Outcome]], _Wish]]:
    """Tells of finished steps, to TensorBoard and to `on_progress`, and returns what ranks wish."""
    board = None
    if ranks.is_first and step < steps:
        check_writable(run.folder)  # of which TensorBoard's thread would say in a way of its own
        board = SummaryWriter(str(run.folder), purge_step=step + 1)

    def tell(outcomes: Iterable[Outcome]) -> _Wish:
        wish = _Wish()
        for outcome in outcomes:
            _check_finite(outcome, shards, run, ranks.rank)
            if board is not None:
                for name, value in outcome.losses.items():
                    board.add_scalar(f"loss/{name}", value, outcome.step)
                samples = ranks.world * len(outcome.ids_N)
                on_progress(Progress(outcome.step, steps, recipe.epochs, samples, outcome.losses))
            wish |= _Wish(outcome.stop, outcome.save)
        return wish

    try:
        yield tell
    finally:
        if board is not None:
            board.close()


def _check_finite(outcome: Outcome, shards: Shards, run: Run, rank: int) -> None:
    if all(math.isfinite(value) for value in outcome.losses.values()):
        return
    rows = set(outcome.ids_N.tolist())
    keys = shards.table.loc[shards.table["row"].isin(rows), "key"].tolist()
    shown = ", ".join(keys[:KEYS_NAMED])
    if len(keys) > KEYS_NAMED:
        path = run.folder / f"not-a-number-step-{outcome.step}-rank-{rank}.txt"
        write_subset(path, keys, f"the samples of step {outcome.step}, whose loss was no longer a number")
        shown += f" and {len(keys) - KEYS_NAMED} more, all in {path}"
    raise RuntimeError(
        f"the loss is no longer a number at step {outcome.step}: {outcome.losses}; samples of the batch: "
        f"{shown}; {run.way_out(outcome.step)}"
    )
