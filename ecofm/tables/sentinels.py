"""Numbers that stand for nothing, such as -9999: told from values by their column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FILL = 1e19
"""Netcdf fills with 9.97e36, others with 1e20 or float32's lowest: no statistic is as large."""
LIMITS = frozenset((-32768, 32767, 65535, -2147483648, 2147483647))
"""What integers of 16 and 32 bits end with."""
STRONG = re.compile(r"-?9{3,}(?:\.9+)?")
LONG = re.compile(r"-9{4,}(?:\.9+)?")
PAIR = re.compile(r"-99(?:\.9+)?")
WEAK = re.compile(r"-?(?:99(?:\.9+)?|8{2,}|7{2,}|9+[678])")
SMALL = (-9.0, -8.0, -7.0, -1.0)
FAR, APART = 10, 3
"""A number so many times the size of all others is none of them; from the lower one, who knows."""


@dataclass(slots=True)
class Sentinels:
    """What of a column stands for nothing, and what may."""

    missing: list[float] = field(default_factory=list)
    doubtful: list[float] = field(default_factory=list)


def find_sentinels(values: Floats) -> Sentinels:
    """Return the numbers of a column that can be no values of it, and those that may be none.

    Numbers of the shape of -9999 are no values where no other number is below zero, or where all
    others are far smaller. Growth and balances, whose negative numbers are many, stay as they are.
    """
    numbers, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    found = Sentinels()
    is_fill = np.abs(numbers) >= FILL
    if is_fill.all():
        return found
    found.missing = numbers[is_fill].tolist()
    count = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    numbers = numbers[~is_fill]
    negative = numbers[numbers < 0].tolist()
    others = numbers[numbers >= 0]
    if negative and len(others) and all(map(_is_code, negative)):
        _judge_only_negative(negative, others, count, found)
    elif negative:
        for number in filter(_is_code, negative):
            _judge_far(number, numbers, count, found)
    _judge_highest(numbers, count, found)
    return found


def _shape(number: float) -> str:
    # As float32 holds -9999.99.
    return str(int(number)) if number == int(number) else f"{number:.7g}"


def _is_strong(number: float) -> bool:
    return number in LIMITS or bool(STRONG.fullmatch(_shape(number)))


def _is_long_code(number: float) -> bool:
    return _is_strong(number) or bool(WEAK.fullmatch(_shape(number)))


def _is_code(number: float) -> bool:
    return number in SMALL or _is_long_code(number)


def _judge_only_negative(
    negative: list[float], others: Floats, count: dict[float, int], found: Sentinels
) -> None:
    """Judge numbers below zero in a column whose other numbers are not."""
    beside_strong = any(map(_is_strong, negative))
    positive = others[others > 0]
    for number in negative:
        if number in SMALL:
            # -1 among growths of 0 to 5 is a growth; among thousands of people it is a code, and
            # so it may be where it is there more often than any other number.
            size = abs(number)
            most = max((count[other] for other in others.tolist()), default=0)
            odd = len(positive) and (
                size * FAR < positive.min()
                or size > APART * positive.max()
                or count[number] > max(2, most)
                or beside_strong
            )
            found.doubtful += [number] * bool(odd)
        elif beside_strong or (PAIR.fullmatch(_shape(number)) and count[number] > 1):
            found.missing.append(number)
        else:
            found.doubtful.append(number)


def _judge_far(number: float, numbers: Floats, count: dict[float, int], found: Sentinels) -> None:
    """Judge a number of a code's shape that is the lowest or highest by far of all."""
    others = numbers[(numbers != number) & ~np.isin(numbers, found.missing)]
    longer = [_is_long_code(other) and abs(other) >= abs(number) for other in others.tolist()]
    others = others[~np.array(longer, dtype=bool)]
    is_long = LONG.fullmatch(_shape(number)) is not None
    most = max((count[other] for other in others.tolist()), default=0)
    is_often = len(others) and count[number] > max(1, most)
    if not len(others) or others.min() < number < others.max():
        # Among balances of any size, what is there more often than all else is no balance.
        if is_long and is_often:
            found.doubtful.append(number)
        return
    reach, spread = float(np.abs(others).max()), float(np.ptp(others))
    gap = float(np.abs(others - number).min())
    if abs(number) > FAR * reach:
        certain = _is_strong(number) and (number < 0 or count[number] > 1)
        certain |= PAIR.fullmatch(_shape(number)) is not None and count[number] > 1
        (found.missing if certain else found.doubtful).append(number)
    elif number in SMALL:
        return
    elif is_long or (_is_strong(number) and is_often and number < others.min()):
        found.doubtful.append(number)
    elif gap > spread and abs(number) > APART * reach:
        may_be = count[number] > 1 or number < 0 or _is_strong(number)
        found.doubtful += [number] * may_be


def _judge_highest(numbers: Floats, count: dict[float, int], found: Sentinels) -> None:
    """Judge 9999 and its like where they are the highest numbers of a column."""
    for number in numbers[::-1].tolist():
        if number <= 0 or not _is_long_code(number):
            return
        _judge_far(number, numbers, count, found)
