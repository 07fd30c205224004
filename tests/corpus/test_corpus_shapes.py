"""Rows of chat data of every shape, whole and broken."""

import json
import re
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from helpers import curated

from llmctl import events
from llmctl.corpus.documents import Conversation, read_conversations
from llmctl.errors import UserError

QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
WEATHER = {"name": "weather", "arguments": {"city": "Oslo"}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": WEATHER}]}
SCHEMA = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def write(path, *rows: Any) -> str:
    """Rows as JSON lines, each beside the lines that are text already."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def plain(count: int) -> list[dict]:
    return [{"messages": [{"role": "user", "content": f"q{n}"}, ANSWER]} for n in range(count)]


def read(tmp_path, *rows: Any, **options) -> tuple[list[Conversation], dict[str, int], list[str]]:
    """The conversations of these rows, what was left out by rule, and what was said."""
    said: list[str] = []
    with events.listening(lambda event: said.append(event.text) if isinstance(event, events.Message) else None):
        _, lost = curated(tmp_path / "out", own={"path": write(tmp_path / "own.jsonl", *rows), "kind": "chat", **options})
    found = [c for split in ("train", "heldout") for c in read_conversations(tmp_path / "out", "own", split)]
    return found, {rule: count for (_, rule), count in lost.items()}, said


def only(tmp_path, row: Any, **options) -> Conversation:
    """The conversation of a row that stands among others like it, which ask something else."""
    other = re.sub(r'(": )?"q"', lambda m: m[0].replace('"q"', '"another q"'), json.dumps(row))
    assert other != json.dumps(row)
    found, _, _ = read(tmp_path, row, other, **options)
    return next(c for c in found if c.path.endswith(":1"))


SHAPES = {
    "OpenAI": {"messages": [QUESTION, ANSWER]},
    "OpenAI under another name": {"conversations": [QUESTION, ANSWER]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "Alpaca": {"instruction": "q", "output": "a"},
    "Alpaca without input": {"instruction": "q", "input": "", "output": "a"},
    "prompt + response": {"prompt": "q", "response": "a"},
    "prompt + completion": {"prompt": "q", "completion": "a"},
    "question + answer": {"question": "q", "answer": "a"},
    "trl": {"prompt": [QUESTION], "completion": [ANSWER]},
    "trl, prompt alone in turns": {"prompt": [QUESTION], "completion": "a"},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]},
    "columns of another shape that are null": {"messages": None, "prompt": "q", "response": "a"},
    "names of roles": {"messages": [{"role": "Human", "content": "q"}, {"role": "model", "content": "a"}]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_conversation(tmp_path, shape):
    assert only(tmp_path, SHAPES[shape]).messages == [QUESTION, ANSWER]


@pytest.mark.parametrize("shape", ["OpenAI", "ShareGPT", "Alpaca", "prompt + response", "trl"])
def test_a_system_prompt_beside_comes_first(tmp_path, shape):
    found = only(tmp_path, SHAPES[shape] | {"system": "be kind"})
    assert found.messages == [{"role": "system", "content": "be kind"}, QUESTION, ANSWER]


def test_the_input_of_alpaca_follows_the_instruction(tmp_path):
    assert only(tmp_path, {"instruction": "q", "input": "x", "output": "a"}).messages[0]["content"] == "q\n\nx"
    assert only(tmp_path, {"instruction": "q", "context": "x", "response": "a"}).messages[0]["content"] == "q\n\nx"


def test_parts_of_text_are_joined(tmp_path):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert only(tmp_path, {"messages": [QUESTION, {"role": "assistant", "content": parts}]}).messages[1]["content"] == "a\nb"


TOOLS = {
    "OpenAI, arguments as JSON": {
        "messages": [
            QUESTION,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}],
            },
            {"role": "tool", "content": "rain"},
            ANSWER,
        ],
        "tools": [SCHEMA],
    },
    "OpenAI, arguments as an object": {
        "messages": [
            QUESTION,
            {"role": "assistant", "tool_calls": [{"function": WEATHER}]},
            {"role": "tool", "content": "rain"},
            ANSWER,
        ],
        "tools": json.dumps([SCHEMA["function"]]),
    },
    "OpenAI's older form": {
        "messages": [
            QUESTION,
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
            {"role": "function", "content": "rain"},
            ANSWER,
        ],
        "functions": [SCHEMA["function"]],
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": json.dumps(WEATHER)},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": json.dumps([SCHEMA["function"]]),
    },
    "Olmo": {
        "messages": [
            {"role": "system", "content": "", "functions": json.dumps([SCHEMA["function"]])},
            QUESTION,
            {"role": "assistant", "content": None, "function_calls": 'weather(city="Oslo")'},
            {"role": "environment", "content": "rain"},
            ANSWER,
        ]
    },
}


@pytest.mark.parametrize("form", TOOLS)
def test_tool_calls_are_kept_in_one_form(tmp_path, form):
    found = only(tmp_path, TOOLS[form])
    turns = [turn for turn in found.messages if turn["role"] != "system"]
    assert turns == [QUESTION, CALL, {"role": "tool", "content": "rain"}, ANSWER]
    assert found.tools == [SCHEMA]


def test_the_names_of_calls_are_kept(tmp_path):
    call = {"id": "c1", "type": "function", "function": WEATHER}
    tool = {"role": "tool", "content": "rain", "name": "weather", "tool_call_id": "c1"}
    turns = [QUESTION, {"role": "assistant", "content": "", "tool_calls": [call, call | {"id": "c2"}]}, tool, tool, ANSWER]
    assert only(tmp_path, {"messages": turns}).messages == turns


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thinking_is_kept_beside_the_answer(tmp_path, key):
    assert only(tmp_path, {"messages": [QUESTION, ANSWER | {key: "hm"}]}).messages[1] == ANSWER | {"reasoning_content": "hm"}


def test_thinking_inside_the_answer_is_left_as_it_is(tmp_path):
    answer = "<think>\nhm\n</think>\n\na"
    assert only(tmp_path, {"prompt": "q", "response": answer}).messages[1] == {"role": "assistant", "content": answer}


def test_strange_text_goes_through_untouched(tmp_path):
    answer = "👩‍👩‍👧‍👦 שלום \u202eمرحبا\0 é\r\n" + "word " * 100_000
    assert only(tmp_path, {"prompt": "q", "response": answer}).messages[1]["content"] == answer


def test_columns_of_parquet_are_read_without_the_nulls_of_other_rows(tmp_path):
    calls = [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
    rows = [
        {"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}]},
        {
            "messages": [
                {"role": "user", "content": "q2"},
                ANSWER | {"tool_calls": [{"function": {"name": "now", "arguments": {"zone": "x"}}}]},
            ]
        },
        {"messages": [{"role": "user", "content": "q3"}, ANSWER]},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "own.parquet")
    curated(tmp_path / "out", own={"path": str(tmp_path / "own.parquet"), "kind": "chat"})
    splits = [c for split in ("train", "heldout") for c in read_conversations(tmp_path / "out", "own", split)]
    found = {c.path.rsplit(":")[-1]: c.messages for c in splits}
    assert found["1"] == [QUESTION, CALL]
    assert found["2"][1]["tool_calls"][0]["function"]["arguments"] == {"zone": "x"}
    assert found["3"][1] == ANSWER


def chat(*turns: dict) -> dict:
    return {"messages": list(turns)}


def said(question: str, answer: str) -> str:
    """A row as it stands in its file."""
    return f'{{"messages": [{{"role": "user", "content": "{question}"}}, {{"role": "assistant", "content": "{answer}"}}]}}'


def called(arguments: str) -> str:
    return said("q", f'", "tool_calls": [{{"name": "f", "arguments": {arguments}}}], "more": "')


BAD = {
    "no turn": (chat(), "empty conversation", "'messages' is empty; expected turns"),
    "null messages": ({"messages": None}, "null field", "'messages' is null; expected a list of turns"),
    "null content": (
        chat({"role": "user", "content": None}, ANSWER),
        "null field",
        "turn 1 (user): 'content' is null; expected text",
    ),
    "content missing": (chat({"role": "user", "text": "q"}, ANSWER), "null field", "'content' is missing (it has role, text)"),
    "two questions": (chat(QUESTION, QUESTION, ANSWER), "two user turns in a row", "turns 1 and 2 are both user"),
    "two answers": (chat(QUESTION, ANSWER, ANSWER), "two assistant turns in a row", "turns 2 and 3 are both assistant"),
    "system later": (
        chat(QUESTION, {"role": "system", "content": "s"}, ANSWER),
        "system turn not first",
        "turn 2 is of the system",
    ),
    "unknown role": (
        chat(QUESTION, {"role": "asistant", "content": "a"}),
        "unknown role",
        "'asistant'; did you mean 'assistant'?",
    ),
    "stranger": (chat({"role": "zzz", "content": "a"}), "unknown role", "'zzz'; known are system, user, assistant, tool"),
    "no role": (chat({"content": "q"}, ANSWER), "turn without a role", "turn 1: 'role' is missing (it has content)"),
    "null role": (chat({"role": None, "content": "q"}, ANSWER), "turn without a role", "turn 1: 'role' is null"),
    "no answer": (chat(QUESTION), "no answer", "no conversation with an answer: its turns are user"),
    "empty answer": (chat(QUESTION, {"role": "assistant", "content": " \n"}), "empty answer", "turn 2 (assistant) is empty"),
    "half a character": (said("\\ud83d", "a"), "half a surrogate pair", "half a surrogate pair, which is no character"),
    "half a character in a call": (called('{"a": "\\ud83d"}'), "half a surrogate pair", "half a surrogate pair"),
    "text as a turn": ({"messages": ["q", "a"]}, "turn that is no object", "turn 1 is text; expected {role, content}"),
    "text as turns": ({"messages": "q"}, "wrong type", "'messages' is text; expected a list of turns"),
    "number as content": (chat({"role": "user", "content": 3}, ANSWER), "wrong type", "turn 1 (user): the content is a number"),
    "number as role": (chat({"role": 3, "content": "q"}, ANSWER), "unknown role", "turn 1 has the role 3"),
    "picture": (chat({"role": "user", "content": [{"type": "image_url"}]}, ANSWER), "image part", "of type 'image_url'"),
    "tool first": (chat({"role": "tool", "content": "rain"}, ANSWER), "tool turn without a call", "turn 1 is a tool's"),
    "call without a name": (chat(QUESTION, {"role": "assistant", "tool_calls": [{"function": {}}]}), "tool call", "has no name"),
    "arguments that are no JSON": (
        chat(QUESTION, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{city"}]}),
        "tool call",
        "the arguments of f are no JSON",
    ),
    "tools that are no list": (chat(QUESTION, ANSWER) | {"tools": {"a": 1}}, "tools", "the tools are an object"),
    "a tool that is no schema": (chat(QUESTION, ANSWER) | {"tools": [{"function": "f"}]}, "tools", "tool 1 has no name"),
    "no shape": ({"text": "t"}, "unknown shape", "no conversation that is known (it has text); expected messages"),
    "no field": ({}, "unknown shape", "(it has no field)"),
    "preference pair": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "unknown shape", "a preference pair"),
    "another shape": ({"prompt": "q", "response": "a"}, "another shape", "the row is prompt + response; expected messages = "),
    "not JSON": ('{"messages": ', "unreadable", "not JSON"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_named_with_its_place_and_skipped_only_when_told(tmp_path, fault):
    row, reason, message = BAD[fault]
    rows = [plain(4)[0], row, *plain(4)[1:]]
    with pytest.raises(UserError) as stopped:
        read(tmp_path, *rows)
    assert re.search(rf"own.jsonl:2: .*{re.escape(message)}", str(stopped.value))
    assert 'on_error = "skip"' in str(stopped.value)
    found, lost, said = read(tmp_path, *rows, on_error="skip")
    assert sorted(c.messages[0]["content"] for c in found) == ["q0", "q1", "q2", "q3"]
    assert lost[reason] == 1
    assert f"own: 1 row skipped: 1 {reason}" in said


def test_pairs_with_null_or_other_values_are_bad_rows(tmp_path):
    good = [{"prompt": f"q{n}", "response": "a"} for n in range(4)]
    bad = [
        {"prompt": "q", "response": None},
        {"prompt": 1, "response": "a"},
        {"prompt": "q", "response": ""},
        {"prompt": [], "response": "a"},
    ]
    _, lost, said = read(tmp_path, *good, *bad, on_error="skip")
    assert lost == {"null field": 1, "wrong type": 1, "empty answer": 1, "empty conversation": 1}
    assert "own: 4 rows skipped: 1 null field, 1 wrong type, 1 empty answer, 1 empty conversation" in said


def test_a_bad_first_row_does_not_decide_the_shape(tmp_path):
    found, lost, said = read(
        tmp_path, {"messages": None}, *({"prompt": f"q{n}", "response": "a"} for n in range(4)), on_error="skip"
    )
    assert len(found) == 4
    assert lost == {"null field": 1}
    assert "own: rows are prompt + response" in said


def test_what_follows_the_last_answer_is_left_out(tmp_path):
    rows = [chat({"role": "user", "content": f"q{n}"}, ANSWER, QUESTION) for n in range(3)]
    found, _, said = read(tmp_path, *rows, *plain(9)[3:])
    assert len(found) == 9
    assert all(c.messages[-1] == ANSWER for c in found)
    assert "own: 3 conversations end with a question; what follows the last answer is left out" in said


def test_the_shape_is_said_once(tmp_path):
    _, _, said = read(tmp_path, *({"question": f"q{n}", "answer": "a", "level": 3} for n in range(9)))
    assert [line for line in said if "rows are" in line] == ["own: rows are question + answer (not read: level)"]


def test_a_source_of_several_shapes_is_told_with_counts_and_places(tmp_path):
    other = [{"prompt": f"p{n}", "response": "a"} for n in range(2)]
    found, lost, said = read(tmp_path, *plain(4), *other, on_error="skip")
    assert len(found) == 4
    assert lost["another shape"] == 2
    (told,) = [line for line in said if "2 shapes" in line]
    assert re.search(
        r"4 messages = \[{role, content}\] \(first \S*own.jsonl:1\), 2 prompt \+ response \(first \S*own.jsonl:5\)", told
    )


def test_a_shape_is_forced(tmp_path):
    both = [row | {"prompt": f"p{n}", "response": "b"} for n, row in enumerate(plain(4))]
    found, _, _ = read(tmp_path, *both, shape="prompt")
    assert {c.messages[1]["content"] for c in found} == {"b"}
    with pytest.raises(
        UserError, match=r"own.jsonl:1: .*expected instruction \+ output or response, as shape = 'instruction' says"
    ):
        read(tmp_path, *both, shape="instruction")


def test_fields_are_renamed(tmp_path):
    row = {"query": "q", "reply": "a", "persona": "s", "functions_here": [SCHEMA]}
    fields = {"prompt": "query", "response": "reply", "system": "persona", "tools": "functions_here"}
    found = only(tmp_path, row, fields=fields)
    assert found.messages == [{"role": "system", "content": "s"}, QUESTION, ANSWER]
    assert found.tools == [SCHEMA]
    assert only(tmp_path, {"talk": [QUESTION, ANSWER]}, fields={"messages": "talk"}).messages == [QUESTION, ANSWER]
    renamed = {"query": "q", "more": "x", "reply": "a"}
    found = only(tmp_path, renamed, fields={"prompt": "query", "input": "more", "response": "reply"})
    assert found.messages == [{"role": "user", "content": "q\n\nx"}, ANSWER]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_field_that_no_row_has_is_named(tmp_path, on_error):
    rows = [{"query": f"q{n}", "reply": "a"} for n in range(4)]
    with pytest.raises(UserError, match=r"fields.prompt = 'qery'.*has query, reply"):
        read(tmp_path, *rows, fields={"prompt": "qery", "response": "reply"}, on_error=on_error)
    with pytest.raises(UserError, match=r"fields.system = 'sys': no row has that field; the first has query, reply"):
        read(tmp_path, *rows, fields={"prompt": "query", "response": "reply", "system": "sys"}, on_error=on_error)


def test_text_and_size_count_what_is_thought_and_asked_of_tools():
    talk = Conversation([QUESTION, CALL | {"content": None, "reasoning_content": "é"}], "own/1", "own", "own:1")
    asked = json.dumps(WEATHER)
    assert talk.text == f"q\né\n\n{asked}"
    assert talk.size == 1 + 2 + len(asked)
