"""Fill in the middle: nothing of a document is lost, and the shares are those asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.recipe.train_schema import InfillingTable
from llmctl.tokens.infilling import MIDDLE, PREFIX, SUFFIX, marks, pieces
from llmctl.tokens.shards import TokenShards
from llmctl.tokens.text_shards import TextShards

IDS = (1, 2, 3)
BEGIN, FILL, END = IDS


def restored(found) -> str:
    """The document of its pieces."""
    if len(found) == 1:
        return found[0]
    if found[1] == END:
        begin, end, suffix, fill, prefix, middle = found
    else:
        begin, prefix, end, suffix, fill, middle = found
    assert (begin, end, fill) == (BEGIN, END, FILL)
    return prefix + middle + suffix


@given(st.text(max_size=200), st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_document_is_there_whole(text, name, rate, spm_rate):
    table = InfillingTable(sources=["code"], rate=rate, spm_rate=spm_rate, min_characters=3)
    assert restored(pieces(name, text, table, IDS)) == text


def test_the_shares_are_those_asked_for():
    table = InfillingTable(sources=["code"], rate=0.5, spm_rate=0.25, min_characters=3)
    found = [pieces(f"d{n}", "a text of some length", table, IDS) for n in range(2000)]
    changed = [one for one in found if len(one) > 1]
    assert len(changed) == pytest.approx(1000, abs=90)
    assert sum(one[1] == END for one in changed) == pytest.approx(len(changed) / 4, abs=60)
    assert found == [pieces(f"d{n}", "a text of some length", table, IDS) for n in range(2000)]
    assert pieces("d1", "ab", table, IDS) == ["ab"]


def test_shards_hold_the_pieces_in_order(tmp_path, tokenizer, tokenizer_folder, texts):
    table = InfillingTable(sources=["code"], rate=1.0)
    documents = [(f"d{n}", text, "own") for n, text in enumerate(texts[:4])]
    size = sum(len(text.encode()) for text in texts[:4])
    TextShards(str(tokenizer_folder), tmp_path / "own", infilling=table).write(lambda: documents, size)
    shards = TokenShards(tmp_path / "own")
    begin, fill, end = marks(tokenizer)
    assert [begin, fill, end] == tokenizer.convert_tokens_to_ids([PREFIX, MIDDLE, SUFFIX])
    whole = set()
    for start, stop in zip(shards.offsets[:-1], shards.offsets[1:], strict=True):
        ids = shards.stream[start:stop].tolist()
        assert ids[-1] == tokenizer.eos_token_id
        assert sorted(i for i in ids if i in (begin, fill, end)) == sorted([begin, fill, end])
        parts: list = [[]]
        for i in ids[:-1]:
            if i in (begin, fill, end):
                parts += [{begin: BEGIN, fill: FILL, end: END}[i], []]
            else:
                parts[-1].append(i)
        decoded = [
            part if isinstance(part, int) else tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in parts
        ]
        _, _, *rest = decoded  # nothing stands before the first mark
        if rest[0] == END:  # suffix first: prefix and middle are one text
            _, suffix, _, front = rest
            whole.add(front + suffix)
        else:
            prefix, _, suffix, _, middle = decoded[2:]
            whole.add(prefix + middle + suffix)
    assert whole == set(texts[:4])


def test_a_vocabulary_without_the_tokens_is_told(tokenizer):
    class Without:
        def get_vocab(self):
            return {"a": 0, PREFIX: 1}

    with pytest.raises(UserError, match=r"does not have: <\|fim_middle\|>, <\|fim_suffix\|>"):
        marks(Without())
