"""How far the weights of two models are apart, by kind of tensor, read one tensor at a time."""

import math
import re
from collections import defaultdict
from pathlib import Path

MOST_BYTES = 8 * 2**30
"""Of a model that is read for it: some ten seconds from a disk."""
NUMBER = re.compile(r"\.\d+\.")


def weight_bytes(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def compare_weights(first: Path, second: Path) -> dict[str, float | None]:
    """By kind of tensor (the name without the layer's number) |second - first| / |first|; None where shapes or names differ."""
    from safetensors import safe_open

    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    unequal: set[str] = set()
    places = [_places(model) for model in (first, second)]
    for name in dict.fromkeys([*places[0], *places[1]]):
        kind = NUMBER.sub(".*.", name).removeprefix("model.").removesuffix(".weight")
        if not all(name in of for of in places):
            unequal.add(kind)
            continue
        with safe_open(places[0][name], "pt") as one, safe_open(places[1][name], "pt") as other:
            before, after = one.get_tensor(name), other.get_tensor(name)
        if before.shape != after.shape:
            unequal.add(kind)
            continue
        before, after = before.double(), after.double()
        squares[kind][0] += float((after - before).square().sum())
        squares[kind][1] += float(before.square().sum())
    apart = {kind: _relative(moved, size) for kind, (moved, size) in squares.items()}
    return {kind: None if kind in unequal else apart[kind] for kind in dict.fromkeys([*squares, *sorted(unequal)])}


def _relative(moved: float, size: float) -> float:
    """From two sums of squares."""
    if size:
        return math.sqrt(moved / size)
    return math.inf if moved else 0.0


def _places(model: Path) -> dict[str, str]:
    """The file of each tensor by its name."""
    from safetensors import safe_open

    found = {}
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(str(file), "pt") as opened:
            found |= dict.fromkeys(opened.keys(), str(file))
    return found
