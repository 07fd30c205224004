"""The tokenizer and the chat mask."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.tokens.encoder import Encoder
from llmctl.tokens.masks import encode_talk
from llmctl.tokens.template import Refused, end_of_turn_ids
from llmctl.tokens.tokenizer import SPECIAL_TOKENS, compression, load_tokenizer, parts_of, train_tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is SGD?"},
    {"role": "assistant", "content": "Stochastic gradient descent."},
    {"role": "user", "content": "And Adam?"},
    {"role": "assistant", "content": "SGD with moments."},
]


def decoded(tokenizer, ids, mask, value):
    return tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m == value])


def test_loss_is_on_every_answer_and_its_closing_token_alone(tokenizer):
    encoded = encode_talk(tokenizer, MESSAGES)
    ids, mask = encoded.ids, encoded.mask
    assert decoded(tokenizer, ids, mask, 2) == "Stochastic gradient descent.SGD with moments."
    assert decoded(tokenizer, ids, mask, 1) == "<|im_end|><|im_end|>"
    assert "SGD?" in decoded(tokenizer, ids, mask, 0)


def test_last_turn_alone_on_demand(tokenizer):
    encoded = encode_talk(tokenizer, MESSAGES, "last_turn")
    ids, mask = encoded.ids, encoded.mask
    assert decoded(tokenizer, ids, mask, 2) == "SGD with moments."


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}",
        "{{ lipsum.__globals__['os'].mkdir('MARKER') }}",
        "{{ '{0.__class__.__base__}'.format(messages) }}",
        "{{ strftime_now.__globals__.os }}",
        "{{ messages[0].update(content='another question') }}",
    ],
)
def test_a_template_of_a_stranger_stays_in_its_sandbox(tokenizer, tmp_path, template):
    import copy

    hostile = copy.copy(tokenizer)
    hostile.chat_template = template.replace("MARKER", str(tmp_path / "marker"))
    with pytest.raises(UserError, match="tries to reach Python itself and was stopped: "):
        encode_talk(hostile, MESSAGES)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[9].content.strip() }}", "has no element 9"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_what_a_template_cannot_write_is_said(tokenizer, template, message):
    import copy

    broken = copy.copy(tokenizer)
    broken.chat_template = template
    with pytest.raises(UserError, match=f"cannot write this conversation .*{message}"):
        encode_talk(broken, MESSAGES)


def test_generation_stops_at_the_end_of_a_turn_and_of_text(tokenizer):
    assert tokenizer.convert_ids_to_tokens(end_of_turn_ids(tokenizer)) == ["<|endoftext|>", "<|im_end|>"]


def test_a_template_of_one_question_and_one_answer_tells_its_end(tokenizer):
    import copy

    own = copy.copy(tokenizer)
    own.chat_template = (
        "{% if messages | length > 2 %}{{ raise_exception('one question, please') }}{% endif %}"
        "{{ messages[0].content }}:{% if messages[1] %}{{ messages[1].content }}<|im_end|>{% endif %}"
    )
    assert own.convert_ids_to_tokens(end_of_turn_ids(own)) == ["<|endoftext|>", "<|im_end|>"]
    own.chat_template = "{{ raise_exception('nothing at all') }}"
    with pytest.raises(Refused, match="nothing at all"):
        end_of_turn_ids(own)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=80))
def test_text_survives_encoding(tokenizer, text):
    ids, _ = Encoder(tokenizer)([text])
    assert tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False) == text


def test_training_is_repeatable_and_compresses(tmp_path, texts, tokenizer, tokenizer_folder):
    train_tokenizer(iter(texts[:12]), 512, tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()
    assert len(tokenizer) == 512
    assert compression(tokenizer, texts[20:25]) > 1.8


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(UserError, match="hold no text"):
        train_tokenizer(iter([]), 512, tmp_path / "none")


def test_a_folder_without_tokenizer_is_said(tmp_path):
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path))


def test_rustbpe_trains_as_well(tmp_path, texts):
    pytest.importorskip("rustbpe", reason="the optional rustbpe package is not installed")
    sizes = {}
    for trainer in ("tokenizers", "rustbpe"):
        train_tokenizer(iter(texts[:12]), 700, tmp_path / trainer, trainer)
        tokenizer = load_tokenizer(str(tmp_path / trainer))
        assert len(tokenizer) == 700
        assert tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS) == list(range(len(SPECIAL_TOKENS)))
        ids, _ = Encoder(tokenizer)(texts[12:])
        assert tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False) == "".join(texts[12:])
        sizes[trainer] = len(ids)
    assert sizes["rustbpe"] == pytest.approx(sizes["tokenizers"], rel=0.005)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=8))
def test_a_merge_is_taken_apart_as_it_was_made(words):
    ranks = {bytes([byte]): byte for byte in range(256)}
    made = {}
    for word in words:
        parts = [bytes([byte]) for byte in word.encode()]
        while len(parts) > 1:
            known = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
            place = known.index(min(known))
            merged = parts[place] + parts[place + 1]
            if merged not in ranks:
                made[merged] = parts[place : place + 2]
                ranks[merged] = len(ranks)
            parts[place : place + 2] = [merged]
    for token, parts in made.items():
        assert parts_of(token, ranks) == parts
