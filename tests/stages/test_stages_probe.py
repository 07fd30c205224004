"""`llmctl probe` through the command line, on a tiny random model and made-up texts."""

import json
from pathlib import Path

import pytest
from helpers import in_process, run_llmctl

TOPICS = {
    "weather": ["rain", "snow", "wind", "storm", "sunshine", "fog", "hail", "thunder"],
    "kitchen": ["spoon", "oven", "kettle", "pan", "knife", "bowl", "plate", "whisk"],
    "garden": ["rose", "hedge", "lawn", "spade", "tulip", "shed", "bulb", "weed"],
}


def rows(first: int, last: int) -> list[dict[str, str]]:
    """Sentences of two words of a topic, none of them twice."""
    found = []
    for topic, words in TOPICS.items():
        pairs = [(a, b) for a in words for b in words if a != b]
        found += [{"sentence": f"we saw the {a} and a {b}", "intent": topic} for a, b in pairs[first:last]]
    return found


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tokenizer_folder) -> Path:
    from transformers import AutoTokenizer

    from llmctl.model.build import ModelShape, build_model

    folder = tmp_path_factory.mktemp("probe") / "model"
    shape = ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=64)
    build_model(shape, seed=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(folder)
    return folder


def write_lines(file: Path, found: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return file


def write_csv(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_curve_numbers_and_pictures(model_folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_lines(data / "train.jsonl", [*rows(0, 30), {"sentence": "we saw the moon", "intent": "sky"}])
    write_lines(data / "test.jsonl", rows(30, 45))
    options = ["--shots", "1,4", "--seeds", "2", "--plots", tmp_path / "pictures", "--json", tmp_path / "probe.json"]
    done = run_llmctl("probe", model_folder, data, *options)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert "text in column 'sentence', label in 'intent'" in told
    assert "4 examples: 1 of 4 classes have fewer and are left out there: sky" in told
    found = json.loads((tmp_path / "probe.json").read_text())
    assert [point["shots"] for point in found["points"]] == [1, 4]
    assert [len(point["classes"]) for point in found["points"]] == [4, 3]
    assert found["points"][1]["chance"] == pytest.approx(1 / 3)
    assert set(found["points"][0]["mean"]) == {"model", "bag of words", "untrained"}
    assert found["points"][1]["mean"]["bag of words"] > 0.7
    assert all(len(values) == 2 for values in found["points"][1]["accuracies"].values())
    assert 0 <= found["chosen"]["model"]["layer"] <= 2
    for name in ("probe_curve", "probe_map"):
        assert (tmp_path / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "pictures" / f"{name}.svg").read_text()


def test_a_part_is_held_out_and_the_same_command_gives_the_same(model_folder, tmp_path):
    lines = ["category,text", *(f'{row["intent"]},"{row["sentence"]}, today"' for row in rows(0, 20))]
    data = write_csv(tmp_path / "data.csv", "\ufeff" + "\n".join(lines))
    results = []
    for name in ("one.json", "two.json"):
        done = in_process("probe", model_folder, data, "--shots", "2", "--seeds", "1", "--layer", "1", "--json", tmp_path / name)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / name).read_text()))
    assert "12 of 60 rows of data.csv are held out" in done.stdout + done.stderr
    assert results[0] == results[1]
    assert results[0]["points"][0]["stderr"]["model"] is None
    assert results[0]["chosen"]["model"]["layer"] == 1


def test_texts_of_the_test_teach_nothing(tmp_path):
    from llmctl.stages.labelled import read_labelled

    train = write_lines(tmp_path / "a.jsonl", rows(0, 10))
    test = write_lines(tmp_path / "b.jsonl", rows(8, 14))
    found = read_labelled(train, test, None, None, 1)
    taught = {found.texts[document] for document in found.training}
    assert not taught & {found.texts[document] for document in found.test}
    assert (len(found.training), len(found.test)) == (24, 18)
    doubled = write_lines(tmp_path / "c.jsonl", rows(0, 10) * 2)
    found = read_labelled(doubled, None, None, None, 1)
    assert not {found.texts[d] for d in found.training} & {found.texts[d] for d in found.test}
    assert sorted(found.training + found.test) == list(range(60))


@pytest.mark.parametrize(
    ("name", "text", "options", "told"),
    [
        ("none.csv", None, [], "no such file or folder"),
        ("d.csv", "text,lable\na,b\n", ["--label-column", "label"], "did you mean 'lable'?"),
        ("d.csv", "words,label\na,b\n", [], "it has 'words', 'label'. Name one with --text-column"),
        ("d.csv", "text,label\na,one\nb,one\nc,one\n", [], "expected two or more"),
        ("d.csv", "text,label\na,one\n  ,two\n", [], "d.csv:3: column 'text' holds nothing"),
        ("d.csv", "text,label\na,b,c\n", [], "d.csv:2: 3 cells; expected 2"),
        ("d.csv", "text,label\n", [], "no rows"),
        ("d.csv", "", [], "empty file"),
        ("d.jsonl", '{"text": "a", "label": 1.5}\n', [], "expected a class"),
        ("d.jsonl", '{"text": "a"\n', [], "d.jsonl:1: not JSON"),
        ("d.jsonl", b'{"text": "\xff"}\n', [], "not UTF-8"),
        ("d.csv", b"text,label\n\xff,b\n", [], "not UTF-8 at byte 11"),
        ("d.xlsx", "text", [], "not a kind of file that is known"),
        ("d.csv", "text,label\na,b\n", ["--shots", "0,2"], "--shots 0,2: expected numbers"),
    ],
)
def test_bad_input_is_told(tmp_path, monkeypatch, capsys, name, text, options, told):
    from typer.testing import CliRunner

    from llmctl.cli import app

    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    done = CliRunner().invoke(app, ["probe", "model", str(tmp_path / name), "--runs", str(tmp_path), *options])
    assert done.exit_code == 2
    assert told in done.output


def test_a_layer_that_is_not_there_is_told(model_folder, tmp_path):
    data = write_lines(tmp_path / "d.jsonl", rows(0, 10))
    done = in_process("probe", model_folder, data, "--layer", "3", "--shots", "1")
    assert done.returncode == 2
    assert "--layer 3: expected a number from 0 (the embedding) to 2" in done.stderr


def test_features_that_are_no_numbers_name_the_text(model_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    done = in_process("probe", broken, write_lines(tmp_path / "d.jsonl", rows(0, 10)), "--shots", "1")
    assert done.returncode == 1
    assert ": the model's features of" in done.stderr
    assert "Traceback" not in done.stderr
