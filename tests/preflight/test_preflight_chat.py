"""Training on conversations that would teach nothing is refused before it begins, with every reason at once."""

import copy
from pathlib import Path

import pytest

from llmctl import events
from llmctl.corpus.documents import Conversation
from llmctl.errors import EXIT_DEAD_RUN, DeadRun
from llmctl.preflight.chat import Chat, Shards, findings, refuse
from llmctl.tokens.chat_shards import ChatSettings, write_chat_shards
from llmctl.tokens.template import missing_tokens, set_template


def rows(count, start=1, answer="Answer {}.", question="Question {}?"):
    return [
        Conversation(
            [{"role": "user", "content": question.format(n)}, {"role": "assistant", "content": answer.format(n)}],
            f"talk/{n}", "talk", f"talk.jsonl:{n}",
        )
        for n in range(start, start + count)
    ]  # fmt: skip


@pytest.fixture
def judged(tokenizer, tmp_path):
    """Findings on rows of training and held-out rows."""

    def judge(train, heldout=None, template="chatml", lacking=(), settings=None, **fields):
        own = copy.deepcopy(tokenizer)
        set_template(own, template)
        settings = settings or ChatSettings("assistant", 256)
        write_chat_shards(train, own, tmp_path / "train", settings, "talk")
        if heldout is not None:
            write_chat_shards(heldout, own, tmp_path / "heldout", settings, "talk")
        shards = Shards("talk", tmp_path / "train", tmp_path / "heldout" if heldout is not None else None)
        values = {"most_untrained": 0.05, "tokens": len(own), "embedded": len(own), "missing": missing_tokens(own)} | fields
        return findings(Chat([shards], template=Path(template).name, **values))

    return judge


def test_good_conversations_pass(judged):
    assert judged(rows(40), rows(4, start=100)) == []
    refuse("sft", [])


def test_rows_without_a_trained_token_are_refused_over_the_share_alone(judged):
    bad = rows(2, start=90, answer="") + rows(1, start=92, answer="<|im_end|>")
    assert judged(rows(97) + bad) == []
    (found,) = judged(rows(97) + bad, most_untrained=0.02)
    assert found.dead
    assert found.what == (
        "talk: 3 of 100 conversations (3.0%) have no trained token (most_untrained = 0.02):"
        "\n       2 no answer to train on (talk.jsonl:90, talk.jsonl:91)"
        "\n       1 cannot be masked: holds a special token of the tokenizer as text, <|im_end|> (talk.jsonl:92)"
    )
    assert "Mend these rows" in found.remedy


@pytest.mark.parametrize(
    ("train", "settings", "what", "remedy"),
    [
        (rows(3, answer="A " * 400), None, "3 longer than a row, and no trained token is left after the cut", "Raise seq_len"),
        (rows(3, answer="A " * 400), ChatSettings("assistant", 256, "drop"), "and dropped", 'too_long = "turns"'),
        ([], None, "no conversation to train on", "path and its shape"),
    ],
)
def test_nothing_left_to_train_on_is_refused_whatever_the_share(judged, train, settings, what, remedy):
    (found,) = judged(train, settings=settings, most_untrained=1.0)
    assert found.dead
    assert what in found.what
    assert remedy in found.remedy


def test_an_end_of_turn_that_the_vocabulary_lacks_is_named_with_the_tokens_to_add(judged):
    (found,) = judged(rows(3), template="gemma")
    assert found.what == ("talk: the template (gemma) closes no answer with a special token: the model would not learn to stop.")
    assert 'add_tokens = ["<start_of_turn>", "<end_of_turn>"]' in found.remedy


def test_a_marker_that_is_no_token_and_joins_with_answers_is_named_as_the_fault(judged, tmp_path):
    (tmp_path / "joined.jinja").write_text("{% for m in messages %}{{ m.content }}n<|eot_id|>{% endfor %}")
    (found,) = judged(rows(3, answer="i"), template=str(tmp_path / "joined.jinja"))
    assert "3 cannot be masked: one token holds the end of an answer and what follows it" in found.what
    assert found.remedy.startswith('The vocabulary lacks what the template writes: add_tokens = ["<|eot_id|>"]')


def test_a_template_that_closes_the_last_answer_alone_is_refused(judged, tmp_path):
    (tmp_path / "open.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if loop.last and m.role == 'assistant' %}{{ eos_token }}"
        "{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    twice = [Conversation(row.messages * 2, row.id, row.source, row.path) for row in rows(3)]
    (found,) = judged(twice, template=str(tmp_path / "open.jinja"))
    assert "closes 3 of 6 answers not with a special token" in found.what
    assert "{{ eos_token }}" in found.remedy


def test_answers_that_are_all_cut_never_end(judged):
    (found,) = judged(rows(3, answer="A " * 400), settings=ChatSettings("assistant", 128, "truncate"))
    assert "every answer is cut before its end" in found.what


def test_a_template_that_cannot_be_masked_is_said_to_be_the_fault(judged, tmp_path):
    (tmp_path / "counted.jinja").write_text(
        "{% for m in messages %}{{ m.role }} {{ m.content | length }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    (found,) = judged(rows(3), template=str(tmp_path / "counted.jinja"))
    assert "3 cannot be masked: the template writes a conversation differently" in found.what
    assert 'The template (counted.jinja) cannot be masked; take another one: template = "chatml".' in found.remedy


def test_a_template_without_a_form_for_tools_is_said_to_be_the_fault(judged):
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    called = [
        Conversation([*row.messages[:1], row.messages[1] | {"tool_calls": [call]}], row.id, "talk", row.path) for row in rows(3)
    ]
    (found,) = judged(called, template="tulu")
    assert "the template tulu has no form for tools" in found.what
    assert "a template other than tulu" in found.remedy


def test_thinking_that_most_turns_lose_is_a_warning(judged, tmp_path):
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")

    def thought(row):
        return Conversation([row.messages[0], row.messages[1] | {"reasoning_content": "Hm."}], row.id, row.source, row.path)

    talks = [*map(thought, rows(3)), *rows(9, start=10)]
    (found,) = judged(talks, template=str(tmp_path / "plain.jinja"))
    assert not found.dead
    assert "leaves out the thinking of 3 of 3 last answers" in found.what
    assert judged(talks, template="chatml") == []


def test_a_template_without_a_place_for_calls_is_said_to_be_the_fault(judged, tmp_path):
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    called = [
        Conversation([row.messages[0], row.messages[1] | {"tool_calls": [call]}], row.id, "talk", row.path) for row in rows(3)
    ]
    (found,) = judged(called, template=str(tmp_path / "plain.jinja"))
    assert "3 cannot be masked: the template leaves out tool calls" in found.what
    assert "The template (plain.jinja) has no place for them; take one that has" in found.remedy


def test_a_template_that_tells_no_end_is_refused(judged):
    (found,) = judged(rows(3), unended="roles must alternate")
    assert found.dead
    assert "roles must alternate" in found.what


def test_more_tokens_than_the_model_embeds_are_refused_unless_it_is_resized(judged, tokenizer):
    (found,) = judged(rows(3), embedded=len(tokenizer) - 1)
    assert found.what == f"the tokenizer has {len(tokenizer)} tokens and the model embeds {len(tokenizer) - 1}."
    assert judged(rows(3), embedded=len(tokenizer) - 1, resized=True) == []
    assert judged(rows(3), embedded=len(tokenizer) + 64) == []
    assert judged(rows(3), embedded=None) == []


def test_held_out_conversations_that_are_trained_on_are_named_with_their_doubles(judged):
    same, asked = rows(2, start=5), rows(1, start=9, answer="Something else.")
    renamed = [Conversation(row.messages, row.id, row.source, f"heldout.jsonl:{n}") for n, row in enumerate(same + asked, 1)]
    whole, first = judged(rows(40), renamed + rows(7, start=100))
    assert whole.dead
    assert whole.what == (
        "talk: 2 of 10 held-out conversations are trained on, word for word: "
        "heldout.jsonl:1 is talk.jsonl:5, heldout.jsonl:2 is talk.jsonl:6."
    )
    assert not first.dead
    assert first.what == "talk: 1 of 10 held-out conversations ask first what is trained on: heldout.jsonl:3 is talk.jsonl:9."


def test_a_double_in_another_source_is_named_with_both(tokenizer, tmp_path):
    own = copy.deepcopy(tokenizer)
    set_template(own, "chatml")

    def shards(source, train, heldout=None):
        parts = {"train": train, "heldout": heldout}
        for part, talks in parts.items():
            if talks is not None:
                talks = [Conversation(t.messages, t.id, source, f"{source}.jsonl:{n}") for n, t in enumerate(talks, 1)]
                write_chat_shards(talks, own, tmp_path / source / part, ChatSettings("assistant", 256), source)
        return Shards(source, tmp_path / source / "train", tmp_path / source / "heldout" if heldout is not None else None)

    sources = [
        shards("a", rows(4), rows(2, start=100) + rows(1, start=52)),
        shards("empty", []),
        shards("b", rows(5, start=50), rows(3, start=200) + rows(1, start=2, answer="Something else.")),
    ]
    found = findings(Chat([s for s in sources if s.source != "empty"], 0.05, "chatml", len(own)))
    assert [(one.dead, one.what) for one in found] == [
        (True, "a: 1 of 3 held-out conversations are trained on, word for word: a.jsonl:3 is b.jsonl:3 of b."),
        (False, "b: 1 of 4 held-out conversations ask first what is trained on: b.jsonl:4 is a.jsonl:2 of a."),
    ]
    with_empty = findings(Chat(sources, 0.05, "chatml", len(own)))
    assert {one.what for one in found} < {one.what for one in with_empty}


def test_a_question_that_is_asked_on_both_sides_is_told_and_no_reason_to_stop(judged):
    found = judged(rows(3), rows(1, answer="Something else.") + rows(149, start=100))
    assert [finding.dead for finding in found] == [False]
    said = []
    with events.listening(said.append):
        refuse("sft", found)
    assert [event.level for event in said] == ["warning"]
    assert said[0].text.startswith("sft: talk: 1 of 150 held-out conversations ask first what is trained on")


def test_a_held_out_part_of_which_nothing_is_left_is_refused(judged):
    (found,) = judged(rows(3), rows(2, answer=""))
    assert "of 2 held-out conversations none has a trained token" in found.what


def test_a_refusal_holds_every_finding_with_what_to_do(judged, tokenizer):
    found = judged(rows(3), rows(1, start=3), template="gemma", embedded=10)
    with pytest.raises(DeadRun) as caught:
        refuse("sft", found)
    assert caught.value.exit_code == EXIT_DEAD_RUN
    message = str(caught.value)
    assert message.startswith("sft is refused")
    for number, finding in enumerate(found, 1):
        assert f"\n  {number}. {finding.what}\n    {finding.remedy}" in message
    assert len(found) == 3
