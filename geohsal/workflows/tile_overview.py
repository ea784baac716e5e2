"""What all scenes of a tile run say together: band statistics, label shares, warnings."""

from collections.abc import Iterator, Mapping, Sequence

from geohsal.config import Config
from geohsal.errors import DataError
from geohsal.geo.moments import BandMoments
from geohsal.io.manifest import Manifest
from geohsal.io.run_tables import BandStat, ClassShare, SceneRecord, TileRecord


def overview(
    manifest: Manifest, records: Mapping[str, SceneRecord], *, config: Config
) -> TileRecord:
    """Band statistics and label shares over all scenes.

    Raises:
        DataError: there is no valid train pixel.
    """
    moments = BandMoments.empty(len(manifest.bands))
    for record in records.values():
        moments = moments.merge(record.moments)
    if not moments.count:
        raise DataError(
            f"{manifest.path}: no valid pixel in the train split of any scene; set split: train or "
            "blocks for a scene, or a smaller blocks.buffer_px"
        )
    bands = tuple(
        BandStat(
            name=name,
            mean=moments.mean[index],
            std=moments.std(index),
            constant=moments.constant(index),
        )
        for index, name in enumerate(manifest.bands)
    )
    classes = tuple(
        ClassShare(
            class_id=info.class_id,
            name=info.name,
            pixels=(pixels := sum(record.labelled[info.name] for record in records.values())),
            regions=sum(record.regions[info.name] for record in records.values()),
            share=pixels / moments.count,
        )
        for info in manifest.classes
    )
    return TileRecord(
        bands=bands,
        scenes=dict(records),
        classes=classes,
        warnings=tuple(_warnings(bands, classes, records)),
        core_px=config.tile.core_px,
        overlap_px=config.tile.overlap_px,
        region_px=config.query.region_px,
    )


def _warnings(
    bands: Sequence[BandStat], classes: Sequence[ClassShare], records: Mapping[str, SceneRecord]
) -> Iterator[str]:
    for band in bands:
        if band.constant:
            yield f"band {band.name} has one value everywhere ({band.mean:g}); it is scaled by 1"
    missing = [share.name for share in classes if share.pixels == 0]
    if missing:
        yield f"no labels in the train split for: {', '.join(missing)}"
    for scene_id, record in records.items():
        if record.dropped_labels:
            yield (
                f"scene {scene_id!r}: {record.dropped_labels} labelled pixels lie in val, test or "
                "their buffer and are kept from training"
            )
        if record.invalid_labels:
            yield f"scene {scene_id!r}: {record.invalid_labels} labelled pixels have no data"
        for issue in record.issues:
            yield issue if scene_id in issue else f"scene {scene_id!r}: {issue}"
