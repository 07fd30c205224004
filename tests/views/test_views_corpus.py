"""What people see of a corpus: the page, and the documents with their scores."""

import json
import random
import re
from html.parser import HTMLParser

import pytest
from helpers import in_process, run_llmctl

RECIPE = """
name = "own"
[corpus]
filter = {{ profile = "prose", min_stop_words = 0, min_words = 30 }}
[corpus.dedup]
[corpus.sources.good]
path = "{folder}/good.jsonl"
[corpus.sources.mixed]
path = "{folder}/mixed.jsonl"
[corpus.classifiers.quality]
labels = {{ good = ["good"], other = ["mixed"] }}
target = "good"
sources = ["mixed"]
drop_lowest = 0.1
dimensions = 8
buckets = 2000
"""
WORDS = [f"word{number}" for number in range(400)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(1)
    texts = {"good": WORDS[:300], "mixed": WORDS[100:]}
    for name, words in texts.items():
        rows = [{"id": f"d{n}", "text": " ".join(chance.choices(words, k=120)) + "."} for n in range(80)]
        rows += [{"id": "short", "text": "<script>alert(1)</script>"}, {"id": "copy", "text": rows[3]["text"] + " more"}]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "own.toml").write_text(RECIPE.format(folder=folder))
    made = run_llmctl("curate", folder / "own.toml", "--runs", folder / "runs")
    assert made.returncode == 0, made.stderr
    assert "corpus.html" in made.stdout
    return folder / "runs"


class Elements(HTMLParser):
    """Checks that elements are closed as they are opened."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not any(name in ("src", "href") for name, _ in attrs), "the page asks for nothing from outside"
        if tag not in ("meta", "br", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("br", "rect"):
            assert self.open.pop() == tag


def test_the_page_tells_what_is_there_and_what_went(run):
    (folder,) = (run / "own").glob("corpus-*")
    page = (folder / "corpus.html").read_text()
    parser = Elements()
    parser.feed(page)
    assert not parser.open
    assert "script" not in parser.seen
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page  # a sample of what was dropped
    for title in ("What is there", "What was left out", "Lengths", "Scores", "Largest clusters of copies", "Samples"):
        assert title in page
    assert re.search(r"good/d3 and 1 more", page)
    assert "corpus.html" in json.loads((folder / "manifest.json").read_text())["files"]


def test_documents_are_shown_with_their_scores(run):
    result = run_llmctl("inspect", "corpus", "own", "--source", "mixed", "--limit", "5", "--json", "--runs", run)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 5
    for row in rows:
        assert {"id", "text", "quality_score", "quality_label", "quality_vigintile"} <= row.keys()
    found = in_process("inspect", "corpus", "--find", rows[2]["text"][:60], "--runs", run)
    assert f"{rows[2]['id']}\n" in found.stdout
    assert "quality_score 0." in found.stdout
    assert "no run given: the newest corpus is that of own" in found.stderr


def test_rejects_are_shown_with_their_reason(run):
    result = in_process("inspect", "corpus", "own", "--rejects", "copies", "--json", "--runs", run)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(row["id"], row["rule"], row["kept"]) for row in rows} == {
        ("good/copy", "near copy", "good/d3"),
        ("mixed/copy", "near copy", "mixed/d3"),
    }
    every = in_process("inspect", "corpus", "own", "--rejects", "", "--json", "--limit", "100", "--runs", run)
    assert {json.loads(line)["rule"] for line in every.stdout.splitlines()} == {"near copy", "min_characters", "low quality"}


def test_conversations_are_shown_with_thoughts_calls_and_tools(tmp_path):
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "I have to look."},
        {"role": "tool", "name": "weather", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ]
    tools = [{"name": "weather", "parameters": {}}]
    rows = [{"messages": [{"role": "user", "content": f"question {n}"}, *turns], "tools": tools} for n in range(9)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "talk.toml"
    recipe.write_text(f'name = "talk"\n[corpus.sources.talk]\npath = "{tmp_path}/talk.jsonl"\nkind = "chat"\n')
    made = run_llmctl("curate", recipe, "--runs", tmp_path / "runs")
    assert made.returncode == 0, made.stderr
    assert "talk: rows are messages = [{role, content}]" in made.stderr + made.stdout
    shown = in_process("inspect", "corpus", "--limit", "1", "--runs", tmp_path / "runs").stdout
    assert re.search(r"tools: weather\nuser: question \d\nassistant thinks: I have to look.\nassistant calls weather: ", shown)
    assert "tool weather: rain\nassistant: It rains." in shown
    row = json.loads(in_process("inspect", "corpus", "--limit", "1", "--json", "--runs", tmp_path / "runs").stdout)
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert row["tools"] == [{"type": "function", "function": tools[0]}]


def test_what_is_not_there_is_told(run, tmp_path):
    assert "'nowhere' is no source" in in_process("inspect", "corpus", "--source", "nowhere", "--runs", run).stderr
    assert "nothing of that kind" in in_process("inspect", "corpus", "--find", "no such text", "--runs", run).stderr
    assert "no corpus yet; make one with `llmctl curate RECIPE`" in in_process("inspect", "corpus", "--runs", tmp_path).stderr
