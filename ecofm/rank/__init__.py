"""Ranking heads: comparisons of items to scores of tiles."""
