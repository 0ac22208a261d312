"""Spelling: how people write days, months, quarters, years and ranges, alone and in file names.

Every form stands once, in `FORMS`. `spell` reads a text that is a period and nothing else; `find`
searches a name, where most numbers are something else: sizes, tiles, versions, hashes. What may be
read in two ways is never guessed: it raises Unclear.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

FIRST_YEAR = 1972
"""Landsat's first; a number below it in a name is no year."""
FIRST_SENTINEL = 2015
"""Sentinel-2's first; an earlier year in a name counts only where there is no other."""
MAX_SPELLED = 64
"""Characters of the longest spelling: two moments with their fractions of seconds."""
ONE_DAY = datetime.timedelta(days=1)

MONTHS = (
    "jan(?:uary)?", "feb(?:ruary)?", "mar(?:ch)?", "apr(?:il)?", "may", "june?", "july?",
    "aug(?:ust)?", "sept?(?:ember)?", "oct(?:ober)?", "nov(?:ember)?", "dec(?:ember)?",
)  # fmt: skip
UNIT = (
    "(?:px|pix|pixels?|k?m|cm|mm|ft|deg|dpi|ppi|bits?|bands?|ch|tiles?|epochs?|steps?|iters?|"
    "class(?:es)?|clusters?|chips?|samples?|th|st|nd|rd|[x\u00d7][0-9]+|(?-i:[C-X][A-Z]{2}))"
    "(?![A-Za-z])"
)
"""What stands behind a number that is no date: `2016px`, `10m`, `10TFK` (a tile of Sentinel-2)."""
PARTS = {
    "year": "(?P<year>YEAR)",
    "recent": "(?P<year>RECENT)",
    "month": "(?P<month>0[1-9]|1[0-2])",
    "mm": "(?P<month>[0-9]{2})",
    "dd": "(?P<day>[0-9]{2})",
    "d": "(?P<day>[0-9]{1,2})",
    "ddd": "(?P<nth>[0-3][0-9]{2})",
    "mon": f"(?P<mon>{'|'.join(MONTHS)})",
    "mon2": f"(?P<mon2>{'|'.join(MONTHS)})",
    "q": "(?P<q>[1-4])",
    "q2": "(?P<q2>[1-4])",
    "h": "(?P<half>[12])",
    "ww": "(?P<week>[0-9]{2})",
    "time": "(?P<time>(?:T[0-2][0-9]:?[0-5][0-9]|[_ -]?[0-2][0-9]:?[0-5][0-9](?=:?[0-5][0-9]))"
    "(?::?[0-5][0-9](?:[.,][0-9]+)?)?Z?(?![0-9]))",
    "alone": f"[-_.][0-9]{{2}}(?![0-9])(?!{UNIT})",
    "more": "[-_ ](?:bands?|bits?|px|pixels?|m)(?![A-Za-z])",
    "s": "[-_. ]?",
    "to": r"(?:[-_. ]{1,3}|[-_ ]?to[-_ ]?|/)",
}
TO = re.compile(PARTS["to"], re.IGNORECASE)
FORMS = (
    ("months", "<mon><to>?<mon2><s><year>"),
    ("months", "<year><s><mon><to>?<mon2>"),
    ("quarters", "<year><s>Q<q><to>?Q<q2>"),
    ("quarters", "Q<q><to>?Q<q2>[-_. ]<year>"),
    ("day", "<year>-<mm>-<dd>(?:<time>|(?![A-Za-z]))"),
    ("day", "<year>_<mm>_<dd>(?:<time>|(?![A-Za-z]))"),
    ("day", r"<year>\.<mm>\.<dd>(?:<time>|(?![A-Za-z]))"),
    ("day", "<year><mm><dd><time>?"),
    ("day", "<year><ddd>T[0-9]{6}"),
    ("day", "<d><s><mon><s><year>"),
    ("day", "<mon><s><d>[-_., ]+<year>"),
    ("day", "<year><s><mon><s><dd>"),
    ("day", "<year>[-.]?<mon>[-.]?<d>"),
    ("week", "<year>[-_]?W<ww>"),
    ("half", "<year><s>H<h>"),
    ("half", "H<h>[-_. ]<year>"),
    ("quarter", "<year><s>Q<q>"),
    ("quarter", "Q<q>[-_. ]<year>"),
    ("quarter", "<q>Q<s><year>"),
    ("month", "<mon><s><year>"),
    ("month", "<year><s><mon>"),
    ("month", "<year>[-_.]<month>(?!<alone>|<more>)"),
    ("month", "<year>[-_]?M<month>"),
    ("month", "<recent><month>"),
    ("month", "<month>[-.]<year>"),
    ("year", "<year>"),
)
"""What each form is, and how it is written; the first that fits counts. A time of day is read over,
and six digits are a month only since Sentinel-2 flies, for they may be many things."""

PRODUCTS = (
    "S2[A-Z]_MSI(?:L1C|L2A)_[0-9]{8}T[0-9]{6}(?:_N[0-9]{4})?(?:_R[0-9]{3})?(?:_T[0-9A-Z]{5})?"
    "(?:_[0-9]{8}T[0-9]{6})?",
    "S2[A-Z]_OPER_[0-9A-Z_]*_V[0-9]{8}T[0-9]{6}(?:_[0-9]{8}T[0-9]{6})?",
    "[0-9]{8}T[0-9]{6}_[0-9]{8}T[0-9]{6}_T[0-9]{2}[A-Z]{3}",  # Earth Engine's
    "L[A-Z][0-9]{2}_[A-Z0-9]{4}_[0-9]{6}_[0-9]{8}_[0-9]{8}(?:_[0-9]{2}_[A-Z0-9]{2})?",  # Landsat's
)
"""Ids of products: of their days that of sensing counts, and not that of processing."""
SENSED = re.compile("(?:.*_V|.*?(?<![0-9A-Za-z]))([0-9]{8})(?![0-9])", re.IGNORECASE)

NUMBERS = (
    "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # a UUID
    "(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7,}(?![0-9A-Za-z])",  # a hash
    "[0-9]+(?:[x\u00d7][0-9]+)+",  # a size
)
LABEL = re.compile(
    "(?:^|[^A-Za-z])(?:(?:v|ver|version|fy|rev|revision|epsg|crs|srid|wkid|tile|row|col|column|path|"
    "orbit|seed|epoch|iter|step|id|no|nr|size|width|height|part|piece|chunk|block)[-_ .:]?|"
    "[0-9][.,])$",
    re.IGNORECASE,
)
"""What stands before a number that is no date: `tile_2019`, `v2020`, `0.2019`."""
LETTER = re.compile("(?:^|[^A-Za-z])[A-Za-z]$")
BEHIND_YEAR = re.compile(
    f"{UNIT}|(?!v[0-9]|to[-_ ]?[0-9])[A-Za-z]{{1,2}}(?![A-Za-z])", re.IGNORECASE
)
"""`2048px` and `2019a` are no years; `2019v2` is one."""
SEASON = re.compile(
    "(?:(?<![A-Za-z])(?:SEASON)[-_. ]?[0-9]{4}|[0-9]{4}[-_. ]?(?:SEASON)(?![A-Za-z]))".replace(
        "SEASON",
        "spring|summer|autumn|fall|winter|(?:dry|wet|rainy)(?:[-_ ]?season)?|monsoon|"
        "(?:first|second|1st|2nd)[-_ ]?half",
    ),
    re.IGNORECASE,
)

WRITE_DAY = "write a day as 2019-06-12, or give --period"
WRITE_MONTH = "write a month as 2019-04, or give --period"
WRITE_RANGE = "give --period, as --period 2018--2019"
PART = "(?:mo?n?|month|wk?|week|d|day|doy|quarter|qtr|half|sem|semester|trimester|dekad)"
NTH = "(?:0[1-9]|[12][0-9]|3[01])"
DOUBTS = (
    ("<year>[-_.][0-9]{2}[-_.][0-9]{2}", f"may be a day or some months; {WRITE_DAY}"),
    ("<year>-?(?:00[1-9]|0[1-9][0-9]|[12][0-9]{2}|3[0-5][0-9]|36[0-6])",
     f"may be a day of the year or another number; {WRITE_DAY}"),
    ("<year>[-_.][0-9]{2}", f"may be a month or another number; {WRITE_MONTH}"),
    ("<year>[-.][0-9]", f"may be a month or another number; {WRITE_MONTH}"),
    (f"<year>[-_.]<month>(?!{UNIT})[A-Za-z]+", f"may be a month or not; {WRITE_MONTH}"),
    ("<month>_<year>", f"may be a month or another number beside a year; {WRITE_MONTH}"),
    (f"{NTH}_{NTH}_<year>", f"may be a day or other numbers beside a year; {WRITE_DAY}"),
    ("[0-3]?[0-9][-.][0-3]?[0-9][-.]<year>", f"may have day or month first; {WRITE_DAY}"),
    (f"<year><s>{PART}<s>[0-9]+", f"is a part of a year; {WRITE_MONTH}"),
    (f"{PART}<s>[0-9]+[-_. ]<year>", f"is a part of a year; {WRITE_MONTH}"),
    ("<year><s>[QH][0-9]+", "is no quarter and no half of a year; give --period"),
)  # fmt: skip
"""What may be a period or something else, and what to do then."""


class Unclear(ValueError):
    """A text can be read in several ways; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A span of days that a text names."""

    text: str
    kind: str
    first: datetime.date
    last: datetime.date
    """Included."""
    is_timed: bool = False
    """A time of day follows: it is the moment of a record, and no end of a range."""


@lru_cache(maxsize=4096)
def spell(text: str) -> Spelled | None:
    """Return the span that a text is, None when it is none; the year may be any of four digits."""
    return _grammar("[0-9]{4}", "[0-9]{4}").spell(text)


def find(text: str, latest: datetime.date) -> list[Spelled]:
    """Return the spans that a name speaks of, none of which begins after `latest`.

    Of the id of a product it is the day of sensing alone. Raises Unclear for what may be a date or
    something else.
    """
    years = [str(year) for year in range(FIRST_YEAR, latest.year + 1)]
    recent = [year for year in years if int(year) >= FIRST_SENTINEL]
    # With no year at all nothing is to match.
    found = _grammar("|".join(years) or "(?!)", "|".join(recent) or "(?!)").find(text)
    found = [span for span in found if span.first <= latest]
    season = SEASON.search(text)
    if season and found and {span.kind for span in found} <= {"year", "range"}:
        raise Unclear(
            f"{season[0]!r} is a season, whose months differ from place to place; give them, as "
            "--period 2019-06--2019-08"
        )
    return found


class Grammar:
    """The forms, compiled for some years."""

    def __init__(self, years: str, recent: str) -> None:
        """Take two expressions: for a year, and for one that may begin six digits."""
        self._years = {"YEAR": f"(?:{years})", "RECENT": f"(?:{recent})"}
        self._forms = [(kind, _compile(self._fill(form))) for kind, form in FORMS]
        self._doubts = [(_compile(self._in_name(form)), hint) for form, hint in DOUBTS]
        *units, year = [self._in_name(form) for _, form in FORMS]
        doubts = [self._in_name(form) for form, _ in DOUBTS]
        # A year comes last, for it begins most of the other forms.
        self._scan = _compile(
            f"(?P<product>{_alone(PRODUCTS)})|(?P<number>{_alone(NUMBERS)})|"
            f"(?P<unit>{'|'.join(units)})|(?P<doubt>{'|'.join(doubts)})|(?P<year>{year})"
        )

    def _fill(self, form: str) -> str:
        """Return the expression of a form, with named groups."""
        filled = re.sub("<([a-z0-9]+)>", lambda part: PARTS[part[1]], form)
        return re.sub("YEAR|RECENT", lambda part: self._years[part[0]], filled)

    def _in_name(self, form: str) -> str:
        """Return the expression of a form inside a name: where it may begin and end."""
        begins = "(?<![0-9])" if form.startswith(("<year>", "<recent>")) else "(?<![0-9A-Za-z])"
        ends = (
            "(?![0-9])"
            if form.endswith(("<year>", "<time>?", "(?![A-Za-z]))"))
            else "(?![0-9A-Za-z])"
        )
        return f"(?:{begins}{re.sub('[(][?]P<[a-z0-9]+>', '(?:', self._fill(form))}{ends})"

    def spell(self, text: str) -> Spelled | None:
        """Return the span that a text is, None when it is none."""
        if len(text) > MAX_SPELLED:
            return None
        if one := self._spell_one(text):
            return one
        for gap in TO.finditer(text):
            first = self._spell_one(text[: gap.start()])
            last = self._spell_one(text[gap.end() :]) if first else None
            if first and last and _is_range(first, last):
                return Spelled(text, "range", first.first, last.last)
        return None

    def _spell_one(self, text: str) -> Spelled | None:
        for kind, form in self._forms:
            if found := form.fullmatch(text):
                return _build(text, kind, found.groupdict())
        return None

    def find(self, text: str) -> list[Spelled]:
        """Return the spans that a name speaks of; two that are joined by a dash are a range."""
        found: list[Spelled] = []
        end = -1
        for match in self._scan.finditer(text):
            what, words = str(match.lastgroup), match[0]
            if what == "product" and (sensed := SENSED.match(words)):
                return list(filter(None, [self.spell(sensed[1])]))
            span = None if what == "doubt" else self.spell(words)
            is_number = what == "number" or (what == "unit" and words.isdecimal())
            if _is_other(match, span) or (span is None and is_number):
                continue
            if span is None:
                raise Unclear(f"{words!r} {self._hint(match)}")
            gap = text[end : match.start()] if found and end >= 0 else ""
            if gap and TO.fullmatch(gap) and _is_range(found[-1], span):
                first = found.pop()
                words = f"{first.text}{gap}{words}"
                if first.first.year < FIRST_SENTINEL <= span.first.year:
                    raise Unclear(f"{words!r} may be a range or two numbers; {WRITE_RANGE}")
                span = Spelled(words, "range", first.first, span.last)
            found.append(span)
            end = match.end()
        return found

    def _hint(self, match: re.Match[str]) -> str:
        """Return what is said of a doubt, or of what looks like a day and is none."""
        if match.lastgroup != "doubt":
            return f"is no date of the calendar; {WRITE_DAY}"
        found = ((doubt.match(match.string, match.start()), hint) for doubt, hint in self._doubts)
        hints = (hint for doubt, hint in found if doubt and doubt[0] == match[0])
        return next(hints)


def _compile(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE)


def _alone(expressions: Sequence[str]) -> str:
    return f"(?<![0-9A-Za-z])(?:{'|'.join(expressions)})(?![0-9A-Za-z])"


def _is_other(match: re.Match[str], span: Spelled | None) -> bool:
    """Return whether what stands around a number says that it is no date."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    if match.lastgroup == "number":
        return False
    if LABEL.search(before) or (LETTER.search(before) and (span is None or span.kind != "day")):
        return True
    return match.lastgroup == "year" and BEHIND_YEAR.match(after) is not None


def _is_range(first: Spelled, last: Spelled) -> bool:
    is_timed = first.is_timed or last.is_timed
    return first.kind == last.kind != "range" and first.first < last.first and not is_timed


def _build(text: str, kind: str, parts: Mapping[str, str | None]) -> Spelled | None:
    """Return the span of a form's parts, None when the calendar has none."""
    numbers = {part: int(value) for part, value in parts.items() if value and value.isdecimal()}
    year = numbers["year"]
    month = numbers.get("month") or _month(parts.get("mon")) or 1
    try:
        if kind == "day":
            is_nth = "nth" in numbers
            day = datetime.date(year, month, 1 if is_nth else numbers["day"])
            day += (numbers["nth"] - 1) * ONE_DAY if is_nth else 0 * ONE_DAY
            is_timed = bool(parts.get("time")) or is_nth
            return Spelled(text, kind, day, day, is_timed) if day.year == year else None
        if kind == "week":
            monday = datetime.date.fromisocalendar(year, numbers["week"], 1)
            return Spelled(text, kind, monday, monday + 6 * ONE_DAY)
        quarter, half = numbers.get("q", 0), numbers.get("half", 0)
        first, last = {
            "year": (1, 12),
            "half": (6 * half - 5, 6 * half),
            "quarter": (3 * quarter - 2, 3 * quarter),
            "quarters": (3 * quarter - 2, 3 * numbers.get("q2", 0)),
            "month": (month, month),
            "months": (month, _month(parts.get("mon2"))),
        }[kind]
        kind = "range" if kind.endswith("s") else kind
        n_days = calendar.monthrange(year, last)[1]
        span = Spelled(text, kind, datetime.date(year, first, 1), datetime.date(year, last, n_days))
    except (ValueError, OverflowError):
        return None
    return span if span.first <= span.last else None


def _month(name: str | None) -> int:
    """Return the number of a month's name, 0 without one."""
    forms = enumerate(MONTHS, start=1)
    return next((n for n, form in forms if name and re.fullmatch(form, name, re.IGNORECASE)), 0)


_grammar = lru_cache(maxsize=8)(Grammar)
