"""Jobs: however the plan is cut, each tile has the scenes that touch it, and a plan stays small."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from ecofm.grid import Grid
from ecofm.tiles.jobs import Cells, Job, lay_out
from ecofm.tiles.scenes import Part, Scene

GRID = "utm:1280"


def scene_at(name: str, period: str, geobox: GeoBox) -> Scene:
    part = Part(path=Path(f"{name}.tif"), numbers=(1,), geobox=geobox)
    return Scene(
        name=name, period=period, date=None, bands=("B04",), parts=(part,), dtype="uint16",
        shape_px=tuple(geobox.shape),
    )  # fmt: skip


def box(left: float, top: float, side: int, epsg: int = 32652) -> GeoBox:
    pixel = 10 if epsg > 32000 else 1e-4
    return GeoBox((side, side), Affine(pixel, 0, left, 0, -pixel, top), f"EPSG:{epsg}")


def plan(scenes: list[Scene], held: dict[str, np.ndarray] | None = None) -> Cells:
    grid = Grid(GRID)
    places = {scene.geobox for scene in scenes}
    touched = {place: np.concatenate(list(grid.keys(place))) for place in places}
    periods: dict[str, list[Scene]] = {}
    for scene in scenes:
        periods.setdefault(str(scene.period), []).append(scene)
    return lay_out(GRID, periods, touched, held or {})


def brute_force(scenes: list[Scene]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for scene in scenes:
        for cell in Grid(GRID).cells(scene.geobox):
            found.setdefault(f"{cell.cell_id}@{scene.period}", []).append(scene.name)
    return found


def told(jobs: list[Job]) -> dict[str, list[str]]:
    return {job.tile_id: [scene.name for scene in job.scenes] for job in jobs}


boxes = st.one_of(
    # About the border of two zones, so that homes have cells of the same row and column.
    st.builds(box, st.floats(2e5, 8e5), st.floats(4.30e6, 4.34e6), st.integers(1, 700)),
    st.builds(
        box, st.floats(131.8, 132.1), st.floats(38.9, 39.2), st.integers(1, 900), st.just(4326)
    ),
)


@given(
    st.lists(st.tuples(boxes, st.sampled_from(["2018", "2019"])), min_size=1, max_size=6),
    st.integers(1, 9),
)
@settings(max_examples=40, deadline=None)
def test_each_tile_has_its_scenes_however_the_plan_is_cut(
    places: list[tuple[GeoBox, str]], step: int
) -> None:
    scenes = [scene_at(f"s{n}", period, place) for n, (place, period) in enumerate(places)]
    cells, expected = plan(scenes), brute_force(scenes)
    assert len(cells) == len(expected) and told(list(cells)) == expected
    cut = [job for n in range(0, len(cells), step) for job in cells[n : n + step]]
    assert [job.tile_id for job in cut] == [job.tile_id for job in cells]
    assert told(cut) == expected


def test_what_is_held_already_is_not_made_again() -> None:
    scene = scene_at("a", "2018", box(320_000, 4_321_280, 512))
    whole = plan([scene])
    keys = whole.spans[0].keys
    rest = plan([scene], {"2018": keys[::2], "2019": keys})
    assert [span.keys.tolist() for span in rest.spans] == [keys[1::2].tolist()]
    assert len(plan([scene], {"2018": keys})) == 0


def test_a_part_goes_to_a_worker_with_its_own_scenes_only() -> None:
    scenes = [
        scene_at(f"{x}_{y}", "2018", box(2e5 + 1e5 * x, 4e6 + 1e5 * y, 10_980))
        for x in range(5)
        for y in range(5)
    ]
    cells = plan(scenes)
    part = cells[1000:1064]
    assert len(part) == 64 and len(part.spans[0].scenes) <= 4
    assert told(list(pickle.loads(pickle.dumps(part)))) == told(list(part))


def test_a_plan_holds_a_few_bytes_a_tile() -> None:
    scenes = [scene_at(str(n), str(2000 + n), box(3e5, 4e6, 40_000)) for n in range(20)]
    tracemalloc.start()
    cells = plan(scenes)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cells) > 1_900_000
    assert held / len(cells) < 10 and peak / len(cells) < 20
