"""`geohsal query` and `geohsal select`: judge, merge, choose; `query_write` writes."""

import hashlib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from geohsal.errors import RequestError, RunError
from geohsal.geo.budget import Budget, parse_budget, parse_share
from geohsal.io.atomic import discard, scratch
from geohsal.io.lock import changing, forget_dead
from geohsal.io.run import Round, Run
from geohsal.query.acquisition import acquisition
from geohsal.workflows.context import RunContext, open_context
from geohsal.workflows.engine import Engine, parse_shard, refuse_scheduler
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.query_choice import Choice
from geohsal.workflows.query_score import Scores, plan_scores, score_chunks, sweep, unit_hash
from geohsal.workflows.query_summary import QuerySummary, Shares, words
from geohsal.workflows.query_write import clear, finished, move_maps, write_record, write_round
from geohsal.workflows.stages import StageFolder, query_folder
from geohsal.workflows.stamps import Stamps, refuse_changed, stamps
from geohsal.workflows.standing import refuse_half_undone


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """What a shard judged: chunks `done` now, and `left` of all that are `planned`."""

    round: int
    shard: str
    done: int
    left: int
    planned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A query that may be made: the run, the budget and how the round is shared out.

    `unit` is the round's `unit_hash`, and `stamps` tell cheaply whether it still is.
    """

    context: RunContext
    unit: str
    stamps: Stamps
    budget: Budget
    shares: Shares
    text: str

    @property
    def round(self) -> Round:
        return self.context.run.current

    @property
    def asked(self) -> str:
        return words(self.text, self.shares)

    @property
    def hash(self) -> str:
        return request_hash(self.unit, f"{self.text}{self.shares}")

    def scores(self) -> Scores:
        """What is to be judged, and what is."""
        folder = query_folder(self.context.run)
        return plan_scores(self.context, self.round, folder, unit=self.unit)

    def before(self, *, overwrite: bool, dry_run: bool = False) -> QuerySummary | None:
        """The summary of the same query, if it was made; None where it may be made now.

        What killed commands left of one that was made is removed, but by a dry run.
        """
        if self.round.step != "queried":
            return None
        found = finished(self.round, self.hash, overwrite=overwrite, asked=self.asked)
        if found is not None and not dry_run:
            forget_dead(self.context.run)
            folder = query_folder(self.context.run)
            sweep(self.context, self.round, folder, unit=self.unit)
        return found


def query(
    run_dir: Path,
    *,
    budget: str | None = None,
    packages: int = 1,
    overlap: str = "0%",
    overwrite: bool = False,
    workers: int = 1,
    device: str = "auto",
    scheduler: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> QuerySummary:
    """Ask about the regions of the open round that are worth most within a budget.

    What shards have judged is used, and what they have not is judged now.

    Args:
        run_dir: a run whose open round is trained.
        budget: see `geohsal.geo.budget.parse_budget`; default: query.budget of the settings.
        packages: review files to write, each of neighbouring regions and equal work.
        overlap: share of the regions that go into two packages, to see how far people agree.
        overwrite: choose again although the round is queried, while its review file is unedited.
        workers: processes that judge chunks, and merge scenes; changes nothing in the result.
        device: auto, cpu, cuda or cuda:N.
        scheduler: address of a Dask scheduler whose workers judge instead.
        dry_run: choose and tell, but write no review file.
        progress: told of windows.

    Raises:
        RunError: the round is not trained, or queried with another request; or an undo before it
            was interrupted; or another command has changed it meanwhile.
        BusyError: another command is changing the run; what was judged is kept.
        ConfigError: nobody knows the acquisition.
        BudgetError: the budget or the share cannot be read, or the budget buys nothing.
        RequestError: an overlap without packages, fewer regions than packages, no such
            scheduler, or a dry run with one.
        KernelError: the kernel that the settings ask for cannot run here.
        LostError: a worker process died.
    """
    refuse_scheduler(scheduler, dry_run=dry_run)
    request = _request(run_dir, budget, packages=packages, overlap=overlap)
    summary = request.before(overwrite=overwrite, dry_run=dry_run)
    if summary is not None:
        return summary
    engine = Engine(workers=workers, scheduler=scheduler, progress=progress or Silent())
    if dry_run:
        return _dry_run(request, engine, device=device)
    with changing(request.context.run, "query"):
        pass  # a round that another command is changing is not worth judging
    scores = request.scores()
    score_chunks(request.context, request.round, scores, engine, device=device)
    kept = "the round is unchanged; what was judged is kept"
    with changing(request.context.run, "query", refused=kept):
        return _choose(request, scores, engine, overwrite=overwrite)


def select(
    run_dir: Path,
    *,
    budget: str | None = None,
    packages: int = 1,
    overlap: str = "0%",
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> QuerySummary:
    """As `query`, once shards have judged everything: nothing is judged here.

    Raises:
        PartsMissingError: not every chunk is judged.
        RunError, BusyError, ConfigError, BudgetError, RequestError, LostError: as `query`.
    """
    request = _request(run_dir, budget, packages=packages, overlap=overlap)
    summary = request.before(overwrite=overwrite)
    if summary is not None:
        return summary
    with changing(request.context.run, "select"):
        scores = request.scores()
        engine = Engine(workers=workers, scheduler=None, progress=progress or Silent())
        return _choose(request, scores, engine, overwrite=overwrite)


def score(
    run_dir: Path,
    *,
    shard: str,
    workers: int = 1,
    device: str = "auto",
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Judge a share of the open round's chunks, and choose nothing.

    Args:
        run_dir: a run whose open round is trained.
        shard: I/N, I from 0 to N-1.
        workers: processes that judge chunks.
        device: auto, cpu, cuda or cuda:N.
        scheduler: address of a Dask scheduler whose workers judge instead.
        progress: told of windows.

    Raises:
        RequestError: the shard is none, or there is no such scheduler.
        RunError: the round is not trained, or an undo before it was interrupted.
        ConfigError: nobody knows the acquisition.
        KernelError: the kernel that the settings ask for cannot run here.
        LostError: a worker process died.
    """
    share = parse_shard(shard)
    context = _trained_context(run_dir)
    round_ = context.run.current
    unit = unit_hash(context, round_)
    scores = plan_scores(context, round_, query_folder(context.run), unit=unit)
    engine = Engine(workers=workers, scheduler=scheduler, progress=progress or Silent())
    done = score_chunks(context, round_, scores, engine, device=device, shard=share)
    summary = ScoreSummary(
        round=round_.index,
        shard=str(share),
        done=done,
        left=scores.left,
        planned=len(scores.plan.chunk_ids),
    )
    sweep(context, round_, scores.folder, unit=unit)
    return summary


def _request(run_dir: Path, budget: str | None, *, packages: int, overlap: str) -> _Request:
    shares = _shares(packages, overlap)
    seen = stamps(Run(path=run_dir))
    context = _trained_context(run_dir)
    text = context.config.query.budget if budget is None else budget
    record = context.record
    wanted = parse_budget(text, pool_pixels=record.train_valid_pixels, local=record.local)
    return _Request(
        context=context,
        stamps=seen,
        unit=unit_hash(context, context.run.current),
        budget=wanted,
        shares=shares,
        text=text,
    )


def _choose(request: _Request, scores: Scores, engine: Engine, *, overwrite: bool) -> QuerySummary:
    """Merge, choose, write; the parts go once the round is queried.

    Another command may have queried the round meanwhile, and somebody may have begun its review:
    that is looked at again before anything is taken back. The maps of a round that is queried stay
    until the choice is made, and go after its record.
    """
    refuse_changed(request.context.run, request.stamps)
    done = request.before(overwrite=overwrite)
    if done is not None:
        return done
    context, round_ = request.context, request.round
    with _target(round_) as target:
        work = Choice(context, round_, target, request.shares, scores)
        regions, summary = work.choose(
            request.budget, workers=engine.workers, progress=engine.progress
        )
        standing = request.before(overwrite=overwrite)
        if standing is not None:
            return standing
        clear(round_)
        if target != round_:
            move_maps(target, round_)
            work.round = round_
            summary = replace(summary, files=tuple(file.path for file in work.files(regions)))
    write_round(context, round_, regions, files=work.files(regions), request=request.hash)
    write_record(round_, summary, request=request.hash, packages=work.packages, asked=request.asked)
    discard(scores.folder.path)
    return summary


@contextmanager
def _target(round_: Round) -> Iterator[Round]:
    """Where maps are written: in the round itself, or beside it while it is queried."""
    if not round_.query_json.exists():
        yield round_
        return
    with scratch(round_.dir, "query") as folder:
        yield Round(index=round_.index, run_dir=folder)


def _dry_run(request: _Request, engine: Engine, *, device: str) -> QuerySummary:
    """Choose and tell; the parts of shards are used if they are all there."""
    context, round_ = request.context, request.round
    with TemporaryDirectory() as name:
        elsewhere = Round(index=round_.index, run_dir=Path(name))
        scores = request.scores()
        if scores.left:
            scores = replace(scores, folder=StageFolder(path=Path(name) / "query"))
            score_chunks(context, round_, scores, engine, device=device)
        work = Choice(context, round_, elsewhere, request.shares, scores)
        _, summary = work.choose(request.budget, workers=engine.workers, progress=engine.progress)
        return replace(summary, files=())


def _shares(packages: int, overlap: str) -> Shares:
    """How the round is shared out.

    Raises:
        RequestError: an overlap without packages.
        BudgetError: the share cannot be read.
    """
    shares = Shares(packages=packages, overlap=parse_share(overlap, name="--overlap"))
    if shares.overlap and packages < 2:
        raise RequestError(f"--overlap {overlap}: needs --packages of at least 2")
    return shares


def _trained_context(run_dir: Path) -> RunContext:
    """The open run, where its round may be queried.

    Raises:
        ConfigError: nobody knows the acquisition.
        RunError: the round is not trained, or an undo before it was interrupted.
    """
    context = open_context(run_dir)
    acquisition(context.config.query.strategy)
    refuse_half_undone(context.run)
    round_ = context.run.current
    if round_.step == "tiled":
        raise RunError(
            f"{run_dir}: round {round_.index} is not trained; run: geohsal train "
            f"{shlex.quote(str(run_dir))}"
        )
    return context


def request_hash(unit: str, budget: str) -> str:
    """Identifies a query: model, settings and labels (`unit`), and budget with its sharing out."""
    digest = hashlib.sha256(unit.encode())
    digest.update(f"budget {budget}".encode())
    return digest.hexdigest()
