"""`llmctl check`: what is wrong is found before anything is made, and nothing is left behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL_RECIPE, in_process

from llmctl.preflight.disk import corpus_bytes, text_bytes
from llmctl.preflight.storage import FileSystem, faults_of, file_system
from llmctl.recipe.load import load_recipe
from llmctl.tokens.tokenizer import load_tokenizer


def checked(recipe: Path, *options: Any, code: int = 0) -> dict[str, list[tuple[str, str]]]:
    """(level, text) of all that was found, by what was looked at."""
    result = in_process("check", recipe, "--json", *options)
    assert result.returncode == code, result.stdout + result.stderr
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in json.loads(result.stdout)["findings"]:
        found.setdefault(finding["what"], []).append((finding["level"], finding["text"]))
    return found


def errors(found: dict[str, list[tuple[str, str]]]) -> dict[str, list[str]]:
    texts = {what: [text for level, text in told if level == "error"] for what, told in found.items()}
    return {what: told for what, told in texts.items() if told}


def test_a_good_recipe_is_told_and_nothing_is_written(small_recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = checked(small_recipe, "--runs", tmp_path / "runs")
    assert sorted(tmp_path.rglob("*")) == before
    assert errors(found) == {}
    assert "20 steps of 4 x 64 tokens" in found["pretrain"][0][1]
    assert found["source code"] == [
        ("ok", f"the first 20 rows of {load_recipe(small_recipe).corpus.sources['code'].path} are text")
    ]
    assert "nothing; the run will be in" in found["done before"][0][1]


def test_it_ends_with_the_trial_and_the_run(small_recipe, tmp_path):
    text = in_process("check", small_recipe, "--set", "pretrain.lr=3e-4", "--runs", tmp_path / "my runs").stdout
    command = f"llmctl run {small_recipe} --set pretrain.lr=3e-4 --runs '{tmp_path / 'my runs'}'"
    assert text.rstrip().endswith(f"before the real run:  {command} --smoke\nthen the real run:  {command}")


def test_all_mistakes_of_the_recipe_come_with_their_lines(write_recipe):
    recipe = write_recipe("[pretrain]\ntokens = '5X'\nlearing_rate = 1\n")
    (told,) = errors(checked(recipe, code=2))["recipe"]
    assert f"{recipe}:2: pretrain.tokens" in told
    assert f"{recipe}:3: pretrain.learing_rate" in told


@pytest.mark.parametrize(
    ("change", "what", "text"),
    [
        ('eval.suites=["arc_easyy"]', "tasks", "did you mean arc_easy"),
        ('corpus.sources.code.text_field="body"', "source code", "no text in field 'body'"),
        ("pretrain.processes=2", "pretrain", None),
        ("pretrain.zero_stage=1", "recipe", "Muon needs whole matrices"),
        ("model.hidden_size=4000000", "disk", "GiB are free; name another disk"),
    ],
)
def test_what_would_stop_the_run_is_found(small_recipe, change, what, text):
    found = errors(checked(small_recipe, "--set", change, code=0 if text is None else 2))
    assert (what in found) == (text is not None)
    assert text is None or text in found[what][0]


def test_rows_that_the_ranks_cannot_share_are_found(small_recipe):
    assert "cannot be shared by 3 ranks" in errors(checked(small_recipe, "--processes", 3, code=2))["pretrain"][0]
    found = checked(small_recipe, "--gpus", 2)
    assert any("no GPU is here" in text or "GiB of memory" in text for _, text in found["pretrain"])


CHAT = """
[corpus.sources.talk]
path = "{talk}"
kind = "chat"
[tokenizer]
path = "{base}"
[sft]
from = "{base}"
epochs = 1
seq_len = 128
mix = {{ talk = 1.0 }}
"""


@pytest.fixture
def chat_recipe(tmp_path, pretrained_runs) -> Path:
    """Conversations for a model that is there."""
    (base,) = (pretrained_runs / "small").glob("pretrain-*/model")
    talk = [{"prompt": f"Say {n}", "completion": f"{n}"} for n in range(30)]
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, talk)))
    file = tmp_path / "chat.toml"
    file.write_text(CHAT.format(talk=tmp_path / "talk.jsonl", base=base))
    return file


def test_conversations_their_template_and_the_base_are_looked_at(chat_recipe, tmp_path):
    found = checked(chat_recipe)
    assert "prompt + completion" in found["source talk"][0][1]
    assert any("a conversation was written by it" in text for _, text in found["sft"])
    assert ("warning", "rows of 128 tokens are longer than the 64 that its parent was trained for") in found["sft"]
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}{{ m.content")
    broken = errors(checked(chat_recipe, "--set", f"sft.template={tmp_path / 'broken.jinja'}", code=2))
    assert "broken.jinja:1: not a Jinja template" in broken["sft"][0]
    (tmp_path / "angry.jinja").write_text("{{ raise_exception('never') }}")
    angry = errors(checked(chat_recipe, "--set", f"sft.template={tmp_path / 'angry.jinja'}", code=2))
    assert "cannot write this conversation" in angry["sft"][0]


def test_a_tokenizer_that_is_larger_than_the_model_is_found(chat_recipe, tmp_path, tokenizer_folder):
    tokenizer = load_tokenizer(str(tokenizer_folder))
    tokenizer.add_tokens([f"<extra{n}>" for n in range(300)])
    tokenizer.save_pretrained(tmp_path / "larger")
    (told,) = errors(checked(chat_recipe, "--set", f"tokenizer.path={tmp_path / 'larger'}", code=2))["tokenizer"]
    assert "a model goes with its own" in told


def test_what_is_done_is_told_and_which_keys_make_it_anew(text_folder, pretrained_runs, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(SMALL_RECIPE.format(texts=text_folder))
    runs = shutil.copytree(pretrained_runs, tmp_path / "runs")
    told = [text for _, text in checked(recipe, "--runs", runs)["done before"]]
    assert told[0].startswith("corpus, tokenizer, tokens, pretrain in ")
    assert told[1:] == ["eval is not there yet"]
    told = [text for _, text in checked(recipe, "--runs", runs, "--set", "pretrain.muon_lr=0.5")["done before"]]
    assert told[1:] == ["pretrain would be made anew: pretrain.muon_lr was 0.02, is 0.5", "eval is made after pretrain"]
    told = [text for _, text in checked(recipe, "--runs", runs, "--set", "tokenizer.vocab_size=600")["done before"]]
    assert told[1] == "tokenizer would be made anew: tokenizer.vocab_size was 512, is 600"
    told = [text for _, text in checked(recipe, "--runs", runs, "--set", "pretrain.micro_batch=4")["done before"]]
    assert told[1:] == ["eval is not there yet"]


def test_a_folder_that_cannot_be_written_is_an_error(small_recipe):
    assert "nothing can be written there" in errors(checked(small_recipe, "--runs", "/proc/runs", code=2))["storage"][0]


def test_a_disk_that_one_node_alone_sees_is_an_error_on_several(small_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NNODES", "2")
    kind = file_system(tmp_path)
    assert kind is not None
    found = checked(small_recipe, "--runs", tmp_path / "runs", code=0 if kind.shared else 2)
    assert kind.shared or "which this node alone sees" in errors(found)["storage"][0]


def test_the_nearest_mount_decides(tmp_path):
    mounts = tmp_path / "mounts"
    (tmp_path / "a b" / "runs").mkdir(parents=True)
    escaped = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n")
    assert file_system(tmp_path / "a b" / "runs", mounts) == FileSystem(str(tmp_path / "a b"), "nfs4")
    assert file_system(tmp_path, mounts) == FileSystem("/", "ext4")
    assert file_system(tmp_path, tmp_path / "none") is None
    kinds = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "fuse.glusterfs", "ceph")
    assert all(FileSystem("/x", kind).shared for kind in kinds)
    assert not any(FileSystem("/x", kind).shared for kind in ("ext4", "xfs", "tmpfs", "overlay"))


def test_this_disk_keeps_what_runs_rely_on(tmp_path):
    assert faults_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_text_on_disk_is_counted_as_it_is_unpacked():
    assert corpus_bytes([1000, 500]) == 3000
    assert text_bytes([("a.txt", 100), ("b.jsonl.gz", 100)], None) == 500
    assert text_bytes([("a.txt", 100)], 30) == 30
