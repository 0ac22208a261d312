"""Metadata files: small XML that someone else wrote, read without what XML may do to a reader."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.files import read_file

MAX_BYTES = 2**24


def read_xml(path: Path) -> ET.Element:
    """Return the root of an XML file; SceneError when it is large, damaged or has entities."""
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SceneError(f"has entities in {path.name}, which no such file has")
        return ET.fromstring(text)
    except (OSError, ValueError, ET.ParseError) as error:
        raise SceneError(
            f"has {path.name} that cannot be read ({error}); write it again, or remove it"
        ) from error
