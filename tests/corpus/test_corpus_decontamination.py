"""What holds a question of the evaluation is not trained on, and it is said which question."""

import io
import json
import random
from collections import Counter

import pytest
import zstandard
from helpers import SMALL_RECIPE, run_llmctl
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.corpus.attrition import Attrition
from llmctl.corpus.decontamination import Questions, decontaminate
from llmctl.corpus.documents import (
    Conversation,
    Document,
    conversations_file,
    documents_file,
    read_conversations,
    read_documents,
    rejects_file,
    writing,
)
from llmctl.recipe.corpus_schema import DecontaminateTable
from llmctl.recipe.load import load_recipe
from llmctl.stages.corpus import all_questions
from llmctl.suites.task import Question, Task

WORDS = [f"word{n}" for n in range(300)]


LETTERS = st.lists(st.sampled_from("abcd"), max_size=30)


def words(seed, count=40):
    return random.Random(seed).choices(WORDS, k=count)


def suite_of(*contexts):
    questions = tuple(Question(context, (" yes", " no"), 0) for context in contexts)
    return Task("own", 1, "", questions[:-1], questions[-1:])


def rejects(corpus, source):
    unpacked = zstandard.ZstdDecompressor().stream_reader(rejects_file(corpus, source, "decontamination").read_bytes())
    return [json.loads(line) for line in io.TextIOWrapper(unpacked, encoding="utf-8")]


def test_documents_and_conversations_that_hold_a_question_go(tmp_path):
    first, second, example = (" ".join(words(seed)) for seed in (1, 2, 3))
    texts = {
        "free": " ".join(words(9, 200)),
        "whole": f"{' '.join(words(10))} {first.upper()}, yes. {' '.join(words(11))}",
        "a third": " ".join([*words(12), *words(2)[:18], *words(13)]),
        "an example of a prompt": example + " yes",
    }
    with writing(documents_file(tmp_path, "text", "train")) as write:
        for name, text in texts.items():
            write(Document(text, name, "text", name))
    with writing(conversations_file(tmp_path, "talk", "train")) as write:
        for name, text in (("asks", second), ("talks", "something else")):
            messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
            write(Conversation(messages, name, "talk", name))
    counts, attrition = {name: Counter(train_documents=9) for name in ("text", "talk")}, Attrition()
    table = DecontaminateTable()
    decontaminate(tmp_path, {"text": False, "talk": True}, [suite_of(first, second, example)], table, counts, attrition)
    assert [d.id for d in read_documents(tmp_path, "text", "train")] == ["free", "a third"]
    assert [c.id for c in read_conversations(tmp_path, "talk", "train")] == ["talks"]
    assert (counts["text"]["train_documents"], counts["talk"]["train_documents"]) == (2, 1)
    found = {row["id"]: (row["rule"], row["question"]) for row in rejects(tmp_path, "text")}
    assert found == {
        "whole": ("holds a question of own", "own 0"),
        "an example of a prompt": ("holds a question of own", "own 2"),
    }
    (row,) = rejects(tmp_path, "talk")
    assert (row["id"], row["question"], row["asked"]) == ("asks", "own 1", (second + " yes")[:200])


def test_tool_calls_and_tools_are_looked_at_and_stay_as_they_are(tmp_path):
    question = " ".join(words(1))
    tools = [{"type": "function", "function": {"name": "search"}}]

    def talk(name, query):
        call = {"type": "function", "function": {"name": "search", "arguments": {"query": query}}}
        turns = [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"},
        ]
        return Conversation(turns, name, "talk", name, tools=tools)

    free, asks = talk("free", "weather"), talk("asks", question + " yes")
    with writing(conversations_file(tmp_path, "talk", "train")) as write:
        write(free)
        write(asks)
    suites = [suite_of(question, "other " * 20)]
    decontaminate(tmp_path, {"talk": True}, suites, DecontaminateTable(), {"talk": Counter()}, Attrition())
    assert list(read_conversations(tmp_path, "talk", "train")) == [free]
    assert [row["id"] for row in rejects(tmp_path, "talk")] == ["asks"]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=4),
    st.lists(st.sampled_from("abcd"), max_size=40),
)
def test_the_share_is_that_of_the_different_ngrams(asked, document):
    def grams(tokens):
        return {tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)}

    suite = Task("own", 1, "", tuple(Question(" ".join(tokens), ("",), 0) for tokens in asked), ())
    (held,) = Questions([suite], DecontaminateTable(ngram=3, share=1e-9)).held_by([" ".join(document)])
    shares = [len(grams(tokens) & grams(document)) / max(1, len(grams(tokens))) for tokens in asked]
    assert (held[1] if held else 0) == pytest.approx(max(shares))


MIDTRAIN = """
[corpus.decontaminate]
sources = ["code"]
[midtrain]
tokens = 512
seq_len = 64
batch_tokens = 256
optimizer = "muon"
mix = { code = 1.0 }
"""


def test_a_recipe_drops_copied_questions_by_default(tmp_path, texts):
    """A held-out function that stands in a training file as well."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:02}.py").write_text(text)
    recipe = tmp_path / "own.toml"
    recipe.write_text(SMALL_RECIPE.format(texts=folder) + MIDTRAIN)
    runs = tmp_path / "runs"
    assert run_llmctl("curate", recipe, "--runs", runs).returncode == 0
    (corpus,) = (runs / "small").glob("corpus-*")
    suites = all_questions(corpus, load_recipe(recipe))
    question = max((q for suite in suites for q in suite.questions), key=lambda q: len(q.solved))
    lines = [f"unrelated_{n} = {n}" for n in range(120)]
    (folder / "copier.py").write_text("\n".join([*lines, question.solved, *lines]))
    result = run_llmctl("curate", recipe, "--runs", runs)
    assert result.returncode == 0, result.stderr
    assert "decontamination: holds a question of" in result.stdout
    (again,) = (path for path in (runs / "small").glob("corpus-*") if path != corpus)
    assert any(row["path"].endswith("copier.py") for row in rejects(again, "code"))
    off = run_llmctl("curate", recipe, "--runs", runs, "--set", "corpus.decontaminate.on=false")
    assert "decontamination" not in off.stdout
