"""The same chain on real imagery: mosaics of an area, clusters of chips that people ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from ecofm.benchmark.benchmark import BenchmarkConfig, benchmark
from ecofm.benchmark.proxies import read_proxies
from ecofm.benchmark.report import summary_table
from ecofm.cluster import ClusterConfig, cluster
from ecofm.compare import read_comparisons, write_consensus
from ecofm.compare.orderings import normalize_item
from ecofm.contrast import name_colours
from ecofm.demo.answers import collect_comparisons
from ecofm.demo.page import Page
from ecofm.embed import embed
from ecofm.errors import ComparisonError, EcofmError, SceneError
from ecofm.maps.change import ChangeConfig, change
from ecofm.maps.pictures import draw_imagery, draw_scores
from ecofm.maps.scores import score
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.rank.heads import RankConfig
from ecofm.rank.items import pair_items
from ecofm.rank.run import rank
from ecofm.recipe import read_recipe
from ecofm.tables import write_csv
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile
from ecofm.types import print_result, progress_bar, say

MOSAIC = "S2_RGB_*.tif"
UNINHABITED = "22"
TARGET = "floor_area_2014_m2"
RIVALS = ("siscore_{period}", "siscore_mean", "viirs_2016", "viirs_2019")
N_CLUSTERS = 20
N_LABEL_PAIRS = 8_000


def demo_real(
    data: Path,
    out: Path,
    *,
    pretraining: PretrainConfig | None = None,
    run: RunConfig | None = None,
) -> Path:
    """Run the whole chain on real imagery and return the path of report.html.

    The encoder sees the area's mosaics and all chips, the ranker the annotators' orderings of
    the chips' clusters; proxies are read at the end, to check. Raises SceneError or
    ComparisonError when the folder lacks what the chain cannot do without.
    """
    areas = find_areas(data)
    clusters, annotated = data / "nk_clusters", data / "nk_annotated"
    if not clusters.is_dir():
        raise SceneError(f"{clusters} does not exist; expected folders of chips, one a cluster.")
    find_orderings(data)
    mosaics = [path for area in areas for path in sorted(area.glob(MOSAIC))]
    chips = [folder for folder in (clusters, annotated) if folder.is_dir()]
    tile(mosaics, out / "archive", TileConfig(grid="xyz:14"), progress=progress_bar("tile area"))
    # People put such a folder together from links.
    config = TileConfig(grid="none", follow_links=True)
    tile(chips, out / "chips", config, progress=progress_bar("tile chips"))
    prepare_comparisons(data, out)
    archives = [out / "archive", out / "chips"]
    pretrain(
        archives,
        out / "run",
        pretraining or read_recipe("rgb8_demo"),
        run or RunConfig(),
        progress=progress_bar("pretrain"),
        recipe="rgb8_demo",
    )
    for name in ("archive", "chips"):
        embed([out / name], out / "run", out / f"embeddings_{name}", progress=progress_bar("embed"))
    archive = open_archive(out / "archive")
    cluster(
        [out / "embeddings_archive"],
        out / "clusters",
        ClusterConfig(k=max(2, min(N_CLUSTERS, archive.n_tiles // 8))),
        archives=[out / "archive"],
    )
    rank(
        [out / "embeddings_chips", out / "embeddings_archive"],
        out / "comparisons.csv",
        out / "ranker",
        RankConfig(),
        members=out / "members.csv",
    )
    score([out / "embeddings_archive"], out / "ranker", out / "scores", cog=True)
    page = Page(
        f"ecofm: {', '.join(area.name for area in areas)}",
        f"{archive.attribution}. No proxy entered training; they stand here to check against.",
    )
    table = check(data, out, page)
    draw_page(out, archive, page)
    print_result(table)
    say(f"{out / 'report.html'}: the report, one file with its pictures inside")
    return out / "report.html"


def find_areas(data: Path) -> list[Path]:
    """Return the folders that hold `S2_RGB_{period}.tif` mosaics: DATA's own or those below it."""
    if not data.is_dir():
        raise SceneError(f"{data} does not exist; give a folder with mosaics and chips.")
    folders = [data, *sorted(path for path in data.iterdir() if path.is_dir())]
    areas = [folder for folder in folders if any(folder.glob(MOSAIC))]
    if not areas:
        raise SceneError(f"{data} has no folder with mosaics named S2_RGB_PERIOD.tif.")
    return areas


def find_orderings(data: Path) -> Path:
    """Return the table of the annotators' orderings; ComparisonError when there is none."""
    source = data / "nk_clusters" / "orderings.csv"
    if not source.is_file():
        raise ComparisonError(f"{source} does not exist; expected columns annotator, ordering.")
    return source


def prepare_comparisons(data: Path, out: Path) -> None:
    """Write members.csv and comparisons.csv from the orderings and the labels of chips.

    Chips that all annotators labelled uninhabited are one more item, below all others. The
    labels are a weak order too: they become comparisons of pairs of chips. Raises
    ComparisonError when an item has no chips, before any training.
    """
    source = find_orderings(data)
    index = open_archive(out / "chips").index
    labels = read_labels(data, index)
    in_clusters = ~index["cell_id"].str.startswith("nk_annotated/")
    chips = index[in_clusters]
    items = chips["group"].map(normalize_item)
    members = pd.DataFrame({"tile_id": chips["tile_id"], "item": items})
    said = read_comparisons(source)
    uninhabited = labels["tile_id"][labels["uninhabited"] >= 1]
    if len(uninhabited):
        extra = pd.DataFrame({"tile_id": uninhabited, "item": UNINHABITED})
        members = pd.concat([members, extra], ignore_index=True)
        said = place_below(said)
    else:
        say("warning: no chip is labelled uninhabited by all; the lowest class is missing.")
    write_csv(members, out / "members.csv")
    write_csv(said, out / "orderings.csv")
    write_csv(compare_labels(labels), out / "labels.csv")
    collect_comparisons(out, ["orderings.csv", *(["labels.csv"] if len(labels) else [])])
    write_consensus(out / "orderings.csv", out / "consensus.csv")
    pair_items(read_comparisons(out / "comparisons.csv"), index["tile_id"], members)


def place_below(said: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons with the uninhabited class below every item of each annotator.

    Annotators who placed it themselves are left alone.
    """
    rows = []
    for annotator, own in said.groupby("annotator"):
        judged = sorted({*own["left"], *own["right"]})
        if UNINHABITED not in judged:
            rows += [(annotator, item, UNINHABITED, "left") for item in judged]
    return pd.concat([said, pd.DataFrame(rows, columns=said.columns)], ignore_index=True)


def read_labels(data: Path, index: gpd.GeoDataFrame) -> pd.DataFrame:
    """Return tile_id, urban, rural, uninhabited of the annotated chips; empty without labels."""
    labels_file = data / "nk_annotated" / "labels.csv"
    columns = ["urban", "rural", "uninhabited"]
    if not labels_file.is_file():
        return pd.DataFrame(columns=["tile_id", *columns])
    try:
        labels = pd.read_csv(labels_file)
        labels = labels[["image_id", *columns]].astype(float).dropna()
    except (KeyError, ValueError) as error:
        raise ComparisonError(
            f"{labels_file} cannot be read ({error}); expected numbers in image_id, urban, rural, "
            "uninhabited."
        ) from error
    chips = index[index["cell_id"].str.startswith("nk_annotated/")]
    stems = chips["cell_id"].map(lambda cell_id: Path(cell_id).stem)
    numbered = chips["tile_id"][stems.str.isdigit()]
    by_image = pd.Series(numbered.to_numpy(), index=stems[stems.str.isdigit()].astype(int))
    labels["tile_id"] = labels["image_id"].map(by_image)
    return labels.dropna()[["tile_id", *columns]]


def level_chips(labels: pd.DataFrame) -> np.ndarray:
    """Return how developed labelled chips are, (chip,): urban 2, rural 1, uninhabited 0."""
    level: np.ndarray = 2 * labels["urban"].to_numpy() + labels["rural"].to_numpy()
    return level


def compare_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons of random pairs of labelled chips: urban before rural before neither.

    No pair is drawn twice: the same answer again is not another person's.
    """
    names = labels["tile_id"].to_numpy()
    drawn = np.random.default_rng(0).integers(0, max(len(names), 1), (N_LABEL_PAIRS, 2))
    pairs = np.unique(np.sort(drawn, axis=1), axis=0)
    different = pairs[pairs[:, 0] < pairs[:, 1]].tolist() if len(names) > 1 else []
    level = dict(zip(names.tolist(), level_chips(labels).tolist(), strict=True))
    return answer_by_level([(names[left], names[right]) for left, right in different], level)


def answer_by_level(pairs: Sequence[tuple[str, str]], level: Mapping[str, float]) -> pd.DataFrame:
    """Return what labels say of pairs of chips, by how developed each is."""
    rows = []
    for left, right in pairs:
        gap = level[left] - level[right]
        rows.append(("labels", left, right, "tie" if gap == 0 else "left" if gap > 0 else "right"))
    return pd.DataFrame(rows, columns=["annotator", "left", "right", "outcome"])


def check(data: Path, out: Path, page: Page) -> str:
    """Benchmark the scores where there are proxies for them; return the table to print."""
    proxies = data / "nk_tables" / "tiles.csv.gz"
    if not proxies.is_file():
        return f"no benchmark: {proxies} does not exist."
    table = read_proxies(proxies).table
    scored = gpd.read_parquet(out / "scores" / "scores.parquet")["cell_id"]
    if TARGET not in table or not set(scored) & set(table["unit"]):
        return f"no benchmark: {proxies} has no {TARGET} for the area's cells."
    periods = open_archive(out / "archive").periods
    rivals = [
        rival for rival in RIVALS if any(rival.format(period=period) in table for period in periods)
    ]
    benchmark(
        out / "scores",
        proxies,
        out / "benchmark",
        None,
        [out / "archive"],
        BenchmarkConfig(targets=[TARGET], beside=rivals),
    )
    text = summary_table(out / "benchmark" / "report.json")
    page.add_text("Scores against floor area", text)
    return text


def draw_page(out: Path, archive: Archive, page: Page) -> None:
    """Add the maps, and the change between the first and the last period where there are two."""
    scores = gpd.read_parquet(out / "scores" / "scores.parquet")
    first, last = archive.periods[0], archive.periods[-1]
    attribution = archive.attribution
    colours = name_colours(archive.contract)
    page.add_figure(colours, f"Imagery of {last}.", draw_imagery(archive, last))
    for period in archive.periods:
        page.add_figure(
            f"Score {period}",
            "Development as the ranker scores it.",
            draw_scores(scores, period, f"Score {period}", attribution),
        )
    page.add_clusters(out / "clusters", scores)
    if first == last:
        say(f"no change map: {first} is the only period.")
        page.add_text("Change", f"{first} is the only period, so there is no change to map.")
    else:
        try:
            change(out / "scores", first, last, out / "change", ChangeConfig())
        except EcofmError as error:
            say(f"no change map: {error}")
            page.add_text("Change", f"There is no change map: {error}")
        else:
            page.add_figure(
                "Change",
                f"Change of score from {first} to {last}; faded cells may be noise.",
                out / "change" / "change.png",
            )
    page.write(out / "report.html")
