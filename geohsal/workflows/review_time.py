"""What reviewing takes: per region by the clock, and the prices that queries go by."""

from collections.abc import Iterable, Iterator, Sequence

from geohsal.config import CostConfig
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.review_read import Review, ReviewedRegion
from geohsal.io.run import Run
from geohsal.query.costs import Review as Stamp
from geohsal.query.costs import ReviewPrices, gaps, learn_prices


def review_prices(run: Run, config: CostConfig) -> ReviewPrices:
    """Seconds per region and per answer: learned from the ledger's standing entries, or as set."""
    return prices_of(active_entries(read_ledger(run.ledger)), config)


def prices_of(entries: Iterable[LedgerEntry], config: CostConfig) -> ReviewPrices:
    """The prices that these entries teach."""
    return learn_prices(_stamps(entries), config)


def _stamps(entries: Iterable[LedgerEntry]) -> Iterator[Stamp]:
    for entry in entries:
        looked = entry.status in ("done", "unsure")
        for reviewer, reviewed_ms in entry.seen:
            yield Stamp(
                reviewer=reviewer,
                reviewed_ms=reviewed_ms,
                answers=entry.answers if looked else None,
            )


def stamps_of(item: ReviewedRegion) -> tuple[tuple[str, int], ...]:
    """(reviewer, ms) of every review of a region that has a time stamp."""
    return tuple(
        (_who(review), review.reviewed_ms)
        for review in item.reviews
        if review.reviewed_ms is not None
    )


def _who(review: Review) -> str:
    return review.reviewer or review.source


def spent_seconds(regions: Sequence[ReviewedRegion]) -> dict[str, float]:
    """Time per region, all its reviews together: by the clock, else by the cost model."""
    clocked: dict[tuple[str, int], float] = {
        (stamp.reviewer, stamp.reviewed_ms): gap
        for stamp, gap in gaps(
            Stamp(reviewer=who, reviewed_ms=ms, answers=None)
            for item in regions
            for who, ms in stamps_of(item)
        )
    }
    return {
        item.region.region_id: sum(
            clocked.get((_who(review), review.reviewed_ms or 0), 60 * item.region.cost_min)
            for review in item.reviews
        )
        for item in regions
    }
