"""Long documents of a stage, told before training, and what is refused before anything is trained."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import in_process, run_llmctl

from llmctl.corpus.documents import Document, read_rows_of
from llmctl.tokens.shards import TokenShards
from llmctl.train.data import TrainingRows
from llmctl.train.job import TrainJob


@pytest.fixture
def again(finished, tmp_path):
    """Runs `llmctl longctx` on a copy of the finished run with other keys; the parents are there. What is refused before it
    trains anything needs no process of its own."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.runs, runs)

    def run(*keys: str, by=in_process):
        options = [option for key in keys for option in ("--set", f"longctx.{key}")]
        return by("longctx", finished.recipe, "--runs", runs, *options), runs / "tiny"

    return run


def job_of(folder):
    """The newest long-context stage's job."""
    return json.loads(max(folder.glob("longctx-*/job.json"), key=lambda file: file.stat().st_mtime).read_text())


def test_context_buckets_and_packing_are_told_before_training(finished):
    told = finished.printed[finished.printed.index("longctx: context") :]
    assert re.match(
        r"longctx: context 64 -> 512 tokens by yarn x 8 on the full-attention layers, from positions trained for 64, "
        r"attention factor 1\.2079; sliding layers see 32 tokens\n",
        told,
    )
    lengths = TokenShards(finished.stage("tokens") / "shards" / "code").lengths
    long = lengths[lengths >= 400]
    table = told[told.index("longctx: long documents by length") :].splitlines()
    cells = table[2].split()
    assert cells[:6] == ["code", "400", "and", "more", f"{len(long):,}", f"{long.sum():,}"]
    assert int(cells[6]) == len(long) - 2 * int(0.2 * len(long))
    assert told.index("longctx: packing in rows of 512 tokens") < told.index("micro-batch")
    documents = np.load(job_of(finished.folder)["parts"][0]["documents"])
    assert set(documents) <= set(np.flatnonzero(lengths >= 400))


@pytest.fixture
def mixed(finished, text_folder, tmp_path):
    """A recipe whose documents are of about 200 and about 1,000 tokens, on the finished run's first model."""
    texts = tmp_path / "texts"
    texts.mkdir()
    long = "\n".join(file.read_text() for file in sorted(text_folder.iterdir()))
    for number in range(30):
        (texts / f"short{number}.txt").write_text(long[1000 * number :][:500])
        (texts / f"long{number}.txt").write_text(long[40_000 + 3000 * number :][:2500])
    model = finished.stage("pretrain") / "model"
    recipe = tmp_path / "mixed.toml"
    recipe.write_text(
        f"""name = "tiny"
[corpus.sources.code]
path = "{texts}"
[longctx]
from = "{model}"
lr = 1e-3
tokens = 16384
seq_len = 512
batch_tokens = 1024
mix = {{ code = 1.0 }}
buckets = {{ 128 = 1, 400 = 3 }}
drop_most_compressible = 0.0
long_share = 0.5
[eval]
suites = []
"""
    )
    return recipe


def test_buckets_share_the_long_tokens_as_the_recipe_says(mixed, tmp_path):
    ran = run_llmctl("longctx", mixed, "--runs", tmp_path / "mixed")
    assert ran.returncode == 0, ran.stderr
    job = job_of(tmp_path / "mixed" / "tiny")
    assert [(part["label"], part["share"]) for part in job["parts"]] == [("long", pytest.approx(0.5)), ("", pytest.approx(0.5))]
    lengths = np.minimum(TokenShards(Path(job["parts"][0]["shards"])).lengths, 512)  # longer ones are truncated
    documents = np.load(job["parts"][0]["documents"])
    of_short, of_long = (int(lengths[documents][which].sum()) for which in (lengths[documents] < 400, lengths[documents] >= 400))
    assert of_long == pytest.approx(3 * of_short, abs=3 * 400)
    assert of_short >= 2048  # half of the stage is long, a quarter of that in the first bucket
    assert len(set(documents)) == len(documents)
    (left,) = map(int, re.findall(r"code +400 and more +\d+ +[\d,]+ +(\d+)", ran.stdout))
    assert left == (lengths >= 400).sum() - int(0.2 * (lengths >= 400).sum())
    rows = TrainingRows(TrainJob.read(next((tmp_path / "mixed" / "tiny").glob("longctx-*/job.json"))))
    whole = [length for row in range(len(rows.sources[0])) for _, start, length in rows.sources[0].pieces(row) if start == 0]
    assert len(whole) == len(documents)


WOVEN = (
    "longctx.synthetic.cwe_share=0.2", "longctx.synthetic.rex_share=0.1", "longctx.synthetic.min_document_tokens=2048",
    "longctx.synthetic.max_documents=3", "longctx.seq_len=4096", "longctx.batch_tokens=4096", "longctx.tokens=8192",
    "longctx.buckets={ 4k = 1 }", "longctx.rope.factor=64", "longctx.guard.suites=[]", "eval.long.lengths=[512]",
)  # fmt: skip


def weave(recipe: Path, runs: Path) -> str:
    """What is told when tasks are woven into the long documents of the finished run."""
    ran = run_llmctl("longctx", recipe, "--runs", runs, *(option for key in WOVEN for option in ("--set", key)))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def woven(finished, tmp_path_factory) -> tuple[str, Path]:
    runs = shutil.copytree(finished.runs, tmp_path_factory.mktemp("woven") / "runs")
    return weave(finished.recipe, runs), runs


def test_tasks_are_woven_into_long_documents(woven):
    told, runs = woven
    job = job_of(runs / "tiny")
    shares = {part["label"]: part["share"] for part in job["parts"]}
    assert shares == pytest.approx({"long": 0.2, "cwe": 0.2, "rex": 0.1, "": 0.5})
    for part in job["parts"][1:3]:
        shards = Path(part["shards"])
        counts = json.loads((shards.parent / "part-00000.json").read_text())
        assert counts["documents_out"] == TokenShards(shards).documents <= 3
        assert counts["kept"] > 2
        texts = [Document(**row).text for row in read_rows_of(shards.parent / "part-00000.jsonl.zst")]
        assert (part["label"] == "cwe") == all("\nQuestion: " in text and "\nAnswer: " in text for text in texts)
        assert f"longctx: {part['label']} woven into code" in told


def test_a_stage_that_was_stopped_asks_no_generator_for_what_is_there(finished, woven, tmp_path):
    runs = shutil.copytree(woven[1], tmp_path / "runs")
    stage = max(runs.glob("tiny/longctx-*/job.json"), key=lambda file: file.stat().st_mtime).parent
    for made in ("manifest.json", "job.json"):
        (stage / made).unlink()
    shutil.rmtree(stage / "model")
    written = {file: file.stat().st_mtime_ns for file in (stage / "data").rglob("*") if file.is_file()}
    assert "weaving" not in weave(finished.recipe, runs)
    shards = {file for file in written if "synthetic" in file.parts}
    assert shards
    assert all(file.stat().st_mtime_ns == written[file] for file in shards)


def test_a_generator_that_does_not_answer(again):
    keys = ["synthetic.cwe_share=0.2", "synthetic.generator=http://127.0.0.1:9/v1", "synthetic.min_document_tokens=256"]
    ran, _ = again(*keys)
    assert ran.returncode == 2
    assert "name the model that it is asked for" in ran.stderr
    ran, _ = again(*keys, "synthetic.model=any")
    assert ran.returncode == 1
    assert "127.0.0.1:9" in ran.stderr
    assert "Traceback" not in ran.stderr
    ran, _ = again("synthetic.cwe_share=0.2", "synthetic.generator=nowhere/at/all", "synthetic.min_document_tokens=256")
    assert ran.returncode == 2
    assert "nowhere/at/all" in ran.stderr


def test_no_document_that_is_long_enough(mixed, tmp_path):
    keys = ("buckets={ 150 = 1, 256 = 1 }", "too_long=drop", "seq_len=256")
    options = [option for key in keys for option in ("--set", f"longctx.{key}")]
    ran = in_process("longctx", mixed, "--runs", tmp_path / "mixed", *options)
    assert ran.returncode == 2
    assert re.search(
        r"error: \[longctx\] no document of 256 and more tokens is there "
        r"\(too_long = \"drop\" leaves out what has more than 256\)\. Documents by their tokens: "
        r"code has .*128-256 \d+, .*512-1k \d+.* Name sources of longer documents in long_mix",
        ran.stderr,
    )
    assert not list((tmp_path / "mixed").glob("tiny/longctx-*/checkpoints"))


def test_a_bucket_that_would_be_repeated_too_often(again):
    ran, _ = again("tokens=10M")
    assert ran.returncode == 2
    assert re.search(r"code has [\d,]+ tokens in documents of 400 and more, and the stage wants 5,000,000", ran.stderr)


def test_stages_that_are_done_ask_for_no_ranks(again):
    """Four ranks were needed for longctx, which is there; a later stage on one is not refused."""
    ran, _ = again("sequence_parallel=4")
    assert ran.returncode == 0, ran.stderr
    assert "longctx: done before" in ran.stdout
    ran, _ = again("sequence_parallel=4", "lr=1e-4")
    assert ran.returncode == 2
    assert "[longctx] sequence_parallel = 4: the number of ranks must be a multiple of it, and it is 1" in ran.stderr


def test_two_stages_on_one_source_draw_other_documents(mixed, tmp_path):
    text = mixed.read_text()
    again = text[text.index("[longctx]") : text.index("[eval]")].replace("[longctx]", '[stage.further]\nkind = "longctx"')
    again = re.sub('from = ".*"', 'from = "longctx"', again).replace("seq_len = 512", 'seq_len = 512\nrope = { method = "none" }')
    mixed.write_text(text.replace("[eval]", again + "[eval]").replace("tokens = 16384", "tokens = 1024"))
    ran = run_llmctl("longctx", mixed, "--runs", tmp_path / "mixed")
    assert ran.returncode == 0, ran.stderr
    first, second = (
        np.load(next((tmp_path / "mixed" / "tiny").glob(f"{name}-*/data/long/code.npy"))) for name in ("longctx", "further")
    )
    assert sorted(first) != sorted(second)


def test_a_target_that_the_factor_does_not_reach(again):
    ran, _ = again("rope.factor=4")
    assert ran.returncode == 2
    assert "factor = 4 x 64 tokens reaches 256, and seq_len = 512 needs a factor of 8" in ran.stderr


def test_a_factor_on_top_of_a_factor_and_an_outside_parent_that_it_does_not_reach(again, finished):
    """The finished run's longctx as a parent from outside: its context is 512 and scaled already."""
    model = finished.stage("longctx") / "model"
    ran, _ = again(f"from={model}", "seq_len=4096", "batch_tokens=4096", "buckets={ 400 = 1 }")
    assert ran.returncode == 2
    assert re.search(r"positions of full_attention are scaled already \(yarn x 8\); yarn x 8 on top of it is refused", ran.stderr)
    ran, _ = again(f"from={finished.stage('pretrain') / 'model'}", "rope.factor=2", "carry_optimizer=false")
    assert ran.returncode == 2
    assert "[longctx] factor = 2 x 64 tokens reaches 128, and seq_len = 512 needs a factor of 8" in ran.stderr


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["rope.method=base"], 'method = "base" needs theta'),
        (["rope.theta=1e6"], 'method = "base" needs theta'),
        (["rope.beta_fast=1", "rope.beta_slow=32"], "beta_fast = 1 must be more than beta_slow = 32"),
        (["rope.low_frequency_factor=4"], "high_frequency_factor = 4 must be more than low_frequency_factor = 4"),
        (["buckets={ 1k = 1 }"], "a bucket begins at 1,024 tokens, and a row has seq_len = 512"),
        (["buckets={ 128 = 0 }"], "the parts of the buckets must be positive"),
        (['long_mix=["cod"]'], "'cod' is no source of text; there are code"),
        (["drop_most_compressible=0.6", "drop_least_compressible=0.5"], "together leave no document"),
        (["synthetic.cwe_share=0.4", "synthetic.rex_share=0.2"], "cwe_share + rex_share = 0.6 is more than long_share = 0.5"),
    ],
)
def test_mistakes_in_the_recipe(chain_recipe, tmp_path, keys, message):
    options = [option for key in keys for option in ("--set", f"longctx.{key}")]
    ran = in_process("longctx", chain_recipe, "--runs", tmp_path, *options)
    assert ran.returncode == 2
    assert message in ran.stderr
