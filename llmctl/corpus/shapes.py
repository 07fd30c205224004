"""Rows as conversations: the shapes that people keep chat data in, told by their fields."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmctl import events
from llmctl.corpus.tool_calls import RowFault, kind_of, tools_of
from llmctl.corpus.turns import Message, in_order, message_of
from llmctl.errors import UserError
from llmctl.recipe.corpus_schema import SourceTable

TURNS, PAIRS = ("messages", "conversations"), ("instruction", "prompt")
TURN_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}
TURN_FIELDS = ("messages", "conversations", "conversation")
PAIR_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "instruction": {"prompt": ("instruction",), "response": ("output", "response"), "input": ("input", "context")},
    "prompt": {"prompt": ("prompt", "question"), "response": ("response", "completion", "answer"), "input": ()},
}
SYSTEM_FIELDS, TOOL_FIELDS = ("system", "system_prompt"), ("tools", "functions")
KNOWN = (
    "messages = [{role, content}], conversations = [{from, value}], prompt + response (or completion), question + answer, "
    "instruction + output (+ input)"
)


class Shapes:
    """Reads the rows of one place as conversations, and says of what shape they are."""

    def __init__(self, table: SourceTable, name: str) -> None:
        self.forced, self.fields, self.name = table.shape, dict(table.fields), name
        self.first: str | None = None
        self.first_label = ""
        self.counts: Counter[str] = Counter()
        self._places: dict[str, tuple[str, str]] = {}
        self._unseen = set(self.fields.values())
        self._has = ""

    def read(self, place: str, row: dict[str, Any]) -> tuple[list[Message], list[dict[str, Any]], int]:
        """Turns of a row, the functions that it offers, and how many turns follow the last answer, which are left out.

        Raises:
            RowFault: it is no conversation, or of another shape than the first one.
        """
        self._unseen.difference_update(row)
        self._has = self._has or ", ".join(map(str, row))
        shape, names = self._shape_of(row)
        label = _label(shape, names)
        if self.first is not None and shape != self.first:
            self._count(shape, label, place)
            what = f"the row is {label}; expected {self.first_label}, as the first ones. One source holds one shape"
            raise RowFault("another shape", what)
        system_field, system = self._find(row, "system", SYSTEM_FIELDS)
        tools_field, offered = self._find(row, "tools", TOOL_FIELDS)
        messages = _with_system(self._messages(row, shape, names), system)
        if not messages:
            raise RowFault("empty conversation", f"{names['messages']!r} is empty; expected turns")
        kept = in_order(messages)
        tools = tools_of(offered or _offered(row.get(names.get("messages", ""))))
        if self.first is None:
            self.first, self.first_label = shape, label
            unread = [key for key in row if key not in {*names.values(), system_field, tools_field, "id"}]
            events.say(f"{self.name}: rows are {label}" + (f" (not read: {', '.join(unread)})" if unread else ""))
        self._count(shape, label, place)
        return kept, tools, len(messages) - len(kept)

    def finish(self) -> None:
        """Say where rows are of several shapes.

        Raises:
            UserError: `fields` names a field that no row has.
        """
        for key, field in self.fields.items():
            if field in self._unseen and self._has:
                raise UserError(f"{self.name}: fields.{key} = {field!r}: no row has that field; the first has {self._has}")
        if len(self.counts) > 1:
            told = (f"{self.counts[shape]:,} {label} (first {place})" for shape, (label, place) in self._places.items())
            events.warn(f"{self.name}: rows are of {len(self.counts)} shapes: {', '.join(told)}")

    def _count(self, shape: str, label: str, place: str) -> None:
        self.counts[shape] += 1
        self._places.setdefault(shape, (label, place))

    def _find(self, row: Mapping[str, Any], part: str, names: tuple[str, ...]) -> tuple[str | None, Any]:
        """Name and value of the field for a part of the conversation; the first that is not null, where several are there."""
        candidates = (self.fields[part],) if part in self.fields else names
        there = [name for name in candidates if name in row]
        name = next((name for name in there if row[name] is not None), there[0] if there else None)
        return name, None if name is None else row[name]

    def _shape_of(self, row: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """The shape of a row, and the names of the fields that tell it. One whose fields are null counts where no other fits."""
        found: list[tuple[str, dict[str, str], bool]] = []
        for shape in (TURNS + PAIRS) if self.forced == "auto" else (self.forced,):
            parts = {"messages": TURN_FIELDS} if shape in TURNS else PAIR_FIELDS[shape]
            at = {part: self._find(row, part, names) for part, names in parts.items()}
            if any(name is None for part, (name, _) in at.items() if part != "input"):
                continue
            if self.forced == "auto" and not self._meant(shape, at):
                continue
            names = {part: name for part, (name, _) in at.items() if name is not None}
            found.append((shape, names, all(value is not None for part, (_, value) in at.items() if part != "input")))
        if not found:
            raise self._unknown(row)
        shape, names, _ = next((one for one in found if one[2]), found[0])
        return shape, names

    def _meant(self, shape: str, at: Mapping[str, tuple[str | None, Any]]) -> bool:
        """Whether rows whose fields fit a shape are told to be of it: lists of turns by the first turn's keys, pairs of renamed
        fields by whether an input is named."""
        if shape in TURNS:
            turns = at["messages"][1]
            first = turns[0] if isinstance(turns, list) and turns else None
            told = "conversations" if isinstance(first, dict) and "from" in first and "role" not in first else "messages"
            return shape == told
        return "messages" not in self.fields and (
            shape == "prompt" or "input" in self.fields or self.fields.get("prompt", "instruction") == "instruction"
        )

    def _unknown(self, row: Mapping[str, Any]) -> RowFault:
        has = ", ".join(map(str, row)) or "no field"
        missing = [f"fields.{key} = {field!r}" for key, field in self.fields.items() if field not in row]
        if missing:
            return RowFault("unknown shape", f"it lacks the field of {' and '.join(missing)} (it has {has})")
        if "chosen" in row:
            return RowFault("unknown shape", f"a preference pair (it has {has}); expected {KNOWN}")
        wanted = f"{KNOWN}; fields = {{ prompt = NAME, ... }} names others" if self.forced == "auto" else _expected(self.forced)
        return RowFault("unknown shape", f"no conversation that is known (it has {has}); expected {wanted}")

    def _messages(self, row: Mapping[str, Any], shape: str, names: Mapping[str, str]) -> list[Message]:
        if shape in TURNS:
            return _turns(row[names["messages"]], names["messages"], shape)
        prompt = _said(row, names["prompt"], "user")
        extra = row.get(names.get("input", ""))
        if extra:
            if not isinstance(extra, str):
                raise RowFault("wrong type", f"{names['input']!r} is {kind_of(extra)}; expected text")
            prompt[-1]["content"] += f"\n\n{extra}"
        return [*prompt, *_said(row, names["response"], "assistant")]


def _turns(value: Any, field: str, shape: str) -> list[Message]:
    if value is None:
        raise RowFault("null field", f"{field!r} is null; expected a list of turns")
    if not isinstance(value, list):
        raise RowFault("wrong type", f"{field!r} is {kind_of(value)}; expected a list of turns")
    return [message_of(turn, number, *TURN_KEYS[shape]) for number, turn in enumerate(value, 1)]


def _offered(turns: Any) -> Any:
    """The functions that Olmo's data have in the first turn."""
    return turns[0].get("functions") if isinstance(turns, list) and turns and isinstance(turns[0], dict) else None


def _said(row: Mapping[str, Any], field: str, role: str) -> list[Message]:
    """One side of a pair: text, or turns as trl has them."""
    value = row[field]
    if isinstance(value, list) and not value:
        raise RowFault("empty conversation", f"{field!r} is empty; expected turns")
    if isinstance(value, list):
        return _turns(value, field, "messages")
    if value is None:
        raise RowFault("null field", f"{field!r} is null; expected text")
    if not isinstance(value, str):
        raise RowFault("wrong type", f"{field!r} is {kind_of(value)}; expected text")
    return [{"role": role, "content": value}]


def _with_system(messages: list[Message], system: Any) -> list[Message]:
    if not system or not messages:
        return messages
    if not isinstance(system, str):
        raise RowFault("wrong type", f"the system prompt is {kind_of(system)}; expected text")
    if messages[0]["role"] == "system":
        if messages[0]["content"] == system:
            return messages
        raise RowFault(
            "system turn not first", "a system prompt in a field of the row and another in the first turn; expected one"
        )
    return [{"role": "system", "content": system}, *messages]


def _label(shape: str, names: Mapping[str, str]) -> str:
    if shape in TURNS:
        return f"{names['messages']} = [{{{', '.join(TURN_KEYS[shape])}}}]"
    return " + ".join(names[part] for part in ("prompt", "input", "response") if part in names)


def _expected(shape: str) -> str:
    if shape in TURNS:
        return f"{shape} = [{{{', '.join(TURN_KEYS[shape])}}}], as shape = {shape!r} says"
    parts = (" or ".join(names) for part, names in PAIR_FIELDS[shape].items() if part != "input")
    return f"{' + '.join(parts)}, as shape = {shape!r} says"
