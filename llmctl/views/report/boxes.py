"""The lineage of a run as a drawing: boxes by depth, from the corpus down, with arrows to what is made from them."""

from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, ACROSS, DOWN = 300, 64, 40, 26  # of a box, and of the room between two, in pixels
LONGEST = 44  # characters of a line of a box


@dataclass(frozen=True, slots=True)
class Box:
    name: str
    status: str
    lines: tuple[str, ...]
    """Two at most."""
    link: str
    """The id of a part of the page."""
    look: str = ""
    """A class for the style: "bad", "at-work", "absent", "outside"."""


def reduced(parents: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without the arrows that others imply: of a stage's parents those that no other of them is made from. Parents come first."""
    ancestors: dict[str, set[str]] = {}
    for name, of in parents.items():
        ancestors[name] = set(of).union(*(ancestors.get(parent, set()) for parent in of))
    return {
        name: [one for one in of if not any(one in ancestors.get(other, set()) for other in of if other != one)]
        for name, of in parents.items()
    }


def draw(boxes: list[Box], parents: dict[str, list[str]]) -> str:
    """SVG of boxes, which come parents first. A child stands below its first parent where there is room."""
    arrows = reduced({box.name: [name for name in parents.get(box.name, []) if name != box.name] for box in boxes})
    places: dict[str, tuple[int, int]] = {}
    for box in boxes:
        above = [places[name] for name in arrows[box.name] if name in places]
        row = max((row + 1 for _, row in above), default=0)
        column = above[0][0] if above else 0
        while (column, row) in places.values():
            column += 1
        places[box.name] = (column, row)
    columns, rows = (1 + max((place[axis] for place in places.values()), default=0) for axis in (0, 1))
    width, height = columns * (WIDTH + ACROSS) - ACROSS + 2, rows * (HEIGHT + DOWN) - DOWN + 2
    drawn = [_arrow(places[name], places[box.name]) for box in boxes for name in arrows[box.name] if name in places]
    drawn += [_box(box, *places[box.name]) for box in boxes]
    head = "<defs><marker id='lineage-tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
    head += "<path d='M0 0L8 4L0 8z' fill='currentColor'/></marker></defs>"
    label = escape("; ".join(f"{name} from {', '.join(of)}" for name, of in arrows.items() if of), quote=True)
    return (
        f"<div class='wide'><svg class='lineage' width='{width}' height='{height}' viewBox='-1 -1 {width} {height}' role='img' "
        f'aria-label="{label}">{head}{"".join(drawn)}</svg></div>'
    )


def _corner(column: int, row: int) -> tuple[int, int]:
    return column * (WIDTH + ACROSS), row * (HEIGHT + DOWN)


def _arrow(parent: tuple[int, int], child: tuple[int, int]) -> str:
    x, y = _corner(*parent)
    to_x, to_y = _corner(*child)
    x, y, to_x = x + WIDTH // 2, y + HEIGHT, to_x + WIDTH // 2
    turn = to_y - DOWN  # down beside the rows between, and only then to the side
    path = f"M{x} {y}V{turn}C{x} {turn + DOWN // 2} {to_x} {turn + DOWN // 2} {to_x} {to_y - 2}"
    return f"<path d='{path}' fill='none' stroke='currentColor' stroke-opacity='.6' marker-end='url(#lineage-tip)'/>"


def _box(box: Box, column: int, row: int) -> str:
    x, y = _corner(column, row)
    lines = [f"<text x='{x + 10}' y='{y + 39 + 16 * place}'>{_cut(line)}</text>" for place, line in enumerate(box.lines[:2])]
    whole = escape("; ".join((f"{box.name}: {box.status}", *box.lines)))
    return (
        f"<a href='#{escape(box.link, quote=True)}' class='{box.look}'><title>{whole}</title>"
        f"<rect x='{x}' y='{y}' width='{WIDTH}' height='{HEIGHT}' rx='7'/>"
        f"<text class='name' x='{x + 10}' y='{y + 20}'>{_cut(box.name, 22)}</text>"
        f"<text class='status' x='{x + WIDTH - 10}' y='{y + 20}' text-anchor='end'>{_cut(box.status, 30)}</text>"
        f"{''.join(lines)}</a>"
    )


def _cut(text: str, longest: int = LONGEST) -> str:
    return escape(text if len(text) <= longest else text[: longest - 1] + "…")
