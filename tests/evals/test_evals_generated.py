"""Tasks whose answers a model writes: a model that has learnt some answers by heart is right where it knows them."""

import copy
from dataclasses import replace

import pytest
import torch

from llmctl.errors import StageFailed, UserError
from llmctl.evals import generated
from llmctl.evals.code_runner import Limits, Outcome, run_programs
from llmctl.evals.fewshot import evaluate
from llmctl.evals.generated import program, program_values
from llmctl.evals.prompts import encode
from llmctl.evals.result import Asking
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.suites.task import Question, Sampling, Task
from llmctl.tokens.template import ensure_template

KNOWN = {
    "Lake:": " The sum is 1,204. Or so\n\nMore",
    "River:": " It is 12, no: 17\n\nMore",
    "Sea:": " a blue sea\n\nMore",
    "def double(x):\n": "    return 2 * x\n\nMore",
    "def triple(x):\n": "    return 2 * x\n\nMore",
}
ONCE = Sampling(24)


@pytest.fixture(scope="module")
def model(tokenizer):
    built = build_model(ModelShape(64, 2, 2, 2, 32, 128, window=32, vocab_size=512, max_length=64), seed=1)
    rows = [encode(tokenizer, context + answer) for context, answer in KNOWN.items()]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [tokenizer.eos_token_id] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-2)
    for _ in range(60):
        loss = built(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    use_packed_attention(built)
    return built.eval()


def task_of(measure, questions, sampling=ONCE) -> Task:
    asked = tuple(Question(context, (answer,), 0, id=f"q{n}", **more) for n, (context, answer, more) in enumerate(questions))
    return Task("own", 1, "", asked, measure=measure, sampling=sampling)


def accepting(context: str, *answers: str):
    return context, answers[0], {"accepted": answers}


def with_tests(context: str, tests: str):
    return context, "", {"tests": tests, "program_prefix": context}


PROGRAMS = [with_tests("def double(x):\n", "assert double(3) == 6"), with_tests("def triple(x):\n", "assert triple(3) == 9")]


def test_words_are_right_where_the_model_knows_them(model, tokenizer):
    questions = [accepting("Sea:", "The Blue Sea!"), accepting("Sea:", "sea", "green"), accepting("Lake:", "none")]
    result = evaluate(model, tokenizer, task_of("exact_match", questions), Asking(show=1))
    assert result.values == (1, 0, 0)
    assert result.value == pytest.approx(1 / 3)
    assert result.answers == ((" a blue sea",), (" a blue sea",), (" The sum is 1,204. Or so",))
    assert result.prompts == ("Sea:⟦ a blue sea⟧",)
    assert result.also == {"ended": (1, 1, 1)}
    overlap = evaluate(model, tokenizer, task_of("f1", questions), Asking())
    assert overlap.values == pytest.approx((1, 2 / 3, 0))
    assert overlap.also["exact_match"] == result.values


def test_numbers_are_found_by_their_pattern(model, tokenizer):
    questions = [accepting("Lake:", "1204.0"), accepting("River:", "17"), accepting("River:", "12"), accepting("Sea:", "1")]
    task = task_of("exact_match", questions, sampling=replace(ONCE, answer_pattern=r"\d[\d,]*"))
    assert evaluate(model, tokenizer, task, Asking()).values == (1, 1, 0, 0)


def test_programs_pass_their_tests_or_not(model, tokenizer):
    result = evaluate(model, tokenizer, task_of("pass_at_k", PROGRAMS), Asking(allow_code=True, show=2))
    assert result.values == (1, 0)
    assert result.also["timed_out"] == (0, 0)
    assert [prompt.partition("⟧")[2] for prompt in result.prompts] == ["passed", "failed: AssertionError"]


def test_programs_are_run_only_where_that_is_said(model, tokenizer, monkeypatch):
    monkeypatch.setattr(generated, "generate_samples", lambda *_, **__: pytest.fail("asked before it was clear"))
    with pytest.raises(UserError, match="own: programs that the model writes are run only with --allow-code"):
        evaluate(model, tokenizer, task_of("pass_at_k", PROGRAMS), Asking())
    with pytest.raises(UserError, match="pass@2 takes as many samples, and there are 1"):
        evaluate(model, tokenizer, task_of("pass_at_k", PROGRAMS, sampling=replace(ONCE, k=2)), Asking(allow_code=True))


def test_values_are_means_over_samples(model, tokenizer):
    """Every sample of a question is its own draw, the same for a part of the questions."""
    sampling = replace(ONCE, temperature=3.0, samples=6, max_tokens=3, stop=())
    questions = [accepting(context, "x") for context in ("Sea:", "Lake:", "River:")]
    task = task_of("exact_match", questions, sampling=sampling)
    first = evaluate(model, tokenizer, task, Asking(seed=3))
    assert len(set(first.answers[0])) > 1
    right = tuple(replace(q, accepted=answers[:2]) for q, answers in zip(task.questions, first.answers, strict=True))
    again = evaluate(model, tokenizer, replace(task, questions=right[1:]), Asking(seed=3))
    assert again.answers == first.answers[1:]
    matching = [sum(generated.exact_match(text, q.accepted) for text in answers) / 6 for q, answers in
                zip(right[1:], again.answers, strict=True)]  # fmt: skip
    assert again.values == pytest.approx(matching)
    assert 0 < again.values[0] < 1
    assert evaluate(model, tokenizer, task, Asking(seed=4)).answers != first.answers


def test_pass_at_k_is_of_the_samples_k(model, tokenizer, monkeypatch):
    texts = ("    return 2 * x", "    return 3 * x", "    while True: x", "    return 2 * x")
    written = [generated.Generation(text, 5, True) for text in texts]
    monkeypatch.setattr(generated, "generate_samples", lambda *_, **__: [written] * 2)
    monkeypatch.setattr(generated, "run_programs", lambda sources: run_programs(sources, Limits(seconds=2.0)))
    task = task_of("pass_at_k", PROGRAMS, sampling=replace(ONCE, samples=4, k=2))
    result = evaluate(model, tokenizer, task, Asking(allow_code=True))
    assert result.values == pytest.approx((5 / 6, 1 / 2))
    assert result.also["pass@1"] == (0.5, 0.25)
    assert result.also["timed_out"] == (0.25, 0.25)


def test_values_of_programs():
    passed, failed, late = Outcome("passed"), Outcome("failed", "no"), Outcome("timed out", "late")
    values, more = program_values([[passed, failed, late], [failed] * 3, [passed, passed, failed]], 2)
    assert values == pytest.approx([2 / 3, 0, 1])
    assert more["pass@1"] == pytest.approx([1 / 3, 0, 2 / 3])
    assert more["timed_out"] == pytest.approx([1 / 3, 0, 0])


@pytest.mark.parametrize(
    "answer",
    [
        "Sure:\n```python\ndef half(x):\n    return x / 2\n```\nThis halves.\n```\nhalf(4)\n```",
        "```\n    return x / 2\n```",
        "```py\ndef half(x):\n    return x / 2\n",
        "    return x / 2\n",
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_program_is_found_among_the_words_of_a_conversation(answer, end):
    question = Question("", ("",), 0, tests="done = half(3)", program_prefix=f'def half(x):\n    """Half of x."""{end}')
    if not end and answer.startswith(" "):
        answer = "\n" + answer
    names = {}
    exec(program(question, answer, chat=True), names)
    assert names["done"] == 1.5


def test_a_plain_answer_goes_on_with_its_prompt_to_the_letter():
    question = Question("", ("",), 0, tests="check()", program_prefix="x = ")
    assert program(question, "'''\n```\n1\n```'''", chat=False) == "x = '''\n```\n1\n```'''\ncheck()"


def test_the_space_of_a_first_token_is_no_indentation():
    assert program(Question("", ("",), 0, tests="f()"), " def f():\n    return 1", chat=False) == "def f():\n    return 1\nf()"


def test_stops_of_programs_are_for_plain_prompts(model, tokenizer, monkeypatch):
    chatting = copy.deepcopy(tokenizer)
    ensure_template(chatting)
    asked = []

    def fake(model, tokenizer, prompts, sampling, stop_ids, **rest):
        asked.append((sampling.stop, tokenizer.decode(prompts[0])))
        return [[generated.Generation("pass", 1, True)] for _ in prompts]

    monkeypatch.setattr(generated, "generate_samples", fake)
    programs, words = task_of("pass_at_k", PROGRAMS[:1]), task_of("exact_match", [accepting("Sea:", "x")])
    for task in (programs, words):
        for chat in (False, True):
            evaluate(model, chatting, replace(task, sampling=Sampling(4)), Asking(allow_code=True, chat=chat))
    assert [stop for stop, _ in asked] == [("\n\n",), (), ("\n\n",), ("\n\n",)]
    assert asked[2][1] == "Sea:"
    assert "user" in asked[3][1]


def test_examples_make_room_for_the_answer(model, tokenizer):
    """A context of 64 tokens: 24 are the answer's."""
    pool = tuple(Question(f"# {'word ' * 10}", (" yes",), 0) for _ in range(3))
    task = replace(task_of("exact_match", [accepting("Sea:", "x")]), pool=pool)
    result = evaluate(model, tokenizer, task, Asking(shots=3))
    assert (result.fewer, result.cut) == (("q0",), ())
    long = task_of("exact_match", [accepting("word " * 60, "x")])
    assert evaluate(model, tokenizer, long, Asking()).cut == ("q0",)
    with pytest.raises(UserError, match="answers of up to 24 tokens leave no room for a question in a context of 20"):
        evaluate(model, tokenizer, task, Asking(limit=20))


def test_a_model_of_no_numbers_is_told(model, tokenizer):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.get_input_embeddings().weight[encode(tokenizer, "Lake:")[0]] = torch.nan
    task = task_of("exact_match", [accepting("Sea:", "x"), accepting("Lake:", "x")])
    with pytest.raises(StageFailed, match="own, question q1: the model's logits are no numbers"):
        evaluate(broken, tokenizer, task, Asking())


def test_no_questions_no_answers(model, tokenizer):
    assert evaluate(model, tokenizer, task_of("exact_match", []), Asking()).values == ()
