"""Text to ids to shards: the ids are those of `tokenizers`, nothing is lost, and what was stopped goes on."""

import csv
import gzip
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.tokens import text_shards
from llmctl.tokens.encoder import Encoder
from llmctl.tokens.shards import TokenShards
from llmctl.tokens.text_shards import TextShards


def plain_ids(tokenizer, texts):
    """By `tokenizers`, special tokens in the text left as text."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    return [encoding.ids for encoding in plain.encode_batch(texts, add_special_tokens=False)]


@pytest.fixture(scope="session")
def encoder(tokenizer):
    return Encoder(tokenizer)


# Letters of all ages of Unicode, signs, and what gigatoken and `tokenizers` are known to see differently.
ODD = [
    "\U00016ebb",
    "𐐷",
    "ⵣ",
    "漢字かな",
    "한국어",
    "é",
    "e\u0301",
    "İ",
    "\u00a0",
    "\u3000",
    "😀",
    "\ufffd",
    "\U000e0100",
    "  \n\n ",
    "1234567",
]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.sampled_from(ODD), st.text(st.characters(codec="utf-8"), max_size=9))).map("".join), min_size=1
    )
)
def test_ids_are_those_of_tokenizers(encoder, tokenizer, texts):
    ids, lengths = encoder(texts)
    expected = plain_ids(tokenizer, texts)
    assert lengths.tolist() == [len(mine) for mine in expected]
    assert ids.tolist() == [i for mine in expected for i in mine]


def test_the_fast_encoder_is_used_where_it_is_installed(encoder, texts):
    pytest.importorskip("gigatoken", reason="the optional gigatoken package is not installed")
    encoder(texts)
    assert encoder.engine == "gigatoken"


def test_a_fast_encoder_that_differs_is_announced_and_left(tokenizer, texts):
    from llmctl import events

    class Wrong:
        def encode_batch(self, texts):
            import awkward

            return awkward.Array([[1, 2, 3] for _ in texts])

    pytest.importorskip("awkward", reason="the optional gigatoken package is not installed")
    encoder, said = Encoder(tokenizer), []
    encoder._fast = Wrong()
    with events.listening(said.append):
        ids, _ = encoder(texts[:3])
    assert ids.tolist() == [i for mine in plain_ids(tokenizer, texts[:3]) for i in mine]
    assert encoder.engine == "tokenizers"
    assert any("in another way" in event.text for event in said)


def test_special_tokens_in_a_text_stay_text(tokenizer, encoder):
    text = "it ends with <|endoftext|> or <|im_end|>"
    ids, _ = encoder([text])
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False) == text


def written(texts):
    return [(f"d{number}", text, f"own.jsonl:{number + 1}") for number, text in enumerate(texts)]


def size_of(texts):
    return sum(len(text.encode()) for text in texts)


def test_every_document_is_there_with_its_end_and_its_name(tmp_path, tokenizer, tokenizer_folder, texts):
    TextShards(str(tokenizer_folder), tmp_path / "one").write(lambda: written(texts), size_of(texts))
    shards = TokenShards(tmp_path / "one")
    assert (shards.documents, shards.bytes) == (len(texts), size_of(texts))
    with gzip.open(tmp_path / "one" / "part-00000.csv.gz", "rt", newline="") as file:
        rows = list(csv.reader(file))
    by_name = {name: (text, path) for name, text, path in written(texts)}
    raw = np.fromfile(tmp_path / "one" / "part-00000.npy", dtype=np.uint16)
    for number, (start, end, name, path, place) in enumerate(rows):
        ids = raw[int(start) : int(end)].tolist()
        assert ids[-1] == tokenizer.eos_token_id
        assert (tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False), path) == by_name.pop(name)
        assert (int(start), int(place)) == (shards.offsets[number], number)
    assert not by_name
    (part,) = shards.parts
    assert part["sha256"] == hashlib.sha256((tmp_path / "one" / "part-00000.npy").read_bytes()).hexdigest()


def test_order_of_arrival_parts_and_workers_make_no_difference(tmp_path, tokenizer_folder, texts):
    documents = written(texts)
    TextShards(str(tokenizer_folder), tmp_path / "one").write(lambda: documents, size_of(texts))
    many = TextShards(str(tokenizer_folder), tmp_path / "many", part_bytes=size_of(texts) // 5 - 1, workers=2)
    many.write(lambda: reversed(documents), size_of(texts))
    one, many = (TokenShards(tmp_path / name) for name in ("one", "many"))
    assert len(many.parts) == 6
    assert many.stream[0 : many.tokens].tolist() == one.stream[0 : one.tokens].tolist()
    assert many.offsets.tolist() == one.offsets.tolist()
    assert not list(tmp_path.glob(".*"))


def test_finished_parts_are_kept_when_it_is_stopped(tmp_path, tokenizer_folder, texts, monkeypatch):
    making = TextShards(str(tokenizer_folder), tmp_path / "own", part_bytes=size_of(texts) // 3, workers=1)
    real, made = text_shards.write_part, []

    def stopping(tokenizer, folder, part, infilling):
        if part == 2 and not made.count("again"):
            raise KeyboardInterrupt
        made.append(part)
        real(tokenizer, folder, part, infilling)

    monkeypatch.setattr(text_shards, "write_part", stopping)
    with pytest.raises(KeyboardInterrupt):
        making.write(lambda: written(texts), size_of(texts))
    assert (made, (tmp_path / "own").exists()) == ([0, 1], False)
    made.append("again")

    def unread():
        raise AssertionError("what is scattered is not read again")

    making.write(unread, size_of(texts))
    assert made == [0, 1, "again", 2, 3]
    TextShards(str(tokenizer_folder), tmp_path / "one").write(lambda: written(texts), size_of(texts))
    own, one = (TokenShards(tmp_path / name) for name in ("own", "one"))
    assert own.stream[0 : own.tokens].tolist() == one.stream[0 : one.tokens].tolist()


def test_stopped_before_it_got_its_name_it_only_gets_it(tmp_path, tokenizer_folder, texts, monkeypatch):
    making = TextShards(str(tokenizer_folder), tmp_path / "own")
    monkeypatch.setattr(TextShards, "_give_name", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        making.write(lambda: written(texts), size_of(texts))
    monkeypatch.undo()
    making.write(lambda: iter(()), size_of(texts))
    assert TokenShards(tmp_path / "own").documents == len(texts)


KILLED = """
import os, sys
from pathlib import Path
from llmctl.errors import StageFailed
from llmctl.tokens import text_shards

def killed(tokenizer, folder, part, infilling):
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    text_shards.write_part = killed
    documents = [(f"d{n}", "some text of it " * 50, "own.txt") for n in range(40)]
    try:
        text_shards.TextShards(sys.argv[1], Path(sys.argv[2]), part_bytes=9000, workers=2).write(lambda: documents, 32_000)
    except StageFailed as error:
        print(error)
else:
    text_shards.write_part = killed
"""


def test_a_killed_worker_is_told(tmp_path, tokenizer_folder):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    result = subprocess.run(
        [sys.executable, script, tokenizer_folder, tmp_path / "own"], capture_output=True, text=True, timeout=120
    )
    assert "a worker was killed" in result.stdout, result.stderr
    assert not (tmp_path / "own").exists()
