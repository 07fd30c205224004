"""Stages on conversations, by the command line: dead runs are refused, templates and tokens of a stage, long conversations,
answers to be read, early stopping, several adapters."""

import json
import re
from pathlib import Path

import pytest
from helpers import SMALL_RECIPE, in_process, run_llmctl

CHAT = """
[corpus.sources.talk]
path = "{talk}"
kind = "chat"
[sft]
epochs = 2
seq_len = 128
batch_tokens = 256
micro_batch = 2
lr = 3e-3
mix = {{ talk = 1.0 }}
"""
WORDS = ["red", "blue", "green", "black", "white", "brown", "grey", "pink"]


def talk(number: int) -> dict:
    colour, other = WORDS[number % 8], WORDS[number // 8 % 8]
    turns = [(f"What is {number} in {colour}?", f"It is {other}."), ("Sure?", f"Yes, {colour}.")]
    roles = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    return {"messages": roles}


def write_rows(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def chat_runs(tmp_path_factory, text_folder) -> Path:
    """A folder with a pretrained model, whose recipes differ in their stages on conversations alone."""
    folder = tmp_path_factory.mktemp("chat")
    file = write_rows(folder / "talk.jsonl", [talk(number) for number in range(60)])
    (folder / "chat.toml").write_text(
        (SMALL_RECIPE.replace("seq_len = 64", "seq_len = 128") + CHAT).format(texts=text_folder, talk=file)
    )
    made = run_llmctl("pretrain", folder / "chat.toml", "--runs", folder / "runs")
    assert made.returncode == 0, made.stderr
    return folder


def recipe(chat_runs: Path, name: str, tables: str) -> Path:
    file = chat_runs / f"{name}.toml"
    file.write_text(f'extends = "chat.toml"\n{tables}')
    return file


def sft(chat_runs: Path, file: Path, by=in_process):
    return by("sft", file, "--runs", chat_runs / "runs")


def stage(chat_runs: Path, name: str) -> Path:
    """The newest artifact of a stage."""
    return max(chat_runs.glob(f"runs/small/{name}-*"), key=lambda folder: folder.stat().st_mtime)


def test_a_run_whose_answers_would_never_end_is_refused_before_training_with_what_to_do(chat_runs):
    template = chat_runs / "open.jinja"
    template.write_text(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    file = recipe(chat_runs, "open", f'[sft]\ntemplate = "{template}"')
    for command in (["sft", file], ["inspect", "sft", file]):
        refused = in_process(*command, "--runs", chat_runs / "runs")
        assert refused.returncode == 3, refused.stderr
        told = " ".join((refused.stdout + refused.stderr).split())
        assert "closes no answer with a special token" in told
        assert 'template = "chatml"' in told
    assert not list(stage(chat_runs, "sft").glob("model"))


def test_rows_of_which_nothing_is_left_are_named_and_their_share_decides(chat_runs):
    rows = [talk(number) for number in range(60)]
    for number in (7, 8, 9, 30, 40):
        rows[number]["messages"][0]["content"] += " really" * 200
    file = write_rows(chat_runs / "long.jsonl", rows)
    long = recipe(chat_runs, "long", f'[corpus.sources.talk]\npath = "{file}"')
    refused = sft(chat_runs, long)
    assert refused.returncode == 3
    named = {int(place) for place in re.findall(r"long\.jsonl:(\d+)", refused.stderr)}
    assert named  # some are held out
    assert named <= {8, 9, 10, 31, 41}
    assert f"{len(named)} of" in refused.stderr
    assert "no trained token" in refused.stderr
    assert in_process("inspect", "sft", long, "--runs", chat_runs / "runs", "--set", "sft.most_untrained=0.2").returncode == 0


def test_held_out_conversations_that_are_trained_on_are_refused_with_both_rows(chat_runs):
    held = write_rows(chat_runs / "held.jsonl", [talk(100), talk(5)])
    file = recipe(chat_runs, "held", f'[corpus.sources.talk]\nheldout = "{held}"')
    refused = sft(chat_runs, file)
    assert refused.returncode == 3
    assert "held.jsonl:2 is" in refused.stderr
    assert "talk.jsonl:6" in refused.stderr


@pytest.fixture(scope="module")
def tuned(chat_runs) -> tuple[Path, str]:
    """sft with the olmo template and tokens of its own, a lora stage on top that names neither, and a second one."""
    tables = """[eval]
answer_tokens = 16  # olmo writes 108 to 111 tokens before an answer, and the context has 128
[sft]
template = "olmo"
add_tokens = ["<|tool|>", "<|end_tool|>"]
[stage.one]
kind = "lora"
from = "sft"
epochs = 1
seq_len = 128
batch_tokens = 256
micro_batch = 2
lr = 3e-3
rank = 2
mix = { talk = 1.0 }
[stage.two]
kind = "lora"
from = "sft"
epochs = 1
seq_len = 128
batch_tokens = 256
micro_batch = 2
lr = 3e-3
rank = 4
rslora = true
add_tokens = ["<|more|>"]
mix = { talk = 1.0 }
"""
    file = recipe(chat_runs, "tuned", tables)
    made = run_llmctl("sft", file, "--lora", "--runs", chat_runs / "runs")
    assert made.returncode == 0, made.stderr
    return chat_runs, made.stdout


def test_a_stage_has_the_template_and_tokens_that_it_or_its_parent_asks_for(tuned):
    from transformers import AutoTokenizer

    folder, _ = tuned
    tokenizers = {
        name: AutoTokenizer.from_pretrained(stage(folder, name) / "model") for name in ("pretrain", "sft", "one", "two")
    }
    plain = len(tokenizers["pretrain"])
    assert [len(tokenizers[name]) - plain for name in ("sft", "one", "two")] == [2, 2, 3]
    assert tokenizers["one"].chat_template == tokenizers["sft"].chat_template != tokenizers["pretrain"].chat_template
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ended = tokenizers["sft"].apply_chat_template(messages, tokenize=False)
    assert ended.rstrip().endswith(tokenizers["sft"].eos_token)


def test_the_model_has_an_embedding_for_each_token(tuned):
    from llmctl.model.load import load_model

    folder, _ = tuned
    for name in ("sft", "one", "two"):
        model = load_model(str(stage(folder, name) / "model"))
        assert model.get_input_embeddings().weight.shape[0] >= 515 > 512


def test_an_adapter_with_tokens_of_its_own_has_their_embeddings_and_fits_its_base(tuned):
    from safetensors import safe_open

    folder, printed = tuned
    with safe_open(stage(folder, "two") / "adapter" / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert any("embed_tokens" in name for name in names)
    with safe_open(stage(folder, "one") / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118 (a safe_open handle is no dict)
    assert printed.count("difference between adapter and merged model") == 2


def test_answers_are_there_to_be_read_beside_the_parents(tuned):
    folder, printed = tuned
    rows = json.loads((stage(folder, "sft") / "answers.json").read_text())
    assert rows
    assert rows[0].keys() == {"id", "question", "expected", "before", "after"}
    assert rows[0]["expected"].startswith("It is ")
    page = (stage(folder, "sft") / "answers.html").read_text()
    assert rows[0]["expected"] in page
    assert "answers that end" in printed
    assert "exact match (" in printed


def test_a_conversation_that_is_too_long_keeps_its_whole_turns_and_is_told(chat_runs):
    rows = [talk(number) for number in range(60)]
    rows[3]["messages"][2]["content"] += " really" * 200
    file = write_rows(chat_runs / "turns.jsonl", rows)
    shown = in_process(
        "inspect", "sft", recipe(chat_runs, "turns", f'[corpus.sources.talk]\npath = "{file}"'), "--runs", chat_runs / "runs",
        "--rows", "100",
    )  # fmt: skip
    assert shown.returncode == 0
    assert "1 longer than a row, and cut after a whole turn" in shown.stdout
    assert "turns.jsonl:4" in shown.stdout
    assert "What is 3 in black?" in shown.stdout
    assert "really" not in shown.stdout


def test_early_stopping_leaves_the_best_step(chat_runs):
    file = recipe(
        chat_runs,
        "early",
        "[sft]\nepochs = 40\nlr = 0.05\nearly_stopping = 2\nmax_repetition = 50\neval = { every_steps = 2, rows = 8 }",
    )
    made = sft(chat_runs, file, by=run_llmctl)
    assert made.returncode == 0, made.stderr
    assert "2 measurements without a lower held-out loss" in made.stdout
    folder = stage(chat_runs, "sft")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line["heldout_loss"] for line in lines if "heldout_loss" in line}
    left = json.loads((folder / "trainer" / "state.json").read_text())
    assert left["step"] == min(measured, key=lambda step: measured[step]) < max(measured)
    tokens = json.loads((folder / "manifest.json").read_text())["metrics"]["tokens/talk"]
    assert tokens == left["step"] * 256
    assert not (folder / "best").exists()


def test_inspect_shows_what_is_trained_and_writes_a_page(chat_runs, tmp_path):
    page = tmp_path / "sft.html"
    options = ("--runs", chat_runs / "runs", "--json", "--html", page, "--rows", "2")
    found = json.loads(run_llmctl("inspect", "sft", chat_runs / "chat.toml", *options).stdout)
    assert len(found["rows"]) == 2
    for row in found["rows"]:
        for conversation in row["talks"]:
            content = [part["text"] for part in conversation["parts"] if part["kind"] == "content"]
            assert [text[:3] for text in content] == ["It ", "Yes"]
            closing = [part["text"] for part in conversation["parts"] if part["kind"] == "closing"]
            assert closing == ["<|im_end|>"] * 2
            assert conversation["place"].endswith(tuple("0123456789"))
        used = sum(conversation["tokens"] for conversation in row["talks"])
        assert used + row["padding"] == found["seq_len"]
    text = page.read_text()
    assert "<span class='content'>" in text
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
