"""Replies read strictly: one JSON object of known keys, types and ranges, or a complaint.

A reply may have thoughts in <think> … </think> before it, a code fence or prose around the object.
What is read then lies between its first and its last brace, and must be one object: with two
objects, or a brace in the prose, nobody can say which is meant, and the reply is refused.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class MalformedReplyError(Exception):
    """A reply that cannot be used; the message is a complaint that the model can act on."""


def read_object(text: str) -> dict[str, Any]:
    """The one JSON object of a reply."""
    text = _THOUGHTS.sub("", text)
    begin, end = re.search(r"[{}]", text), text.rfind("}")
    if begin is None or end < 0:
        raise MalformedReplyError("it holds no whole JSON object")
    try:
        found = json.loads(
            text[begin.start() : end + 1],
            object_pairs_hook=_without_twins,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise MalformedReplyError(f"it is not one JSON object ({reason})") from error
    assert isinstance(found, dict), "what begins with a brace is an object"
    return found


def check_keys(
    table: Mapping[str, object], keys: Collection[str], *, of: str = "the object"
) -> None:
    """Refuse a table that has not exactly these keys."""
    if missing := [key for key in keys if key not in table]:
        raise MalformedReplyError(f"{of} lacks {_quoted(missing)}")
    if unknown := [key for key in table if key not in keys]:
        raise MalformedReplyError(f"{of} has {_quoted(unknown)}, which nobody asked for")


def read_rating(table: Mapping[str, object], key: str, *, low: float, high: float) -> float:
    """A number of a table within its range; text, true and false are no numbers."""
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedReplyError(f"{key!r} must be a number, not {_short(value)}")
    if not low <= value <= high:  # compared as it is: a vast integer fits no float
        raise MalformedReplyError(f"{key!r} is {_short(value)}, must be {low:g} to {high:g}")
    return float(value)


def read_text(table: Mapping[str, object], key: str) -> str:
    """A text of a table that is not empty."""
    value = table[key]
    if not isinstance(value, str) or not value.strip():
        raise MalformedReplyError(f"{key!r} must be text, not {_short(value)}")
    return value.strip()


def read_texts(table: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A list of texts of a table, often empty."""
    value = table[key]
    if not isinstance(value, list) or not all(
        isinstance(one, str) and one.strip() for one in value
    ):
        raise MalformedReplyError(f"{key!r} must be a list of texts, not {_short(value)}")
    return tuple(one.strip() for one in value)


def read_table(table: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object within a table."""
    value = table[key]
    if not isinstance(value, dict):
        raise MalformedReplyError(f"{key!r} must be an object, not {_short(value)}")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise MalformedReplyError("a key is there twice")
    return table


def _no_number(name: str) -> float:
    raise MalformedReplyError(f"{name} is no number")


def _short(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number of very many digits"
    if isinstance(value, float) and not math.isfinite(value):
        return "an infinite number"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _quoted(keys: list[str]) -> str:
    return ", ".join(_short(key) for key in keys[:3])
