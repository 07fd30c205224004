"""[corpus.filter]: which documents of a batch pass the rules, which rule drops the others, and what is cut out of lines."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl.corpus import measures
from llmctl.corpus.lines import cut, edits
from llmctl.corpus.repetition import REPEATED_NGRAMS, TOP_NGRAMS, repeated_ngrams, repeated_pieces
from llmctl.corpus.segments import BATCH_CHARACTERS, Batch, batches
from llmctl.corpus.urls import broken_rules
from llmctl.recipe.filter_schema import FilterTable

LONGEST = 8_000_000  # characters of a document that are looked at; a longer one is judged by its beginning

Language = Callable[[list[str]], list[float]]
"""Probability of the wanted languages for each text."""


@dataclass(slots=True)
class Verdict:
    """What became of a document."""

    rule: str | None = None
    """The key of the rule that drops it; None: it passes."""
    value: float = 0.0
    """What the rule measured."""
    text: str | None = None
    """The new text of one that passes, where something was cut."""


class Judgement:
    """The verdicts on a batch while the rules are asked one after the other."""

    def __init__(self, count: int) -> None:
        self.verdicts = [Verdict() for _ in range(count)]
        self.passed = np.ones(count, dtype=bool)

    def drop(self, rule: str, values: np.ndarray, failing: np.ndarray) -> None:
        for document in np.flatnonzero(failing & self.passed):
            self.verdicts[document] = Verdict(rule, float(values[document]))
        self.passed &= ~failing

    def at_least(self, rule: str, values: np.ndarray, limit: float) -> None:
        if limit:
            self.drop(rule, values, values < limit)

    def at_most(self, rule: str, values: np.ndarray, limit: float | None) -> None:
        if limit is not None:
            self.drop(rule, values, values > limit)


def judge(texts: list[str], table: FilterTable, language: Language | None = None, urls: list[str] | None = None) -> list[Verdict]:
    """The verdict on each text, in order; `urls` are the addresses that they come from, "" where there is none."""
    documents = zip(texts, urls or [""] * len(texts), strict=True)
    parts = batches(documents, lambda document: min(len(document[0]), LONGEST), BATCH_CHARACTERS)
    found = []
    for part in parts:
        found += _judge([text for text, _ in part], [url for _, url in part], table, language)
    return found


def _judge(originals: list[str], urls: list[str], table: FilterTable, language: Language | None) -> list[Verdict]:
    texts = [_newlines_cut(text[:LONGEST], table.max_newlines) for text in originals]
    batch, judgement = Batch(texts), Judgement(len(texts))
    for rule, values in broken_rules(urls, table):
        judgement.at_most(rule, values, 0)
    _judge_sizes(batch, texts, table, judgement)
    _judge_repetition(batch, table, judgement)
    if edits(table):
        cuts, lost = cut(batch, table, judgement.passed)
        judgement.at_most("max_words_removed", lost, table.max_words_removed)
        for document, text in cuts.items():
            texts[document] = _newlines_cut(text, table.max_newlines).strip("\n")
        batch = Batch(texts) if cuts else batch
    if table.drop_documents_with:
        found = np.array([any(phrase in low for phrase in table.drop_documents_with) for low in map(str.lower, texts)])
        judgement.drop("drop_documents_with", found, found)
    if language is not None:
        scores = np.zeros(len(texts))
        left = np.flatnonzero(judgement.passed)
        scores[left] = language([texts[document] for document in left])
        judgement.at_least("min_language_score", scores, table.min_language_score)
    if table.min_sentences or table.max_suspect_sentences < 1:
        found = measures.sentence_measures(batch, table.suspect_phrases)
        judgement.at_least("min_sentences", found["sentences"], table.min_sentences)
        judgement.at_most("max_suspect_sentences", found["suspect_sentences"], table.max_suspect_sentences)
    for verdict, original, text in zip(judgement.verdicts, originals, texts, strict=True):
        if verdict.rule is None and len(original) <= LONGEST and text != original:
            verdict.text = text
    return judgement.verdicts


def _newlines_cut(text: str, most: int) -> str:
    if not most or "\n" * (most + 1) not in text:
        return text
    return re.sub(rf"\n{{{most + 1},}}", "\n" * most, text)


def _judge_sizes(batch: Batch, texts: list[str], table: FilterTable, judgement: Judgement) -> None:
    sizes = measures.length_measures(batch)
    judgement.at_least("min_characters", sizes["characters"], table.min_characters)
    judgement.at_least("min_words", sizes["words"], table.min_words)
    judgement.at_most("max_words", sizes["words"], table.max_words)
    judgement.at_least("min_mean_word_length", sizes["word_length"], table.min_mean_word_length)
    judgement.at_most("max_mean_word_length", sizes["word_length"], table.max_mean_word_length)
    if table.max_symbols is not None or table.max_nonalphabetic_words < 1:
        symbols = measures.symbol_measures(batch, texts)
        judgement.at_most("max_symbols", symbols["symbols"], table.max_symbols)
        judgement.at_most("max_nonalphabetic_words", symbols["nonalphabetic_words"], table.max_nonalphabetic_words)
    lines = measures.line_measures(batch)
    judgement.at_most("max_bullet_lines", lines["bullet_lines"], table.max_bullet_lines)
    judgement.at_most("max_ellipsis_lines", lines["ellipsis_lines"], table.max_ellipsis_lines)
    judgement.at_most("max_mean_line_length", lines["line_length"], table.max_mean_line_length)
    judgement.at_most("max_line_length", lines["longest_line"], table.max_line_length)
    judgement.at_least("min_alphanumeric", lines["alphanumeric"], table.min_alphanumeric)
    if table.min_stop_words:
        judgement.at_least("min_stop_words", measures.stop_words(batch, table.stop_words), table.min_stop_words)


def _judge_repetition(batch: Batch, table: FilterTable, judgement: Judgement) -> None:
    for pieces, name in (("paragraphs", "paragraph"), ("lines", "line")):
        share, size = getattr(table, f"max_repeated_{pieces}"), getattr(table, f"max_repeated_{name}_characters")
        if share < 1 or size < 1:
            shares, sizes = repeated_pieces(batch, getattr(batch, pieces))
            judgement.at_most(f"max_repeated_{pieces}", shares, share)
            judgement.at_most(f"max_repeated_{name}_characters", sizes, size)
    limits: dict[int, Any] = dict(zip(TOP_NGRAMS, table.max_top_ngrams, strict=False))
    limits |= dict(zip(REPEATED_NGRAMS, table.max_repeated_ngrams, strict=False))
    if limits:
        found = repeated_ngrams(batch, limits, judgement.passed)
        for n, shares in found.items():
            rule = "max_top_ngrams" if n in TOP_NGRAMS else "max_repeated_ngrams"
            judgement.at_most(f"{rule} ({n} words)", shares, limits[n])
