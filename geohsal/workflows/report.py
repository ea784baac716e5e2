"""`geohsal report`: a run as one HTML file that can be mailed, from what lies in its folder."""

from dataclasses import dataclass
from pathlib import Path

from geohsal.errors import RequestError
from geohsal.io.atomic import write_text
from geohsal.io.report_page import report_html
from geohsal.io.round_record import read_regions
from geohsal.io.run import open_run
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.report_facts import RoundFacts, RunFacts, run_facts
from geohsal.workflows.report_map import Maps, draw_maps
from geohsal.workflows.report_patches import Correction, corrections
from geohsal.workflows.report_pictures import corrections_section, map_section
from geohsal.workflows.report_sections import (
    accuracy_section,
    calibration_section,
    header,
    next_section,
    spent_section,
)

NAME = "report.html"
SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSummary:
    """A page; `written` is False where it was there already. `scenes` are shown on its map."""

    out: Path
    written: bool
    size_bytes: int
    rounds: int
    scenes: tuple[str, ...]
    left_out: tuple[str, ...]
    corrections: int


def report(
    run_dir: Path,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ReportSummary:
    """Write the report of a run; nothing is computed that the run's folder does not hold.

    The same run gives the same file.

    Args:
        run_dir: the run.
        out: ends in .html; None: report.html in the run.
        overwrite: replace an `out` that differs.
        progress: told of the steps.

    Raises:
        RequestError: the suffix is another, or `out` exists and differs.
        RunError: `run_dir` is not a run.
        DataError: a record or raster is damaged, or the file cannot be written.
    """
    run = open_run(run_dir)
    path = out or run.path / NAME
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"{path}: must end in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise RequestError(f"{path}: is a folder; name a file")
    reporter = progress or Silent()
    reporter.start("report", 3)
    facts = run_facts(run)
    reporter.advance()
    maps, patches = _pictures(facts)
    reporter.advance()
    text = _page(facts, maps, patches)
    written = _write(path, text, overwrite=overwrite)
    reporter.advance()
    reporter.done()
    return ReportSummary(
        out=path,
        written=written,
        size_bytes=len(text.encode()),
        rounds=len(facts.rounds),
        scenes=tuple(item.scene.scene_id for item in maps.shown) if maps else (),
        left_out=maps.left_out if maps else tuple(facts.scenes),
        corrections=len(patches or ()),
    )


def _pictures(facts: RunFacts) -> tuple[Maps | None, tuple[Correction, ...] | None]:
    """Maps and corrections of the newest queried round; None before any."""
    mapped: RoundFacts | None = facts.mapped
    if mapped is None:
        return None, None
    round_ = mapped.round
    regions = read_regions(round_.regions)
    maps = draw_maps(round_, facts.scenes, regions, facts.classes)
    shown = [item.scene for item in maps.shown]
    return maps, corrections(round_, shown, facts.classes)


def _page(facts: RunFacts, maps: Maps | None, patches: tuple[Correction, ...] | None) -> str:
    parts = [
        header(facts),
        spent_section(facts),
        accuracy_section(facts),
        map_section(facts, maps),
        corrections_section(facts, maps, patches),
        calibration_section(facts),
        next_section(facts),
    ]
    return report_html(f"{facts.status.name}: report", parts)


def _write(path: Path, text: str, *, overwrite: bool) -> bool:
    """Write the page unless it is there; whether it was written."""
    if path.exists():
        if path.read_bytes() == text.encode():
            return False
        if not overwrite:
            raise RequestError(f"{path}: exists and differs; give --overwrite")
    write_text(path, text)
    return True
