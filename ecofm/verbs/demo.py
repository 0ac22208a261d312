"""`ecofm demo`."""

from __future__ import annotations

from pathlib import Path


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
    # Imported here, so that --help does not wait for torch.
    if data is None:
        from ecofm.demo.synthetic import demo_synthetic

        demo_synthetic(out, keep=keep)
    else:
        from ecofm.demo.real import demo_real

        demo_real(data, out)
