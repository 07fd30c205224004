"""`llmctl inspect batch` shows what a step trains on."""

import json

from helpers import in_process, run_llmctl


def test_the_rows_of_a_step_and_their_documents(pretrained_runs, texts):
    told = run_llmctl("inspect", "batch", "small/pretrain", "--step", 2, "--json", "--runs", pretrained_runs)
    assert told.returncode == 0, told.stderr
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [row["position"] for row in rows] == [4, 5, 6, 7]
    for row in rows:
        assert (row["source"], row["supervised"]) == ("code", 64)
        assert sum(piece["tokens"] for piece in row["pieces"]) == 64
        for piece in row["pieces"]:
            assert piece["document"].startswith("code/")
            assert any(piece["text"].strip("\ufffd").removesuffix("<|endoftext|>").strip("\ufffd") in text for text in texts)


def test_it_is_shown_to_people_and_mistakes_are_told(pretrained_runs):
    told = in_process("inspect", "batch", "--runs", pretrained_runs)
    assert told.returncode == 0, told.stderr
    assert "row 0, code: 64 tokens to learn from" in told.stdout
    assert "the newest stage that trains is" in told.stderr
    for arguments, message in {
        ("small", "--step", 99): "--step 99: pretrain has 20 steps",
        ("small/sft",): "small/sft: no stage that trains has begun there",
    }.items():
        wrong = in_process("inspect", "batch", *arguments, "--runs", pretrained_runs)
        assert wrong.returncode == 2
        assert message in wrong.stderr
