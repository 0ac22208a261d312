"""Items and pictures out of artifacts, and the choice of pairs."""

import io
from collections import Counter
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecofm.artifact import build_manifest, write_json
from ecofm.compare.items import ArchiveTiles, ClusterSheets, draw_tile
from ecofm.compare.picking import Picker
from ecofm.errors import ArtifactError
from ecofm.types import Contract


def make_contract(dtype, bands=("red", "green", "blue"), mean=100.0, std=20.0):
    return Contract(
        bands=bands, dtype=dtype, units="digital number", scale=1, offset=0, valid_range=(0, 255),
        gsd_m=None, mean=(mean,) * len(bands), std=(std,) * len(bands),
    )  # fmt: skip


def make_clusters(folder, items, sheets=None):
    (folder / "exemplars").mkdir(parents=True)
    for item in items if sheets is None else sheets:
        Image.new("RGB", (6, 6), "green").save(folder / "exemplars" / f"{item}.png")
    pd.DataFrame({"tile_id": "t", "item": items, "distance": 0.0}).to_parquet(
        folder / "clusters.parquet"
    )
    write_json(folder / "manifest.json", build_manifest("clusters", {}, {}))
    return folder


def test_clusters_are_shown_by_their_sheets(tmp_path):
    source = ClusterSheets(make_clusters(tmp_path / "c", ["10", "03", "10", "2"]))
    assert source.items == ["3", "10", "2"]
    assert source.members(1) == [1]
    assert Image.open(io.BytesIO(source.image(1))).size == (6, 6)
    with pytest.raises(IndexError):
        source.image(3)


def test_unusable_clusters_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"no exemplars/2\.png"):
        ClusterSheets(make_clusters(tmp_path / "a", ["1", "2"], sheets=["1"]))
    with pytest.raises(ArtifactError, match="2 times"):
        ClusterSheets(make_clusters(tmp_path / "b", ["1", "01"]))
    with pytest.raises(ArtifactError, match="at least two"):
        ClusterSheets(make_clusters(tmp_path / "c", ["1"]))
    outside = make_clusters(tmp_path / "d", ["../../b/exemplars/1", "2"], sheets=["2"])
    with pytest.raises(ArtifactError, match="no exemplars"):
        ClusterSheets(outside)
    (outside / "clusters.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="cannot be read"):
        ClusterSheets(outside)
    write_json(outside / "manifest.json", build_manifest("embeddings", {}, {}))
    with pytest.raises(ArtifactError, match="expected clusters"):
        ClusterSheets(outside)


def test_tiles_of_an_archive_are_items(monkeypatch, tmp_path):
    pixels = np.full((3, 4, 4), 77, np.uint8)
    archive = SimpleNamespace(
        contract=make_contract("uint8"),
        index=pd.DataFrame({"tile_id": ["1_2@2019", "1_3@2019"]}),
        read=lambda number: (pixels + number, np.ones((4, 4), bool)),
    )
    monkeypatch.setattr("ecofm.tiles.archive.open_archive", lambda path: archive)
    source = ArchiveTiles(tmp_path)
    assert source.items == ["1_2@2019", "1_3@2019"] and source.members(1) == [1]
    assert Image.open(io.BytesIO(source.image(1))).getpixel((0, 0)) == (78, 78, 78)
    with pytest.raises(IndexError):
        source.image(2)


def test_uint8_is_drawn_as_it_is_and_grey_where_not_valid():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    valid = np.array([[True, False], [True, True]])
    image = np.asarray(Image.open(io.BytesIO(draw_tile(pixels, valid, make_contract("uint8")))))
    assert image[1, 1].tolist() == [3, 7, 11] and image[0, 1].tolist() == [128] * 3


def test_other_types_are_stretched_alike_and_clipped():
    contract = make_contract("uint16", ("B02", "B03", "B04", "B08"), mean=1000.0, std=200.0)
    pixels = np.array([[0, 600, 1100, 1600, 60000]] * 4, np.uint16)[:, None, :]
    valid = np.ones((1, 5), bool)
    image = np.asarray(Image.open(io.BytesIO(draw_tile(pixels, valid, contract))))
    assert image[0, :, 0].tolist() == [0, 0, 127, 255, 255]
    assert (image[..., 0] == image[..., 2]).all()


class Annotator:
    """Answers everything that a picker asks, and remembers it."""

    def __init__(self, n_items, seed=0, counts=None):
        self.partners = {}
        names = [str(number) for number in range(n_items)]
        self.picker = Picker(names, counts or {}, self.find_partners, seed)
        self.asked = []

    def find_partners(self, annotator, item):
        return self.partners.get(item, set())

    def answer(self):
        left, right = self.picker.pick("ada")
        self.picker.count(left, right)
        self.partners.setdefault(left, set()).add(right)
        self.partners.setdefault(right, set()).add(left)
        self.asked.append((left, right))
        return left, right


def test_every_pair_is_asked_once_before_any_comes_again():
    annotator = Annotator(8)
    pairs = Counter(frozenset(annotator.answer()) for _ in range(28))
    assert len(pairs) == 28
    assert all(len(pair) == 2 for pair in pairs)
    assert len(frozenset(annotator.answer())) == 2


def test_the_least_compared_come_first_and_sides_are_drawn():
    annotator = Annotator(40, counts={str(number): 5 for number in range(1, 40)})
    pairs = [annotator.answer() for _ in range(5)]
    assert all("0" in pair for pair in pairs)
    many = Annotator(300)
    sides = Counter(many.picker.place(left) < many.picker.place(right)
                    for left, right in (many.answer() for _ in range(400)))  # fmt: skip
    assert 140 < sides[True] < 260
    counts = Counter(item for pair in many.asked for item in pair)
    assert len(counts) == 300 and max(counts.values()) <= 12


def test_answers_connect_the_items_instead_of_pairing_them_off():
    annotator = Annotator(200)
    for _ in range(400):
        annotator.answer()
    assert nx.is_connected(nx.Graph(annotator.asked))


def test_the_same_seed_asks_the_same_pairs():
    runs = [[Annotator(20, seed=seed).answer() for _ in range(3)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_an_undone_comparison_is_asked_again_first():
    annotator = Annotator(5)
    for _ in range(10):
        left, right = annotator.answer()
    annotator.partners[left].remove(right)
    annotator.partners[right].remove(left)
    annotator.picker.count(left, right, by=-1)
    assert set(annotator.picker.pick("ada")) == {left, right}
