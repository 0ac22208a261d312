"""Vector files that people give: told by their first bytes, read without any other file.

`reading` tells the kinds apart, `geojson` and `geopackage` read two of them without GDAL, `shapes`
refuses outlines that lie nowhere on the Earth or would take for ever.
"""

from ecofm.vectors.reading import is_vector, read_vector

__all__ = ["is_vector", "read_vector"]
