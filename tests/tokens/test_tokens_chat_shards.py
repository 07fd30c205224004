"""Conversations on disk: what is kept, what is cut or left out and why."""

import copy

import numpy as np
import pytest

from llmctl import events
from llmctl.corpus.documents import Conversation
from llmctl.errors import UserError
from llmctl.tokens.chat_shards import ChatSettings, read_hashes, read_report, write_chat_shards
from llmctl.tokens.masks import encode_talk
from llmctl.tokens.shards import TokenShards
from llmctl.tokens.template import set_template

QUESTION, ANSWER = "What does this function return?", "It returns the number of words in a text."
ROW = 512
SETTINGS = ChatSettings("assistant", ROW)


def talk(number, *contents, roles=("user", "assistant")):
    messages = [{"role": roles[place % len(roles)], "content": text} for place, text in enumerate(contents)]
    return Conversation(messages, f"c{number}", "talk", f"talk.jsonl:{number}")


def written(conversations, tokenizer, folder, settings=SETTINGS):
    """(report, shards, their mask, what is said)"""
    said = []
    with events.listening(lambda event: said.append(getattr(event, "text", ""))):
        report = write_chat_shards(conversations, tokenizer, folder / "out", settings, "talk")
    shards = TokenShards(folder / "out")
    assert shards.mask is not None or not shards.documents
    mask = shards.mask[:] if shards.mask is not None else np.empty(0, np.uint8)
    return report, shards, mask, [text for text in said if text]


@pytest.fixture(params=["chatml", "olmo"])
def own(request, tokenizer):
    tokenizer = copy.copy(tokenizer)
    set_template(tokenizer, request.param)
    return tokenizer


def test_shards_hold_the_tokens_and_masks_and_the_report_counts_them(own, tmp_path):
    talks = [talk(1, QUESTION, ANSWER), talk(2, QUESTION, ANSWER, "And then?", "Nothing.")]
    report, shards, mask_there, said = written(talks, own, tmp_path)
    encoded = [encode_talk(own, t.messages) for t in talks]
    assert shards.stream[:].tolist() == [token for one in encoded for token in one.ids]
    assert (mask_there == np.concatenate([one.mask for one in encoded])).all()
    assert shards.names({0, 1}) == {0: ("c1", "talk.jsonl:1"), 1: ("c2", "talk.jsonl:2")}
    assert (report.conversations, report.kept, report.turns, report.closing, report.unclosed) == (2, 2, 3, 3, 0)
    assert report.tokens == shards.tokens
    assert report.trained == sum(int((one.mask != 0).sum()) for one in encoded)
    assert sum(report.closings.values()) == 3
    assert not said
    assert read_report(tmp_path / "out") == report


def test_every_row_that_is_left_out_is_named_with_its_reason(own, tmp_path):
    talks = [
        talk(1, QUESTION, ANSWER),
        talk(2, QUESTION, "before <|im_end|> after"),
        talk(3, QUESTION, ""),
        talk(4, QUESTION, "\ud83d"),
        talk(5, QUESTION, roles=("judge",)),
        talk(6, QUESTION),
        *(talk(number, QUESTION, "") for number in range(7, 20)),
    ]
    report, shards, _, said = written(talks, own, tmp_path)
    assert shards.documents == report.kept == 1
    assert {reason: (rows.count, rows.places) for reason, rows in report.reasons.items()} == {
        "cannot be masked: holds a special token of the tokenizer as text, <|im_end|>": (1, ["talk.jsonl:2"]),
        "no answer to train on": (15, [f"talk.jsonl:{number}" for number in (3, 6, *range(7, 15))]),
        "cannot be masked: holds half a surrogate pair, which is no text": (1, ["talk.jsonl:4"]),
        'the template refuses it: this template has no role "judge"': (1, ["talk.jsonl:5"]),
    }
    assert report.untrained == sum(rows.count for rows in report.left_out.values()) == 18
    assert "talk: 15 of 19 conversations: no answer to train on (talk.jsonl:3, talk.jsonl:6, talk.jsonl:7, ...)" in said
    assert read_report(tmp_path / "out") == report


def test_a_conversation_that_is_too_long_keeps_its_whole_turns(own, tmp_path):
    long = talk(1, QUESTION, ANSWER, "And?", "Nothing.", "More!", ANSWER * 40)
    report, shards, mask_there, said = written([long], own, tmp_path)
    encoded = encode_talk(own, long.messages[:4])
    ids, mask = encoded.ids, encoded.mask
    assert shards.stream[:].tolist() == ids  # closed as a conversation of its own is
    assert (mask_there == mask).all()
    assert report.reasons["longer than a row, and cut after a whole turn"].places == ["talk.jsonl:1"]
    assert report.left_out == {}
    assert said == [
        f"talk: 1 of 1 conversations: longer than a row, and cut after a whole turn (seq_len = {ROW} tokens) (talk.jsonl:1)"
    ]


def test_the_last_turn_that_fits_is_the_last_turn(own, tmp_path):
    long = talk(1, QUESTION, ANSWER, "And?", "Nothing.", "More!", ANSWER * 40)
    _, shards, mask_there, _ = written([long], own, tmp_path, ChatSettings("last_turn", ROW))
    encoded = encode_talk(own, long.messages[:4], "last_turn")
    ids, mask = encoded.ids, encoded.mask
    assert shards.stream[:].tolist() == ids
    assert (mask_there == mask).all()


def test_truncation_cuts_an_answer_and_says_so(own, tmp_path):
    long, beyond = talk(1, QUESTION, ANSWER * 40), talk(2, QUESTION * 40, ANSWER)
    report, shards, mask_there, said = written([long, beyond], own, tmp_path, ChatSettings("assistant", ROW, "truncate"))
    encoded = encode_talk(own, long.messages)
    ids, mask = encoded.ids, encoded.mask
    assert shards.stream[:].tolist() == ids[:ROW]
    assert (mask_there == mask[:ROW]).all()
    assert report.closing == 0
    assert report.turns == report.unclosed == 0
    assert report.trained > 0
    assert report.reasons["longer than a row, and cut in the middle of a turn"].places == ["talk.jsonl:1"]
    assert report.reasons["longer than a row, and no trained token is left after the cut"].places == ["talk.jsonl:2"]
    assert len(said) == 2


def test_what_is_too_long_is_dropped_on_demand(own, tmp_path):
    talks = [talk(1, QUESTION, ANSWER * 40), talk(2, QUESTION, ANSWER)]
    report, shards, *_ = written(talks, own, tmp_path, ChatSettings("assistant", ROW, "drop"))
    assert shards.documents == 1
    assert report.left_out["longer than a row, and dropped"].places == ["talk.jsonl:1"]


@pytest.mark.parametrize("talks", [[], [talk(1, QUESTION, ANSWER * 40)]])
def test_nothing_kept_is_a_report_and_no_error(own, tmp_path, talks):
    report, shards, *_ = written(talks, own, tmp_path)
    assert report.kept == shards.documents == shards.tokens == 0
    assert report.untrained == len(talks)
    assert read_hashes(tmp_path / "out").shape == (0, 2)


def test_hashes_find_the_same_conversation_and_the_same_question(own, tmp_path):
    talks = [talk(1, QUESTION, ANSWER), talk(2, QUESTION, "Nothing."), talk(3, QUESTION, ANSWER), talk(4, "Why?", ANSWER)]
    written(talks, own, tmp_path)
    whole, asked = read_hashes(tmp_path / "out").T.tolist()
    assert whole[0] == whole[2]
    assert len(set(whole)) == 3
    assert asked[0] == asked[1] == asked[2] != asked[3]


def test_a_batch_makes_no_difference(own, tmp_path, monkeypatch):
    talks = [talk(number, QUESTION, ANSWER * (1 + number % 3)) for number in range(7)]
    report, shards, *_ = written(talks, own, tmp_path)
    monkeypatch.setattr("llmctl.tokens.chat_shards.TALKS", 2)
    again, apart, *_ = written(talks, own, tmp_path / "again")
    assert again == report
    assert (apart.stream[:] == shards.stream[:]).all()


def test_a_broken_template_is_no_fault_of_the_rows(tokenizer, tmp_path):
    broken = copy.copy(tokenizer)
    broken.chat_template = "{% for %}"
    with pytest.raises(UserError, match="TemplateSyntaxError"):
        written([talk(1, QUESTION, ANSWER)], broken, tmp_path)
    assert not (tmp_path / "out").exists()
