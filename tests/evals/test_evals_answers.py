"""Which held-out questions are asked, with which prompt, and which answer is expected."""

import copy

import pytest

from llmctl.corpus.documents import Conversation
from llmctl.evals.answers import answers, to_ask
from llmctl.model.build import ModelShape, build_model
from llmctl.tokens.template import render

NO_PROMPT_AFTER_SYSTEM = (
    "{% if add_generation_prompt and messages[0].role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def talk(*turns):
    return Conversation([{"role": role, "content": text} for role, text in turns], turns[-1][1], "talk", "talk.jsonl:1")


@pytest.fixture
def asked(tokenizer):
    def ask(*conversations, template=None, longest=200):
        own = copy.copy(tokenizer)
        own.chat_template = template or own.chat_template
        return own, to_ask(own, list(conversations), longest)

    return ask


def test_the_question_is_what_stands_before_the_expected_answer(asked):
    plain = talk(("system", "Be brief."), ("user", "a?"), ("assistant", "b."), ("user", "c?"), ("assistant", "d."))
    empty = talk(("user", "a?"), ("assistant", ""), ("user", "c?"), ("assistant", "d."))
    own, found = asked(plain, empty)
    assert [(len(one.question), one.expected) for one in found] == [(2, "b."), (3, "d.")]
    for one in found:
        assert one.question == one.conversation.messages[: len(one.question)]
        assert one.prompt == render(own, one.question, prompt=True)


def test_a_conversation_that_begins_with_the_assistant_asks_nothing(asked):
    greeting = talk(("assistant", "Hello!"), ("user", "a?"), ("assistant", "b."))
    told = talk(("system", "Say something."), ("assistant", "b."))
    _, found = asked(greeting, told)
    assert found == []


def test_a_question_whose_prompt_the_template_refuses_is_left_out(asked):
    refused = talk(("system", "Be brief."), ("user", "a?"), ("assistant", "b."))
    written = talk(("user", "a?"), ("assistant", "c."))
    _, found = asked(refused, written, template=NO_PROMPT_AFTER_SYSTEM)
    assert [one.expected for one in found] == ["c."]


def test_a_question_is_as_long_as_its_prompt(asked):
    written = talk(("user", "a? " * 20), ("assistant", "c."))
    own, (one,) = asked(written)
    length = len(own(one.prompt, add_special_tokens=False)["input_ids"])
    assert asked(written, longest=length)[1]
    assert not asked(written, longest=length - 1)[1]


def test_a_model_answers_each_question(asked):
    own, found = asked(talk(("user", "a?"), ("assistant", "b.")), talk(("user", "c?"), ("assistant", "")))
    model = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128), seed=1)
    written = answers(model.eval(), own, found, 4)
    assert len(written) == len(found) == 1
    assert written[0].tokens <= 4
