"""`ecofm change`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.maps.change import ChangeConfig
from ecofm.maps.change import change as run_change
from ecofm.tiles.periods import canonical
from ecofm.verbs.outcome import conclude


def change(
    *,
    scores: Path,
    from_: Annotated[str, Parameter(name="--from")],
    to: str,
    out: Path,
    config: Annotated[ChangeConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
) -> None:
    """Map the change of scores between two periods, tested against noise.

    Args:
        scores: What `ecofm score` wrote.
        from_: The earlier period: 2019, 2019-Q2, 2019-04, 2019-06-12 or 2018--2019.
        to: The later period.
        out: The change folder.
        config: How change is told from noise.
        overwrite: Replace another change map that OUT holds.
    """
    from_, to = canonical(from_), canonical(to)
    run_change(scores, from_, to, out, config or ChangeConfig(), overwrite=overwrite)
    conclude(out, f"change from {from_} to {to} in change.parquet and change.png")
