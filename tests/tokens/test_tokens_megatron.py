"""Megatron-LM's files are written as it reads them, and read as it writes them."""

import struct

import numpy as np
import pytest
from helpers import in_process, run_llmctl

from llmctl.errors import UserError
from llmctl.tokens.adopted_shards import adopt_shards
from llmctl.tokens.megatron import read_index, write_megatron
from llmctl.tokens.shards import TokenShards
from llmctl.tokens.text_shards import TextShards


@pytest.fixture
def shards(tmp_path, tokenizer_folder, texts):
    documents = [(f"d{n}", text, "own") for n, text in enumerate(texts[:20])]
    size = sum(len(text.encode()) for text in texts[:20])
    TextShards(str(tokenizer_folder), tmp_path / "own", part_bytes=size // 2 + 1).write(lambda: documents, size)
    return TokenShards(tmp_path / "own")


def index_of(kind: int, lengths: list[int], first: list[int], size: int) -> bytes:
    """An index as the description of the format has it, put together by hand."""
    places = [size * sum(lengths[:n]) for n in range(len(lengths))]
    return b"".join(
        [
            b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", kind),
            struct.pack("<QQ", len(lengths), len(first)),
            struct.pack(f"<{len(lengths)}i", *lengths),
            struct.pack(f"<{len(places)}q", *places),
            struct.pack(f"<{len(first)}q", *first),
        ]
    )


def test_what_is_written_is_the_format(tmp_path, shards):
    write_megatron(shards, tmp_path / "out" / "own")
    lengths = shards.lengths.tolist()
    assert (tmp_path / "out" / "own.idx").read_bytes() == index_of(8, lengths, list(range(len(lengths) + 1)), 2)
    ids = np.fromfile(tmp_path / "out" / "own.bin", np.uint16)
    assert ids.tolist() == shards.stream[0 : shards.tokens].tolist()


def test_what_is_written_is_read(tmp_path, shards, tokenizer):
    write_megatron(shards, tmp_path / "out" / "own")
    adopt_shards(tmp_path / "out", tokenizer, tmp_path / "again")
    again = TokenShards(tmp_path / "again")
    assert again.offsets.tolist() == shards.offsets.tolist()
    assert again.stream[0 : again.tokens].tolist() == shards.stream[0 : shards.tokens].tolist()


def test_documents_of_several_sequences_and_wide_ids_are_read(tmp_path, tokenizer):
    """Sentences as sequences, ids of 32 bits for a small vocabulary, an empty document: all of it is in use."""
    folder = tmp_path / "given"
    folder.mkdir()
    np.array([5, 6, 7, 8, 9, 10], np.int32).tofile(folder / "a.bin")
    (folder / "a.idx").write_bytes(index_of(4, [1, 2, 3], [0, 2, 2, 3], 4))
    adopt_shards(folder, tokenizer, tmp_path / "own")
    shards = TokenShards(tmp_path / "own")
    assert shards.offsets.tolist() == [0, 3, 6]
    assert shards.stream[0:6].tolist() == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda data: b"TNTIDX" + data, "no index of Megatron-LM"),
        (lambda data: data[:-3], "it is truncated"),
        (lambda data: data[:9] + struct.pack("<Q", 2) + data[17:], "version 2"),
        (lambda data: data[:42] + struct.pack("<q", 4) + data[50:], "do not stand one after the other"),
        (lambda data: data[:-8] + struct.pack("<q", 9), "not sequences one after the other"),
    ],
)
def test_a_broken_index_is_told(tmp_path, broken, message):
    file = tmp_path / "a.idx"
    file.write_bytes(broken(index_of(8, [3, 2], [0, 1, 2], 2)))
    with pytest.raises(UserError, match=message):
        read_index(file)


def test_ids_without_their_index_and_ids_that_do_not_fit_it_are_told(tmp_path, tokenizer):
    folder = tmp_path / "given"
    folder.mkdir()
    np.arange(4, dtype=np.uint16).tofile(folder / "a.bin")
    with pytest.raises(UserError, match=r"a.idx: not there"):
        adopt_shards(folder, tokenizer, tmp_path / "own")
    (folder / "a.idx").write_bytes(index_of(8, [3, 2], [0, 1, 2], 2))
    with pytest.raises(UserError, match=r"a.bin: 4 ids, and its index has 5"):
        adopt_shards(folder, tokenizer, tmp_path / "own")


def test_a_runs_tokens_are_exported(tmp_path, pretrained_runs):
    for format_, files in {"megatron": {"code.bin", "code.idx"}, "olmo": {"part-00000.npy", "part-00000.csv.gz"}}.items():
        out = tmp_path / format_
        told = run_llmctl("tokenizer", "export", out, "--format", format_, "--runs", pretrained_runs)
        assert told.returncode == 0, told.stderr
        assert {file.name for file in out.rglob("*") if file.is_file()} >= files
        assert "code" in told.stdout
    missing = in_process("tokenizer", "export", tmp_path / "x", "--source", "none", "--runs", pretrained_runs)
    assert missing.returncode == 2
    assert "code" in missing.stderr
