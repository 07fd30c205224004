"""The whole life of a tiny model, run once through the command line and looked at by many tests."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import run_llmctl

CHAIN = """
name = "tiny"
[corpus]
heldout_fraction = 0.3
[corpus.sources.code]
path = "{texts}"
[corpus.sources.talk]
path = "{talk}"
kind = "chat"
[corpus.sources.more]
path = "{more}"
kind = "chat"
[tokenizer]
vocab_size = 512
train_bytes = 300000
[model]
hidden_size = 32
layers = 4
heads = 2
ffn_size = 64
window = 32
[pretrain]
tokens = 4096
seq_len = 64
batch_tokens = 256
micro_batch = 2
optimizer = "muon"
mix = {{ code = 1.0 }}
[midtrain]
tokens = 1024
seq_len = 64
batch_tokens = 256
optimizer = "muon"
mix = {{ code = 1.0 }}
[longctx]
tokens = 4096
seq_len = 512
batch_tokens = 1024
optimizer = "muon"
mix = {{ code = 1.0 }}
buckets = {{ 400 = 1 }}
too_long = "fragment"
long_share = 0.5
guard = {{ questions = 20 }}
[sft]
lr = 3e-4
tokens = 2048
seq_len = 128
batch_tokens = 256
mix = {{ talk = 1.0 }}
[lora]
tokens = 2048
seq_len = 128
batch_tokens = 256
lr = 3e-4
rank = 2
dropout = 0.1
mix = {{ more = 1.0 }}
[eval]
questions = 8
shots = 2
bits_per_byte_bytes = 20000
generations = 4
long_documents = 2
long = {{ questions = 2, needles = 1 }}
"""


def conversations(kind: str, count: int) -> str:
    rows = [
        {"messages": [{"role": "user", "content": f"{kind} {n}?"}, {"role": "assistant", "content": f"It is {n * 3}."}]}
        for n in range(count)
    ]
    return "\n".join(map(json.dumps, rows))


@dataclass(frozen=True)
class Finished:
    recipe: Path
    runs: Path
    printed: str

    @property
    def folder(self) -> Path:
        return self.runs / "tiny"

    def stage(self, name: str) -> Path:
        (found,) = [path for path in self.folder.glob(f"{name}-*") if (path / "manifest.json").exists()]
        return found

    def manifest(self, name: str) -> dict:
        return json.loads((self.stage(name) / "manifest.json").read_text())


@pytest.fixture(scope="session")
def chain_recipe(tmp_path_factory, text_folder) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "talk.jsonl").write_text(conversations("What is three times", 120))
    (folder / "more.jsonl").write_text(conversations("Triple", 120))
    file = folder / "tiny.toml"
    file.write_text(CHAIN.format(texts=text_folder, talk=folder / "talk.jsonl", more=folder / "more.jsonl"))
    return file


@pytest.fixture(scope="session")
def finished(chain_recipe) -> Finished:
    runs = chain_recipe.parent / "runs"
    result = run_llmctl("run", chain_recipe, "--runs", runs)
    assert result.returncode == 0, result.stdout + result.stderr
    return Finished(chain_recipe, runs, result.stdout)


@pytest.fixture
def runs(finished, tmp_path) -> Path:
    """The finished run, to be added to."""
    return shutil.copytree(finished.runs, tmp_path / "runs")
