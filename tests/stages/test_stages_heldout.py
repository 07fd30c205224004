"""What every stage is measured on."""

from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from llmctl.stages import heldout


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 300))
def test_the_sample_takes_the_beginning_of_every_document(texts, budget):
    documents = [SimpleNamespace(text=text) for text in texts]
    original = heldout.read_documents
    heldout.read_documents = lambda *where: iter(documents)
    try:
        sample = heldout.sample_texts(Path(), "own", budget)
    finally:
        heldout.read_documents = original
    sizes = [len(text.encode()) for text in sample]
    assert sum(sizes) <= budget
    if sample:
        for text, taken in zip(texts, sample, strict=True):
            assert text.startswith(taken)
        whole = [len(text.encode()) for text in texts]
        longest = max(sizes)
        for size, of in zip(sizes, whole, strict=True):  # cut only where the longest are cut, within a character
            assert size == of or size >= longest - 3
        if sum(whole) <= budget:
            assert sample == texts
