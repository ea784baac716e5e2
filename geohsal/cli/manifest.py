"""`geohsal manifest`: vaihingen, loveda, cityscapes, and first labels for any manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geohsal.cli import options
from geohsal.cli.report import Report

if TYPE_CHECKING:
    from geohsal.workflows.adapt import AdaptSummary
    from geohsal.workflows.seed_labels import SeedRequest, SeedSummary


def _percent(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    """A share written like 1%; a bare number could mean either."""
    if text is None:
        return None
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = 0.0
    if number == text.strip() or not 0 < share <= 1:
        raise click.BadParameter(f"{text!r}: write a share like 1%, at most 100%", ctx, param)
    return share


_root = click.argument("root", metavar="ROOT", type=options.PATH)
_share = click.option(
    "--seed-share",
    metavar="SHARE",
    callback=_percent,
    help="Also write first labels: random regions of the train truth, this share of its valid "
    "pixels, such as 1%.",
)
_region = click.option(
    "--region-px",
    type=click.IntRange(min=4),
    default=32,
    show_default=True,
    help="Side of those regions; best the query.region_px of your settings.",
)


@click.group("manifest", no_args_is_help=False)
def command() -> None:
    """Write the manifest of a benchmark dataset, or first labels for a manifest with truth."""


@command.command("vaihingen")
@_root
@options.out_file
@click.option(
    "--classes",
    "num_classes",
    type=click.Choice(["5", "6"]),
    default="5",
    show_default=True,
    help="5: clutter is ignored; 6: clutter is a class.",
)
@click.option(
    "--boundaries",
    type=click.Choice(["full", "eroded"]),
    default="full",
    show_default=True,
    help="Masks of the test scenes; eroded (*_noBoundary.tif): pixels near borders do not count.",
)
@click.option(
    "--split",
    type=click.Choice(["isprs", "isprs-val"]),
    default="isprs-val",
    show_default=True,
    help="isprs: 16 train, 17 test; isprs-val: areas 11, 15, 28, 30, 34 of the 16 are set apart.",
)
@_share
@_region
@options.seed
@options.overwrite
@options.reporting
def vaihingen(
    root: Path,
    *,
    out: Path,
    num_classes: str,
    boundaries: Any,
    split: Any,
    seed_share: float | None,
    region_px: int,
    seed: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """ISPRS Vaihingen in ROOT: top/top_mosaic_09cm_area*.tif, and the masks beside top/."""
    from geohsal.workflows.adapt import adapt_vaihingen

    with report.progress() as progress:
        summary = adapt_vaihingen(
            root,
            out,
            num_classes=5 if num_classes == "5" else 6,
            boundaries=boundaries,
            split=split,
            labels=_request(seed_share, region_px, seed),
            overwrite=overwrite,
            progress=progress,
        )
    report.result(summary, adapt_lines(summary))


@command.command("loveda")
@_root
@options.out_file
@click.option(
    "--domain",
    type=click.Choice(["both", "urban", "rural"]),
    default="both",
    show_default=True,
    help="Which scenes.",
)
@_share
@_region
@options.seed
@options.overwrite
@options.reporting
def loveda(
    root: Path,
    *,
    out: Path,
    domain: Any,
    seed_share: float | None,
    region_px: int,
    seed: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """LoveDA in ROOT: Train/ and Val/, each with Urban/ and Rural/. Val is the test split."""
    from geohsal.workflows.adapt import adapt_loveda

    with report.progress() as progress:
        summary = adapt_loveda(
            root,
            out,
            domain=domain,
            labels=_request(seed_share, region_px, seed),
            overwrite=overwrite,
            progress=progress,
        )
    report.result(summary, adapt_lines(summary))


@command.command("cityscapes")
@_root
@options.out_file
@_share
@_region
@options.seed
@options.overwrite
@options.reporting
def cityscapes(
    root: Path,
    *,
    out: Path,
    seed_share: float | None,
    region_px: int,
    seed: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """Cityscapes in ROOT: leftImg8bit/ and gtFine/ with train/ and val/. val is the test split."""
    from geohsal.workflows.adapt import adapt_cityscapes

    with report.progress() as progress:
        summary = adapt_cityscapes(
            root,
            out,
            labels=_request(seed_share, region_px, seed),
            overwrite=overwrite,
            progress=progress,
        )
    report.result(summary, adapt_lines(summary))


@command.command("seed")
@click.argument("manifest", metavar="MANIFEST", type=options.PATH)
@options.out_file
@click.option(
    "--share",
    metavar="SHARE",
    callback=_percent,
    default="1%",
    show_default=True,
    help="Of the valid train pixels; up to twice as much until each class has three regions.",
)
@_region
@options.seed
@options.overwrite
@options.reporting
def seed(
    manifest: Path,
    *,
    out: Path,
    share: float,
    region_px: int,
    seed: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """Draw first labels from MANIFEST's truth: random regions of its train scenes.

    For experiments: writes label rasters, and a copy of the manifest that names them.
    """
    from geohsal.workflows.seed_labels import write_seed_labels

    with report.progress() as progress:
        summary = write_seed_labels(
            manifest,
            out,
            share=share,
            region_px=region_px,
            seed=seed or 0,
            overwrite=overwrite,
            progress=progress,
        )
    report.result(summary, [_head(out, written=summary.written), *seed_lines(summary)])


def _request(share: float | None, region_px: int, seed: int | None) -> "SeedRequest | None":
    from geohsal.workflows.seed_labels import SeedRequest

    if share is None:
        if seed is not None:
            raise click.UsageError("--seed is of the first labels; give --seed-share as well")
        return None
    return SeedRequest(share=share, region_px=region_px, seed=seed or 0)


def _head(out: Path, *, written: bool) -> str:
    return f"{out}: {'written' if written else 'nothing new'}"


def adapt_lines(summary: "AdaptSummary") -> Iterator[str]:
    """The protocol, then the first labels."""
    yield _head(summary.manifest, written=summary.written)
    yield from (f"  {line}" for line in summary.protocol)
    if summary.labels is None:
        yield "  first labels: none; --seed-share draws some from the truth"
    else:
        yield from seed_lines(summary.labels)


def seed_lines(summary: "SeedSummary") -> Iterator[str]:
    """What was labelled, and which classes are short of regions."""
    yield (
        f"  first labels: {summary.cells:,} regions in {summary.scenes} scenes, "
        f"{summary.pixels:,} pixels, {summary.share:.3%} of the valid train pixels"
    )
    for name, count in summary.regions.items():
        yield f"    {name:20} in {count:,} regions"
    if summary.scarce:
        yield f"warning: fewer than three regions hold {', '.join(summary.scarce)}"
    if summary.replaced:
        yield f"  they stand instead of the labels of {', '.join(summary.replaced)}"
