"""What tests share: a small text, a small tokenizer, a recipe that runs in seconds."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
REPOSITORY = Path(__file__).resolve().parent.parent


def _modules() -> list[Path]:
    """Files of the standard library that every installation has."""
    import sysconfig

    library = Path(sysconfig.get_paths()["stdlib"])
    names = ["argparse", "ast", "calendar", "cmd", "configparser", "csv", "datetime", "difflib", "dis", "fractions", "ftplib",
             "gettext", "heapq", "imaplib", "inspect", "ipaddress", "locale", "mailbox", "optparse", "pickle", "platform",
             "pprint", "random", "shutil", "smtplib", "socket", "statistics", "string", "tarfile", "textwrap", "threading",
             "tokenize", "traceback", "turtle", "types", "typing", "uuid", "warnings", "zipfile"]  # fmt: skip
    return [path for name in names if (path := library / f"{name}.py").exists()]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in _modules()]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory, texts) -> Path:
    from llmctl.tokens.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(iter(texts[:12]), 512, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder) -> Any:
    from llmctl.tokens.tokenizer import load_tokenizer

    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory, texts) -> Path:
    """The texts as files, for recipes to read."""
    folder = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(texts):
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return folder


SMALL_RECIPE = """
name = "small"
[corpus]
heldout_fraction = 0.2
[corpus.sources.code]
path = "{texts}"
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
tokens = 5120
seq_len = 64
batch_tokens = 256
micro_batch = 2
optimizer = "muon"
warmup_steps = 2
mix = {{ code = 1.0 }}
checkpoint = {{ every_steps = 3 }}
[eval]
questions = 8
bits_per_byte_bytes = 20000
generations = 4
long_documents = 2
"""


@pytest.fixture
def small_recipe(tmp_path, text_folder) -> Path:
    """A recipe whose pretraining of 20 steps takes seconds."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL_RECIPE.format(texts=text_folder))
    return file


@pytest.fixture
def write_recipe(tmp_path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "recipe.toml"
        file.write_text(textwrap.dedent(text))
        return file

    return write


@pytest.fixture(scope="session")
def two_ranks():
    from two_ranks import TwoRanks

    ranks = TwoRanks()
    yield ranks
    ranks.stop()


def command(*arguments: Any) -> list[str]:
    """The installed console script of this environment."""
    return [str(Path(sys.executable).with_name("llmctl")), *map(str, arguments)]


def run_llmctl(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line through its real entry point."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600, **options)


@pytest.fixture
def llmctl() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_llmctl
