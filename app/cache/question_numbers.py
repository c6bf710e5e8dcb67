"""Numbers of a query in one spelling: "two", "10km", "$1,000", "November 9th"."""

from __future__ import annotations

import re

from app.cache.question_words import WORDS

_AMOUNT = re.compile(r"([$€£¥]?)(-?\d[\d,]*(?:\.\d+)?)([^\W\d_]{1,12}|%|°[a-z])?")
_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DAY = re.compile(r"([12]?\d|3[01])(?:st|nd|rd|th)?")


def plain_numbers(words: list[str]) -> list[str]:
    """`words`, lower-cased ones, with numbers, units, ordinals and days of a month in one spelling."""
    found: list[str] = []
    for word in words:
        match = _AMOUNT.fullmatch(word)
        number = WORDS.numbers.get(word)
        if number is not None:
            found.append(number)
        elif word in WORDS.ordinals and not (word == "second" and found and _is_number(found[-1])):
            found.append(WORDS.ordinals[word])
        elif found and _is_number(found[-1]) and word in WORDS.units:
            found.append(WORDS.units[word])
        elif match and (match[1] or match[3] in WORDS.units or _GROUPED.fullmatch(word)):
            digits = match[2].replace(",", "") if _GROUPED.fullmatch(match[2]) else match[2]
            found.append(digits)
            found.extend(WORDS.units[unit] for unit in (match[1], match[3]) if unit in WORDS.units)
            if match[3] and match[3] not in WORDS.units:
                found[-1] = f"{found[-1]} {match[3]}"
        else:
            found.append(word)
    return _dates(found)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).replace(",", "").lstrip("-").isdigit()


def _dates(words: list[str]) -> list[str]:
    place = 0
    while place < len(words):
        month = WORDS.months.get(words[place])
        if month is not None:
            before = words[place - 1] if place else ""
            earlier = words[place - 2] if place > 1 else ""
            after = words[place + 1] if place + 1 < len(words) else ""
            if before == "of" and _DAY.fullmatch(earlier):
                words[place - 2 : place + 1] = [_day(earlier), month]
                place -= 1
            elif _DAY.fullmatch(before):
                words[place - 1 : place + 1] = [_day(before), month]
            elif _DAY.fullmatch(after):
                words[place : place + 2] = [_day(after), month]
                place += 1
            elif len(after) == 4 and after.isdigit():
                words[place] = month
        place += 1
    return words


def _day(text: str) -> str:
    match = _DAY.fullmatch(text)
    return match[1] if match else text
