"""Scenes and chips onto a grid, into an archive: `ingest.tile` writes it, `archive` reads it."""
