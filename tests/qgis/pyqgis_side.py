"""Answers questions about files with a real QGIS; run by the system's Python, not by pytest.

/usr/bin/python3 pyqgis_side.py QUESTION ARGUMENTS_AS_JSON ANSWER.json
"""

import json
import os
import sys
import traceback
from pathlib import Path

from osgeo_utils.samples import validate_gpkg
from pyqgis_review import plain, read, review
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsExpression,
    QgsExpressionContextUtils,
    QgsFeatureRequest,
    QgsFieldConstraints,
    QgsGeometry,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsPoint,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
    QgsRenderContext,
    QgsVectorLayer,
)
from qgis.gui import QgsAttributeEditorContext, QgsAttributeForm, QgsGui
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtWidgets import QComboBox, QLineEdit

LAYERS = ("query_regions", "answers", "undecided", "pseudo_labels")


def opened(path, name):
    """A layer of a GeoPackage, opened as by drag and drop."""
    layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
    assert layer.isValid(), f"QGIS cannot open {name} of {path}"
    return layer


# --- what a layer is -------------------------------------------------------------------------


def value_map(layer, index):
    """[label, stored value] of a drop-down; None for other widgets."""
    setup = layer.editorWidgetSetup(index)
    if setup.type() != "ValueMap":
        return None
    return [[label, value] for entry in setup.config()["map"] for label, value in entry.items()]


def forbids(field):
    """Whether a field has a rule that forbids saving."""
    rules = field.constraints()
    kinds = (QgsFieldConstraints.ConstraintNotNull, QgsFieldConstraints.ConstraintExpression)
    hard = QgsFieldConstraints.ConstraintStrengthHard
    return any(rules.constraintStrength(kind) == hard for kind in kinds)


def unmatched(layer):
    """Features that no category draws."""
    context = QgsRenderContext()
    context.expressionContext().appendScopes(
        QgsExpressionContextUtils.globalProjectLayerScopes(layer)
    )
    renderer = layer.renderer().clone()
    renderer.startRender(context, layer.fields())
    count = 0
    for feature in layer.getFeatures():
        context.expressionContext().setFeature(feature)
        count += renderer.symbolForFeature(feature, context) is None
    renderer.stopRender(context)
    return count


def described(layer):
    """Style and form of a vector layer."""
    fields, form = layer.fields(), layer.editFormConfig()
    indexes = {field.name(): number for number, field in enumerate(fields)}
    constraints = {name: layer.constraintExpression(at) for name, at in indexes.items()}
    defaults = {name: layer.defaultValueDefinition(at).expression() for name, at in indexes.items()}
    expressions = [
        *constraints.values(),
        *defaults.values(),
        layer.attributeTableConfig().sortExpression(),
    ]
    return {
        "crs": layer.crs().authid(),
        "count": layer.featureCount(),
        "renderer": layer.renderer().type(),
        "categories": [category.label() for category in layer.renderer().categories()],
        "unmatched": unmatched(layer),
        "invalid": sum(not feature.geometry().isGeosValid() for feature in layer.getFeatures()),
        "read_only": layer.readOnly(),
        "title": layer.metadata().title(),
        "maps": {name: value_map(layer, at) for name, at in indexes.items()},
        "hidden": [
            n for n, at in indexes.items() if layer.editorWidgetSetup(at).type() == "Hidden"
        ],
        "aliases": {name: layer.attributeAlias(at) for name, at in indexes.items()},
        "editable": [name for name, at in indexes.items() if not form.readOnly(at)],
        "constraints": {name: text for name, text in constraints.items() if text},
        "hard": [field.name() for field in fields if forbids(field)],
        "defaults": {name: text for name, text in defaults.items() if text},
        "broken": [text for text in expressions if text and QgsExpression(text).hasParserError()],
        "sort": layer.attributeTableConfig().sortExpression(),
        "label": layer.labeling().settings().fieldName if layer.labelsEnabled() else "",
        "tip": bool(layer.mapTipTemplate()),
    }


def layers(path, names=LAYERS):
    """Layers of a file, without a project; else those of the review file."""
    return {name: described(opened(path, name)) for name in names}


def form(path, name):
    """What the built form of a layer's first feature shows."""
    layer = opened(path, name)
    layer.startEditing()
    feature = next(layer.getFeatures(QgsFeatureRequest().addOrderBy("fid")))
    built = QgsAttributeForm(layer, feature, QgsAttributeEditorContext())
    built.show()
    QgsApplication.processEvents()
    boxes = [
        [box.itemText(at) for at in range(box.count())] for box in built.findChildren(QComboBox)
    ]
    return {"boxes": boxes, "texts": [edit.text() for edit in built.findChildren(QLineEdit)]}


# --- what a project is ------------------------------------------------------------------------


def project(uri):
    """Layers and settings of a project."""
    found = read(uri)
    tree = found.layerTreeRoot()
    entries = []
    for node in tree.findLayers():
        layer = node.layer()
        entry = {
            "id": layer.id(),
            "name": layer.name(),
            "valid": layer.isValid(),
            "source": layer.source(),
            "crs": layer.crs().authid() if layer.crs().isValid() else "",
            "shown": node.isVisible(),
            "style": layer.renderer().type(),
        }
        if isinstance(layer, QgsVectorLayer):
            entry |= described(layer)
        else:
            names = [item[0] for item in layer.legendSymbologyItems()]
            entry |= {"bands": layer.bandCount(), "legend": names}
        entries.append(entry)
    bookmarks = found.bookmarkManager().bookmarks()
    bounds = [b.extent() for b in sorted(bookmarks, key=lambda b: b.name())]
    return {
        "title": found.title(),
        "about": found.metadata().abstract(),
        "crs": found.crs().authid() if found.crs().isValid() else "",
        "layers": entries,
        "bookmarks": sorted(bookmark.name() for bookmark in bookmarks),
        "extents": [[b.xMinimum(), b.yMinimum(), b.xMaximum(), b.yMaximum()] for b in bounds],
        "groups": [group.name() for group in tree.findGroups()],
    }


def save_again(uri):
    """What the user does who presses Ctrl+S."""
    found = read(uri)
    found.setTitle("saved by hand")
    assert found.write(), found.error()
    found.clear()
    return True


def validator(path):
    """What GDAL's validator has to say."""
    return validate_gpkg.check(
        path, abort_at_first_error=False, extra_checks=True, warning_msg=False
    )


# --- where pixels are -------------------------------------------------------------------------


def centres(grid, target):
    """Centres of a scene's pixels in another CRS, row by row."""
    a, b, c, d, e, f = grid["transform"]
    crs = QgsCoordinateReferenceSystem(grid["crs"] or "")
    move = QgsCoordinateTransform(crs, target, QgsProject.instance())
    rows, cols = grid["shape"]
    for row in range(rows):
        for col in range(cols):
            x, y = col + 0.5, row + 0.5
            point = QgsPointXY(a * x + b * y + c, d * x + e * y + f)
            yield row, col, move.transform(point) if crs.isValid() else point


def raster(uri, layer_id, grid):
    """Band 1 of a raster of the project at the centres of a scene's pixels; None where nodata."""
    layer = read(uri).mapLayer(layer_id)
    values = [[None] * grid["shape"][1] for _ in range(grid["shape"][0])]
    for row, col, point in centres(grid, layer.crs()):
        value, good = layer.dataProvider().sample(point, 1)
        values[row][col] = value if good else None
    return values


def covering(path, name, grid):
    """Attributes of a layer's features, and for each pixel which of them hold its centre."""
    layer = opened(path, name)
    points = list(centres(grid, layer.crs()))
    held = [[[] for _ in range(grid["shape"][1])] for _ in range(grid["shape"][0])]
    features = []
    for number, feature in enumerate(layer.getFeatures(QgsFeatureRequest().addOrderBy("fid"))):
        values = {field.name(): plain(feature[field.name()]) for field in layer.fields()}
        features.append(values | {"wkt": feature.geometry().asWkt(12)})
        box = feature.geometry().boundingBox()
        engine = QgsGeometry.createGeometryEngine(feature.geometry().constGet())
        engine.prepareGeometry()
        for row, col, point in points:
            if box.contains(point) and engine.contains(QgsPoint(point)):
                held[row][col].append(number)
    return {"features": features, "held": held}


def picture(uri, grid, only=None, out=None):
    """Colours of the map, or of `only` some layers; also at the centres of a scene's pixels."""
    found = read(uri)
    nodes = found.layerTreeRoot().findLayers()
    chosen = [n.layer() for n in nodes if (n.isVisible() if only is None else n.layerId() in only)]
    points = list(centres(grid, found.crs()))
    extent = QgsRectangle()
    extent.setMinimal()
    for _, _, point in points:
        extent.combineExtentWith(point)
    extent.scale(1.05)
    settings = QgsMapSettings()
    settings.setLayers(chosen)
    settings.setDestinationCrs(found.crs())
    settings.setBackgroundColor(QColor(255, 255, 255))
    settings.setOutputSize(QSize(1000, max(100, round(1000 * extent.height() / extent.width()))))
    settings.setExtent(extent)
    settings.setTransformContext(found.transformContext())
    settings.setFlag(QgsMapSettings.DrawLabeling)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    assert not job.errors(), [error.message for error in job.errors()]
    image = job.renderedImage()
    if out:
        image.save(out)
    colours = [[None] * grid["shape"][1] for _ in range(grid["shape"][0])]
    for row, col, point in points:
        at = settings.mapToPixel().transform(point)
        colours[row][col] = QColor(image.pixel(int(at.x()), int(at.y()))).getRgb()[:3]
    found = [
        image.pixelColor(x, y).name() for x in range(0, 1000, 2) for y in range(image.height())
    ]
    return {"centres": colours, "colours": sorted(set(found))}


QUESTIONS = (
    layers,
    form,
    project,
    save_again,
    validator,
    raster,
    covering,
    picture,
    review,
)


def main():
    """Answer one question and leave: QGIS does not survive an orderly exit of Python."""
    question, arguments, target = sys.argv[1:]
    application = QgsApplication([], True)
    application.initQgis()
    QgsGui.editorWidgetRegistry().initEditors()
    asked = {function.__name__: function for function in QUESTIONS}
    try:
        Path(target).write_text(json.dumps(asked[question](**json.loads(arguments))), "utf-8")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
