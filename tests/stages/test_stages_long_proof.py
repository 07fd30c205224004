"""What a long-context stage shows, `llmctl eval --long`, and the guard of the short context."""

import json
import shutil

import pytest
import torch
from helpers import in_process, run_llmctl
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from llmctl.evals.positions import position_losses
from llmctl.model.build import ModelShape, build_model
from llmctl.model.load import save_model
from llmctl.model.rope import RopeScaling, extend_context
from llmctl.stages.long_eval import length_before
from llmctl.stages.measure import opened

SHAPE = ModelShape(32, 4, 2, 2, 16, 64, window=32, vocab_size=512, max_length=64)
SCALINGS = [RopeScaling(method, 8.0, 64) for method in ("yarn", "linear", "ntk", "llama3")] + [
    RopeScaling("base", 1.0, 64, theta=8e6)
]


@pytest.fixture(scope="module")
def scores(finished) -> dict:
    return json.loads((finished.stage("longctx") / "long" / "scores.json").read_text())


def test_the_stage_leaves_scores_and_pictures(finished, scores):
    folder = finished.stage("longctx") / "long"
    for name in ("loss_by_position", "needle"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (scores["parent_length"], scores["length"]) == (64, 512)
    assert list(scores["models"]) == ["before", "RoPE scaled alone", "after"]
    for model in scores["models"].values():
        assert model["loss_by_position"][0]["from"] == 0
        assert model["loss_by_position"][-1]["to"] == 512
    before, alone, after = scores["models"].values()
    assert alone["loss_by_position"] != before["loss_by_position"]
    assert not alone["tasks"]
    assert not alone["needles"]
    assert [(row["task"], row["length"]) for row in before["tasks"]] == [(row["task"], row["length"]) for row in after["tasks"]]
    assert {row["depth"] for row in after["needles"]} == {0, 0.25, 0.5, 0.75, 1}
    files = finished.manifest("longctx")["files"]
    assert "long/scores.json" in files


def test_the_stage_reports_loss_by_position_and_the_short_context(finished, scores):
    assert "longctx: loss by position on" in finished.printed
    assert "longctx: short context, 64 tokens, held-out code" in finished.printed
    metrics = finished.manifest("longctx")["metrics"]
    assert {"loss/before/0-64", "loss/RoPE scaled alone/0-64", "loss/after/256-512"} <= set(metrics)
    bits, *suites = scores["guard"]
    assert metrics["bits_per_byte_before"] == bits["before"]
    assert metrics["bits_per_byte_after"] == bits["after"]
    assert bits["measure"] == "bits per byte"
    assert [suite["measure"] for suite in suites] == ["docstring", "next_line", "module", "copy", "pattern"]
    # The parent has measured itself on the same text.
    assert bits["before"] == pytest.approx(finished.manifest("midtrain")["metrics"]["bits_per_byte"], rel=1e-3)


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling.method)
def test_the_length_before_is_that_of_the_positions_as_they_were_first_trained(scaling):
    model = build_model(SHAPE, 1)
    assert length_before(model.config) == 64
    extend_context(model, scaling, 512)
    assert length_before(model.config) == 64


def test_without_rotary_positions_the_length_before_is_the_model_s_own():
    assert length_before(GPT2Config(n_positions=256)) == 256


def test_a_model_opened_with_scaled_positions_is_the_one_that_a_scaled_copy_holds(tmp_path, tokenizer):
    def scale(model) -> None:
        extend_context(model, SCALINGS[0], 512)

    def losses(folder: str, change=None) -> torch.Tensor:
        with opened(tmp_path / folder, change) as model:
            return torch.tensor(position_losses(model, [list(range(400))]))

    model = build_model(SHAPE, 1)
    save_model(model, tokenizer, tmp_path / "plain")
    scale(model)
    save_model(model, tokenizer, tmp_path / "scaled")
    torch.testing.assert_close(losses("plain", scale), losses("scaled"))
    assert not torch.allclose(losses("plain"), losses("scaled"))


def test_eval_long_measures_any_checkpoint_beside_its_parent(finished, scores, tmp_path):
    out, pictures = tmp_path / "long.json", tmp_path / "new" / "pictures"
    pictures.mkdir(parents=True)
    (pictures / "another.png").touch()
    result = in_process("eval", "tiny/longctx", "--long", "--plots", pictures, "--json", out, "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    told = result.stdout.replace("\n", "")
    assert "needle.png" in told
    assert "another.png" not in told
    found = json.loads(out.read_text())
    assert "results" not in found  # the suites are --few-shot's
    models = found["long"]["models"]
    assert list(models) == ["midtrain", "longctx"]
    assert models["longctx"]["tasks"] == scores["models"]["after"]["tasks"]
    assert models["midtrain"]["needles"] == scores["models"]["before"]["needles"]
    assert found["long"]["guard"] == scores["guard"]
    assert sorted(file.name for file in pictures.iterdir()) == ["another.png", "loss_by_position.png", "needle.png"]


def test_plots_without_long_say_what_is_missing(finished, tmp_path):
    result = in_process("eval", "tiny/longctx", "--plots", tmp_path / "a", "--runs", finished.runs)
    assert result.returncode == 2
    assert "--plots draws what --long or --over-run measures" in result.stderr
    (tmp_path / "file").write_text("")
    result = in_process("eval", "tiny/longctx", "--long", "--plots", tmp_path / "file", "--runs", finished.runs)
    assert result.returncode == 2
    assert "file: a file; expected a folder" in result.stderr


def test_a_checkpoint_without_a_corpus_says_what_to_do(finished, tmp_path):
    """A model folder outside of any run, and no run to take held-out text from."""
    shutil.copytree(finished.stage("longctx") / "model", tmp_path / "model")
    (tmp_path / "runs").mkdir()
    result = in_process("eval", tmp_path / "model", "--long", "--runs", tmp_path / "runs")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "start one with `llmctl run recipes/olmo_small.toml`" in result.stderr.replace("\n", " ")


@pytest.fixture
def spoilt_runs(finished, tmp_path):
    """The run as a kill after training left it, with noise in the weights of the trained model."""
    shutil.copytree(finished.runs, tmp_path / "runs")
    (stage,) = [path for path in (tmp_path / "runs" / "tiny").glob("longctx-*") if (path / "manifest.json").exists()]
    (stage / "manifest.json").unlink()
    shutil.rmtree(stage / "long")
    file = stage / "model" / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] += torch.randn(weights["lm_head.weight"].shape, generator=torch.Generator().manual_seed(0))
    save_file(weights, file, metadata={"format": "pt"})
    return stage


def test_a_spoilt_short_context_stops_the_stage_and_another_policy_goes_on(finished, spoilt_runs):
    def again(policy: str):
        keys = ("--set", f'longctx.guard.policy="{policy}"')
        return run_llmctl("longctx", finished.recipe, *keys, "--runs", spoilt_runs.parent.parent)

    stopped = again("stop")
    assert stopped.returncode == 1
    assert "the short context has suffered: bits per byte" in stopped.stderr
    assert 'set guard.policy = "warn"' in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (spoilt_runs / "manifest.json").exists()
    assert json.loads((spoilt_runs / "long" / "scores.json").read_text())["guard"][0]["verdict"] == "worse"
    model = (spoilt_runs / "model" / "model.safetensors").read_bytes()
    went_on = again("warn")
    assert went_on.returncode == 0, went_on.stderr
    assert "the short context has suffered" in went_on.stdout + went_on.stderr
    assert json.loads((spoilt_runs / "manifest.json").read_text())["metrics"]["bits_per_byte_after"] > 9
    assert (spoilt_runs / "model" / "model.safetensors").read_bytes() == model  # measured, not trained again
