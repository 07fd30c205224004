"""What a model has answered, read with patience: JSON within fences or words, numbers within text."""

import json
import re
from typing import Any

STARTS = re.compile(r"[\[{]")
NUMBER = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?![\w,])(?!\.\d)|(?<![\w.,-])\d{1,9}(?!\w|[.,]\d)")
MOST_STARTS = 50  # places tried, so that a reply of nothing but brackets takes no time


def objects_in(reply: str) -> list[dict[str, Any]] | None:
    """The objects of the first JSON list in a reply, by itself or as a value of an object. None: there is none."""
    decoder = json.JSONDecoder()
    for match in list(STARTS.finditer(reply))[:MOST_STARTS]:
        try:
            value, _ = decoder.raw_decode(reply, match.start())
        except (ValueError, RecursionError):
            continue
        lists = [value, *value.values()] if isinstance(value, dict) else [value]
        for candidate in lists:
            found = [item for item in candidate if isinstance(item, dict)] if isinstance(candidate, list) else []
            if found:
                return found
        if isinstance(value, dict) and "question" in value:
            return [value]
    return None


def number_in(answer: Any) -> int | None:
    """The whole number that an answer states. None: it states none, or several."""
    if isinstance(answer, bool):
        return None
    if isinstance(answer, int):
        return answer
    if isinstance(answer, float):
        return int(answer) if answer.is_integer() else None
    if not isinstance(answer, str):
        return None
    stated = {int(number.replace(",", "")) for number in NUMBER.findall(answer)}
    return stated.pop() if len(stated) == 1 else None
