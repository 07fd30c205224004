"""The corpus of a recipe through the command line."""

import json
import random

from helpers import run_llmctl

RECIPE = """
name = "own"
[corpus.dedup]
[corpus.sources.mine]
path = "{path}"
"""


def test_a_recipe_of_sources_alone_is_curated(tmp_path):
    words = [f"word{number}" for number in range(500)]
    texts = [" ".join(random.Random(seed).choices(words, k=200)) for seed in range(30)]
    texts += [texts[3] + " and more", texts[4].upper()]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    recipe = tmp_path / "own.toml"
    recipe.write_text(RECIPE.format(path=file))
    result = run_llmctl("curate", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    assert "copies: near copy" in result.stdout
    (folder,) = (tmp_path / "runs" / "own").glob("corpus-*")
    counts = json.loads((folder / "stats.json").read_text())["mine"]
    lost = {row["rule"]: row["documents"] for row in json.loads((folder / "attrition.json").read_text())}
    assert lost == {"near copy": 1, "exact copy": 1}
    assert counts["train_documents"] + counts["heldout_documents"] == 30
    tokens = [row["tokens"] for row in json.loads((folder / "attrition.json").read_text())]
    assert all(200 < count < 1800 for count in tokens)  # of 200 words in 1,700 bytes
    assert "tokens, about" in result.stdout
    assert "tokens, about" in (folder / "corpus.html").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "rejects/mine/copies.jsonl.zst" in manifest["files"]
    again = run_llmctl("run", recipe, "--runs", tmp_path / "runs", "--set", "corpus.engine=native")
    assert "done before" in again.stdout


def test_another_similarity_is_another_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("one line\n" * 40)
    recipe = tmp_path / "own.toml"
    recipe.write_text(RECIPE.format(path=tmp_path / "a.txt"))
    for similarity in ("0.8", "0.9"):
        result = run_llmctl("curate", recipe, "--runs", tmp_path / "runs", "--set", f"corpus.dedup.similarity={similarity}")
        assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "runs" / "own").glob("corpus-*"))) == 2


def test_other_held_out_conversations_are_another_corpus(tmp_path):
    talk, held, recipe = tmp_path / "talk.jsonl", tmp_path / "held.jsonl", tmp_path / "own.toml"
    talk.write_text("".join(json.dumps({"prompt": f"question {n}", "response": "a"}) + "\n" for n in range(5)))
    recipe.write_text(f'name = "own"\n[corpus.sources.talk]\npath = "{talk}"\nkind = "chat"\nheldout = "{held}"\n')
    for answer in ("a", "b"):
        held.write_text(json.dumps({"prompt": "held", "response": answer}))
        result = run_llmctl("curate", recipe, "--runs", tmp_path / "runs")
        assert result.returncode == 0, result.stderr
    folders = list((tmp_path / "runs" / "own").glob("corpus-*"))
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "stats.json").read_text())["talk"]["heldout_documents"] == 1


def test_a_ray_cluster_makes_the_same_corpus(tmp_path):
    (tmp_path / "mine").mkdir()
    words = [f"word{number}" for number in range(500)]
    for seed in range(60):
        text = " ".join(random.Random(seed % 50).choices(words, k=300)) + f" {seed}"
        (tmp_path / "mine" / f"{seed}.txt").write_text(text + "\n" + "again\n" * (seed % 3) * 40)
    recipe = tmp_path / "own.toml"
    recipe.write_text(RECIPE.format(path=tmp_path / "mine") + "filter = { profile = 'prose', min_stop_words = 0 }")
    files = {}
    for engine in ("native", "ray"):
        made = run_llmctl("curate", recipe, "--runs", tmp_path / engine, "--set", f"corpus.engine={engine}")
        assert made.returncode == 0, made.stderr
        (folder,) = (tmp_path / engine / "own").glob("corpus-*")
        files[engine] = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.zst")}
    assert files["native"] == files["ray"]
    assert {"rejects/mine/filter.jsonl.zst", "rejects/mine/copies.jsonl.zst"} < files["ray"].keys()
    assert len(files["ray"]["rejects/mine/filter.jsonl.zst"]) > 100
