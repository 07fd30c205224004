"""Documents to ids, as fast as what is installed allows: `gigatoken` where it gives the same ids, else `tokenizers`.

Special tokens that are written out in a document stay text: a web page that quotes "<|endoftext|>" must not end there.
"""

import json
import unicodedata
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from llmctl import events

SAMPLE = 64  # documents of the first batch that both must encode alike


class Encoder:
    """Ids of documents, by a tokenizer as `AutoTokenizer` gives it."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        written = tokenizer.backend_tokenizer.to_str()
        self._slow = Tokenizer.from_str(written)
        self._slow.encode_special_tokens = True
        self._fast: Any = _gigatoken(written)
        self._compared = False

    @property
    def engine(self) -> str:
        return "tokenizers" if self._fast is None else "gigatoken"

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, one after the other (uint32), and how many each has (int64 [texts])."""
        if not self._compared:
            self._compare(texts[:SAMPLE])
        if self._fast is None:
            return self._slowly(texts)
        apart = [place for place, text in enumerate(texts) if not text.isascii() and self._may_differ(text)]
        ids, lengths = self._quickly(texts)
        return (ids, lengths) if not apart else self._replaced(texts, apart, ids, lengths)

    def _slowly(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found = [encoding.ids for encoding in self._slow.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        return np.fromiter((i for ids in found for i in ids), dtype=np.uint32, count=int(lengths.sum())), lengths

    def _quickly(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        import awkward

        found = self._fast.encode_batch(texts)
        return awkward.to_numpy(awkward.flatten(found)), awkward.to_numpy(awkward.num(found)).astype(np.int64)

    def _replaced(
        self, texts: list[str], apart: list[int], ids: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same with the documents at `apart` encoded by `tokenizers`."""
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        theirs, sizes = self._slowly([texts[place] for place in apart])
        for place, mine in zip(apart, np.split(theirs, np.cumsum(sizes)[:-1]), strict=True):
            parts[place] = mine
            lengths[place] = len(mine)
        return np.concatenate(parts), lengths

    def _compare(self, texts: list[str]) -> None:
        self._compared = True
        if self._fast is None or not texts:
            return
        fast, slow = self._quickly(texts), self._slowly(texts)
        if not np.array_equal(fast[0], slow[0]):
            events.warn("gigatoken splits this tokenizer's text in another way than `tokenizers`, which is taken instead")
            self._fast = None

    def _may_differ(self, text: str) -> bool:
        return bool(_young_characters()[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)].any())


@cache
def _young_characters() -> np.ndarray:
    """Code points [0x110000] that the two may know differently: letters and digits that came after Unicode 3.2, or are not
    assigned. What an older table takes for a sign is another split (U+16EBB was found so)."""
    old, new = unicodedata.ucd_3_2_0.category, unicodedata.category
    characters = map(chr, range(0x110000))
    return np.fromiter((new(c) == "Cn" or (old(c) == "Cn" and new(c)[0] in "LN") for c in characters), bool, count=0x110000)


def _gigatoken(written: str) -> Any:
    """The tokenizer in gigatoken, its special tokens taken out; None where it is not installed or does not know the kind."""
    if find_spec("gigatoken") is None:
        return None
    import gigatoken

    values = json.loads(written)
    values["added_tokens"] = [token for token in values.get("added_tokens") or [] if not token.get("special")]
    try:
        return gigatoken.Tokenizer.from_json(json.dumps(values))
    except Exception as error:  # it raises what its parsers raise
        events.say(f"gigatoken does not know this kind of tokenizer ({str(error).splitlines()[0]}); `tokenizers` is taken")
        return None
