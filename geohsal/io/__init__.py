"""The room that opens files: manifest, rasters, labels, tables, GeoPackages, the run folder."""
