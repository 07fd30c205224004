"""Personal data is masked where it is asked for, counted, and nothing else is touched."""

import json
from collections import Counter

import pytest
from helpers import curated
from hypothesis import given
from hypothesis import strategies as st

from llmctl.corpus.documents import read_conversations, read_documents
from llmctl.corpus.personal import MASKS, masked


@pytest.mark.parametrize(
    ("kind", "found", "left"),
    [
        (
            "email",
            ["ada@example.org", "a.b+c_d@mail.example.co.uk"],
            ["@property", "a @ b", "x@y", "user@host:path", "matrix @ other.T"],
        ),
        ("ip", ["192.168.0.1", "8.8.8.8", "255.255.255.255"], ["1.2.3", "256.1.1.1", "1.2.3.4.5", "v1.10.300.2"]),
        (
            "phone",
            ["555-123-4567", "(555) 123-4567", "+1 555 123 4567", "555.123.4567"],
            ["123-45-6789", "5551234567", "2024-01-02 123", "1555-123-45678"],
        ),
    ],
)
def test_what_is_masked_and_what_is_not(kind, found, left):
    for text in found:
        counts: Counter[str] = Counter()
        assert masked(f"see {text}, please.", [kind], counts) == f"see {MASKS[kind]}, please."
        assert counts == {f"masked_{kind}": 1}
    for text in left:
        assert masked(f"see {text}, please.", [kind], Counter()) == f"see {text}, please."


@given(st.text())
def test_a_second_time_nothing_is_found(text):
    once = masked(text, list(MASKS), Counter())
    counts: Counter[str] = Counter()
    assert masked(once, list(MASKS), counts) == once
    assert not counts.total()


def test_documents_and_conversations_are_masked_and_counted(tmp_path):
    texts, talks = tmp_path / "texts.jsonl", tmp_path / "talks.jsonl"
    mails = [{"id": n, "text": f"Text {n}: write to a{n}@example.org or b@example.org."} for n in range(20)]
    calls = [{"id": n, "prompt": f"Call 555-123-45{n:02}", "response": "No."} for n in range(20)]
    texts.write_text("\n".join(map(json.dumps, mails)))
    talks.write_text("\n".join(map(json.dumps, calls)))
    text, talk = {"path": str(texts)}, {"path": str(talks), "kind": "chat"}
    counts, _ = curated(tmp_path / "out", mask=["email", "phone"], text=text, talk=talk)
    assert counts["text"]["masked_email"] == 40
    assert counts["talk"]["masked_phone"] == 20
    for document in read_documents(tmp_path / "out", "text", "train"):
        assert document.text.count(MASKS["email"]) == 2
        assert "@" not in document.text
    for talk in read_conversations(tmp_path / "out", "talk", "train"):
        assert talk.messages[0]["content"] == f"Call {MASKS['phone']}"


def test_what_is_thought_and_given_to_tools_is_masked_too(tmp_path):
    call = {
        "id": "c1",
        "function": {"name": "mail", "arguments": {"to": ["ada@example.org"], "more": {"cc": "b@example.org"}, "n": 1}},
    }
    turns = [
        {"role": "assistant", "content": None, "reasoning_content": "ada@example.org, then", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sent to ada@example.org"},
        {"role": "assistant", "content": "Done."},
    ]
    rows = [{"messages": [{"role": "user", "content": f"question {n}"}, *turns]} for n in range(9)]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    counts, _ = curated(tmp_path / "out", mask=["email"], talk={"path": str(tmp_path / "talks.jsonl"), "kind": "chat"})
    assert counts["talk"]["masked_email"] == 36
    mask = MASKS["email"]
    for talk in read_conversations(tmp_path / "out", "talk", "train"):
        _, answer, result, _ = talk.messages
        assert answer["reasoning_content"] == f"{mask}, then"
        assert answer["tool_calls"][0]["function"] == {"name": "mail", "arguments": {"to": [mask], "more": {"cc": mask}, "n": 1}}
        assert result == {"role": "tool", "tool_call_id": "c1", "content": f"sent to {mask}"}
