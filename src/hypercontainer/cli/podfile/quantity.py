"""Kubernetes' quantities: ``500m`` CPUs, ``64Mi`` bytes."""

from __future__ import annotations

import re
from fractions import Fraction

from hypercontainer.cli.podfile.section import Section

_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?[0-9]+)|([a-zA-Z]*))")
_SUFFIXES = {"": Fraction(1), "m": Fraction(1, 1000)}
_SUFFIXES |= {letter: Fraction(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_SUFFIXES |= {f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", 1)}


def quantity(text: str) -> Fraction:
    """The value of ``text``, which its shape has checked; nothing is 0."""
    match = _PARTS.fullmatch(text)
    if match is None:
        return Fraction(0)
    number, exponent, suffix = match.groups()
    return Fraction(number) * (Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""])


def amount(resources: Section, key: str) -> Fraction:
    """What a container may use, or at least wants, of ``key``."""
    limit, request = (quantity(resources.section(which).text(key)) for which in ("limits", "requests"))
    if limit and request > limit:
        raise resources.section("requests").node(key).where.error("a request above the limit")
    if (limit or request) >= 1 << 62:
        raise resources.where.error(f"nothing has so much {key}")
    return limit or request
