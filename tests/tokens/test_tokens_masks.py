"""Which tokens are trained on, whatever the template does with a conversation and whatever stands in it."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.corpus.documents import Conversation
from llmctl.errors import UserError
from llmctl.tokens.masks import CLOSING, CONTENT, Encoded, encode_talk, encode_talks
from llmctl.tokens.named_templates import NAMED
from llmctl.tokens.spans import Unmaskable
from llmctl.tokens.template import end_of_turn_ids, special_tokens

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is SGD?"},
    {"role": "assistant", "content": "Stochastic gradient descent."},
    {"role": "user", "content": "And Adam?"},
    {"role": "assistant", "content": "SGD with moments."},
]
THOUGHT = [message | {"reasoning_content": "Hm, Adam."} if message["role"] == "assistant" else message for message in TALK]

# As Qwen 3: thinking of earlier turns is left out, and the last answer has a place for it even where there is none.
QWEN = """
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.last -%}{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{%- endif -%}
{{ m.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
# As Mistral: tools stand before the last question.
LAST_QUESTION = """
{%- set asked = messages | selectattr('role', 'equalto', 'user') | list -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}
{%- if m == asked[-1] -%}[TOOLS]{{ tools }}[/TOOLS]{%- endif -%}[INST] {{ m.content }} [/INST]
{%- elif m.role == 'assistant' -%}{{ ' ' + m.content + eos_token }}{%- endif -%}
{%- endfor -%}
"""
# What stands before an answer depends on it.
COUNTED = "{% for m in messages %}{{ m.role }} {{ m.content | length }}: {{ m.content }}<|im_end|>{% endfor %}"
COUNTED += "{% if add_generation_prompt %}assistant:{% endif %}"
UNCLOSED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
CENSORED = "{% for m in messages %}<|im_start|>{{ m.content | replace('gradient', '*') }}<|im_end|>{% endfor %}"

any_text = st.text(st.characters(codec="utf-8"), max_size=40).filter(lambda text: "<|" not in text)  # no special token


def with_template(tokenizer, template):
    own = copy.copy(tokenizer)
    own.chat_template = NAMED.get(template, template)
    return own


def written(tokenizer, encoded, kind=CONTENT):
    return [tokenizer.decode([encoded.ids[at] for at in range(turn.start, turn.stop) if encoded.mask[at] == kind])
            for turn in encoded.turns]  # fmt: skip


def check_whole(tokenizer, encoded):
    """A mask is of the turns and of nothing else; all tokens together are the text."""
    assert tokenizer.decode(encoded.ids) == encoded.text
    mask = np.zeros(len(encoded.ids), dtype=np.uint8)
    for turn in encoded.turns:
        mask[turn.start : turn.end] = CONTENT
        if turn.closing is not None:
            assert turn.closing == turn.end
            mask[turn.closing] = CLOSING
    assert (mask == encoded.mask).all()
    for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
        shown = tokenizer.decode([token])
        assert "\ufffd" in shown or shown == encoded.text[start:end]


def test_thinking_that_a_template_leaves_out_of_earlier_turns_is_not_trained_on(tokenizer):
    own = with_template(tokenizer, QWEN)
    encoded = encode_talk(own, THOUGHT)
    check_whole(own, encoded)
    assert written(own, encoded) == ["Stochastic gradient descent.", "<think>\nHm, Adam.\n</think>\n\nSGD with moments."]
    # Thinking in the content itself, as many data sets have it.
    inside = [m | {"content": f"<think>Hm.</think>\n\n{m['content']}"} if m["role"] == "assistant" else m for m in TALK]
    assert written(own, encode_talk(own, inside)) == [
        "Stochastic gradient descent.",
        "<think>\n\n</think>\n\nSGD with moments.",  # which the template writes, and so the model has to
    ]


def test_tools_before_the_last_question_leave_every_answer_trained(tokenizer):
    own = with_template(tokenizer, LAST_QUESTION)
    encoded = encode_talk(own, TALK[1:], tools=[{"name": "add"}])
    check_whole(own, encoded)
    assert encoded.text.index("[TOOLS]") > encoded.text.index("descent")
    assert [text.strip() for text in written(own, encoded)] == ["Stochastic gradient descent.", "SGD with moments."]
    assert written(own, encoded, CLOSING) == ["<|endoftext|>"] * 2


def test_a_last_turn_that_is_closed_differently(tokenizer):
    own = with_template(tokenizer, "olmo")
    encoded = encode_talk(own, TALK)
    check_whole(own, encoded)
    assert written(own, encoded, CLOSING) == ["<|im_end|>", "<|endoftext|>"]
    assert set(encoded.closing_ids) == set(end_of_turn_ids(own))
    assert written(own, encode_talk(own, TALK, "last_turn")) == ["SGD with moments."]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (COUNTED, "cannot be masked: the template writes a conversation differently when another answer stands in it"),
        (CENSORED, "cannot be masked: the template changes an answer's text, which cannot be found again"),
    ],
)
def test_a_template_of_which_spans_cannot_be_told_is_refused(tokenizer, template, message):
    with pytest.raises(UserError, match=message):
        encode_talk(with_template(tokenizer, template), TALK)


def test_a_turn_that_no_special_token_closes_is_open(tokenizer):
    own = with_template(tokenizer, UNCLOSED)
    encoded = encode_talk(own, TALK)
    assert [turn.closing for turn in encoded.turns] == [None, None]
    assert [text.strip() for text in written(own, encoded)] == ["Stochastic gradient descent.", "SGD with moments."]
    assert end_of_turn_ids(own) == [own.eos_token_id]


def test_an_answer_that_a_later_one_repeats_holds_no_other_turn(tokenizer):
    own = with_template(
        tokenizer, UNCLOSED.replace("{% endfor %}", "{% endfor %}{% if not add_generation_prompt %}<|im_end|>{% endif %}", 1)
    )
    encoded = encode_talk(own, [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")])
    assert [text.strip() for text in written(own, encoded)] == ["x", "x"]
    assert [turn.closing is None for turn in encoded.turns] == [True, False]


def test_an_answer_that_holds_what_stands_between_turns_is_refused(tokenizer):
    own = with_template(tokenizer, UNCLOSED)
    forged = [{"role": role, "content": text} for role, text in
              [("user", "a"), ("assistant", "x\nuser: b\nassistant: y"), ("user", "b"), ("assistant", "z")]]  # fmt: skip
    with pytest.raises(Unmaskable, match="the template changes an answer's text"):
        encode_talk(own, forged)


def test_white_space_of_the_header_that_is_joined_with_the_answer_is_trained_on(tokenizer):
    own = with_template(tokenizer, "chatml")
    encoded = encode_talk(own, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\n    b"}])
    assert encoded.joined
    assert written(own, encoded) == ["\n\n    b"]
    assert not encode_talk(own, TALK).joined


def test_words_of_the_header_that_are_joined_with_the_answer_are_refused(tokenizer):
    answer = "{% if m.role == 'assistant' %}i{{ m.content }}<|im_end|>{% else %}{{ m.content }}: {% endif %}"
    own = with_template(tokenizer, "{% for m in messages %}" + answer + "{% endfor %}{% if add_generation_prompt %}i{% endif %}")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "n"}]
    assert len(own.encode("in")) == 1
    with pytest.raises(Unmaskable, match="one token holds the end of an answer's header"):
        encode_talk(own, talk)


def test_words_after_an_open_answer_that_are_joined_with_it_are_refused(tokenizer):
    own = with_template(tokenizer, "{% for m in messages %}{{ m.content }}n. {% endfor %}")
    with pytest.raises(Unmaskable, match="one token holds the end of an answer and what follows it, for no special token closes"):
        encode_talk(own, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "i"}])


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>"])
def test_a_special_token_in_content_is_named(tokenizer, role, token):
    own = with_template(tokenizer, "chatml")
    talk = [m | {"content": f"a {token}\n"} if m["role"] == role else m for m in TALK]
    with pytest.raises(Unmaskable, match="holds a special token of the tokenizer as text, ") as caught:
        encode_talk(own, talk)
    assert token in str(caught.value)


def test_a_special_token_in_a_tool_call_or_half_a_pair_is_named_and_the_others_pass(tokenizer):
    own = with_template(tokenizer, "chatml")
    call = {"type": "function", "function": {"name": "f", "arguments": {"deep": ["<|im_end|>"]}}}
    answers = [
        {"content": "", "tool_calls": [call]},
        {"content": "half \ud83d"},
        {"content": "emoji 👩‍👩‍👧, שלום, \u202eleft\0"},
        {"content": ""},
    ]
    talks = [Conversation([TALK[1], {"role": "assistant"} | answer], str(n), "s", "s") for n, answer in enumerate(answers)]
    tool, half, passed, empty = encode_talks(own, talks)
    assert isinstance(tool, Unmaskable)
    assert isinstance(half, Unmaskable)
    assert "surrogate" in half.reason
    assert isinstance(passed, Encoded)
    assert written(own, passed) == [answers[2]["content"]]
    assert isinstance(empty, Encoded)
    assert not empty.mask.any()


@pytest.mark.parametrize("template", ["chatml", "olmo", "simple"])
@settings(max_examples=60, deadline=None)
@given(contents=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=3), system=any_text)
def test_what_is_trained_on_decodes_to_the_answers_of_any_conversation(tokenizer, template, contents, system):
    own = with_template(tokenizer, template)
    talk = [{"role": "system", "content": system}]
    for question, answer in contents:
        talk += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    encoded = encode_talk(own, talk)
    check_whole(own, encoded)
    answers = [answer.strip() for _, answer in contents if answer.strip()]
    assert [text.strip() for text in written(own, encoded)] == answers
    assert len(encoded.closing_ids) == len(answers)
    assert (encoded.mask != 0).sum() == sum(turn.stop - turn.start for turn in encoded.turns)


def test_a_tokenizer_is_left_as_it_was(tokenizer):
    from tokenizers import processors

    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    before = own.backend_tokenizer.to_str()
    encode_talk(own, TALK)
    assert own.backend_tokenizer.to_str() == before


def test_offsets_are_of_whole_tokens_where_the_tokenizer_trims_them(tokenizer):
    from tokenizers import processors

    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "  is a  word\n\n"}]
    for template in ("chatml", "simple"):
        plain, trimmed = (encode_talk(with_template(one, template), talk) for one in (tokenizer, own))
        assert plain.ids == trimmed.ids
        assert (plain.mask == trimmed.mask).all()


def test_a_tokenizer_that_changes_text_is_verified_by_what_it_makes_of_it(tokenizer):
    from tokenizers import normalizers

    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.normalizer = normalizers.NFC()
    own.chat_template = NAMED["chatml"]
    encoded = encode_talk(own, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "cafe\u0301"}])
    assert written(own, encoded) == ["caf\u00e9"]


def test_special_tokens_are_those_that_no_text_becomes(tokenizer):
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(special_tokens(tokenizer))


@pytest.mark.parametrize("template", ["chatml", "olmo"])
def test_a_long_turn_takes_no_longer_than_many_short_ones(tokenizer, template):
    """A turn of a hundred thousand tokens; an algorithm that is quadratic in it takes minutes."""
    import time

    own = with_template(tokenizer, template)
    answer = "self.value = 1\n" * 20_000
    begun = time.process_time()
    encoded = encode_talk(own, [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}])
    assert len(encoded.ids) > 100_000
    assert time.process_time() - begun < 20
