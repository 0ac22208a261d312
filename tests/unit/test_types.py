"""The contract: it refuses what does not fit, and pools what does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.errors import ContractError
from ecofm.types import Contract, pool_contracts, progress_bar

CONTRACT = Contract(
    bands=("B02", "B03"),
    dtype="uint16",
    units="reflectance",
    scale=1e-4,
    offset=-1000.0,
    valid_range=(0.0, 65535.0),
    gsd_m=10.0,
    mean=(1200.0, 1300.0),
    std=(10.0, 20.0),
)


@pytest.mark.parametrize(
    "change",
    [{"bands": ("B03", "B02")}, {"dtype": "int16"}, {"scale": 1.0}, {"offset": 0.0}],
)
def test_a_contract_refuses_another(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=f"here and there differ in {next(iter(change))}"):
        CONTRACT.require_match(replace(CONTRACT, **change), "here", "there")


def test_mean_and_std_are_no_part_of_the_match() -> None:
    CONTRACT.require_match(replace(CONTRACT, mean=(0.0, 0.0), std=(1.0, 1.0)), "here", "there")


def test_a_contract_survives_json() -> None:
    assert Contract.from_json(json.loads(json.dumps(CONTRACT.to_json()))) == CONTRACT


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [1.0]},
        {"std": [1.0, -1.0]},
        {"std": [1.0, float("nan")]},
        {"dtype": "object"},
        {"bands": ["B02", "B02"]},
        {"bands": [1, 2]},
        {"bands": [], "mean": [], "std": []},
        {"scale": "1"},
        {"valid_range": None},
        {"surprise": 1},
    ],
)
def test_a_damaged_contract_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="damaged"):
        Contract.from_json({**CONTRACT.to_json(), **change})


def test_a_contract_without_a_field_is_refused() -> None:
    fields = CONTRACT.to_json()
    del fields["scale"]
    with pytest.raises(ContractError, match="damaged"):
        Contract.from_json(fields)


@given(st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=20), min_size=1, max_size=4))
def test_pooled_statistics_are_those_of_all_values(groups: list[list[int]]) -> None:
    contracts = [
        replace(CONTRACT, bands=("B02",), mean=(float(np.mean(g)),), std=(float(np.std(g)),))
        for g in groups
    ]
    names = [str(n) for n in range(len(groups))]
    pooled = pool_contracts(contracts, [len(group) for group in groups], names)
    whole = np.concatenate(groups)
    np.testing.assert_allclose(pooled.mean[0], whole.mean(), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(pooled.std[0], whole.std(), rtol=1e-6, atol=1e-2)


def test_archives_that_do_not_match_are_not_pooled() -> None:
    with pytest.raises(ContractError, match="a and b differ in dtype"):
        pool_contracts([CONTRACT, replace(CONTRACT, dtype="int16")], [1, 1], ["a", "b"])


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("B02", "B03", "B04"), (2, 1, 0)),
        (("blue", "green", "red"), (2, 1, 0)),
        (("band1", "band2", "band3"), None),
        (("VV", "VH"), None),
    ],
)
def test_true_colour_follows_the_names(
    bands: tuple[str, ...], expected: tuple[int, int, int] | None
) -> None:
    assert replace(CONTRACT, bands=bands).true_colour() == expected


@pytest.mark.parametrize("step", [1, 7, 400])
def test_progress_without_a_terminal_is_about_ten_lines(
    step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    show = progress_bar("tile")
    for done in [*range(step, 400, step), 400]:
        show(done, 400)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "tile: 400/400"
    assert len(lines) == min(10, -(-400 // step))
