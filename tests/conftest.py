"""Small archives and the artifacts that follow from them, written by code in a second or two."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from ecofm.artifact import Draft
from ecofm.grid import WGS84, Grid
from ecofm.tiles.archive import checksum_tile, shard_paths
from ecofm.types import Contract

# No test is timed: a busy machine would fail it. `make test` draws the same examples each time, so
# that no run fails by luck; `make faults` explores, and what it finds becomes an @example.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("default")

S2_BANDS = ("B02", "B03", "B04", "B08")
CORNER = (3459, 391)  # y and x of a cell of utm:1280 in zone 52


def draw_tile(
    random: np.random.Generator, n_bands: int, size_px: int, development: float
) -> np.ndarray:
    """A tile in [0, 1]: waves that grow finer and stronger with development, and noise."""
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    waves = np.sin(2 * np.pi * (2 + 4 * development) * (rows + columns) + random.random() * 6)
    gains = np.linspace(0.6, 1.0, n_bands)[:, None, None]
    noise = random.standard_normal((n_bands, size_px, size_px))
    image = 0.4 + (0.05 + 0.2 * development) * waves * gains + 0.02 * noise
    return image.clip(0, 1)


def write_archive(
    path: Path,
    *,
    n_cells: int = 6,
    periods: tuple[str, ...] = ("2019", "2020"),
    bands: tuple[str, ...] = S2_BANDS,
    dtype: str = "uint16",
    tile_px: int = 32,
    grid: str = "utm:1280",
    seed: int = 0,
    invalid_share: float = 0.0,
    corner: tuple[int, int] = CORNER,
) -> Path:
    """Write an archive whose cells grow more developed with their number.

    Cells stand in rows of four on the ground from `corner` (y, x); with grid `none` they are
    chips. A share of the pixels of every tile is invalid.
    """
    random = np.random.default_rng(seed)
    top = {"uint8": 250.0, "uint16": 4000.0, "int16": 4000.0}[dtype]
    is_chips = grid == "none"
    names = [
        f"g{i % 2}/{i:03d}.png" if is_chips else f"32652_{corner[0] + i // 4}_{corner[1] + i % 4}"
        for i in range(n_cells)
    ]
    rows, tiles, masks = [], [], []
    for period in ("none",) if is_chips else periods:
        for i, cell_id in enumerate(names):
            share = i / max(1, n_cells - 1)
            pixels = (draw_tile(random, len(bands), tile_px, share) * top).astype(dtype)
            valid = random.random((tile_px, tile_px)) >= invalid_share
            pixels[:, ~valid] = 0
            rows.append(
                {
                    "tile_id": f"{cell_id}@{period}",
                    "cell_id": cell_id,
                    "period": period,
                    "group": cell_id.split("/")[0] if is_chips else "",
                    "valid_share": float(valid.mean()),
                    "shard": 0,
                    "row": len(rows),
                    "dates": "",
                    "checksum": checksum_tile(pixels, valid),
                    "geometry": None if is_chips else Grid(grid).cell(cell_id).polygon(),
                }
            )
            tiles.append(pixels)
            masks.append(np.packbits(valid, axis=-1))
    stack = np.stack(tiles)
    kept = np.unpackbits(np.stack(masks), axis=-1, count=tile_px).astype(bool)
    known = stack.transpose(1, 0, 2, 3)[:, kept].astype(float)
    contract = Contract(
        bands=bands,
        dtype=dtype,
        units="digital number" if dtype == "uint8" else "reflectance",
        scale=1.0 if dtype == "uint8" else 1e-4,
        offset=0.0,
        valid_range=(0.0, float(np.iinfo(dtype).max)),
        gsd_m=None if is_chips else 1280 / tile_px,
        mean=tuple(known.mean(axis=1).tolist()),
        std=tuple(known.std(axis=1).tolist()),
    )
    draft = Draft(path, stage="archive", config={"grid": grid, "seed": seed}, inputs={})
    with draft as folder:
        pixels_path, valid_path, _ = shard_paths(folder, 0)
        pixels_path.parent.mkdir()
        np.save(pixels_path, stack)
        np.save(valid_path, np.stack(masks))
        geometry = gpd.GeoSeries([row.pop("geometry") for row in rows], crs=WGS84)
        index = gpd.GeoDataFrame(pd.DataFrame(rows), geometry=geometry)
        index.to_parquet(folder / "index.parquet")
        draft.extra = {
            "contract": contract.to_json(),
            "n_tiles": len(index),
            "n_rejected": 0,
            "tile_px": [tile_px, tile_px],
            "attribution": "Synthetic imagery of a test",
        }
    return path


def damage_tile(archive: Path, row: int) -> str:
    """Flip a byte of a tile in place and return its id."""
    path = shard_paths(archive, 0)[0]
    pixels = np.load(path, mmap_mode="r+")
    pixels[row, 0, 0, 0] ^= 1
    pixels.flush()
    return str(gpd.read_parquet(archive / "index.parquet")["tile_id"].iloc[row])


def write_answers(
    path: Path, archive: Path, *, n: int = 60, seed: int = 0, noise: float = 0.1
) -> Path:
    """Write comparisons of an archive's tiles by two annotators who see the cells' development."""
    tile_ids = gpd.read_parquet(archive / "index.parquet")["tile_id"].tolist()
    cells = sorted({tile_id.split("@")[0] for tile_id in tile_ids})
    random = np.random.default_rng(seed)
    lines = ["annotator,left,right,outcome"]
    while len(lines) <= n:
        left, right = random.choice(tile_ids, 2, replace=False)
        places = [cells.index(tile_id.split("@")[0]) / len(cells) for tile_id in (left, right)]
        difference = places[0] - places[1] + noise * random.standard_normal()
        outcome = "tie" if abs(difference) < 0.05 else "left" if difference > 0 else "right"
        lines.append(f"ann{len(lines) % 2},{left},{right},{outcome}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_embeddings(
    path: Path, matrix: np.ndarray, *, periods: tuple[str, ...] = ("2019",), encoder: str = "0"
) -> Path:
    """Write embeddings of cells `c000`, `c001`... in each period, row by row of (tile, dim)."""
    n_cells = len(matrix) // len(periods)
    cells = [f"c{i:03d}" for i in range(n_cells)]
    index = gpd.GeoDataFrame(
        {
            "tile_id": [f"{cell}@{period}" for period in periods for cell in cells],
            "cell_id": cells * len(periods),
            "period": [period for period in periods for _ in cells],
            "group": "",
            "valid_share": 1.0,
        },
        geometry=gpd.GeoSeries([None] * len(matrix), crs=WGS84),
    )
    draft = Draft(path, stage="embeddings", config={}, inputs={"encoder": encoder})
    draft.extra = {"dim": matrix.shape[1], "attribution": ""}
    with draft as folder:
        index.to_parquet(folder / "index.parquet")
        np.save(folder / "embeddings.npy", matrix.astype(np.float32))
    return path


@dataclass(frozen=True)
class Stages:
    """One artifact of every stage up to scores; treat them as read-only."""

    archive: Path
    encoder: Path
    embeddings: Path
    clusters: Path
    answers: Path
    ranker: Path
    scores: Path


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., Path]:
    """`write_archive`, for tests in other files."""
    return write_archive


@pytest.fixture(scope="session")
def damage() -> Callable[[Path, int], str]:
    """`damage_tile`, for tests in other files."""
    return damage_tile


@pytest.fixture(scope="session")
def answer() -> Callable[..., Path]:
    """`write_answers`, for tests in other files."""
    return write_answers


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., Path]:
    """`write_embeddings`, for tests in other files."""
    return write_embeddings


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """A pretraining config small enough for a step in a tenth of a second."""
    from ecofm.pretrain.encoders import EncoderConfig
    from ecofm.pretrain.methods import METHODS
    from ecofm.pretrain.run import PretrainConfig
    from ecofm.pretrain.views import ViewConfig

    def build(kind: str = "simclr", **changes: Any) -> PretrainConfig:
        more = {
            "moco": {"queue": 16},
            "dino": {"prototypes": 32},
            "change_preserving": {"subspace_dim": 16},
        }
        method = METHODS[kind](hidden_dim=16, projection_dim=8, **more.get(kind, {}))
        fields: dict[str, Any] = {
            "steps": 4,
            "batch_size": 4,
            "warmup_steps": 2,
            "encoder": EncoderConfig(backbone="resnet10t", width=0.125),
            "views": ViewConfig(size_px=32),
            "method": method,
        }
        return PretrainConfig(**(fields | changes))

    return build


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any]) -> Stages:
    """The chain on an archive of 12 cells and two periods with an encoder of random weights."""
    from ecofm.cluster import ClusterConfig, cluster
    from ecofm.embed import embed
    from ecofm.maps.scores import score
    from ecofm.pretrain.run import pretrain
    from ecofm.rank.heads import RankConfig
    from ecofm.rank.run import rank

    root = tmp_path_factory.mktemp("stages")
    archive = write_archive(root / "archive", n_cells=12)
    pretrain([archive], root / "run", tiny(steps=0))
    embed([archive], root / "run", root / "embeddings")
    embeddings = [root / "embeddings"]
    cluster(embeddings, root / "clusters", ClusterConfig(k=3), archives=[archive])
    answers = write_answers(root / "answers.csv", archive)
    rank(embeddings, answers, root / "ranker", RankConfig(n_heads=3))
    score(embeddings, root / "ranker", root / "scores")
    return Stages(
        archive=archive,
        encoder=root / "run",
        embeddings=root / "embeddings",
        clusters=root / "clusters",
        answers=answers,
        ranker=root / "ranker",
        scores=root / "scores",
    )


@pytest.fixture
def network() -> Iterator[tuple[str, list[str]]]:
    """Return the address of a server, and the list of what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
