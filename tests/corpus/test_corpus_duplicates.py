"""Copies among documents: what is found, what stays, and that nothing that is not alike goes."""

import io
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.corpus import duplicates, pool, signatures
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.dedup import drop_copies
from llmctl.corpus.documents import Document, documents_file, read_documents, rejects_file, writing
from llmctl.corpus.duplicates import find_copies, jaccard, ngram_hashes
from llmctl.corpus.pool import writing_pool
from llmctl.recipe.corpus_schema import CorpusTable, DedupTable

LETTERS = st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=80)
WORDS = [f"word{number}" for number in range(2000)]


def text_of(seed: int, length: int = 300) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def changed(text: str, share: float, seed: int) -> str:
    """The text with one stretch of `share` of its words replaced."""
    words, chance = text.split(" "), random.Random(seed)
    size = round(share * len(words))
    at = chance.randrange(len(words) - size)
    words[at : at + size] = chance.choices(WORDS, k=size)
    return " ".join(words)


def pool_of(folder: Path, texts: list[str], dates: list[str] | None = None) -> Path:
    made = folder / f"pool{len(list(folder.iterdir()))}"
    with writing_pool(made) as write:
        for number, text in enumerate(texts):
            write(Document(text, f"d{number}", "own", f"own:{number}", dates[number] if dates else ""))
    return made


def true_similarity(mine: str, theirs: str, ngram: int = 5) -> float:
    words = [text.split(" ") for text in (mine, theirs)]
    sets = [{tuple(w[i : i + ngram]) for i in range(len(w) - ngram + 1)} for w in words]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_copies_go_and_the_rest_stays(tmp_path):
    base = [text_of(seed) for seed in range(40)]
    near = [changed(text, 0.04, seed) for seed, text in enumerate(base[:20])]
    far = [changed(text, 0.5, seed) for seed, text in enumerate(base[20:])]
    copies, total = find_copies(pool_of(tmp_path, base + near + far), DedupTable())
    assert total == 80
    assert set(copies) == set(range(40, 60))
    for place, copy in copies.items():
        assert (copy.rule, copy.kept) == ("near copy", place - 40)
        assert copy.similarity == pytest.approx(true_similarity(base[place - 40], near[place - 40]), abs=1e-9)


@given(st.floats(0.01, 1), st.integers(1, 40), st.integers(1, 20))
def test_the_screen_loses_next_to_nothing_of_what_is_alike(similarity, bands, rows):
    screen = signatures.screen_rows(DedupTable(similarity=similarity, bands=bands, rows=rows))
    assert 0 <= screen <= rows
    assert 2 * signatures.SCREEN_BANDS * screen <= bands * rows
    if screen:
        assert (1 - similarity**screen) ** signatures.SCREEN_BANDS <= signatures.SCREEN_LOSS


def test_the_screen_changes_no_result(tmp_path, monkeypatch):
    base = [text_of(seed) for seed in range(60)]
    shares = [0.02, 0.04, 0.08, 0.2, 0.5]
    texts = base + [changed(text, shares[seed % 5], seed) for seed, text in enumerate(base)] + [base[5].upper()]
    made = pool_of(tmp_path, texts)
    assert signatures.screen_rows(DedupTable()) == 3
    screened = find_copies(made, DedupTable())
    monkeypatch.setattr(duplicates, "screen_rows", lambda _: 0)
    assert screened == find_copies(made, DedupTable())
    assert len(screened[0]) > 24


def test_a_pool_of_many_files_is_one_of_few(tmp_path, monkeypatch):
    base = [text_of(seed) for seed in range(30)]
    texts = [*base, *(changed(text, 0.04, seed) for seed, text in enumerate(base)), base[3].upper(), base[7]]
    found = []
    for size in (64_000_000, 5_000):
        monkeypatch.setattr(pool, "PART_BYTES", size)
        monkeypatch.setattr(pool, "GROUP_BYTES", size // 2)
        folder = pool_of(tmp_path, texts)
        assert [document.text for document in pool.read_pool(folder)] == texts
        found.append((len(pool.parts_of(folder)), find_copies(folder, DedupTable(keep="longest"))))
    (few, copies), (many, the_same) = found
    assert (few, many > 10) == (1, True)
    assert copies == the_same
    assert len(copies[0]) == 32


def test_case_punctuation_and_white_space_make_no_difference(tmp_path):
    text = text_of(1)
    texts = [text, text.upper(), text.replace(" ", ",\n\t"), text_of(2)]
    copies, _ = find_copies(pool_of(tmp_path, texts), DedupTable(fuzzy=False))
    assert {place: (copy.rule, copy.kept) for place, copy in copies.items()} == {1: ("exact copy", 0), 2: ("exact copy", 0)}


def test_the_first_stays_or_the_longest(tmp_path):
    text = text_of(1)
    file = pool_of(tmp_path, [text, text + " and a word more", text_of(2)])
    assert set(find_copies(file, DedupTable())[0]) == {1}
    assert set(find_copies(file, DedupTable(keep="longest"))[0]) == {0}


def test_the_newest_stays_of_equally_old_ones_the_first(tmp_path):
    text, newest = text_of(1), DedupTable(keep="newest")
    texts = [text, text.upper(), text + " and a word more", text]
    dated = pool_of(tmp_path, texts, ["2024-01-02", "2023-05-06", "2025-01-01", ""])
    assert set(find_copies(dated, newest)[0]) == {0, 1, 3}
    dated = pool_of(tmp_path, [text, text.upper(), text_of(5)], ["2024-01-02", "2024-01-02", ""])
    assert set(find_copies(dated, newest)[0]) == {1}


def test_what_stays_for_a_copy_is_there(tmp_path):
    """The equal documents 1 and 2 are near copies of 0, which stays for both."""
    near = changed(text_of(1), 0.04, 1)
    copies, _ = find_copies(pool_of(tmp_path, [text_of(1), near, near.upper()]), DedupTable())
    assert {place: (copy.rule, copy.kept) for place, copy in copies.items()} == {1: ("near copy", 0), 2: ("exact copy", 0)}


def test_what_is_alike_in_a_chain_is_one_cluster(tmp_path):
    chain = [text_of(1)]
    for seed in range(6):
        chain.append(changed(chain[-1], 0.05, seed))
    assert true_similarity(chain[0], chain[-1]) < 0.8
    copies, _ = find_copies(pool_of(tmp_path, chain), DedupTable())
    assert {copy.kept for copy in copies.values()} == {0}
    assert len(copies) == 6


def test_short_and_empty_documents_are_alike_only_when_they_are_equal(tmp_path):
    copies, _ = find_copies(pool_of(tmp_path, ["", "one two", "one three", "one two", "one"]), DedupTable())
    assert set(copies) == {3}
    assert find_copies(pool_of(tmp_path, []), DedupTable()) == ({}, 0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=80), st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=80)
)
def test_similarity_is_that_of_the_sets_of_ngrams(mine, theirs):
    texts = " ".join(mine), " ".join(theirs)
    assert jaccard(*(ngram_hashes(text, 5) for text in texts)) == pytest.approx(true_similarity(*texts))


def test_similarity_of_long_documents_is_estimated_closely():
    long = text_of(1, 60_000)
    other = changed(long, 0.15, 3)
    assert jaccard(ngram_hashes(long, 5), ngram_hashes(other, 5)) == pytest.approx(true_similarity(long, other), abs=0.03)


def test_a_corpus_is_rewritten_and_what_was_dropped_is_kept_aside(tmp_path):
    texts = {"a": [text_of(1), text_of(2)], "b": [text_of(1).upper(), changed(text_of(2), 0.04, 1), text_of(3)]}
    counts, attrition = {}, Attrition()
    for source, mine in texts.items():
        with writing(documents_file(tmp_path, source, "train")) as write:
            for number, text in enumerate(mine):
                write(Document(text, f"{source}/{number}", source, f"{source}.jsonl:{number + 1}"))
        counts[source] = Counter({"train_documents": len(mine), "train_bytes": 1, "heldout_documents": 5})
    drop_copies(tmp_path, ["a", "b"], CorpusTable(), DedupTable(), counts, attrition)
    assert [d.id for s in ("a", "b") for d in read_documents(tmp_path, s, "train")] == ["a/0", "a/1", "b/2"]
    assert counts["b"] == {"train_documents": 1, "train_bytes": len(text_of(3)), "heldout_documents": 5}
    assert {(row["source"], row["rule"], row["documents"]) for row in attrition.rows()} == {
        ("b", "exact copy", 1),
        ("b", "near copy", 1),
    }
    unpacked = zstandard.ZstdDecompressor().stream_reader(rejects_file(tmp_path, "b", "copies").read_bytes())
    rejects = [json.loads(line) for line in io.TextIOWrapper(unpacked, encoding="utf-8")]
    assert [(r["id"], r["rule"], r["kept"]) for r in rejects] == [("b/0", "exact copy", "a/0"), ("b/1", "near copy", "a/1")]
    assert not list(tmp_path.glob(".pools/*"))


def test_a_ray_cluster_that_does_not_answer_is_named():
    script = "from llmctl.corpus.engine import load_daft\nload_daft('ray', '127.0.0.1:1')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "StageFailed: corpus.ray_address = '127.0.0.1:1': no Ray cluster answers there" in result.stderr
