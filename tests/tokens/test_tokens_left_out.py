"""A template that has no place for tool calls, tools or thinking: what it leaves out is never left out without a word."""

import copy

import pytest

from llmctl import events
from llmctl.corpus.documents import Conversation
from llmctl.tokens.chat_shards import ChatSettings, read_report, write_chat_shards
from llmctl.tokens.masks import encode_talk
from llmctl.tokens.named_templates import NAMED
from llmctl.tokens.spans import Unmaskable

CONTENT_ALONE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FIRST_CALL = CONTENT_ALONE.replace(
    "{{ m.content }}", "{{ m.content }}{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.name }}{% endif %}"
)
# As LFM 2: a special token begins the calls.
MARKED = CONTENT_ALONE.replace(
    "{{ m.content }}", "{{ m.content }}{% for c in m.tool_calls %}<|im_start|>{{ c.function.name }}{% endfor %}"
)
WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"

ASK = {"role": "user", "content": "What does look give?"}


def calls(*names):
    return [{"type": "function", "function": {"name": name, "arguments": {}}} for name in names]


def offered(*names):
    return [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]


def answer(*names, content="Let me look.", **fields):
    return {"role": "assistant", "content": content, **({"tool_calls": calls(*names)} if names else {}), **fields}


@pytest.fixture
def encode(tokenizer):
    def encode(template, messages, tools=None):
        own = copy.copy(tokenizer)
        own.chat_template = NAMED.get(template, template)
        encoded = encode_talk(own, messages, tools=tools)
        return [own.decode(encoded.ids[turn.start : turn.end]) for turn in encoded.turns]

    return encode


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CONTENT_ALONE, answer("find")),
        (CONTENT_ALONE, answer("look")),  # which the content names, and not as a call
        (CONTENT_ALONE, answer("find", content="")),
        (CONTENT_ALONE, answer("look", reasoning_content="I could look.")),
        (FIRST_CALL, answer("find", "find")),
    ],
)
@pytest.mark.parametrize("after", [[], [{"role": "tool", "content": "4"}, answer(content="It gives 4.")]])
def test_a_turn_whose_calls_are_not_written_is_not_trained_on_without_them(encode, template, message, after):
    with pytest.raises(Unmaskable, match="the template leaves out tool calls"):
        encode(template, [ASK, message, *after])


def test_calls_that_are_written_are_trained_on_with_what_is_said_before_them(encode):
    assert encode(FIRST_CALL, [ASK, answer("find")]) == ["Let me look.<call>find"]
    assert encode(FIRST_CALL, [ASK, answer("look", content="l")]) == ["l<call>look"]
    assert encode(MARKED, [ASK, answer("look", "find"), ASK, answer()]) == [
        "Let me look.<|im_start|>look<|im_start|>find",
        "Let me look.",
    ]


@pytest.mark.parametrize("template", [CONTENT_ALONE, FIRST_CALL, "{{ tools[0].function.name }}" + CONTENT_ALONE])
def test_tools_that_are_offered_and_not_written_are_said(encode, template):
    for tools in (offered("find", "sum"), [{"name": "find"}, {"name": "sum"}]):
        with pytest.raises(Unmaskable, match="the template leaves out the tools that are offered"):
            encode(template.replace(".function", "") if "function" not in tools[0] else template, [ASK, answer()], tools)


def test_a_call_of_a_tool_is_no_offer_of_it(encode):
    with pytest.raises(Unmaskable, match="the template leaves out the tools that are offered"):
        encode(FIRST_CALL, [ASK, answer("find")], offered("find"))
    assert encode(WITH_TOOLS + FIRST_CALL, [ASK, answer("find")], offered("find", "sum")) == ["Let me look.<call>find"]


def test_thinking_that_is_left_out_is_counted_and_told_and_the_row_is_kept(tokenizer, tmp_path):
    thoughts = ["Hm.", None, "Hm.", ""]
    talks = [
        Conversation([ASK, answer(reasoning_content=thought)], f"c{n}", "talk", f"talk.jsonl:{n}")
        for n, thought in enumerate(thoughts)
    ]
    for template, left_out in (("chatml", 0), (CONTENT_ALONE, 2)):
        own, said = copy.copy(tokenizer), []
        own.chat_template = NAMED.get(template, template)
        out = tmp_path / str(left_out)
        with events.listening(lambda event, said=said: said.append(getattr(event, "text", ""))):
            report = write_chat_shards(talks, own, out, ChatSettings("assistant", 256), "talk")
        assert (report.kept, report.thinking, report.thoughtless) == (4, 2, left_out)
        assert read_report(out) == report
        told = "talk: the template leaves out the thinking of 2 last answers"
        assert (told in said) == bool(left_out)


def test_thinking_of_earlier_turns_alone_is_no_loss(tokenizer, tmp_path):
    talk = Conversation([ASK, answer(reasoning_content="Hm."), ASK, answer()], "c", "talk", "talk.jsonl:1")
    own = copy.copy(tokenizer)
    own.chat_template = CONTENT_ALONE
    report = write_chat_shards([talk], own, tmp_path / "out", ChatSettings("assistant", 256), "talk")
    assert (report.thinking, report.thoughtless) == (0, 0)
