"""What is cut out of documents: lines that are no text, and phrases of buttons in short lines.

The edits of Olmo 3's web pipeline (arXiv 2512.13961, section 3.4.1) and of C4 (Raffel et al. 2020, JMLR 21, section 2.2).
"""

import re

import numpy as np

from llmctl.corpus.segments import DIGIT, SPACE, UPPER, Batch, Segments, places_of
from llmctl.recipe.filter_schema import FilterTable

COUNTERS = re.compile(
    r"\W*\d[\d.,]*[KkMm]?\s+"
    r"(likes?|shares?|comments?|(re)?tweets?|(re)?posts?|quotes?|bookmarks?|(up|down)votes?|downloads?|views?|followers?)\W*"
)
COUNTER_WORDS = 4  # of a line that may be a counter
SHORT_LINE = 10  # words of a line that phrases are cut from
TERMINAL = '.!?"'


def edits(table: FilterTable) -> bool:
    """Whether the table cuts anything."""
    return bool(
        table.max_uppercase < 1
        or table.drop_numeric_lines
        or table.drop_counter_lines
        or table.min_line_words
        or table.line_end_punctuation
        or table.longest_word
        or table.drop_lines_with
        or table.remove_phrases
    )


def cut(batch: Batch, table: FilterTable, documents: np.ndarray) -> tuple[dict[int, str], np.ndarray]:
    """The new text of those of `documents` [bool, D] that something is cut out of; the share of its words that each lost [D]."""
    words = batch.words
    lines = _lines_to_cut(batch, table)
    lines &= documents[batch.lines.documents]
    # A line goes with its line break. A phrase leaves the line.
    spans = [(start, end + 1) for start, end in zip(batch.lines.starts[lines], batch.lines.ends[lines], strict=True)]
    spans = sorted(spans + _phrases_to_cut(batch, table, documents, lines))
    by_document: dict[int, list[tuple[int, int]]] = {}
    for document, span in zip(batch.document_of(np.array([start for start, _ in spans], dtype=np.int64)), spans, strict=True):
        by_document.setdefault(int(document), []).append(span)
    lost = np.zeros(batch.count)
    texts: dict[int, str] = {}
    for document, cuts in by_document.items():
        at, end = int(batch.firsts[document]), int(batch.firsts[document] + batch.lengths[document])
        kept = []
        for start, stop in cuts:
            kept.append(batch.joined[at:start])
            at = stop
            first, last = np.searchsorted(words.starts, [start, stop])
            lost[document] += last - first
        kept.append(batch.joined[at:end])
        texts[document] = "".join(kept)
    return texts, lost / np.maximum(1, batch.per_document(words.documents))


def _lines_to_cut(batch: Batch, table: FilterTable) -> np.ndarray:
    lines, words = batch.lines, batch.words
    first, size = batch.words_in(lines)
    out = np.zeros(len(lines.starts), dtype=bool)
    written = batch.counted(lines, (batch.kinds & SPACE) == 0)
    filled = written > 0
    if table.max_uppercase < 1:
        out |= batch.counted(lines, (batch.kinds & UPPER) > 0) > table.max_uppercase * lines.lengths
    if table.drop_numeric_lines:
        out |= filled & (batch.counted(lines, (batch.kinds & DIGIT) > 0) == written)
    if table.drop_counter_lines:
        digits = batch.counted(lines, (batch.kinds & DIGIT) > 0) > 0
        for line in np.flatnonzero(digits & (size <= COUNTER_WORDS) & (size > 1)):
            out[line] |= COUNTERS.fullmatch(batch.joined, int(lines.starts[line]), int(lines.ends[line])) is not None
    if table.min_line_words:
        out |= filled & (size < table.min_line_words)
    if table.line_end_punctuation:
        worded = np.flatnonzero(size)
        end = words.ends[first[worded] + size[worded] - 1]
        terminal = np.isin(batch.codes[end - 1], [ord(sign) for sign in TERMINAL])
        out[worded] |= ~terminal | batch.ellipsis_before(end)
    if table.longest_word:
        long = words.starts[words.lengths > table.longest_word]
        out[np.searchsorted(lines.starts, long, side="right") - 1] = True
    if table.drop_lines_with:
        lower = batch.joined.replace("İ", "I").lower()  # the one capital that becomes two characters
        for start, _ in places_of(lower, table.drop_lines_with):
            out[np.searchsorted(lines.starts, start, side="right") - 1] = True
    return out


def _phrases_to_cut(batch: Batch, table: FilterTable, documents: np.ndarray, cut_lines: np.ndarray) -> list[tuple[int, int]]:
    """Spans of the phrases in short lines that stay."""
    lines: Segments = batch.lines
    found = []
    for start, end in places_of(batch.joined, table.remove_phrases):
        line = int(np.searchsorted(lines.starts, start, side="right")) - 1
        first, last = np.searchsorted(batch.words.starts, [lines.starts[line], lines.ends[line]])
        free = not found or found[-1][1] <= start
        if last - first <= SHORT_LINE and not cut_lines[line] and documents[lines.documents[line]] and free:
            found.append((start, end))
    return found
