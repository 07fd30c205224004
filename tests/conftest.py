"""What tests share: a small text, a small tokenizer, a recipe that runs in seconds."""

import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL_RECIPE, run_llmctl

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads of several processes that spin take each other's cores
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # for tests of kernels; read when Triton is imported, as torch does now and then
os.environ.pop("LLMCTL_RUNS", None)  # tests say where their runs lie


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


@pytest.fixture
def small_recipe(tmp_path, text_folder) -> Path:
    """A recipe whose pretraining of 20 steps takes seconds."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL_RECIPE.format(texts=text_folder))
    return file


@pytest.fixture(scope="session")
def pretrained_runs(tmp_path_factory, text_folder) -> Path:
    """The folder of runs of that recipe when it is done; to be looked at, and not to be changed."""
    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "small.toml").write_text(SMALL_RECIPE.format(texts=text_folder))
    made = run_llmctl("pretrain", folder / "small.toml", "--runs", folder / "runs")
    assert made.returncode == 0, made.stderr
    return folder / "runs"


@pytest.fixture
def write_recipe(tmp_path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "recipe.toml"
        file.write_text(textwrap.dedent(text))
        return file

    return write


@pytest.fixture(scope="session")
def two_ranks():
    from two_ranks import Ranks

    ranks = Ranks(2)
    yield ranks
    ranks.stop()


@pytest.fixture(scope="module")
def four_ranks():
    """For the tests of one module: four processes take 1 GB more than two."""
    from two_ranks import Ranks

    ranks = Ranks(4)
    yield ranks
    ranks.stop()


@pytest.fixture(scope="session")
def one_rank():
    """The process group of this process alone."""
    from llmctl.train.distributed import join_process_group

    join_process_group()


@pytest.fixture
def llmctl() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_llmctl
