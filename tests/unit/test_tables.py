"""Tables that people give: whatever is in the file, a table or one sentence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecofm.errors import EcofmError
from ecofm.tables import read_table

TABLE = pd.DataFrame({"cell_id": [f"0{n}" for n in range(50)], "jobs": range(50)})
SUFFIXES = [".csv", ".csv.gz", ".parquet"]


def write(path: Path) -> Path:
    TABLE.to_parquet(path) if path.suffix == ".parquet" else TABLE.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_stay_text(tmp_path: Path, suffix: str) -> None:
    found = read_table(write(tmp_path / f"t{suffix}"), ["cell_id", "period"])
    pd.testing.assert_frame_equal(found, TABLE)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_answered_in_one_sentence(
    tmp_path: Path, suffix: str, place: float, flip: int, cut: bool
) -> None:
    path = write(tmp_path / f"t{suffix}")
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= flip
    path.write_bytes(content[:at] if cut else content)
    try:
        read_table(path)
    except EcofmError as error:
        assert str(path) in str(error)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(EcofmError, match=r"missing\.csv"):
        read_table(tmp_path / "missing.csv")
