"""Where pixels lie: scenes, tiles, regions, areas, raster to polygon and back. Opens no file."""
