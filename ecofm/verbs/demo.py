"""`ecofm demo`."""

from __future__ import annotations

from pathlib import Path

from ecofm.demo.real import demo_real
from ecofm.demo.synthetic import demo_synthetic


def demo(*, out: Path = Path("demo"), data: Path | None = None, keep: bool = False) -> None:
    """Run the whole chain and end with report.html.

    Without --data on a synthetic country, about three minutes and 1.4 GB of disk on two cores;
    with it on real imagery, about six minutes for a county of four years.

    Args:
        out: The folder for everything that is made; an interrupted demo continues there.
        data: A folder with an area folder (S2_RGB_{period}.tif mosaics), nk_clusters/ and
            nk_annotated/, and nk_tables/tiles.csv.gz where there are proxies.
        keep: Keep the synthetic country's scenes (0.6 GB).
    """
    if data is None:
        demo_synthetic(out, keep=keep)
    else:
        demo_real(data, out)
