"""The shards that runs were evaluated on, as far as a run and opened shards tell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from model.report.saved import SavedEvaluation
from model.report.words import listed
from model.run import Run
from pipeline.store.location import Folder, locate
from pipeline.store.manifest import Manifest, load_manifest
from pipeline.store.shards import Shards


@dataclass(frozen=True)
class EvaluatedShards:
    """digest: of their manifest, "" where the evaluation does not say.  name: their folder's, "" where
    unknown.  frames: of every sample, None where unknown."""

    digest: str
    name: str = ""
    frames: int | None = None


def evaluated_shards(run: Run, evaluation: SavedEvaluation, opened: Sequence[Shards]) -> EvaluatedShards:
    """Those of an evaluation: among the opened ones, or where the run was trained if that is on disk."""
    digest = evaluation.evaluated_on
    for shards in opened:
        if shards.manifest.digest == digest:
            return EvaluatedShards(digest, _name(str(shards.location)), _frames(shards.manifest))
    try:
        if run.manifest() != digest:
            return EvaluatedShards(digest)
        place = run.shards()
    except ValueError:
        return EvaluatedShards(digest)
    return EvaluatedShards(digest, _name(place), _frames_on_disk(place, digest))


def difference_text(shards: Mapping[str, EvaluatedShards]) -> str:
    """A sentence where runs were evaluated on different shards, "" otherwise."""
    known = {run: found for run, found in shards.items() if found.digest}
    if len({found.digest for found in known.values()}) < 2:
        return ""
    frames = _runs_by(known, lambda found: str(found.frames or ""))
    if len(frames) > 1:
        return f"{_told(frames, 'shards of {} frames', 'of {}')}: their baselines differ for that reason."
    may = "their baselines may differ for that reason."
    names = _runs_by(known, lambda found: found.name)
    if len(names) > 1:
        return f"{_told(names, 'the shards {}', 'on {}')}: {may}"
    return f"{listed(list(known))} were evaluated on different shards: {may}"


def _runs_by(
    shards: Mapping[str, EvaluatedShards], fact: Callable[[EvaluatedShards], str]
) -> dict[str, list[str]]:
    """Runs by what is known of their shards; without those of which that is not known."""
    found: dict[str, list[str]] = {}
    for run, one in shards.items():
        if fact(one):
            found.setdefault(fact(one), []).append(run)
    return found


def _told(runs: Mapping[str, Sequence[str]], first: str, other: str) -> str:
    """Which runs were evaluated on what. first, other: how that is put of the first and of any other."""
    (fact, names), *others = runs.items()
    verb = "was" if len(names) == 1 else "were"
    told = [f"{listed(names)} {verb} evaluated on {first.format(fact)}"]
    return ", ".join([*told, *(f"{listed(names)} {other.format(fact)}" for fact, names in others)])


def _name(place: str) -> str:
    return place.rstrip("/").rsplit("/", 1)[-1]


def _frames(manifest: Manifest) -> int:
    return manifest.shape[3]


def _frames_on_disk(place: str, digest: str) -> int | None:
    """None where the folder is gone, or holds other shards by now."""
    location = locate(place)
    if not isinstance(location, Folder):
        return None
    try:
        manifest = load_manifest(location)
    except (ValueError, OSError):
        return None
    return _frames(manifest) if manifest.digest == digest else None
