"""A stage that grows its batch and its attention, averages its weights and measures itself while it runs."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import SMALL_RECIPE, command, run_llmctl

GROWING = """batch_tokens = 256
batch_warmup_tokens = 1024
batch_warmup_from = 128
length_warmup_tokens = 2000
length_warmup_from = 16
ema_decay = 0.8
eval = {{ every_steps = 4, rows = 5, suites = ["copy"], questions = 6, samples = ["def "], sample_tokens = 4 }}
"""


@pytest.fixture(scope="module")
def growing(tmp_path_factory, text_folder) -> Path:
    recipe = tmp_path_factory.mktemp("growing") / "small.toml"
    text = SMALL_RECIPE.replace("batch_tokens = 256\nmicro_batch = 2\n", GROWING).replace(
        "every_steps = 3", "every_steps = 3, keep_best = true"
    )
    recipe.write_text(text.format(texts=text_folder))
    return recipe


@pytest.fixture(scope="module")
def at_one_stretch(growing) -> tuple[Path, str]:
    runs = growing.parent / "runs"
    made = run_llmctl("pretrain", growing, "--runs", runs)
    assert made.returncode == 0, made.stderr
    return next(runs.glob("small/pretrain-*")), made.stdout


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_batch_grows_by_the_tokens(at_one_stretch):
    folder, printed = at_one_stretch
    tokens = [line["tokens"] for line in lines(folder) if "loss" in line]
    assert [after - before for before, after in zip([0, *tokens], tokens, strict=False)] == [128] * 8 + [256] * 16
    assert "5,120 tokens in 24 steps of 2, later 4 x 64" in printed


def test_the_heldout_loss_is_that_of_the_rows_held_out(at_one_stretch):
    import torch

    from llmctl.model.load import load_model
    from llmctl.tokens.shards import TokenShards
    from llmctl.train.checkpoint import SavedState

    folder, _ = at_one_stretch
    measured = {line["step"]: line for line in lines(folder) if "heldout_loss" in line}
    assert list(measured) == [4, 8, 12, 16, 20, 24]
    for line in measured.values():
        assert line["heldout_loss"] == line["heldout_loss/code"]
        assert 0 <= line["few_shot/copy"] <= 1
    stream = TokenShards(folder / "data" / "heldout" / "code").stream
    count = (len(stream) - 1) // 64
    rows = torch.tensor([stream[64 * (number * count // 5) :][:65].tolist() for number in range(5)])
    model, saved = load_model(str(folder / "model")), SavedState(folder / "trainer")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(saved.read(name)["weight"])
        logits = model(input_ids=rows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    assert float(loss) == pytest.approx(measured[24]["heldout_loss"], rel=2e-3)
    assert (folder / "kept" / "best" / "model.safetensors").exists()


def test_the_model_is_the_mean_of_the_weights(at_one_stretch):
    from llmctl.model.load import load_model
    from llmctl.train.checkpoint import SavedState

    folder, _ = at_one_stretch
    saved = SavedState(folder / "trainer")
    for name, weight in load_model(str(folder / "model")).named_parameters():
        assert weight.equal(saved.read(name)["ema"])
        assert not weight.equal(saved.read(name)["weight"])


def test_killed_and_run_again_it_ends_with_the_same_bits(growing, at_one_stretch, tmp_path):
    runs = tmp_path / "runs"
    process = subprocess.Popen(command("pretrain", growing, "--runs", runs), stdout=subprocess.DEVNULL)
    while not list(runs.glob("small/pretrain-*/checkpoints/step-00000009")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run_llmctl("pretrain", growing, "--runs", runs)
    assert "resumed from step" in again.stdout
    folder, (other,) = at_one_stretch[0], runs.glob("small/pretrain-*")
    for file in ("model/model.safetensors", "kept/best/model.safetensors"):
        assert (folder / file).read_bytes() == (other / file).read_bytes()
    times = ("tokens_per_second", "eta_seconds", "memory_bytes")
    assert [line | dict.fromkeys(times) for line in lines(other)] == [line | dict.fromkeys(times) for line in lines(folder)]
