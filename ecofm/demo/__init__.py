"""The whole chain in one process: on a synthetic country, or on real imagery."""
