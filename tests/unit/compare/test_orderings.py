"""Orderings: what is accepted, what is refused, and what they expand to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.compare.comparison import check_comparison, check_text
from ecofm.compare.orderings import (
    expand_ordering,
    format_ordering,
    normalize_item,
    parse_ordering,
)
from ecofm.errors import ComparisonError


def is_name(text):
    """Whether a text can name an item; 1.5, nan and blanks cannot."""
    try:
        return bool(normalize_item(text))
    except ComparisonError:
        return False


NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="<>="), min_size=1, max_size=8
).filter(is_name)


@st.composite
def tiers(draw):
    names = draw(st.lists(NAMES.map(normalize_item), min_size=2, max_size=9, unique=True))
    cuts = draw(st.lists(st.booleans(), min_size=len(names) - 1, max_size=len(names) - 1))
    result = [[names[0]]]
    for name, cut in zip(names[1:], cuts, strict=True):
        if cut:
            result.append([name])
        else:
            result[-1].append(name)
    return result


@pytest.mark.parametrize(
    ("name", "item"),
    [("03", "3"), ("3", "3"), ("000", "0"), (" 07 ", "7"), ("0x3", "0x3"), ("03a", "03a"),
     ("-03", "-03"), ("٠٣", "٠٣"), ("2019-01", "2019-01")],
)  # fmt: skip
def test_leading_zeros_are_dropped_from_digits_only(name, item):
    assert normalize_item(name) == item


def test_tiers_are_best_first():
    assert parse_ordering("3=4>1>0") == [["3", "4"], ["1"], ["0"]]
    assert parse_ordering(" 03 = 4 > 1 >00 ") == [["3", "4"], ["1"], ["0"]]


@pytest.mark.parametrize(
    ("text", "word"),
    [("0<1", "best first"), ("3>1<2", "best first"), ("", "lacks an item"), ("3>", "lacks"),
     (">3", "lacks"), ("3>>1", "lacks"), ("3==1", "lacks"), ("3> >1", "lacks"),
     ("3", "expected 2"),
     ("3=1>3", "twice"), ("3>03", "twice"), ("a\x00>b", "control"),
     ("a>" + "b" * 201, "at most 200"),
     (">".join(map(str, range(1001))), "1001")],
)  # fmt: skip
def test_what_is_no_ordering_is_refused_in_one_sentence(text, word):
    with pytest.raises(ComparisonError, match=word) as caught:
        parse_ordering(text)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 250 and message.endswith(".")


@given(tiers())
def test_format_and_parse_are_inverse(given_tiers):
    assert parse_ordering(format_ordering(given_tiers)) == given_tiers


def test_a_name_with_a_sign_cannot_be_written_in_an_ordering():
    with pytest.raises(ComparisonError, match="cannot carry"):
        format_ordering([["a=b"], ["c"]])


@given(tiers())
def test_expansion_has_each_pair_once_and_agrees_with_the_tiers(given_tiers):
    rank = {name: number for number, tier in enumerate(given_tiers) for name in tier}
    rows = expand_ordering("ada", format_ordering(given_tiers))
    assert len({frozenset((row.left, row.right)) for row in rows}) == len(rows)
    assert len(rows) == len(rank) * (len(rank) - 1) // 2
    for row in rows:
        assert (row.outcome == "tie") == (rank[row.left] == rank[row.right])
        assert row.outcome == "tie" or (row.outcome == "left" and rank[row.left] < rank[row.right])


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "\x1b[31m", "\ud800", "x" * 201])
def test_unusable_texts_are_refused(text):
    with pytest.raises(ComparisonError, match="the name"):
        check_text(text, "the name")


def test_unusable_comparisons_are_refused():
    with pytest.raises(ComparisonError, match="with itself"):
        check_comparison("ada", "3", "03", "tie")
    with pytest.raises(ComparisonError, match="left, right, tie or skip"):
        check_comparison("ada", "3", "4", "leftmost")
    with pytest.raises(ComparisonError, match="annotator"):
        expand_ordering(" ", "3>4")
