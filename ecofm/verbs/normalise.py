"""`ecofm normalise`."""

from __future__ import annotations

from pathlib import Path

from ecofm.tiles.archive import open_archive
from ecofm.tiles.normalise import normalise as run_normalise
from ecofm.tiles.periods import canonical
from ecofm.types import print_result, progress_bar
from ecofm.verbs.outcome import conclude


def normalise(*, archive: Path, out: Path, reference: str, overwrite: bool = False) -> None:
    """Bring the periods of an archive to the radiometry of one of them.

    A line is fitted to each band through the parts of cells that changed least; the lines are
    stored in the new archive's manifest. `ecofm show` of both tells what it did to the seams.

    Args:
        archive: The archive.
        out: The new archive's folder.
        reference: The period that the others are brought to.
        overwrite: Replace another archive that OUT holds.
    """
    reference = canonical(reference)
    lines = run_normalise(
        archive, out, reference=reference, overwrite=overwrite, progress=progress_bar("normalise")
    )
    for period, line in lines.items():
        print_result(
            f"  {period}: {line.apart_before:.3f} to {line.apart_after:.3f} deviations from "
            f"{reference} over {line.n_blocks} invariant blocks"
        )
    conclude(out, f"{open_archive(out).n_tiles} tiles on the radiometry of {reference}")
