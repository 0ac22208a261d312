"""The `ecofm` command, run in this process."""

from __future__ import annotations

from ecofm.cli import main


def run(*tokens: object) -> int:
    """Return the exit code of `ecofm TOKENS`."""
    try:
        main([str(token) for token in tokens])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0
