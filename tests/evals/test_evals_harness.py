"""Tasks of lm-evaluation-harness: what is told when they cannot be had, and results in its format."""

import json
import socket
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from harness_tasks import write_own_tasks
from huggingface_hub import constants
from lm_eval.utils import make_table

from llmctl.errors import StageFailed, UserError
from llmctl.evals.compare import Score
from llmctl.evals.harness import evaluate_harness, load_tasks
from llmctl.evals.harness_format import ModelScores, harness_results, write_results
from llmctl.evals.result import Asking, TaskResult
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.tokens.tokenizer import load_tokenizer


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """Own tasks, the only ones that lm_eval knows: its 14,000 take 9 s to read."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(folder / "manager.py"))
    return write_own_tasks(folder)


@pytest.fixture
def model():
    built = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=64), seed=1).eval()
    use_packed_attention(built)
    return built


def of_the_hub(folder: Path) -> None:
    text = (folder / "colours.yaml").read_text()
    start, end = text.index("dataset_path"), text.index("test_split")
    (folder / "hub.yaml").write_text(
        text[:start].replace("own_colours", "of_hub") + "dataset_path: nobody/nothing\n" + text[end:]
    )


def test_an_unknown_task_is_told_with_those_like_it(own):
    with pytest.raises(UserError, match=r"lm-eval:own_color: .* no such task; did you mean lm-eval:own_colours"):
        load_tasks(["lm-eval:own_color"], own)


def test_without_lm_eval_the_package_is_named(monkeypatch, own):
    monkeypatch.setattr("llmctl.errors.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install lm_eval$"):
        load_tasks(["lm-eval:own_colours"], own)


def test_a_folder_of_tasks_that_is_not_there(own):
    with pytest.raises(UserError, match="nowhere: a folder with task files"):
        load_tasks(["lm-eval:own_colours"], own / "nowhere")


def test_a_broken_task_file_is_told(own):
    (own / "colours.yaml").write_text((own / "colours.yaml").read_text().replace("test_split: test", "test_split: other"))
    with pytest.raises(UserError, match=r"lm-eval:own_colours: the task could not be loaded \(KeyError\)"):
        load_tasks(["lm-eval:own_colours"], own)


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "says nothing"])
def test_a_hub_that_does_not_answer_is_told_at_once(monkeypatch, own, silent):
    """`datasets` itself tries again and again for 23 s."""
    of_the_hub(own)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if silent:
            server.listen()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(
            UserError, match=r"lm-eval:of_hub: its data set is not .*: http://127.* does not answer: .*nobody/nothing.* HF_HOME"
        ):
            load_tasks(["lm-eval:of_hub"], own)
        assert time.monotonic() - start < 5
        assert constants.HF_HUB_OFFLINE is False


def test_a_group_has_its_number_and_its_members_their_questions(own, model, tokenizer):
    found = evaluate_harness(model, tokenizer, load_tasks(["lm-eval:own_all"], own), Asking(), questions=3)
    assert found.aggregated["group_subtasks"] == {"own_all": ["own_colours", "own_sums"]}
    colours, sums = found.results
    assert (colours.task, len(colours.values), sums.measure) == ("lm-eval:own_colours", 3, "exact_match")
    assert found.aggregated["groups"]["own_all"]["acc,none"] == pytest.approx(colours.value)
    assert found.aggregated["n-samples"]["own_colours"] == {"original": 6, "effective": 3}


def test_tasks_can_be_asked_again_with_other_shots(own, model, tokenizer):
    tasks = load_tasks(["lm-eval:own_colours"], own)
    shots = [evaluate_harness(model, tokenizer, tasks, Asking(shots=shots)).results[0] for shots in (1, None, 1)]
    assert [result.shots for result in shots] == [1, 0, 1]
    assert shots[0].log_likelihoods == shots[2].log_likelihoods != shots[1].log_likelihoods


def test_questions_that_do_not_fit_are_told(own, model, tokenizer):
    tasks = load_tasks(["lm-eval:own_colours"], own)
    whole, short = (evaluate_harness(model, tokenizer, tasks, Asking(limit=limit)).results[0] for limit in (64, 8))
    assert (whole.cut, short.cut) == ((), tuple("012345"))


def test_chat_goes_through_the_template_and_needs_one(own, model, tokenizer_folder):
    tokenizer = load_tokenizer(str(tokenizer_folder))
    tasks = load_tasks(["lm-eval:own_colours"], own)
    (prompt,) = evaluate_harness(model, tokenizer, tasks, Asking(chat=True, show=1), 1).results[0].prompts
    user = "<|im_start|>user\nQuestion: Which colour is blood?\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.endswith(user + "⟦blue⟧")
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        evaluate_harness(model, tokenizer, tasks, Asking(chat=True))


def two_results() -> list[TaskResult]:
    values, half = (1.0, 0.0, 1.0, 1.0), (0.25,) * 4
    also = {"accuracy/character": values, "accuracy/none": (0.0, 0.0, 1.0, 1.0), "bits_per_byte": (1.0, 2.0, 1.5, 0.5)}
    ids, groups = ("0", "1", "2", "3"), ("",) * 4
    return [
        TaskResult("birds:rc", "accuracy", "character", 5, values, half, groups, ids, also),
        TaskResult("sums:gen", "exact_match", "none", 0, values, half, groups, ids),
    ]


def test_results_in_the_format_of_lm_eval_are_printed_by_its_own_table(tmp_path):
    started = datetime(2026, 1, 2, 3, 4, 5)
    scores = ModelScores(
        "runs/a/model",
        two_results(),
        {"all": (Score(0.75, float("nan")), ("birds:rc", "sums:gen"))},
        versions={"birds:rc": 2},
        of={"birds:rc": 90},
    )
    file = write_results(tmp_path, scores, Asking(seed=3), started, started + timedelta(seconds=9))
    assert file == tmp_path / "runs__a__model" / "results_2026-01-02T03-04-14.json"
    found = json.loads(file.read_text())
    assert found["results"]["birds:rc"]["acc_per_char,none"] == 0.75
    assert found["results"]["birds:rc"]["acc_per_char_stderr,none"] == pytest.approx(0.25)
    assert found["results"]["birds:rc"]["acc,none"] == 0.5
    assert found["higher_is_better"]["birds:rc"] == {"acc_per_char": True, "acc": True, "bits_per_byte": False}
    assert found["n-samples"] == {"birds:rc": {"original": 90, "effective": 4}, "sums:gen": {"original": 4, "effective": 4}}
    assert found["n-shot"] == {"birds:rc": 5, "sums:gen": 0}
    assert (found["model_name"], found["config"]["fewshot_seed"]) == ("runs/a/model", 3)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in make_table(found).splitlines()]
    rows = [(*line[:6], float(line[6]), *line[7:]) for line in lines[2:]]
    assert rows == [
        ("all", "N/A", "none", "", "score", "↑", 0.75, "±", "N/A"),
        ("- birds:rc", "2", "none", "5", "acc", "↑", 0.5, "±", "0.2887"),
        ("", "", "none", "5", "acc_per_char", "↑", 0.75, "±", "0.2500"),
        ("", "", "none", "5", "bits_per_byte", "↓", 1.25, "±", "0.3227"),
        ("- sums:gen", "N/A", "none", "0", "exact_match", "↑", 0.75, "±", "0.2500"),
    ]
    assert "all" in make_table(found, "groups")


def test_what_lm_eval_asked_stands_in_the_file_as_it_gave_it(own, model, tokenizer, tmp_path):
    found = evaluate_harness(model, tokenizer, load_tasks(["lm-eval:own_all", "lm-eval:own_text"], own), Asking())
    scores = ModelScores("m", [*two_results(), *found.results], harness=[found.aggregated])
    file = write_results(tmp_path, scores, Asking(), datetime.now(), datetime.now())
    written = json.loads(file.read_text())
    assert set(written["results"]) == {"birds:rc", "sums:gen", "own_all", "own_colours", "own_sums", "own_text"}
    assert written["results"]["own_colours"] == found.aggregated["results"]["own_colours"]
    assert written["configs"]["own_colours"]["dataset_path"] == "json"
    assert "own_text" in make_table(written)
    assert "samples" not in harness_results(scores, Asking(), datetime.now(), datetime.now())


def test_lm_eval_is_imported_by_no_module_of_llmctl_before_a_task_of_it_is_asked():
    import subprocess

    code = "import sys, llmctl.evals.harness, llmctl.evals.harness_format; sys.exit('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_logits_that_are_no_numbers_are_told(own, model, tokenizer):
    model.lm_head.weight.data[3] = float("nan")
    for task in ("own_colours", "own_sums", "own_text"):
        with pytest.raises(StageFailed, match="no numbers"):
            evaluate_harness(model, tokenizer, load_tasks([task], own), Asking())
