"""A scripted review: what a person does in QGIS, through forms, edit buffer and edit tools."""

from itertools import pairwise

from qgis.core import (
    NULL,
    QgsApplication,
    QgsExpression,
    QgsFeatureRequest,
    QgsGeometry,
    QgsLineString,
    QgsPoint,
    QgsPointXY,
    QgsProject,
    QgsVectorLayerUtils,
)
from qgis.gui import QgsAttributeEditorContext, QgsAttributeForm


def plain(value):
    """A field's value as JSON takes it."""
    return None if value is None or value == NULL else value


def read(uri):
    """The project at a path or geopackage: address."""
    project = QgsProject.instance()
    assert project.read(uri), f"QGIS cannot read {uri}: {project.error()}"
    return project


def review(uri, actions, num_classes, hard=False):
    """Edit a review file through its project and give back the regions' rows as saved.

    `actions` maps a region to (what to do with its answers, what to fill in); `hard`: QGIS dies
    right after saving.
    """
    found = read(uri)
    regions, answers = found.mapLayer("layer_query_regions"), found.mapLayer("layer_answers")
    assert regions.startEditing()
    assert answers.startEditing()
    rows = {feature["region_id"]: feature for feature in regions.getFeatures()}
    for region_id, (action, values) in actions.items():
        row = rows[region_id]
        own = _of_region(answers, region_id)
        if action == "reclass":
            _fill_in(answers, own[0], {"assigned_class": _other_class(own[0], num_classes)})
        elif action == "split":
            _split(answers, own[0], num_classes)
        elif action == "reshape":
            _reshape(answers, own[0])
        elif action == "draw":
            _delete_and_draw(answers, own[0], row.geometry(), num_classes)
        _fill_in(regions, row, values)
    for layer in (regions, answers):
        assert layer.commitChanges(), layer.commitErrors()
    saved = {
        feature["region_id"]: {name: plain(feature[name]) for name in regions.fields().names()}
        for feature in regions.getFeatures()
    }
    if not hard:
        found.clear()
        QgsApplication.processEvents()
    return saved


def _fill_in(layer, feature, values):
    """Change fields in the form, with its defaults and constraints."""
    form = QgsAttributeForm(layer, feature, QgsAttributeEditorContext())
    for name, value in values.items():
        form.changeAttribute(name, value)
    assert form.save(), f"the form of {layer.name()} refuses {values}"


def _of_region(answers, region_id):
    """Answers of a region, largest first."""
    request = QgsFeatureRequest(QgsExpression(f"\"region_id\" = '{region_id}'"))
    return sorted(answers.getFeatures(request), key=lambda f: (-f.geometry().area(), f.id()))


def _other_class(answer, num_classes):
    return (answer["suggested_class"] + 1) % num_classes


def _split(answers, answer, num_classes):
    """Cut an answer across; the part that QGIS adds gets another class."""
    box = answer.geometry().boundingBox()
    middle = box.yMinimum() + 0.507 * box.height()
    ends = (box.xMinimum() - box.width(), box.xMaximum() + box.width())
    before = set(answers.allFeatureIds())
    answers.selectByIds([answer.id()])
    answers.splitFeatures([QgsPointXY(x, middle) for x in ends], False)
    added = set(answers.allFeatureIds()) - before
    assert added, "the split added no feature"
    for fid in added:
        part = answers.getFeature(fid)
        _fill_in(answers, part, {"assigned_class": _other_class(answer, num_classes)})


def _reshape(answers, answer):
    """Push a piece of border outwards, over two pixels, as the reshape tool does."""
    shape = answer.geometry()
    ring = shape.asMultiPolygon()[0][0]
    steps = ((0.1, -0.3), (0.1, 2.3), (0.9, 2.3), (0.9, -0.3))  # along and across the border
    for start, along in ((one, two - one) for one, two in pairwise(ring)):
        for side in (1, -1):
            line = QgsLineString(
                [
                    QgsPoint(
                        start.x() + at * along.x() - side * out * along.y(),
                        start.y() + at * along.y() + side * out * along.x(),
                    )
                    for at, out in steps
                ]
            )
            changed = QgsGeometry(shape)
            done = int(changed.reshapeGeometry(line)) == 0
            if done and changed.isGeosValid() and changed.area() > 1.0001 * shape.area():
                assert answers.changeGeometry(answer.id(), changed)
                return
    raise AssertionError("no border could be reshaped")


def _delete_and_draw(answers, answer, outline, num_classes):
    """Delete an answer; draw a rectangle of another class in the middle of the region."""
    box = outline.boundingBox()
    box.scale(0.35)
    drawn = QgsGeometry.fromRect(box)
    drawn.convertToMultiType()
    index = answers.fields().indexOf("assigned_class")
    feature = QgsVectorLayerUtils.createFeature(
        answers, drawn, {index: _other_class(answer, num_classes)}
    )
    assert answers.addFeature(feature)
    assert answers.deleteFeature(answer.id())
