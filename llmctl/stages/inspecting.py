"""Looks at what a run holds beside its models: corpora and tokenizers."""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.check import looks_like_hub_name
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import expanded
from llmctl.runs.store import RunStore

SAMPLE_DOCUMENTS = 100  # of each source's held-out text


def newest(store: RunStore, stage: str, run: str | None, otherwise: str) -> Artifact:
    """The newest finished artifact of a stage, of one run, or of all runs, and then which it is is told.

    Raises:
        UserError: there is none; `otherwise` says what to do.
    """
    runs = [one for one in store.runs() if run in (None, one.name)]
    found = [artifact for one in runs for artifact in one.artifacts if artifact.done and artifact.stage == stage]
    if not found:
        raise UserError(f"{store.root / run if run else store.root}: no {stage} yet; {otherwise}")
    artifact = max(found, key=lambda artifact: artifact.manifest["ended"])
    if run is None:
        print(f"no run given: the newest {stage} is that of {artifact.run} ({artifact.folder})", file=sys.stderr)
    return artifact


def find_corpus(store: RunStore, run: str | None) -> Artifact:
    """The newest corpus of a run, or of all runs, which is named.

    Raises:
        UserError: there is none.
    """
    return newest(store, "corpus", run, "make one with `llmctl curate RECIPE`")


def find_tokenizer(store: RunStore, name: str | None) -> tuple[str, Artifact | None]:
    """A folder or hub name that `load_tokenizer` takes, for a folder, a run or a hub name; and the run's artifact.

    Raises:
        UserError: there is none.
    """
    if name is not None:
        path = expanded(name)
        for folder in (path, path / "tokenizer", path / "model"):
            if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
                return str(folder), None
        if path.suffix == ".gguf" and path.is_file():
            return str(path), None
        if name not in (run.name for run in store.runs()):
            if looks_like_hub_name(name):
                return name, None
            known = ", ".join(run.name for run in store.runs()) or "none"
            raise UserError(f"{name!r} is no tokenizer's folder, no hub name and no run in {store.root}; runs are: {known}")
    how = "make one with `llmctl tokenizer train RECIPE`, or name a tokenizer's folder"
    artifact = newest(store, "tokenizer", name, how)
    return str(artifact.folder / "tokenizer"), artifact


def find_tokens(store: RunStore, run: str | None) -> Path:
    """The folder of token shards by source of a run, or of the newest, which is named.

    Raises:
        UserError: there is none.
    """
    return newest(store, "tokens", run, "make them with `llmctl pretrain RECIPE`").folder / "shards"


def heldout_texts(store: RunStore, tokenizer: Artifact) -> dict[str, list[str]]:
    """Held-out text of each source of the corpus that a tokenizer was made for."""
    from llmctl.corpus.documents import read_documents

    corpus = store.parents(tokenizer)["corpus"].folder
    sources = sorted(path.name for path in (corpus / "documents").glob("*"))
    return {
        f"held-out {name}": [d.text for d in islice(read_documents(corpus, name, "heldout"), SAMPLE_DOCUMENTS)]
        for name in sources
    }


def tokenizer_statistics(names: list[str | None], files: list[Path], runs: RunStore) -> dict[str, Any]:
    """Statistics of each tokenizer by name, on built-in samples, the held-out text of the first one's run, and `files`."""
    from llmctl.tokens.samples import SAMPLES
    from llmctl.tokens.statistics import measure
    from llmctl.tokens.tokenizer import load_tokenizer

    found = [(name, *find_tokenizer(runs, name)) for name in names]
    texts = {kind: [text] for kind, text in SAMPLES.items()}
    first = found[0][2]
    if first is not None:
        texts |= heldout_texts(runs, first)
    for file in files:
        try:
            texts[file.name] = [file.read_text(encoding="utf-8")]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--text {file}: cannot be read: {error}") from None
    return {
        name or (artifact.run if artifact else folder): measure(load_tokenizer(folder), texts) for name, folder, artifact in found
    }
