"""Scores are those of lm-evaluation-harness's own model class, token by token, on the same requests."""

from pathlib import Path
from typing import Any

import pytest
from harness_tasks import write_own_tasks
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing

from llmctl.errors import UserError
from llmctl.evals.harness import evaluate_harness, load_tasks
from llmctl.evals.harness_model import HarnessModel
from llmctl.evals.result import Asking
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.model.load import load_model
from llmctl.tokens.tokenizer import load_tokenizer

CONTEXT = 64
TOLERANCE = 2e-5  # nats, in fp32


def olmo(tokenizer: Any) -> Any:
    return build_model(ModelShape(32, 4, 2, 2, 16, 64, window=16, vocab_size=512, max_length=CONTEXT, init_std=0.3), seed=1)


def llama(tokenizer: Any) -> Any:
    """Its tokenizer puts a beginning-of-text token before every text, as Llama's does."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module", params=[olmo, llama], ids=["olmo3", "llama"])
def folder(request, tmp_path_factory, tokenizer_folder) -> Path:
    made = tmp_path_factory.mktemp(request.param.__name__)
    tokenizer = load_tokenizer(str(tokenizer_folder))
    request.param(tokenizer).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def both(folder) -> tuple[Any, Any]:
    """llmctl's model, and lm-evaluation-harness's own."""
    ours = load_model(str(folder)).eval()
    use_packed_attention(ours)
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)
    return HarnessModel(ours, load_tokenizer(str(folder)), CONTEXT), theirs


def requests(kind: Any, asked: list[Any]) -> list[Instance]:
    return [Instance(kind, {}, one, 0, ("own", number, 1)) for number, one in enumerate(asked)]


LONG = " ".join(f"value{number} = {number}" for number in range(40))
PAIRS = [
    ("def area(x):\n    return", " x * x"),
    ("def area(x):\n    return", " x"),
    ("def area(x):\n    return", " None if x else 2"),
    ("The import is  ", "sys"),
    ("tabs and lines\t\n ", "\n    pass"),
    ("", "import os"),
    ("", "x"),
    ("name = 'Zoë, naïve – 東京 🙂'", " # ünïcode ✓"),
    ("a, b =", " 東京"),
    ("for one in", " x"),
    ("for one in", " y"),
    ("for one in", ":"),
    (LONG, " done"),
    (LONG, " value1 = 1"),
    (LONG + "\n", "x"),
    ("<|im_start|>user", " hello"),
]


def test_log_likelihoods_and_greedy_flags_are_the_same(both):
    ours, theirs = both
    mine = ours.loglikelihood(requests("loglikelihood", PAIRS))
    expected = theirs.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]
    assert [nats for nats, _ in mine] == pytest.approx([nats for nats, _ in expected], abs=TOLERANCE)
    assert ours.cut == {"own": {12, 13, 14}}


def test_a_continuation_that_greedy_decoding_writes_is_told(both):
    """Its own answer is what the model would write; of two tokens, so that both must be looked at."""
    ours, theirs = both
    settings = {"max_gen_toks": 2, "until": []}
    prompts = ["def area(x):", "x = 1", "import os", "return", "class", "for n in"]
    written = theirs.generate_until(requests("generate_until", [(prompt, settings) for prompt in prompts]), disable_tqdm=True)
    asked = [*zip(prompts, written, strict=True), ("x = 1", "zzz")]
    mine = [greedy for _, greedy in ours.loglikelihood(requests("loglikelihood", asked))]
    assert mine == [greedy for _, greedy in theirs.loglikelihood(requests("loglikelihood", asked), disable_tqdm=True)]
    assert set(mine) == {True, False}


def test_rolling_log_likelihoods_are_the_same(both):
    ours, theirs = both
    asked = [("short",), (LONG,), (LONG * 3,), ("naïve 東京\n\n",)]
    mine = ours.loglikelihood_rolling(requests("loglikelihood_rolling", asked))
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", asked), disable_tqdm=True)
    assert mine == pytest.approx(expected, rel=1e-6, abs=TOLERANCE)  # theirs are summed in fp32


def test_generated_answers_are_the_same(both):
    ours, theirs = both
    settings = {"until": ["\n", "ab"], "max_gen_toks": 12, "do_sample": False}
    asked = [("def area(x):", settings), ("import", settings), (LONG, settings), ("x", {"until": ["="], "max_gen_toks": 5})]
    mine = ours.generate_until(requests("generate_until", asked))
    assert mine == theirs.generate_until(requests("generate_until", asked), disable_tqdm=True)


def test_a_choice_that_gives_no_token_is_refused(both):
    with pytest.raises(UserError, match="own, question 0: a choice gives no token"):
        both[0].loglikelihood(requests("loglikelihood", [("x =", "")]))


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return write_own_tasks(tmp_path_factory.mktemp("own"))


def test_own_tasks_end_to_end_are_as_lm_eval_runs_them(folder, own, capfd):
    names = ["own_colours", "own_sums", "own_text"]
    ours = load_model(str(folder)).eval()
    use_packed_attention(ours)
    tasks = load_tasks([f"lm-eval:{name}" for name in names], own)
    found = evaluate_harness(ours, load_tokenizer(str(folder)), tasks, Asking(seed=1234, shots=1, show=1))
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    theirs: Any = simple_evaluate(
        HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3),
        tasks=[*names],
        num_fewshot=1,
        fewshot_as_multiturn=False,
        task_manager=TaskManager(include_path=own, include_defaults=False),
        bootstrap_iters=0,
        random_seed=1234,
    )
    assert set(found.aggregated["results"]) == set(names)
    for name, numbers in theirs["results"].items():
        for measure, value in numbers.items():
            if isinstance(value, float):
                assert found.aggregated["results"][name][measure] == pytest.approx(value, rel=1e-4), (name, measure)
    assert found.aggregated["n-shot"] == theirs["n-shot"]
    by_name = {result.task: result for result in found.results}
    colours, text = by_name["lm-eval:own_colours"], by_name["lm-eval:own_text"]
    assert (colours.measure, colours.normalisation, colours.shots, len(colours.values)) == ("accuracy", "none", 1, 6)
    assert list(colours.also) == ["acc,none", "acc_norm,none"]
    assert colours.mean_of("acc_norm,none") == theirs["results"]["own_colours"]["acc_norm,none"]
    samples = theirs["samples"]["own_colours"]
    assert colours.values == tuple(row["acc"] for row in samples)
    for mine, row in zip(colours.log_likelihoods, samples, strict=True):
        assert mine == pytest.approx([choice[0] for choice in row["filtered_resps"]], abs=TOLERANCE)
    assert colours.prompts[0].endswith("?\nAnswer:⟦ blue⟧")
    assert text.measure == "bits_per_byte"
    assert text.value == pytest.approx(theirs["results"]["own_text"]["bits_per_byte,none"], rel=1e-4)
