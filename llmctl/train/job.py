"""One stage's training, described by plain values, so that the command line can hand it to ranks it starts."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from llmctl.recipe.schema import STAGE_TABLES, TrainTable
from llmctl.runs.files import read_json, write_json

JOB_FILE = "job.json"


@dataclass(frozen=True, slots=True)
class DataPart:
    """Token shards that make up `share` of the rows."""

    source: str
    shards: str
    share: float
    packing: Literal["concat", "best_fit"] = "concat"
    documents: str | None = None
    """File of the documents' numbers that are taken, some of them perhaps twice (best_fit alone). None: all, once."""
    truncate: bool = False
    """Whether a document longer than a row ends with the row; else it is cut into pieces."""
    label: str = ""
    """What tells the part from others of its source."""

    @property
    def name(self) -> str:
        return f"{self.source}, {self.label}" if self.label else self.source


@dataclass(frozen=True, slots=True)
class TrainJob:
    folder: str
    """The artifact: `checkpoints/`, `metrics.jsonl`, and at the end `model/` and `trainer/`."""
    stage: str
    steps: int
    table: dict[str, Any]
    """The stage's table of the recipe, resolved; with the rate and batch of its model where the recipe leaves them out."""
    tokenizer: str
    parts: list[DataPart]
    heldout: list[DataPart] = field(default_factory=list)
    """Token shards that the held-out loss is measured on while the stage runs, with the shares of the mix."""
    tasks: str | None = None
    """File of the few-shot tasks that are scored while it runs."""
    shape: dict[str, Any] | None = None
    """Of a new model; or else it is like `shape_of`, or `parent` is loaded."""
    shape_of: str | None = None
    """Folder, GGUF file or hub name: a new model of the same shape, without its weights."""
    parent: str | None = None
    moments: str | None = None
    """Trainer state of the parent whose weights and moments are carried over."""
    rope: dict[str, Any] | None = None
    vocabulary: int | None = None
    """Tokens that the model is given an embedding for, where the tokenizer has some that the parent does not know."""
    lora: dict[str, Any] | None = None
    """The fields of an `AdapterSettings`."""
    seed: int = 1
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Further keys of DeepSpeed's configuration."""
    profile: bool = False
    """Whether the first rank records what a few steps spend their time on."""

    @property
    def settings(self) -> TrainTable:
        table = STAGE_TABLES[self.table["kind"]].model_validate(self.table)
        assert isinstance(table, TrainTable)
        return table

    @property
    def rows(self) -> int:
        """Rows of all steps together."""
        return self.settings.steps.rows_before(self.steps)

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def write(self) -> Path:
        file = self.path / JOB_FILE
        write_json(file, asdict(self))
        return file

    @classmethod
    def read(cls, file: Path) -> Self:
        values = read_json(file)
        for key in ("parts", "heldout"):
            values[key] = [DataPart(**part) for part in values[key]]
        values.setdefault("tasks", values.pop("suites", None))  # as files of version 0.1 before evaluation tasks call it
        return cls(**values)
