"""Perplexity of checkpoints on held-out text and on files of the user's own."""

import json
import math
from typing import Any

import pytest
import torch
import zstandard

from llmctl import events
from llmctl.errors import UserError
from llmctl.evals.bits import bits_per_byte
from llmctl.model.build import ModelShape, build_model
from llmctl.model.load import save_model
from llmctl.recipe.load import restore_recipe
from llmctl.runs.store import RunStore
from llmctl.stages.heldout import sample_texts
from llmctl.stages.measure import opened
from llmctl.stages.perplexity import NOT_COMPARABLE, measure_perplexity
from llmctl.stages.scoring import Checkpoint
from llmctl.stages.texts import own_texts


def model(folder, tokenizer, seed: int, length: int = 128):
    built = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=64, vocab_size=512, max_length=length), seed)
    torch.nn.init.normal_(built.lm_head.weight, std=0.2)
    save_model(built, tokenizer, folder)
    return folder


@pytest.fixture
def models(tmp_path, tokenizer):
    first, second = model(tmp_path / "one", tokenizer, 1, length=64), model(tmp_path / "two", tokenizer, 2)
    return [Checkpoint("one", str(first)), Checkpoint("two", str(second), "one")]


def heard(call) -> tuple[dict[str, Any], list[Any]]:
    found: list[Any] = []
    with events.listening(found.append):
        return call(), [event for event in found if not isinstance(event, events.Progress)]


def test_every_source_of_a_run_and_files_beside_it(pretrained_runs, models, tmp_path, texts):
    store = RunStore(pretrained_runs)
    recipe = restore_recipe(store.recorded_recipe("small")["resolved"])
    corpus = next(artifact.folder for artifact in store.runs()[0].artifacts if artifact.stage == "corpus")
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": text[:400]}) + "\n" for text in texts[:4]))
    values, told = heard(lambda: measure_perplexity(models, corpus, recipe, [tmp_path / "own.jsonl"], stride=16))
    rows = {(row["source"], row["checkpoint"]): row for row in values["results"]}
    assert [name for name, _ in rows] == ["code", "code", str(tmp_path / "own.jsonl"), str(tmp_path / "own.jsonl")]
    assert (values["context"], values["stride"], values["note"]) == (64, 16, NOT_COMPARABLE)
    sample = sample_texts(corpus, "code", recipe.eval.bits_per_byte_bytes)
    assert rows["code", "one"]["bytes"] == sum(len(text.encode()) for text in sample)
    table = next(event for event in told if isinstance(event, events.Table))
    assert len(table.rows) == 4
    assert any(getattr(event, "text", "").startswith(NOT_COMPARABLE) for event in told)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_the_numbers_are_those_of_the_measure_and_of_each_other(models, tmp_path, texts, tokenizer):
    documents = [text[:600] for text in texts[:5]]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    before, after = measure_perplexity(models, None, None, [tmp_path / "own.jsonl"])["results"]
    with opened(models[1].model) as two:
        expected = bits_per_byte(two, tokenizer, documents, 64, 32)
    assert after["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert (after["tokens"], after["bytes"], after["documents"]) == (expected.tokens, expected.bytes, 5)
    assert after["perplexity_per_token"] == pytest.approx(math.exp(expected.loss))
    assert after["difference"] == pytest.approx(after["bits_per_byte"] - before["bits_per_byte"])
    assert after["difference_to"] == "one"
    assert 0 < after["difference_stderr"] < math.hypot(after["stderr"], before["stderr"])
    assert "difference" not in before
    ranges = after["by_position"]
    assert [part["from"] for part in ranges] == [0, *(part["to"] for part in ranges[:-1])]


def test_one_document_has_no_error(models, tmp_path, texts):
    (tmp_path / "one.txt").write_text(texts[0][:500])
    values, told = heard(lambda: measure_perplexity(models, None, None, [tmp_path / "one.txt"]))
    assert values["results"][1]["stderr"] is values["results"][1]["difference_stderr"] is None
    assert "nan" not in str(told)


@pytest.mark.parametrize(
    ("stride", "context", "told"),
    [
        (65, None, "stride of 65 tokens; expected 1 to 64"),
        (0, None, "stride of 0 tokens"),
        (-1, None, "stride of -1 tokens"),
        (None, 65, "windows of 65 tokens; expected 1 to 64, which is the context of one"),
    ],
)
def test_windows_that_are_none_are_refused(models, tmp_path, stride, context, told):
    (tmp_path / "a.txt").write_text("x = 1\n")
    with pytest.raises(UserError, match=told):
        measure_perplexity(models, None, None, [tmp_path / "a.txt"], stride, context)


def test_without_any_text_it_says_so(models):
    with pytest.raises(UserError, match="no text to measure on"):
        measure_perplexity(models, None, None, [])


def test_files_are_read_as_they_are(tmp_path):
    (tmp_path / "NOTES").write_bytes(b"a\r\nb\xc3\xbc\n")
    assert own_texts(tmp_path / "NOTES") == ["a\r\nbü\n"]
    rows = json.dumps({"text": "one"}) + "\n\n" + json.dumps({"text": "two", "id": 1}) + "\n"
    (tmp_path / "rows.jsonl.zst").write_bytes(zstandard.compress(rows.encode()))
    assert own_texts(tmp_path / "rows.jsonl.zst") == ["one", "two"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.md").write_text("two")
    (tmp_path / "folder" / "a.jsonl").write_text('{"text": "one"}\n')
    assert own_texts(tmp_path / "folder") == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.txt", b"", r"a\.txt: an empty file"),
        ("a.txt", b" \n\n", "no text but white space"),
        ("a.bin", b"PK\x00\x03", r"a\.bin: no text, as it has a zero at byte 2"),
        ("a.txt", b"abc\xff", r"a\.txt: no text in UTF-8, from byte 3 on"),
        ("a.jsonl", b'{"text": "a"}\n{"content": "b"}\n', r'a\.jsonl:2: no text in field "text" \(it has content\)'),
        ("a.jsonl", b"{text}\n", r"a\.jsonl:1: not JSON: [^;]*$"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl:1: half a surrogate pair"),
    ],
)
def test_files_that_are_no_text_are_told_with_their_place(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told) as raised:
        own_texts(tmp_path / name)
    assert "on_error" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        own_texts(tmp_path / "gone.txt")
