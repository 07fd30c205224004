"""Files of the user's own, whole and broken."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers import curated

from llmctl.corpus.documents import read_conversations, read_documents
from llmctl.errors import UserError

TEXT = "A document with words enough to be told from the others, number {0}.\n" * 3


def rows(count: int = 20) -> list[dict]:
    return [{"id": f"d{n}", "text": TEXT.format(n)} for n in range(count)]


def taken(folder, name="own") -> set[str]:
    return {d.text for split in ("train", "heldout") for d in read_documents(folder, name, split)}


def read(path, tmp_path, **options):
    """The corpus of one source, its counts, and what was left out of it by rule."""
    out = tmp_path / "out"
    counts, lost = curated(out, own={"path": str(path), **options})
    return out, counts["own"] | {rule: number for (_, rule), number in lost.items()}


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_every_form_holds_the_same_documents(tmp_path, form):
    file = tmp_path / f"own.{form}"
    text = "\n".join(map(json.dumps, rows())).encode()
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows()), file)
    else:
        file.write_bytes({"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}[form](text))
    out, stats = read(file, tmp_path)
    assert taken(out) == {row["text"] for row in rows()}
    assert stats["train_documents"] + stats["heldout_documents"] == 20


BROKEN = {
    "not JSON": (b'{"text": "a', "own.jsonl:2: not JSON"),
    "not UTF-8": (b'{"text": "\xff"}', "own.jsonl:2: not UTF-8 at byte 10 of the line"),
    "no object": (b"[1]", "own.jsonl:2: expected a JSON object, found a list"),
    "no text": (b'{"txet": "a"}', "own.jsonl:2: no text in field 'text' (it has txet)"),
    "half a character": (b'{"text": "\\ud800"}', "own.jsonl:2: half a surrogate pair"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_row_is_named_by_file_and_line_and_skipped_only_when_told(tmp_path, fault):
    broken, message = BROKEN[fault]
    file = tmp_path / "own.jsonl"
    lines = [json.dumps(row).encode() for row in rows()]
    file.write_bytes(b"\n".join([lines[0], broken, *lines[1:]]))
    with pytest.raises(UserError) as stopped:
        read(file, tmp_path)
    assert message in str(stopped.value)
    assert 'on_error = "skip"' in str(stopped.value)
    out, stats = read(file, tmp_path, on_error="skip")
    assert stats["unreadable"] == 1
    assert taken(out) == {row["text"] for row in rows()}


def test_empty_files_and_documents(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.txt").write_text(TEXT.format(number))
    (folder / "blank.txt").write_text(" \n")
    out, stats = read(folder, tmp_path)
    assert len(taken(out)) == 9
    assert stats["empty"] == 1
    (folder / "empty.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty.txt: an empty file"):
        read(folder, tmp_path)


def test_a_text_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.txt: not UTF-8 at byte 2"):
        read(tmp_path / "latin.txt", tmp_path)


def test_a_truncated_gzip_file_is_named(tmp_path):
    whole = gzip.compress("\n".join(map(json.dumps, rows(200))).encode())
    (tmp_path / "own.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"own.jsonl.gz:\d+: broken or truncated"):
        read(tmp_path / "own.jsonl.gz", tmp_path)


def test_of_few_documents_one_is_held_out(tmp_path):
    file = tmp_path / "few.jsonl"
    file.write_text("\n".join(map(json.dumps, rows(4))))
    out = tmp_path / "out"
    curated(out, 1e-9, own={"path": str(file)})
    assert len(list(read_documents(out, "own", "heldout"))) == 1
    assert len(list(read_documents(out, "own", "train"))) == 3


def test_of_a_single_text_the_end_is_held_out(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("".join(f"This is line number {n} of the book.\n" for n in range(1000)))
    out = tmp_path / "out"
    curated(out, 0.1, own={"path": str(file)})
    (beginning,), (end,) = (list(read_documents(out, "own", split)) for split in ("train", "heldout"))
    assert beginning.text + end.text == file.read_text()
    assert end.text.startswith("This is line number 9")
    assert len(end.text) == pytest.approx(0.1 * len(file.read_text()), rel=0.02)


def test_short_copies_of_held_out_documents_are_dropped(tmp_path):
    file = tmp_path / "short.jsonl"
    file.write_text("\n".join(json.dumps({"id": f"d{n}", "text": f"Short text {n % 50}."}) for n in range(100)))
    out, counts = read(file, tmp_path)
    held, train = ({d.text for d in read_documents(out, "own", split)} for split in ("heldout", "train"))
    assert held
    assert not held & train
    assert counts["same text"] > 0


def talk(count: int) -> list[dict]:
    return [{"id": f"c{n}", "prompt": f"What is {n}?", "response": f"It is the number {n}, of course."} for n in range(count)]


@pytest.mark.parametrize("fraction", [1e-9, 0.3])
def test_conversations_of_ones_own_are_each_in_one_split(tmp_path, fraction):
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(map(json.dumps, talk(30))))
    out = tmp_path / "out"
    curated(out, fraction, talk={"path": str(file), "kind": "chat"})
    held, train = ([c.id for c in read_conversations(out, "talk", split)] for split in ("heldout", "train"))
    assert sorted(held + train) == sorted(f"talk/c{n}" for n in range(30))
    assert len(held) == 1 if fraction < 0.1 else len(held) > 3


def test_max_bytes_holds_for_conversations_too(tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(map(json.dumps, talk(200))))
    _, counts = read(file, tmp_path, kind="chat", max_bytes=1000)
    assert 800 < counts["train_bytes"] + counts["heldout_bytes"] <= 1000


def warc(pages: dict[str, str]) -> bytes:
    """A WARC file of these pages by address, each a gzip member of its own; a picture between them."""
    members = []
    for number, (address, page) in enumerate({**pages, "http://example.org/picture": ""}.items()):
        kind = "text/html; charset=utf-8" if page else "image/png"
        chunk = page.encode()
        body = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n0\r\n\r\n" if chunk else b"0\r\n\r\n"
        http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>\r\n"
            f"WARC-Date: 2025-01-{number + 1:02}T00:00:00Z\r\nWARC-Target-URI: {address}\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
        )
        members.append(gzip.compress(head.encode() + http + b"\r\n\r\n"))
    return b"".join(members)


PAGE = (
    "<html><head><title>t</title><script>var no = 1</script></head>"
    "<body><nav>Home About</nav><main><p>{0}</p></main></body></html>"
)


def test_the_text_of_web_pages_is_read(tmp_path):
    pytest.importorskip("fastwarc", reason="the optional packages for WARC files are not installed")
    texts = [f"Page number {n} says grün things about many matters, at length and in full sentences." for n in range(9)]
    whole = warc({f"http://example.org/{n}": PAGE.format(text) for n, text in enumerate(texts)})
    file = tmp_path / "pages.warc.gz"
    file.write_bytes(whole)
    out, stats = read(file, tmp_path, date_field="date")
    assert taken(out) == set(texts)
    documents = [d for split in ("train", "heldout") for d in read_documents(out, "own", split)]
    assert {d.date for d in documents} == {f"2025-01-{n + 1:02}" for n in range(9)}
    assert stats["train_documents"] + stats["heldout_documents"] == 9
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"pages.warc.gz:\d+: broken or truncated"):
        read(file, tmp_path)
    file.write_bytes(b"no archive at all " * 50)
    with pytest.raises(UserError, match=r"pages.warc.gz:1: broken or truncated"):
        read(file, tmp_path)


def test_strange_text_is_kept_as_it_is(tmp_path):
    texts = ["a\0b " * 30, "x" * 2_000_000, "\u202e\ufeff\U0010ffff strange", "\r\r\n line ends"]
    strange = [{"id": f"s{n}", "text": text} for n, text in enumerate(texts)]
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(map(json.dumps, [*strange, *rows()])))
    out, _ = read(file, tmp_path)
    assert set(texts) <= taken(out)
