"""Tool calls and schemas of functions, in one form: OpenAI's, with arguments as an object."""

import ast
import json
from typing import Any

KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class RowFault(Exception):
    """A row that is no conversation.

    `reason` counts rows of the kind ("no answer"); `what` says what is wrong in this one and what was expected.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason, self.what = reason, what


def kind_of(value: Any) -> str:
    """What JSON calls a value of this type, for people."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def calls_of(value: Any, number: int) -> list[dict[str, Any]]:
    """The calls of turn `number`: one or several, as JSON or not, `{"function": {"name", "arguments"}}` or the function alone;
    or as Olmo has them, `name(argument="value")`, a line each.

    Raises:
        RowFault: a call without a name, or with arguments that are no object.
    """
    if isinstance(value, str) and not value.lstrip().startswith(("{", "[")):
        return _written_as_python(value, number)
    found = parsed(value, "tool call", f"turn {number}: the tool call is")
    return [_call(call, number) for call in (found if isinstance(found, list) else [found])]


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowFault("tool call", f"turn {number}: a tool call has no name; expected {{name, arguments}}")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = parsed(arguments or "{}", "tool call", f"turn {number}: the arguments of {function['name']} are")
    if not isinstance(arguments, dict | None):
        what = f"turn {number}: the arguments of {function['name']} are {kind_of(arguments)}; expected an object"
        raise RowFault("tool call", what)
    identity = {"id": call["id"]} if call.get("id") else {}
    return identity | {"type": "function", "function": {"name": function["name"], "arguments": without_nulls(arguments or {})}}


def _written_as_python(text: str, number: int) -> list[dict[str, Any]]:
    try:
        calls = [line.value for line in ast.parse(text.strip()).body if isinstance(line, ast.Expr)]
        found = [
            {"name": ast.unparse(call.func), "arguments": {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}}
            for call in calls
            if isinstance(call, ast.Call) and not call.args
        ]
        json.dumps(found)
    except (SyntaxError, ValueError, TypeError):  # no Python, no literals, or literals that JSON has not
        found, calls = [], []
    if not found or len(found) < len(calls):
        what = f"turn {number}: the tool call is neither JSON nor name(argument=value): {text[:60]!r}"
        raise RowFault("tool call", what)
    return [_call(call, number) for call in found]


def tools_of(value: Any) -> list[dict[str, Any]]:
    """The functions that a row offers, as a list or as JSON.

    Raises:
        RowFault: they are no list of schemas.
    """
    if value is None or value == "":
        return []
    tools = parsed(value, "tools", "the tools are")
    if not isinstance(tools, list):
        raise RowFault("tools", f"the tools are {kind_of(tools)}; expected a list of schemas of functions")
    return [_schema(tool, number) for number, tool in enumerate(tools, 1)]


def _schema(tool: Any, number: int) -> dict[str, Any]:
    function = (tool.get("function") or tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowFault(
            "tools", f"tool {number} has no name; expected the schema of a function, {{name, description, parameters}}"
        )
    return without_nulls(tool if function is not tool else {"type": "function", "function": tool})


def parsed(value: Any, reason: str, begins: str) -> Any:
    """Raises:
    RowFault: text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise RowFault(reason, f"{begins} no JSON: {error.msg} at column {error.colno}") from None


def without_nulls(value: Any) -> Any:
    """Objects without their null fields: a Parquet file gives every object the fields of all the others, as nulls."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value
