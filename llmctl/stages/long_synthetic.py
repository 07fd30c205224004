"""The synthetic documents of a long-context stage: made from its long documents, kept in its folder, tokenised there.

They are written in parts, so that a stage that was stopped goes on with the part it was at: a model may write for hours.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.errors import UserError
from llmctl.runs.files import read_json, write_json
from llmctl.stages.context import table_of
from llmctl.stages.long_documents import seed_of, texts_of
from llmctl.stages.training import Stage
from llmctl.tokens.shards import TokenShards

PART = 64  # documents that are read for a part
ROOM = 0.85  # of a row that the original's text may take: what is woven in stands behind its parts, and a row's end is cut off


def synthetic_parts(stage: Stage) -> list[Any]:
    """The `DataPart`s of the documents with counted words (cwe) and with rewritten passages (rex), as far as the recipe has any.

    Raises:
        UserError: no document is long enough, the generator does not answer, or nothing came of what it wrote.
    """
    from llmctl.corpus.synthesis.generator import open_generator

    table = table_of(stage)
    wanted = {"cwe": table.synthetic.cwe_share, "rex": table.synthetic.rex_share}
    if not any(wanted.values()):
        return []
    generator = cache(partial(open_generator, table.synthetic, stage.seed))  # asked for where something is to be written
    documents = {source: long_enough(stage, source) for source in table.long_mix or table.mix}
    if not any(map(len, documents.values())):
        raise UserError(
            f"[{stage.name}] no document has {shortest(stage):,} tokens and more to weave tasks into; set "
            "synthetic.min_document_tokens to a length that there is, or name sources of longer documents in long_mix"
        )
    return [part for kind, share in wanted.items() if share for part in of_kind(stage, kind, share, documents, generator)]


def shortest(stage: Stage) -> int:
    table = table_of(stage)
    return table.synthetic.min_document_tokens or table.seq_len // 2


def long_enough(stage: Stage, source: str) -> np.ndarray:
    """Numbers of the documents that tasks are woven into, in an order of the seed."""
    numbers = np.flatnonzero(TokenShards(stage.plain_shards(source)).lengths >= shortest(stage))
    return np.random.default_rng(seed_of(stage, source)).permutation(numbers)


def of_kind(stage: Stage, kind: str, share: float, documents: dict[str, np.ndarray], generator: Callable[[], Any]) -> list[Any]:
    from llmctl.train.job import DataPart

    table, total = table_of(stage), sum(map(len, documents.values()))
    made = {}
    for source, numbers in documents.items():
        most = max(1, table.synthetic.max_documents * len(numbers) // total)
        if len(numbers) and (folder := written(stage, kind, source, numbers, most, share * len(numbers) / total, generator)):
            made[source] = folder
    if not made:
        raise UserError(f"[{stage.name}] {kind}: the generator {table.synthetic.generator!r} gave no document that could be kept")
    tokens = {source: TokenShards(folder).tokens for source, folder in made.items()}
    return [
        DataPart(source, str(folder), share * tokens[source] / sum(tokens.values()), "best_fit", truncate=True, label=kind)
        for source, folder in made.items()
    ]


def written(stage: Stage, kind: str, source: str, numbers: np.ndarray, most: int, share: float, generator: Any) -> Path | None:
    """Token shards of the documents of a kind that were made from a source's, enough for `share` of the stage's tokens or `most`
    in number; None where nothing came of them."""
    from llmctl.corpus.documents import Document, read_rows_of
    from llmctl.tokens.text_shards import TextShards

    table, folder = table_of(stage), stage.folder / "data" / "synthetic" / kind / source
    if (shards := folder / "shards").exists():
        return shards
    capacity = int(ROOM * table.seq_len)
    lengths = np.minimum(TokenShards(stage.plain_shards(source)).lengths[numbers], capacity)
    if table.tokens is not None:
        most = min(most, int(np.searchsorted(np.cumsum(lengths), share * table.tokens)) + 1)
    write_parts(stage, kind, source, numbers, most, generator, folder)
    files = sorted(folder.glob("part-*.jsonl.zst"))

    def read() -> Iterator[tuple[str, str, str]]:
        rows = (Document(**row) for file in files for row in read_rows_of(file))
        return ((document.id, document.text, document.path) for document in rows)

    size = sum(len(text.encode()) for _, text, _ in read())
    if not size:
        return None
    TextShards(str(stage.tokenizer), shards).write(read, size)
    return shards


def write_parts(stage: Stage, kind: Any, source: str, numbers: np.ndarray, most: int, generator: Any, folder: Path) -> None:
    """Write the documents, and beside each part what became of its tasks; parts that are there stay."""
    from llmctl.corpus.documents import Document, writing
    from llmctl.corpus.synthesis.make import synthesize
    from llmctl.corpus.synthesis.tally import Tally

    capacity, whole = int(ROOM * table_of(stage).seq_len), Tally()
    for number, chunk in enumerate(np.split(numbers, range(PART, len(numbers), PART))):
        if whole.documents_out >= most:
            break
        file, told = folder / f"part-{number:05d}.jsonl.zst", folder / f"part-{number:05d}.json"
        if not told.exists():
            tally = Tally()
            texts = texts_of(stage, source, chunk, capacity)
            documents = (Document(text, f"{source}-{name}", source, "") for name, text in zip(chunk.tolist(), texts, strict=True))
            with writing(file) as write:
                for document in synthesize(kind, documents, generator(), stage.seed, tally, most - whole.documents_out):
                    write(document)
                    done = whole.documents_out + tally.documents_out
                    events.progress(f"weaving {kind} into {source}", min(done, most), most, "documents")
            write_json(told, vars(tally))
        values = read_json(told)
        add(whole, Tally(**values | {key: Counter(values[key]) for key in ("dropped", "left_out")}))
    whole.show(f"{stage.name}: {kind} woven into {source}")
    events.say(f"what was woven into {source} is in {folder}")


def add(whole: Any, part: Any) -> None:
    for name, value in vars(part).items():
        setattr(whole, name, getattr(whole, name) + value)
