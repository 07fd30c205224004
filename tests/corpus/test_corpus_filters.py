"""Filters: each rule drops what it names and nothing else, and measures what the papers define."""

import json
import random
from collections import Counter

import fasttext
import numpy as np
import pytest
from helpers import curated
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.corpus.builtin import standard_library
from llmctl.corpus.documents import read_documents
from llmctl.corpus.filters import LONGEST, judge
from llmctl.corpus.repetition import REPEATED_NGRAMS, TOP_NGRAMS, repeated_ngrams, repeated_pieces
from llmctl.corpus.segments import Batch
from llmctl.errors import UserError
from llmctl.recipe.filter_schema import FilterTable

NOUNS = ["river", "stone", "garden", "letter", "window", "market", "teacher", "forest", "candle", "bridge", "harbour", "engine"]
VERBS = ["carries", "finds", "opens", "paints", "follows", "keeps", "sees", "hears", "draws", "builds"]
FORMS = [
    "The {0} {deed} its {1} while every {2} {other} that old {3} of some",
    "Under a {0}, one {1} {deed} the {2} and {other} this quiet",
    "To be sure, many {0}s {deed} her {1} with his {2} but no {3} {other} an",
    "Some {0} that we have {deed} our {1}; each {2} {other} near their {3} and",
    "Never has a {0} of {1} {deed} those {2}s, yet my {3} {other} your tall",
]


def prose(seed: int = 1, sentences: int = 12) -> str:
    """Sentences that no rule has anything against."""
    chance = random.Random(seed)
    lines = []
    for number in range(sentences):
        things = chance.sample(NOUNS, 5)
        deed, other = chance.sample(VERBS, 2)
        form = chance.choice(FORMS).format(*things, deed=deed, other=other)
        lines.append(f"{form} {chance.choice(NOUNS)} number{seed}x{number}.")
    return "\n".join(lines)


def rule_of(text: str, **keys) -> str | None:
    (verdict,) = judge([text], FilterTable(**keys))
    return verdict.rule


TEXTS = st.lists(
    st.lists(st.sampled_from(["a", "bc", "d", "\n", "\n\n", "e."]), max_size=60).map(" ".join), min_size=1, max_size=5
)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), min_size=1, max_size=6))
def test_words_lines_and_paragraphs_are_those_of_the_text(texts):
    batch = Batch(texts)
    for place, text in enumerate(texts):

        def mine(pieces, place=place):
            spans = zip(pieces.starts, pieces.ends, pieces.documents, strict=True)
            return [batch.joined[start:end] for start, end, document in spans if document == place]

        assert mine(batch.words) == text.split()
        assert mine(batch.lines) == [line for line in text.split("\n") if line]
    hashes = batch.hashes(batch.words)
    words = [word for text in texts for word in text.split()]
    assert len(set(hashes.tolist())) == len(set(words))
    assert len(set(zip(words, hashes.tolist(), strict=True))) == len(set(words))


def plain_top(words: list[str], n: int) -> int:
    """Gopher's most frequent n-gram, in characters, by the words of the paper."""
    counts = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    ngram, count = counts.most_common(1)[0] if counts else ("", 0)
    return len(ngram) * count if count > 1 else 0


def plain_repeated(words: list[str], n: int) -> int:
    """Characters of n-grams seen before, from left to right, without overlap."""
    seen, size, at = set(), 0, 0
    while at + n <= len(words):
        ngram = tuple(words[at : at + n])
        if ngram in seen:
            size += sum(map(len, ngram))
            at += n
        else:
            seen.add(ngram)
            at += 1
    return size


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_repeated_ngrams_are_counted_as_the_paper_has_them(texts):
    batch = Batch(texts)
    everyone = np.ones(len(texts), dtype=bool)
    for n in TOP_NGRAMS + REPEATED_NGRAMS:
        shares = repeated_ngrams(batch, {n: 0.0}, everyone)[n]
        plain = plain_top if n in TOP_NGRAMS else plain_repeated
        expected = [plain(text.split(), n) / max(1, len(text)) for text in texts]
        assert shares == pytest.approx(expected), n


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_below_the_limit_repetition_is_bounded_from_above(texts):
    limits: dict[int, float] = dict.fromkeys([*TOP_NGRAMS, *REPEATED_NGRAMS], 0.3)
    found = repeated_ngrams(Batch(texts), limits, np.ones(len(texts), dtype=bool))
    passed = np.ones(len(texts), dtype=bool)
    for n, shares in found.items():
        plain = plain_top if n in TOP_NGRAMS else plain_repeated
        true = np.array([plain(text.split(), n) / max(1, len(text)) for text in texts])
        assert ((shares > 0.3) == (true > 0.3))[passed].all()
        passed &= true <= 0.3


def test_repeated_lines_and_paragraphs_are_counted_within_their_document():
    batch = Batch(["a\nb\na\n\nc", "a\nb\n\na\nb\n\na\nb", "a"])
    shares, sizes = repeated_pieces(batch, batch.lines)
    assert shares.tolist() == [1 / 4, 4 / 6, 0]
    assert sizes.tolist() == [1 / 8, 4 / 13, 0]
    shares, sizes = repeated_pieces(batch, batch.paragraphs)
    assert shares.tolist() == [0, 2 / 3, 0]
    assert sizes.tolist() == [0, 6 / 13, 0]


def test_plain_prose_passes_as_it_is():
    for profile in ("web", "prose", "c4"):
        (verdict,) = judge([prose()], FilterTable(profile=profile))
        assert (verdict.rule, verdict.text) == (None, None), profile


LONG = prose(2, 40)
DROPPED = {
    "min_characters": "Too short.",
    "min_words": "The garden of the house is beautiful. " + "!" * 200,
    "max_words": " ".join(prose(seed) for seed in range(800)),
    "min_mean_word_length": "I am to be of it as we go up. " * 20,
    "max_mean_word_length": " ".join(f"{noun}{other}and{noun}with" for noun in NOUNS for other in NOUNS[:8]),
    "max_symbols": LONG + " # # #" * 40,
    "max_nonalphabetic_words": LONG + " 12.5" * 200,
    "max_bullet_lines": "\n".join("- " + line for line in LONG.splitlines()),
    "max_ellipsis_lines": "\n".join(line[:-1] + "..." if n % 2 else line for n, line in enumerate(LONG.splitlines())),
    "min_stop_words": " ".join(random.Random(1).choices(NOUNS + VERBS, k=300)),
    "max_repeated_paragraphs": "\n\n".join([*prose(3, 30).splitlines(), *["A day with the river to be seen."] * 20]),
    "max_repeated_lines": "\n".join([*prose(3, 30).splitlines(), *["A day with the river to be seen."] * 20]),
    "max_repeated_line_characters": "\n".join([*prose(3, 40).splitlines(), *[prose(4, 6).replace("\n", " ")] * 4]),
    "max_top_ngrams (2 words)": "and of " * 60 + prose(5, 6).replace("\n", " "),
    "max_repeated_ngrams (5 words)": prose(6, 30).replace("\n", " ")
    + " "
    + prose(6, 30).replace("\n", " ").replace("candle", "lantern"),
    "max_words_removed": LONG + "\n" + "\n".join("THE RIVER AND THE STONE OF DAY" + "!" * n for n in range(20)),
    "min_sentences": LONG.replace(".", ","),
    "max_suspect_sentences": "\n".join(line.title() for line in prose(7, 6).splitlines()) + "\n" + prose(8, 6),
}


@pytest.mark.parametrize("rule", DROPPED)
def test_a_rule_drops_what_it_names(rule):
    assert rule_of(DROPPED[rule]) == rule


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("max_mean_line_length", "x = call_of_a_function(with_many_arguments) + " * 9),
        ("max_line_length", "x = 1\n" * 90 + "y = " + "other + " * 200),
        ("min_alphanumeric", "{ [ ( + ) ] } ; : ! ?\n" * 20 + "one two three four five six seven eight nine ten"),
        ("min_words", "x = 1 # " + "-" * 300),
    ],
)
def test_rules_for_code(rule, text):
    keys = {"max_repeated_line_characters": 1.0, "max_mean_line_length": None} if rule == "max_line_length" else {}
    keys = {"max_repeated_line_characters": 1.0} | keys
    assert rule_of(text, profile="code", **keys) == rule


def test_a_key_over_its_profile():
    assert rule_of(DROPPED["min_stop_words"], min_stop_words=0, min_sentences=0) is None
    assert FilterTable(profile="code", max_line_length=None).max_line_length is None
    assert FilterTable.model_validate("code") == FilterTable(profile="code")


def test_lines_and_phrases_are_cut_and_the_rest_is_left():
    text = prose(1, 80).splitlines()
    first, last = "\n".join(text[:40]), "\n".join(text[40:])
    (verdict,) = judge(
        [f"Home\n{first}\nSIGN UP NOW\n\n1234\n\n\n\n12 likes\nThe end of it. Read more...\n{last}\n"], FilterTable()
    )
    assert verdict.rule is None
    assert verdict.text == f"{first}\n\nThe end of it. \n{last}"


def test_c4_keeps_the_lines_that_end():
    text = "A menu without an end\n" + prose() + "\nThis page uses cookies to follow you.\nWe need Javascript for this."
    (verdict,) = judge([text], FilterTable(profile="c4"))
    assert (verdict.rule, verdict.text) == (None, prose())
    assert rule_of(prose() + "\nThe name goes where {name} stands.", profile="c4") == "drop_documents_with"


def test_a_profile_for_code_keeps_code_and_the_web_does_not():
    texts = [document.text for document in standard_library(2_000_000)]
    kept = {profile: sum(v.rule is None for v in judge(texts, FilterTable(profile=profile))) for profile in ("code", "web")}
    assert kept["code"] > 0.95 * len(texts)
    assert kept["web"] < 0.5 * len(texts)


def test_what_else_is_in_the_batch_makes_no_difference():
    texts = [document.text for document in standard_library(300_000)] + list(DROPPED.values()) + ["", prose()]
    for profile in ("web", "c4"):
        table = FilterTable(profile=profile)
        assert judge(texts, table) == [judge([text], table)[0] for text in texts]


@pytest.mark.parametrize(
    "text",
    ["a" * 3_000_000, "word " * (LONGEST // 4), "\0" * 500, "\n" * 10_000, " ", "漢字" * 1000, "́" * 400],
    ids=["one character", "longer than is looked at", "NUL", "line breaks", "blank", "without spaces", "accents alone"],
)
@pytest.mark.parametrize("profile", ["web", "prose", "code", "c4"])
def test_strange_documents_are_dropped_without_a_stumble(text, profile):
    assert rule_of(text, profile=profile) is not None


def test_filters_reach_the_corpus_with_what_they_dropped(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for seed in range(20):
        (folder / f"{seed}.txt").write_text(prose(seed))
    (folder / "short.txt").write_text("Too short.")
    (folder / "menu.txt").write_text("Home\n" + prose(99, 60))
    counts, lost = curated(tmp_path / "out", own={"path": str(folder), "filter": "web"})
    assert lost["own", "min_characters"] == 1
    assert counts["own"]["train_documents"] + counts["own"]["heldout_documents"] == 21
    found = {d.path: d.text for split in ("train", "heldout") for d in read_documents(tmp_path / "out", "own", split)}
    assert found[str(folder / "menu.txt")] == prose(99, 60)


def test_languages_are_told_by_a_model(tmp_path):
    swap = str.maketrans("abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba")
    lines = [line for seed in range(40) for line in prose(seed).splitlines()]
    labelled = [f"__label__en {line}" for line in lines] + [f"__label__xx {line.translate(swap)}" for line in lines]
    (tmp_path / "train.txt").write_text("\n".join(labelled) + "\n")
    model = tmp_path / "languages.bin"
    fasttext.train_supervised(
        str(tmp_path / "train.txt"), epoch=10, dim=8, minn=2, maxn=3, bucket=2000, verbose=0, thread=1
    ).save_model(str(model))
    texts = tmp_path / "texts"
    texts.mkdir()
    for seed in range(10):
        (texts / f"{seed}.txt").write_text(prose(seed + 50))
        (texts / f"{seed}x.txt").write_text(prose(seed + 70).translate(swap))
    rules = {"language_model": str(model), "min_stop_words": 0}
    counts, lost = curated(tmp_path / "out", own={"path": str(texts), "filter": rules})
    assert lost == {("own", "min_language_score"): 10}
    assert counts["own"]["train_documents"] + counts["own"]["heldout_documents"] == 10


def test_a_file_that_is_no_model_is_named(tmp_path):
    (tmp_path / "own.txt").write_text(prose())
    with pytest.raises(UserError, match=r"own.txt: no fastText model"):
        curated(
            tmp_path / "out", own={"path": str(tmp_path / "own.txt"), "filter": {"language_model": str(tmp_path / "own.txt")}}
        )


URLS = {
    "https://good.org/a": None,
    "http://bad.org/a": "blocked_domains",
    "https://www.Deep.bad.org:8080/b?c": "blocked_domains",
    "https://notbad.org": None,
    "bad.org/no-scheme": "blocked_domains",
    "https://[broken": None,
    "": None,
    "https://good.org/Free-Casino-Bonus": "blocked_url_phrases",
    "https://good.org/poker-and-slots": "suspect_url_words",
    "https://good.org/poker": None,
}


def test_addresses_are_judged_before_the_text(tmp_path):
    domains = tmp_path / "domains.txt"
    domains.write_text("# unwanted\nBAD.org  # all of it\n\nelse.where.net\n")
    table = FilterTable(
        blocked_domains=[str(domains)], blocked_url_phrases=["casino-bonus"], suspect_url_words=["poker", "slots", "bets"]
    )
    verdicts = judge([prose()] * len(URLS), table, None, list(URLS))
    assert {url: verdict.rule for url, verdict in zip(URLS, verdicts, strict=True)} == URLS
    assert [verdict.rule for verdict in judge(["short"], table, None, ["http://bad.org"])] == ["blocked_domains"]


def test_addresses_of_rows_reach_the_rules(tmp_path):
    domains = tmp_path / "domains.txt"
    domains.write_text("bad.org\n")
    rows = [{"text": prose(n), "link": f"https://{'bad' if n % 4 == 0 else 'good'}.org/{n}"} for n in range(20)]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = {"profile": "web", "blocked_domains": [str(domains)]}
    counts, lost = curated(tmp_path / "out", own={"path": str(file), "url_field": "link", "filter": rules})
    assert lost["own", "blocked_domains"] == 5
    assert counts["own"]["train_documents"] + counts["own"]["heldout_documents"] == 15
    kept = {document.url for document in read_documents(tmp_path / "out", "own", "train")}
    assert kept
    assert all(url.startswith("https://good.org/") for url in kept)
