"""`llmctl init`: whatever is answered, the recipe that is written passes `llmctl check`, and it runs."""

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers import in_process, run_llmctl
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.recipe.load import load_recipe
from llmctl.recipe.starting import GOALS, Data, shares, starter_text
from llmctl.recipe.toml_text import Key, Part, toml_text
from llmctl.stages.checking import check_recipe
from llmctl.stages.starting import answers_of

HARDWARE = ("cpu", "l4", "1xh100", "8xh100")


@pytest.fixture(scope="module")
def places(tmp_path_factory, text_folder, pretrained_runs) -> dict[str, Any]:
    """Data of several kinds, and a model."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("data of mine")
    talk = [{"messages": [{"role": r, "content": f"{r} {n}"} for r in ("user", "assistant")]} for n in range(40)]
    pairs = [{"instruction": f"Double {n}", "output": str(2 * n)} for n in range(40)]
    for name, rows in (("talk", talk), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bodies = [f"A much longer text than the title, number {n}. " * 20 for n in range(60)]
    parquet.write_table(pyarrow.table({"title": ["T"] * 60, "body": bodies}), folder / "articles.parquet")
    (base,) = (pretrained_runs / "small").glob("pretrain-*/model")
    return {
        "base": str(base),
        "texts": str(text_folder),
        "articles": str(folder / "articles.parquet"),
        "talk": str(folder / "talk.jsonl"),
        "pairs": str(folder / "pairs.jsonl"),
    }


DATA = (("texts",), ("articles",), ("talk",), ("pairs", "talk"), ("texts", "articles", "talk"), ())


@pytest.mark.parametrize("goal", GOALS)
def test_what_is_written_passes_the_check(goal, places, tmp_path):
    wants_text, base = goal in ("pretrain", "continue"), None if goal == "pretrain" else places["base"]
    tried = 0
    for hardware, names in itertools.product(HARDWARE, DATA):
        if names and not {"texts", "articles"} & set(names) if wants_text else names and not {"talk", "pairs"} & set(names):
            continue
        file = tmp_path / "own.toml"
        answers = answers_of(file, goal, base, [places[name] for name in names], hardware)
        file.write_text(starter_text(answers))
        findings = check_recipe(file, [], False, answers.hardware.ranks, None, tmp_path / "runs")
        assert [found for found in findings if found.level == "error"] == [], file.read_text()
        load_recipe(file, smoke=True)
        tried += 1
    assert tried >= 12


def test_flags_ask_nothing_and_the_next_commands_are_told(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["init", "mine.toml", "--goal", "sft+lora", "--base", places["base"], "--data", places["talk"]]
    result = in_process(*arguments, "--hardware", "8xh100")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-3:] == [
        "  llmctl check mine.toml --gpus 8",
        "  llmctl run mine.toml --smoke",
        "  llmctl run mine.toml --gpus 8",
    ]
    recipe = load_recipe(Path("mine.toml"))
    assert list(recipe.stages) == ["sft", "lora"]
    assert (recipe.name, recipe.stages["sft"].from_, recipe.stages["lora"].from_) == ("mine", places["base"], "sft")
    assert recipe.stages["sft"].seq_len == 64, "the context of the base"
    again = in_process(*arguments)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert in_process(*arguments, "--force").returncode == 0


def test_every_key_of_a_stage_is_commented_or_plain(places, tmp_path):
    text = starter_text(answers_of(tmp_path / "own.toml", "pretrain", None, [places["articles"]], "cpu"))
    tomllib.loads(text)
    assert 'text_field = "body"' in text
    assert text.count("\n# ") > 10
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--goal", "tune"], "expected one of pretrain, continue"),
        (["--goal", "sft"], "name it with --base"),
        (["--goal", "pretrain", "--base", "a/b"], "take --goal continue"),
        (["--goal", "sft", "--base", "nowhere"], "no such folder"),
        (["--data", "nothing.txt"], "no such file or folder"),
        (["--data", "builtin:pythn"], "known are builtin:python-stdlib"),
        (["--data", "numbers.jsonl"], "neither text nor a conversation (it has a)"),
        (["--data", "empty.jsonl"], "an empty file"),
        (["--data", "talk.jsonl"], "trains on text, and there is none in"),
        (["--hardware", "9xgpu"], "GPUs that are known are"),
        (["--hardware", "0xh100"], "expected cpu, or a number of GPUs"),
    ],
)
def test_answers_that_cannot_be_are_told(arguments, message, tmp_path, monkeypatch, places):
    monkeypatch.chdir(tmp_path)
    Path("numbers.jsonl").write_text('{"a": 1}\n')
    Path("empty.jsonl").touch()
    Path("talk.jsonl").write_text(Path(places["talk"]).read_text())
    result = in_process("init", "own.toml", *arguments)
    assert result.returncode == 2
    assert message in result.stderr.replace("\n", " ")
    assert not Path("own.toml").exists()


def test_a_stage_of_a_run_may_be_the_base(pretrained_runs, places, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMCTL_RUNS", str(pretrained_runs))
    answers = answers_of(tmp_path / "own.toml", "sft", "small/pretrain", [places["talk"]], "cpu")
    assert answers.base == places["base"]


def test_the_recipe_of_own_conversations_runs_as_a_trial(places, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(starter_text(answers_of(file, "lora", places["base"], [places["talk"]], "cpu")))
    result = run_llmctl("run", file, "--smoke", "--runs", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "runs" / "own-smoke").glob("lora-*/adapter/adapter_config.json"))) == 1


@given(st.lists(st.one_of(st.none(), st.integers(1, 10**12)), min_size=1, max_size=9))
def test_shares_sum_to_one(sizes):
    found = shares([Data(f"d{number}", "p", "text", "text", size) for number, size in enumerate(sizes)])
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    assert min(found.values()) > 0


VALUES = st.one_of(
    st.booleans(),
    st.integers(0, 10**15),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from([0.5, 2e-5, 1.0, 3e-4, 1e20]),
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc_-", min_size=1), st.one_of(VALUES, st.lists(VALUES, max_size=3))), st.text("ab #'\"\n"))
def test_what_is_written_as_toml_is_read_back(values, comment):
    text = toml_text(comment, [Part("table", [Key(name, value, comment) for name, value in values.items()], comment)])
    assert tomllib.loads(text) == {"table": values}
