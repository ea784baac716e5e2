"""Why a region is asked, and what a selection could not keep to: short lines for people."""

from collections.abc import Sequence

from geohsal.config import QueryConfig
from geohsal.geo.budget import Budget
from geohsal.query.acquisition import Acquisition
from geohsal.query.basket import Basket, Why
from geohsal.query.regions import Candidates


def describe(
    candidates: Candidates,
    index: int,
    *,
    why: Why,
    strategy: Acquisition,
    class_names: Sequence[str],
) -> str:
    """One short line for a reviewer; classes by name."""
    if why == "audit":
        return "random audit"
    if why == "random":
        return "fill-in at random"
    undecided = _undecided(candidates, index, class_names)
    if why == "spread":
        return ", ".join(filter(None, ["unlike the other regions asked about", undecided]))
    error = f"predicted error {candidates.mean_error[index]:.2f}"
    if why == "error":
        return f"fill-in by {error}"
    if strategy.name == "plar":
        return f"{undecided or 'teacher and friend disagree'}, {error}"
    return strategy.words(float(candidates.score_sum[index]) / float(candidates.pixels[index]))


def _undecided(candidates: Candidates, index: int, class_names: Sequence[str]) -> str:
    """How much is undecided and why; empty where nothing is."""
    ambiguous = float(candidates.ambiguous_share[index])
    novel = float(candidates.novel_share[index])
    if ambiguous + novel == 0:
        return ""
    kinds = []
    if ambiguous > 0:
        names = [class_names[c] for c in candidates.ambiguous[index] if c >= 0]
        kinds.append(" ".join(["ambiguous", "/".join(names)]).strip())
    if novel > 0:
        kinds.append("unlike any labelled class")
    if novel > ambiguous:
        kinds.reverse()
    share = 100 * (ambiguous + novel)
    amount = f"{share:.0f} %" if share >= 1 else "less than 1 %"
    return f"{amount} undecided ({'; '.join(kinds)})"


def notes_of(basket: Basket, *, budget: Budget, config: QueryConfig) -> tuple[str, ...]:
    """What the user should know of a finished selection; empty where all went as asked."""
    notes = []
    if basket.close:
        notes.append(
            f"{basket.close} of {len(basket)} regions lie closer than query.exclusion "
            f"{config.exclusion:g}: the pool holds no others"
        )
    by_error, by_lot = basket.why.count("error"), basket.why.count("random")
    if by_error or by_lot:
        chosen = basket.why.count("score") + basket.why.count("turn")
        spread = basket.why.count("spread")
        notes.append(
            "nothing undecided was free for part of the budget: "
            f"{f'{spread} by spread, ' if spread else ''}{chosen} by score, {by_error} by "
            f"predicted error, {by_lot} at random"
        )
    if basket.left > 0:
        notes.append(f"{budget.describe(basket.left)} left of {budget.text}: {_rest(basket)}")
    return tuple(notes)


def _rest(basket: Basket) -> str:
    if not basket.unused.any():
        return "the whole pool is in the query"
    if basket.capped:
        return "other regions lie in tiles that reached query.tile_cap"
    return "no other region fits"
