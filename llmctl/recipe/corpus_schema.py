"""The recipe's tables about documents."""

from typing import Any, Literal

from pydantic import Field, model_validator

from llmctl.recipe.classifier_schema import ClassifierTable, UpsampleTable
from llmctl.recipe.fields import Place, Table, execution
from llmctl.recipe.filter_schema import FilterTable
from llmctl.recipe.quantities import Size

TEXT_BUILTINS = ("builtin:python-stdlib", "builtin:python-packages")
CHAT_BUILTINS = ("builtin:python-docstrings", "builtin:python-errors")
BUILTIN_BYTES = {
    "builtin:python-stdlib": 30_000_000,
    "builtin:python-packages": 80_000_000,
    "builtin:python-docstrings": 10_000_000,
    "builtin:python-errors": 30_000_000,
}
"""Of their text, about: packages are those that are installed."""
FIELDS_OF_SHAPES = {
    "messages": {"messages", "system", "tools"},
    "conversations": {"messages", "system", "tools"},
    "instruction": {"prompt", "input", "response", "system", "tools"},
    "prompt": {"prompt", "response", "system", "tools"},
}
"""The parts of a conversation that rows of a shape have in fields of their own."""

Engine = Literal["native", "ray"]


class SourceTable(Table):
    """[corpus.sources.NAME]: where documents come from."""

    path: Place
    """A file or folder (.jsonl[.gz|.zst], .parquet, .warc[.gz], .txt, .md, .py), also by s3://, gs://, az://, hf:// or https://;
    a data set `hf:org/name`; or builtin:python-stdlib, python-packages, python-docstrings, python-errors."""
    kind: Literal["text", "chat", "tokens"] = "text"
    """Documents of text, conversations, or token ids as OLMo-core and dolma (.npy, with .csv.gz or without) or Megatron-LM
    (.bin and .idx) write them, which are trained on as they are. The built-in chat data are known as such."""
    files: list[str] = []
    """Of a folder or data set the files that match one of these patterns, as in "data/wiki-*/*". Empty: all."""
    type: str | None = None
    """What kind of text it is, for the reader of tables. Left out: `kind`."""
    max_bytes: Size | None = None
    """Bytes of text to take at most, from the beginning; of the built-in sources, files from all over them."""
    shape: Literal["auto", "messages", "conversations", "instruction", "prompt"] = "auto"
    """How rows hold conversations: messages = [{role, content}] (OpenAI), conversations = [{from, value}] (ShareGPT),
    instruction + input + output (Alpaca), prompt + response. auto: told by their fields, and said."""
    fields: dict[Literal["prompt", "response", "input", "system", "messages", "tools"], str] = {}
    """What the fields of such rows are called here, where they have names of their own, as in { prompt = "question" }."""
    heldout: Place | None = None
    """File or folder of conversations that are held out, in rows like those of `path`, of which then none is. Left out: a share
    of those of `path`."""
    text_field: str = "text"
    """Field of a JSON row or Parquet column that holds the text."""
    url_field: str = "url"
    """Field with the address that a document comes from, where its rows have one; for the filter's rules about addresses."""
    date_field: str | None = None
    """Field that says when a document is from, for `keep = "newest"`; dates as 2025-01-31."""
    split: str = "train"
    """Split of a Hugging Face data set."""
    subset: str | None = None
    """Configuration of a Hugging Face data set."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do at a row that cannot be read: stop, or skip it and count it."""
    filter: FilterTable | None = None
    """Rules for the documents of this source, or the name of a profile. Left out: those of [corpus.filter]."""
    upsample: UpsampleTable | None = None
    """Repeat what scores high. Left out: every document once."""

    @model_validator(mode="before")
    @classmethod
    def _known_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("path") in CHAT_BUILTINS:
            return values | {"kind": "chat"}
        return values


class DedupTable(Table):
    """[corpus.dedup]: training documents of all text sources that are copies of one another; one of each cluster stays."""

    fuzzy: bool = True
    """Near copies too, by MinHash (false: copies to the letter alone, case, punctuation and white space aside)."""
    ngram: int = Field(default=5, ge=1)
    """Words in an n-gram."""
    bands: int = Field(default=26, ge=1)
    """Bands of the signature. Documents that share a whole band are compared."""
    rows: int = Field(default=11, ge=1)
    """MinHash values in a band. Olmo 3: 26 bands of 11, which finds 90 % of the pairs of similarity 0.8 and 9 % at 0.6."""
    similarity: float = Field(default=0.8, gt=0, le=1)
    """Share of common n-grams (Jaccard) from which two documents are near copies."""
    keep: Literal["first", "longest", "newest"] = "first"
    """Which document of a cluster stays: the first in the order of sources and reading, the longest, or the newest by
    `date_field`. Olmo 3 keeps the newest."""


class DecontaminateTable(Table):
    """[corpus.decontaminate]: training text that holds questions of the suites of [eval] is dropped."""

    on: bool = True
    """Whether it is done."""
    ngram: int = Field(default=8, ge=1)
    """Words in an n-gram."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of a question's n-grams, answer included, from which a document holds the question."""
    sources: list[str] = []
    """Sources that are looked at. Empty: those that midtrain, longctx, sft and lora train on and pretrain does not, as Olmo 3."""


class CorpusTable(Table):
    """[corpus]: the text of the run, snapshot into it before anything else."""

    heldout_fraction: float = Field(default=0.05, gt=0.0, lt=0.5)
    """Share of the documents that no stage trains on, chosen by the hash of their name, and of conversations of one's own by the
    hash of their first question, whatever source it is in; at least one of every source."""
    sources: dict[str, SourceTable] = {}
    """The sources by name."""
    mask: list[Literal["email", "ip", "phone"]] = []
    """Personal data that is masked in documents and conversations."""
    filter: FilterTable | None = None
    """Rules for the documents of text sources that have none of their own. Left out: every document passes."""
    dedup: DedupTable | None = None
    """Left out: only documents of the very same text are dropped."""
    decontaminate: DecontaminateTable = DecontaminateTable()
    """What holds questions of the evaluation."""
    classifiers: dict[str, ClassifierTable] = {}
    """Classifiers of quality and topic, by name."""
    engine: Engine = execution("native")
    """What steps over all documents run on: this machine's cores, or a Ray cluster (needs the `ray` extra)."""
    ray_address: str | None = execution(None)
    """Address of the Ray cluster. Left out: RAY_ADDRESS, or one started on this machine. It sees this run's folder."""
