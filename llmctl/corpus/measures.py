"""What the filters look at: numbers of every document of a batch.

The definitions are those of Gopher (Rae et al. 2021, arXiv 2112.11446, section A1.1), MADLAD-400 (Kudugunta et al. 2023,
arXiv 2309.04662, rules 2 and 5) and, for code, StarCoder (Li et al. 2023, arXiv 2305.06161, section 3.1). Words are what stands
between white space.
"""

import numpy as np

from llmctl.corpus.segments import ALPHABETIC, NEWLINE, UPPER, WORDLY, Batch, Segments, places_of

BULLETS = "•‣◦▪-"
SENTENCE_ENDS = ".!?"
SHORTEST_LIST = 12  # words of a sentence that may be a list of names (MADLAD-400)


def _coded(characters: str) -> np.ndarray:
    return np.array([ord(character) for character in characters], dtype=np.uint32)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(1, whole)


def length_measures(batch: Batch) -> dict[str, np.ndarray]:
    """Sizes: characters, words, and mean length of the words that are not punctuation alone."""
    words = batch.words
    worded = (batch.kinds_of(words) & WORDLY) > 0
    count = batch.per_document(words.documents[worded])
    size = batch.per_document(words.documents[worded], words.lengths[worded])
    return {"characters": batch.lengths, "words": count, "word_length": _share(size, count)}


def symbol_measures(batch: Batch, texts: list[str]) -> dict[str, np.ndarray]:
    """The commoner of `#` and ellipsis per word, and the share of words without a letter."""
    words = batch.words
    count = batch.per_document(words.documents)
    hashes = np.fromiter((text.count("#") for text in texts), np.int64, batch.count)
    ellipses = np.fromiter((text.count("...") + text.count("…") for text in texts), np.int64, batch.count)
    lettered = (batch.kinds_of(words) & ALPHABETIC) > 0
    return {
        "symbols": _share(np.maximum(hashes, ellipses), count),
        "nonalphabetic_words": 1 - _share(batch.per_document(words.documents[lettered]), count),
    }


def line_measures(batch: Batch) -> dict[str, np.ndarray]:
    """Shares of lines that begin with a bullet or end in an ellipsis; mean and greatest length; share of the characters
    that are letters or digits."""
    lines, words = batch.lines, batch.words
    first, size = batch.words_in(lines)
    filled = np.flatnonzero(size)
    first, last = first[filled], first[filled] + size[filled] - 1
    bullet = filled[np.isin(batch.codes[words.starts[first]], _coded(BULLETS))]
    ellipsis = filled[batch.ellipsis_before(words.ends[last])]
    whole = Segments(batch.firsts[:-1], batch.firsts[:-1] + batch.lengths, np.arange(batch.count))
    every = batch.counted(whole, batch.codes == NEWLINE) + 1  # empty lines too
    longest = np.zeros(batch.count, dtype=np.int64)
    np.maximum.at(longest, lines.documents, lines.lengths)
    return {
        "bullet_lines": batch.per_document(lines.documents[bullet]) / every,
        "ellipsis_lines": batch.per_document(lines.documents[ellipsis]) / every,
        "line_length": _share(batch.per_document(lines.documents, lines.lengths), batch.per_document(lines.documents)),
        "longest_line": longest,
        "alphanumeric": _share(batch.counted(whole, (batch.kinds & WORDLY) > 0), batch.lengths),
    }


def stop_words(batch: Batch, wanted: list[str]) -> np.ndarray:
    """How many different ones of `wanted` each document has [D]."""
    hashes = batch.hashes(batch.words)
    found = np.zeros(batch.count, dtype=np.int64)
    lexicon = Batch(wanted)
    for stop_word in lexicon.hashes(lexicon.words):
        found += batch.per_document(batch.words.documents[hashes == stop_word]) > 0
    return found


def sentence_measures(batch: Batch, phrases: list[str]) -> dict[str, np.ndarray]:
    """Sentences, and the share of them that are suspect: lists of names (of at least 12 words more than half begin with a
    capital), or with one of `phrases` in them."""
    words = batch.words
    if not len(words.starts):
        return {"sentences": np.zeros(batch.count), "suspect_sentences": np.zeros(batch.count)}
    ends = np.isin(batch.codes[words.ends - 1], _coded(SENTENCE_ENDS))
    new = np.concatenate([[True], ends[:-1] | (np.diff(words.documents) > 0)])
    sentence = np.cumsum(new) - 1
    documents = words.documents[new]
    size = np.bincount(sentence)
    capitals = np.bincount(sentence, (batch.kinds[words.starts] & UPPER) > 0)
    suspect = (size >= SHORTEST_LIST) & (capitals > size / 2)
    starts = words.starts[new]
    for place, _ in places_of(batch.joined, phrases):
        suspect[max(0, np.searchsorted(starts, place, side="right") - 1)] = True
    count = batch.per_document(documents)
    return {"sentences": count, "suspect_sentences": _share(batch.per_document(documents[suspect]), count)}
