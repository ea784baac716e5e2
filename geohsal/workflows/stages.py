"""How far the stages of a run are: parts that are there, counted against the frozen plans."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from geohsal.io.plan import Plan, find_plan, freeze_plan, read_plan
from geohsal.io.run import Run
from geohsal.workflows.engine import missing

PLAN = "plan.parquet"
PARTS = "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCount:
    """Chunks of a stage that are done, of those that its plan has."""

    stage: str
    done: int
    planned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFolder:
    """Where a stage keeps its plan and its parts."""

    path: Path

    @property
    def plan(self) -> Path:
        """The frozen plan."""
        return self.path / PLAN

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self.path / PARTS

    def shared_plan(self, fits: Callable[[Plan], bool], make: Callable[[], Plan]) -> Plan:
        """The plan of all shares: that of the first one while it fits, else one made anew.

        Args:
            fits: whether a plan is still of what is asked for.
            make: the whole plan; costs far more than to see whether one fits.

        Raises:
            DataError: the folder cannot be written.
        """
        plan = find_plan(self.plan)
        if plan is None or not fits(plan):
            plan = make()
            freeze_plan(self.plan, plan)
        return plan


def tile_folder(run: Run) -> StageFolder:
    """Of `geohsal tile`; there until its parts are merged."""
    return StageFolder(path=run.path / ".tile_parts")


def query_folder(run: Run) -> StageFolder:
    """Of `geohsal query` in the open round; there until the round is queried."""
    return StageFolder(path=run.current.dir / "query")


def count_stage(folder: StageFolder) -> StageCount | None:
    """How far a stage is; None where it has no plan.

    Raises:
        DataError: the plan is damaged.
    """
    if not folder.plan.is_file():
        return None
    plan = read_plan(folder.plan)
    planned = len(plan.chunk_ids)
    lacking = len(missing(plan, folder.parts))
    return StageCount(stage=plan.stage, done=planned - lacking, planned=planned)


def stage_counts(run: Run, others: Mapping[str, Path] | None = None) -> list[StageCount]:
    """How far the stages are that have a plan.

    Args:
        run: also one that is not tiled yet.
        others: folders of stages that write elsewhere, such as predict and export, by a name.

    Raises:
        DataError: a plan is damaged.
    """
    folders = {"tile": tile_folder(run), "query": query_folder(run)}
    folders |= {name: StageFolder(path=path) for name, path in (others or {}).items()}
    counts = {name: count_stage(folder) for name, folder in folders.items()}
    return [
        StageCount(stage=name, done=count.done, planned=count.planned)
        for name, count in counts.items()
        if count is not None
    ]
