"""People compare items: the store, orderings, consensus and the web app.

The names are loaded when first used: the command line's help needs neither pandas nor scipy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecofm.compare.agreement import measure_agreement
    from ecofm.compare.app import ServeConfig, serve
    from ecofm.compare.consensus import ConsensusConfig, fit_consensus, write_consensus
    from ecofm.compare.exchange import (
        ImportSummary,
        export,
        hash_comparisons,
        import_files,
        read_comparisons,
    )
    from ecofm.compare.invitations import invite, list_names
    from ecofm.compare.orderings import (
        expand_ordering,
        format_ordering,
        normalize_item,
        parse_ordering,
    )
    from ecofm.compare.recovery import recover
    from ecofm.compare.report import write_report
    from ecofm.compare.store import Store

_HOMES = {
    "agreement": ["measure_agreement"],
    "app": ["ServeConfig", "serve"],
    "consensus": ["ConsensusConfig", "fit_consensus", "write_consensus"],
    "exchange": [
        "ImportSummary",
        "export",
        "hash_comparisons",
        "import_files",
        "read_comparisons",
    ],
    "orderings": ["expand_ordering", "format_ordering", "normalize_item", "parse_ordering"],
    "invitations": ["invite", "list_names"],
    "recovery": ["recover"],
    "report": ["write_report"],
    "store": ["Store"],
}

__all__ = [
    "ConsensusConfig",
    "ImportSummary",
    "ServeConfig",
    "Store",
    "expand_ordering",
    "export",
    "fit_consensus",
    "format_ordering",
    "hash_comparisons",
    "import_files",
    "invite",
    "list_names",
    "measure_agreement",
    "normalize_item",
    "parse_ordering",
    "read_comparisons",
    "recover",
    "serve",
    "write_consensus",
    "write_report",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"ecofm.compare.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
