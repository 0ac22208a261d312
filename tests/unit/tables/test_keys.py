"""Names of places: what is one name, what are two, and what cannot be told."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.errors import EcofmError
from ecofm.tables import canonical, column_name, match_keys

SIDES = ("the polygons", "the table")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (" Tam  ky ", "Tam ky"),
        ("Tam\u00a0ky\u202f", "Tam ky"),
        ("\ufeffTam\u200b", "Tam"),
        ("7001.0", "7001"),
        ("07001.00", "07001"),
        ("7001.5", "7001.5"),
        ('="07001"', "07001"),
        ("'07001", "07001"),
        ("'Aiea", "'Aiea"),
        ("NA", "NA"),
        ("nan", "nan"),
        ("null", "null"),
        (unicodedata.normalize("NFD", "Sơn La"), "Sơn La"),
        ("32652_1600_-120", "32652_1600_-120"),
        (" ", ""),
    ],
)
def test_a_name_is_as_it_was_meant(written: str, meant: str) -> None:
    assert canonical(written) == meant


@given(st.text())
def test_a_canonical_name_stays(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)
    assert column_name(text) == column_name(text.upper()) or text.upper().lower() != text.lower()


def test_exact_names_match_and_the_others_are_listed_on_both_sides() -> None:
    found = match_keys(["a", "b", "c"], ["c", "d", "a"], SIDES)
    assert found.pairs == {"a": "a", "c": "c"}
    assert (found.only_left, found.only_right, found.notes) == (["b"], ["d"], [])


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ("Tam", "Tam ", "blanks"),
        ("Sơn La", unicodedata.normalize("NFD", "Sơn La"), "Unicode"),
        ("7001", "7001.0", "decimal point"),
        ("07001", "7001", "leading zeros"),
        ("07001", "7001.0", "leading zeros"),
        ("7001", "7,001", "thousands"),
        ("Hà Nội", "HÀ NỘI", "capitals"),
        ("N'Djamena", "N\u2019Djamena", "dashes"),
        ("Nord-Est", "Nord\u2013Est", "dashes"),
    ],
)
def test_other_spellings_match_and_are_said(left: str, right: str, said: str) -> None:
    for one, other in ((left, right), (right, left)):
        found = match_keys([one, "x"], ["x", other], SIDES)
        assert found.pairs == {one: other, "x": "x"}
        assert said in found.notes[0]
        assert repr(one) in found.notes[0] and repr(other) in found.notes[0]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["07001", "7001"], ["7001"]),
        (["7001"], ["7001", "07001"]),
        (["007001", "07001"], ["7001"]),
        (["Tam"], ["Tam", "Tam "]),
        (["HANOI", "Hanoi"], ["hanoi"]),
    ],
)
def test_names_that_fall_together_are_refused(left: list[str], right: list[str]) -> None:
    with pytest.raises(EcofmError) as error:
        match_keys(left, right, SIDES)
    assert all(repr(name) in str(error.value) for name in set(left + right))


def test_names_that_are_told_apart_exactly_are_no_doubt() -> None:
    both = ["07001", "7001", "PARIS", "Paris"]
    assert match_keys(both, both, SIDES).pairs == {name: name for name in both}
    found = match_keys(["Paris"], ["PARIS", "Paris"], SIDES)
    assert found.pairs == {"Paris": "Paris"} and found.only_right == ["PARIS"]
    # Alike on one side only, they are nobody's partner.
    assert match_keys(["07001", "7001"], ["x"], SIDES).only_left == ["07001", "7001"]


@given(st.sets(st.text(max_size=4), max_size=8), st.sets(st.text(max_size=4), max_size=8))
def test_every_name_is_matched_once_or_listed(left: set[str], right: set[str]) -> None:
    try:
        found = match_keys(left, right, SIDES)
    except EcofmError:
        with pytest.raises(EcofmError):
            match_keys(right, left, SIDES)
        return
    assert set(found.pairs) | set(found.only_left) == left
    assert set(found.pairs.values()) | set(found.only_right) == right
    assert len(set(found.pairs.values())) == len(found.pairs)
    assert not set(found.only_left) & set(found.pairs)
    assert left & right <= set(found.pairs)
    turned = match_keys(right, left, SIDES)
    assert {mine: other for other, mine in turned.pairs.items()} == found.pairs
