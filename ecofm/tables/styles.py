"""Ways to write one number, and what stands where a number is missing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecofm.tables.keys import ALIKE

MARKS = frozenset(("no data", "not available", "not applicable", "not reported")) | frozenset(
    "- -- --- . .. ... \u2026 \u2020 \u2021 nr n : * ** ***"
    " x xx z c s d u ? / \\n na n/a n.a. n.a nan null none nil <na> "
    "nd n.d. n/d k.a. #n/a #n/v #div/0! #value! #ref! #name? #num! #null! (d) (x) (s) (z) (na) "
    "(c) inf -inf +inf infinity -infinity missing suppressed confidential unknown".split()
)
"""What stands in a cell whose number is secret or not known, in small letters."""
CENSORED = re.compile(
    r"(?:n ?)?(?:[<>≤≥]=?|under|below|over|above|(?:less|more|fewer) than|up to|at least) ?"
    r"[\d.,' ]*\d ?%?|\d[\d.,]* ?(?:-|to) ?\d[\d.,]*|\d[\d.,]* ?(?:\+|or (?:less|fewer|more|over))"
)
"""`<5`, `5 or less`, `1-4` and `10+`: a number is kept secret."""
BRACKETED = re.compile(r"\([\d.,' ]+%?\)")
CURRENCY = "$€£¥₩₹₫₦₱₽₺₵₴₸₭฿"
CODES = (
    "AED AFN ALL AMD AOA ARS AUD AZN BAM BDT BGN BHD BIF BOB BRL BWP BYN CAD CDF CHF CLP CNY COP "
    "CRC CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD GBP GEL GHS GMD GNF GTQ HKD HNL HTG HUF IDR "
    "ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KPW KRW KWD KZT LAK LBP LKR LRD LSL LYD MAD MDL "
    "MGA MKD MMK MNT MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR "
    "PLN PYG QAR RON RSD RUB RWF SAR SBD SDG SEK SGD SLE SOS SRD SSP SYP SZL THB TJS TMT TND TOP "
    "TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XOF YER ZAR ZMW ZWL "
    "Rs\\.? Rp\\.? Tk\\.? KSh TSh USh FCFA"
).split()
"""ISO 4217, and what people write instead."""
SIGN = rf"[A-Za-z]{{0,2}}[{CURRENCY}]|(?:{'|'.join(CODES)})"
MONEY = re.compile(rf"([+-]?) ?({SIGN}) ?(.*)|(.*?) ?([{CURRENCY}]|(?:{'|'.join(CODES)}))")
WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Wide letters and digits of East Asian keyboards."""


@dataclass(frozen=True, slots=True)
class Style:
    """One way to write numbers."""

    group: str
    """What separates thousands; "" where nothing does."""
    decimal: str
    """What separates the decimals."""
    pattern: re.Pattern[str]
    """What is written so."""

    def fits(self, text: str) -> bool:
        """Return whether a text is a number in this style."""
        return self.pattern.fullmatch(text) is not None

    def read(self, text: str) -> float:
        """Return the number."""
        whole = text.replace(self.group, "") if self.group else text
        return float(whole.replace(self.decimal, "."))


def _make_style(group: str, decimal: str, size: int = 3) -> Style:
    between, mark, exponent = re.escape(group), re.escape(decimal), r"(?:[eE][+-]?[0-9]+)?"
    whole = "[0-9]+"
    if group:
        parts = rf"[1-9][0-9]{{0,2}}(?:{between}[0-9]{{{size}}})*{between}[0-9]{{3}}"
        whole = rf"(?:{parts}|{whole})"
    number = rf"(?:{whole}(?:{mark}[0-9]*)?|{mark}[0-9]+){exponent}"
    return Style(group, decimal, re.compile(rf"[+-]?{number}"))


STYLES = (
    _make_style("", "."),
    _make_style("", ","),
    *(_make_style(group, mark) for mark in ".," for group in ",. '" if group != mark),
    _make_style(",", ".", size=2),
)
"""The last is India's: 12,34,567."""


def clean(cell: str) -> str:
    """Return a cell's text with plain blanks, minus signs and apostrophes."""
    text = " ".join(cell.translate(WIDE).translate(ALIKE).split())
    return text[0] + text[2:] if text[:2] in ("- ", "+ ") else text


def is_missing_mark(text: str) -> bool:
    """Return whether a cleaned cell says that its number is secret or not known."""
    return text.casefold() in MARKS or CENSORED.fullmatch(text.casefold()) is not None


def strip_units(text: str) -> tuple[str, str]:
    """Return a cleaned cell without its percent or currency sign, and the sign."""
    if text.endswith("%"):
        return text[:-1].rstrip(), "%"
    if found := MONEY.fullmatch(text):
        if found[2]:
            return found[1] + found[3], found[2]
        return found[4], found[5]
    return text, ""
