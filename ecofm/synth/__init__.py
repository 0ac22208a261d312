"""A synthetic (procedural) country with known development, for the demo and the tests.

Nothing here is an observation of a real place: every scene is drawn by this code.
"""

from ecofm.synth.annotators import (
    AnnotatorConfig,
    annotator_noise,
    simulate_comparisons,
    simulate_orderings,
)
from ecofm.synth.country import CountryConfig, generate_country

__all__ = [
    "AnnotatorConfig",
    "CountryConfig",
    "annotator_noise",
    "generate_country",
    "simulate_comparisons",
    "simulate_orderings",
]
