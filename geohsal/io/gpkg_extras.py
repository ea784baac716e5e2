"""What GDAL does not write into a GeoPackage: QGIS styles, field domains, metadata."""

import datetime
import os
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyogrio

from geohsal.geo.scene import ClassInfo
from geohsal.io.qgis_form import choices
from geohsal.io.qgis_style import layer_qml
from geohsal.io.review_schema import Layer

PROVENANCE = "urn:geohsal:provenance"
"""`md_standard_uri` of the JSON record that says where a file comes from."""

_QGIS_METADATA = "http://mrcc.com/qgis.dtd"
_SCHEMA_PAGE = "http://www.geopackage.org/spec121/#extension_schema"
_METADATA_PAGE = "http://www.geopackage.org/spec120/#extension_metadata"

_STYLES = """CREATE TABLE layer_styles ("id" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
"f_table_catalog" TEXT(256),"f_table_schema" TEXT(256),"f_table_name" TEXT(256),
"f_geometry_column" TEXT(256),"styleName" TEXT(30),"styleQML" TEXT,"styleSLD" TEXT,
"useAsDefault" BOOLEAN,"description" TEXT,"owner" TEXT(30),"ui" TEXT(30),
"update_time" DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""

_COLUMNS = """CREATE TABLE gpkg_data_columns (table_name TEXT NOT NULL,column_name TEXT NOT NULL,
name TEXT,title TEXT,description TEXT,mime_type TEXT,constraint_name TEXT,
CONSTRAINT pk_gdc PRIMARY KEY (table_name,column_name),
CONSTRAINT gdc_tn UNIQUE (table_name,name))"""

_DOMAINS = """CREATE TABLE gpkg_data_column_constraints (constraint_name TEXT NOT NULL,
constraint_type TEXT NOT NULL,value TEXT,min NUMERIC,min_is_inclusive BOOLEAN,max NUMERIC,
max_is_inclusive BOOLEAN,description TEXT,
CONSTRAINT gdcc_ntv UNIQUE (constraint_name,constraint_type,value))"""

_METADATA = """CREATE TABLE gpkg_metadata (id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL,
md_scope TEXT NOT NULL DEFAULT 'dataset',md_standard_uri TEXT NOT NULL,
mime_type TEXT NOT NULL DEFAULT 'text/xml',metadata TEXT NOT NULL DEFAULT '')"""

_REFERENCES = """CREATE TABLE gpkg_metadata_reference (reference_scope TEXT NOT NULL,
table_name TEXT,column_name TEXT,row_id_value INTEGER,
timestamp DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
md_file_id INTEGER NOT NULL,md_parent_id INTEGER,
CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id),
CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id))"""


def now_text() -> str:
    """The time as GeoPackage wants it: UTC with milliseconds and Z.

    SOURCE_DATE_EPOCH (seconds since 1970, the convention of reproducible builds) stands in for
    the clock, so that files can be compared byte by byte.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.datetime.now(datetime.UTC)
    if fixed.isdecimal():
        now = datetime.datetime.fromtimestamp(int(fixed), datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


@contextmanager
def one_time() -> Iterator[None]:
    """Let GDAL write `now_text` wherever it writes the time.

    By the clock it would depend on the millisecond whether the last of its times is another one,
    and with it the number of changes that SQLite keeps in the file.
    """
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": now_text()})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def add_extras(
    connection: sqlite3.Connection,
    layers: Sequence[Layer],
    *,
    classes: Sequence[ClassInfo],
    provenance: str,
) -> None:
    """Add styles, domains and metadata in one transaction, then compact the file.

    Raises:
        sqlite3.Error: they cannot be written; or a layer has no spatial index, which GDAL leaves
            out without a word where the disk is full.
    """
    _require_indexes(connection, layers)
    with connection:
        _add_styles(connection, layers, classes)
        _add_domains(connection, layers, classes)
        _add_metadata(connection, layers, provenance)
        connection.execute("UPDATE gpkg_contents SET last_change = ?", (now_text(),))
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("VACUUM")


def _require_indexes(connection: sqlite3.Connection, layers: Sequence[Layer]) -> None:
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    lacking = [layer.name for layer in layers if f"rtree_{layer.name}_geom" not in found]
    if lacking:
        raise sqlite3.DatabaseError(f"no spatial index of {', '.join(lacking)}")


def _add_styles(
    connection: sqlite3.Connection, layers: Sequence[Layer], classes: Sequence[ClassInfo]
) -> None:
    now = now_text()
    connection.execute(_STYLES)
    connection.execute(
        "INSERT INTO gpkg_contents(table_name,data_type,identifier,description,last_change,srs_id)"
        " VALUES('layer_styles','attributes','layer_styles','QGIS styles',?,0)",
        (now,),
    )
    # QGIS skips a row whose catalog or schema is NULL, and takes the newest of several defaults
    connection.executemany(
        "INSERT INTO layer_styles(f_table_catalog,f_table_schema,f_table_name,f_geometry_column,"
        "styleName,styleQML,styleSLD,useAsDefault,description,owner,ui,update_time)"
        " VALUES('','',?,'geom',?,?,'',1,?,'',NULL,?)",
        [(layer.name, layer.name, layer_qml(layer, classes), layer.title, now) for layer in layers],
    )


def _add_domains(
    connection: sqlite3.Connection, layers: Sequence[Layer], classes: Sequence[ClassInfo]
) -> None:
    connection.execute(_COLUMNS)
    connection.execute(_DOMAINS)
    _register(connection, ("gpkg_data_columns", "gpkg_data_column_constraints"), "gpkg_schema")
    listed = {
        item.choices: choices(item, classes)
        for layer in layers
        for item in layer.fields
        if item.choices
    }
    connection.executemany(
        "INSERT INTO gpkg_data_column_constraints VALUES(?,'enum',?,NULL,NULL,NULL,NULL,?)",
        [
            (f"geohsal_{name}", value, label)
            for name, entries in listed.items()
            for label, value in entries
        ],
    )
    connection.executemany(
        "INSERT INTO gpkg_data_columns VALUES(?,?,?,?,?,NULL,?)",
        [
            (
                layer.name,
                item.name,
                item.alias,
                item.alias,
                item.note,
                f"geohsal_{item.choices}" if item.choices else None,
            )
            for layer in layers
            for item in layer.fields
        ],
    )


def _add_metadata(connection: sqlite3.Connection, layers: Sequence[Layer], provenance: str) -> None:
    now = now_text()
    connection.execute(_METADATA)
    connection.execute(_REFERENCES)
    _register(connection, ("gpkg_metadata", "gpkg_metadata_reference"), "gpkg_metadata")
    insert = (
        "INSERT INTO gpkg_metadata(id,md_scope,md_standard_uri,mime_type,metadata)"
        " VALUES(?,'dataset',?,?,?)"
    )
    connection.execute(insert, (1, PROVENANCE, "application/json", provenance))
    connection.execute(
        "INSERT INTO gpkg_metadata_reference VALUES('geopackage',NULL,NULL,NULL,?,1,NULL)", (now,)
    )
    for number, layer in enumerate(layers, start=2):
        connection.execute(insert, (number, _QGIS_METADATA, "text/xml", _about(layer)))
        connection.execute(
            "INSERT INTO gpkg_metadata_reference VALUES('table',?,NULL,NULL,?,?,NULL)",
            (layer.name, now, number),
        )


def _about(layer: Layer) -> str:
    root = ET.Element("qgis", version="3.22.0")
    for tag, text in (
        ("identifier", layer.name),
        ("title", layer.title),
        ("abstract", layer.description),
    ):
        ET.SubElement(root, tag).text = text
    return ET.tostring(root, encoding="unicode")


def _register(connection: sqlite3.Connection, tables: Sequence[str], extension: str) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS gpkg_extensions (table_name TEXT,column_name TEXT,"
        "extension_name TEXT NOT NULL,definition TEXT NOT NULL,scope TEXT NOT NULL,"
        "CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name))"
    )
    page = _SCHEMA_PAGE if extension == "gpkg_schema" else _METADATA_PAGE
    connection.executemany(
        "INSERT INTO gpkg_extensions VALUES(?,NULL,?,?,'read-write')",
        [(table, extension, page) for table in tables],
    )
