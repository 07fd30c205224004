"""Quantities as people write them, read by the type of the field: "64k" tokens of context, "5B" tokens of budget."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

BINARY = {"": 1, "k": 2**10, "m": 2**20}
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
BYTES = {"": 1, "b": 1} | {f"{p}b": 1000**i for i, p in enumerate("kmgt", 1)} | {
    f"{p}ib": 1024**i for i, p in enumerate("kmgt", 1)
}  # fmt: skip
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _reader(units: dict[str, int], expected: str):
    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"expected {expected}")
        if isinstance(value, int | float):
            if not 0 <= value < float("inf") or value != int(value):
                raise ValueError(f"expected {expected}")
            return int(value)
        match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)", value.strip())
        if match is None or match[2].lower() not in units:
            raise ValueError(f"expected {expected}")
        number = Decimal(match[1].replace("_", "")) * units[match[2].lower()]  # 5.63 x 10^9 is no whole number in floats
        if number != int(number):
            raise ValueError(f"expected {expected}; {value!r} is not a whole number")
        return int(number)

    letters = "|".join("".join(f"[{letter}{letter.upper()}]" for letter in unit) for unit in units if unit)
    text = Annotated[str, Field(pattern=rf"^[0-9][0-9_]*(\.[0-9]+)?\s*({letters})?$")]
    return BeforeValidator(read, json_schema_input_type=Annotated[float, Field(ge=0)] | text)


Length = Annotated[int, _reader(BINARY, 'a length in tokens: 4096, or "64k" (k is 1,024)')]
Tokens = Annotated[int, _reader(DECIMAL, 'a number of tokens: 1500000, "1.5M" or "5B" (k is 1,000)')]
Size = Annotated[int, _reader(BYTES, 'a size in bytes: 1000000, "20MB" or "2GiB"')]
Duration = Annotated[int, _reader(SECONDS, 'a duration in seconds: 30, "90m" or "4h"')]
