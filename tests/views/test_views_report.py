"""`llmctl report`: what stands on the page of a run, and what becomes of one that is not whole."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import in_process, run_llmctl
from report_run import NASTY, STAGES, WARNINGS, write_run

VOID = ("meta", "link", "br", "img", "hr", "input")
SECTIONS = (
    "summary",
    "notes",
    "lineage",
    "curves",
    "bits",
    "data",
    "long",
    "few-shot",
    "samples",
    "speed",
    "warnings",
    "stages",
    "made",
)


class Page(HTMLParser):
    """Tags and attributes of a page; fails where a tag closes another than the last one that was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def ids(self) -> list[str]:
        return [found["id"] for _, found in self.elements if "id" in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A whole run; to be looked at, and not to be changed."""
    return write_run(tmp_path_factory.mktemp("report"))


@pytest.fixture
def own(made, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def reported(folder: Path) -> Page:
    """The page of a run."""
    out = folder.parent / f"{folder.name}.html"
    result = in_process("report", folder, "--out", out)
    assert result.returncode == 0, result.stderr
    return Page(out.read_text(encoding="utf-8"))


def stage(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}-*")
    return found


def test_every_part_is_there_and_nothing_is_loaded_from_elsewhere(made):
    page = reported(made)
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed")
        for name, value in attributes.items():
            assert "http:" not in value, (tag, name)
            assert "https:" not in value, (tag, name)
            assert not name.startswith("on"), (tag, name)
            for target in re.findall(r"url\(#([^)]*)\)", value) + (
                [value[1:]] if name == "href" and value.startswith("#") else []
            ):
                assert target in page.ids
    (policy,) = [found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_figure_stands_in_the_page_in_the_colour_of_its_text(made):
    page = reported(made)
    assert sum("viewBox" in found or "viewbox" in found for tag, found in page.elements if tag == "svg") == 7  # with the lineage
    colours = {
        value for _, found in page.elements for value in re.findall(r"(?:fill|stroke): (\S+?)(?:;|$)", found.get("style", ""))
    }
    assert "currentColor" in colours
    assert not colours & {"#010203", "#000000", "black"}
    assert {"#111111", "#ffffff"} & colours  # on the cells of the map, whatever the page's ink


def test_all_that_the_stages_said_is_there_and_markup_of_a_model_is_text(made):
    page = reported(made)
    for warning in WARNINGS.values():
        assert warning in page.text
    assert page.text.count(NASTY) >= 2  # a warning, and an answer
    for name in STAGES:
        assert f"{name} has begun" in page.text
        assert f"{name}: a table" in page.text
    assert "pretrain.lr=1e-3" in page.text.replace('"', "")


def test_the_summary_says_what_is_good_and_what_is_wrong(made):
    printed = in_process("report", made, "--out", made.parent / "x.html").stdout.splitlines()
    assert printed[0] == str(made.parent / "x.html")
    assert len(printed) == 4
    assert "by pretrain -> longctx -> sft; 7 of 7 stages done" in printed[1]
    assert "7 min 00 s of work" in printed[2]
    assert "12k tokens" in printed[2]
    text = reported(made).text
    summary = text[text.index("What to look at first") : text.index("What was made from what")]
    for wrong in (
        "longctx has lost at the short context: bits per byte 1.000 -> 2.000",
        "pretrain: its steps took 1 min 00 s, and 20 s were predicted.",
        "Of the answers of sft only 25% end",
        "pretrain left out 1 of 40 steps",
        "clearly better in 0, worse in 1 of 1",
        f"pretrain gave 1 warning: {WARNINGS['pretrain']}",
    ):
        assert wrong in summary
    for told in ("xz -9e", "its parent", "chance", "▲ better", "▼ worse", "1.200"):
        assert told in summary
    assert "Of the answers of longctx" not in summary


def test_stages_follow_each_other_on_the_axis_of_tokens(made):
    from llmctl.views.report.collect import collect
    from llmctl.views.report.curves import spans

    found = spans(collect(made))
    assert [(span.stage.name, span.first, span.last) for span in found] == [
        ("pretrain", 0, 4000), ("longctx", 4000, 8000), ("sft", 8000, 12000)
    ]  # fmt: skip
    at, loss = found[1].curve("loss")
    assert len(at) == len(loss) == 39  # without the step whose loss is no number
    assert at[0] == 4100


def test_a_long_curve_keeps_its_spikes():
    import numpy as np

    from llmctl.views.report.curves import smoothed, thinned

    values = np.ones(100_000)
    values[54_321] = 9.0
    at, kept = thinned(np.arange(100_000.0), values)
    assert len(at) <= 600
    assert kept.max() == 9.0
    assert at[kept.argmax()] == 54_321
    assert smoothed(np.arange(100_000.0), values)[1].max() == 1.0


def test_the_lineage_has_no_arrow_that_others_imply():
    from llmctl.views.report.boxes import reduced

    parents = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["b"], "e": ["a", "c", "d"]}
    assert reduced(parents) == {"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"]}


CUT = {
    "pretrain": ("manifest.json", "metrics.jsonl"),
    "sft": ("log.jsonl", "answers.json"),
    "eval": ("scores.json",),
    "longctx": ("long/scores.json", "job.json"),
    "corpus": ("stats.json", "attrition.json"),
}


def test_files_that_are_cut_are_noted_and_the_rest_is_shown(own):
    cut = [stage(own, name) / file for name, files in CUT.items() for file in files]
    for path in cut:
        path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    page = reported(own)
    for path in cut:
        assert f"{path.relative_to(own)}: " in page.text
    assert set(SECTIONS) <= set(page.ids)
    assert "longctx has begun" in page.text


@pytest.mark.parametrize("value", ["", "[1, 2]", "{}", '{"metrics": [1], "parents": "x", "files": 3, "hardware": []}'])
def test_files_of_another_kind_are_no_end_of_the_page(own, value):
    for file in ("manifest.json", "state.json", "long/scores.json", "scores.json", "stats.json", "job.json", "answers.json"):
        for path in own.glob(f"*-*/{file}"):
            path.write_text(value)
    page = reported(own)
    assert set(SECTIONS) <= set(page.ids)
    assert "sft has begun" in page.text


def test_values_of_another_kind_cost_their_own_part_and_are_noted(own):
    path = stage(own, "longctx") / "long" / "scores.json"
    path.write_text(
        '{"parent_length": "?", "models": {"after": {"loss_by_position": [{"from": 1}], "needles": [{"depth": {}}]}}}'
    )
    page = reported(own)
    assert "the files are not as this version writes them" in page.text
    assert "Because." in page.text


def test_names_of_sources_are_no_formulas_and_no_question_is_no_end_of_the_page(own, tmp_path):
    manifest = stage(own, "sft") / "manifest.json"
    values = json.loads(manifest.read_text())
    values["metrics"]["bits_per_byte/a$\\frac$b"] = 1.0
    manifest.write_text(json.dumps(values))
    scores = stage(own, "longctx") / "long" / "scores.json"
    scores.write_text(scores.read_text().replace('"questions": 4', '"questions": 0'))
    page = reported(own)
    assert "sft on a$\\frac$b" in page.text.replace("\u00a0", " ")
    assert "bits-per-byte-figure_1" in page.ids
    assert "the files are not as this version writes them (ZeroDivisionError" in page.text
    assert "Because." in page.text


def test_a_figure_that_cannot_be_drawn_costs_itself_alone(own):
    from llmctl.views.report.collect import collect
    from llmctl.views.report.page import figures, make_page

    run = collect(own)
    drawn = figures(run)
    drawn["loss"].axes[0].set_title("$\\frac$", parse_math=True)
    page = Page(make_page(run, drawn))
    assert "the figure loss: the files are not as this version writes them (ValueError" in page.text
    assert "work-figure_1" in page.ids


def test_an_older_version_kept_no_log(own):
    for file in own.glob("*/log.jsonl"):
        file.unlink()
    (own / "recipe.json").unlink()
    page = reported(own)
    assert f"{', '.join(STAGES)}: made by a version that kept no log" in page.text
    assert "recipe.json: missing" in page.text


def test_a_stage_at_work_is_told_and_its_last_line_is_no_fault(own):
    folder = stage(own, "sft")
    (folder / "manifest.json").unlink()
    state = {"status": "running", "kind": "sft", "pid": os.getpid(), "step": 40, "steps": 90}
    (folder / "state.json").write_text(json.dumps(state))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "los')
    page = reported(own)
    assert "which is being written" in page.text
    assert "running at step 40 of 90" in page.text
    assert "Not everything could be read" not in page.text
    (folder / "state.json").write_text(json.dumps(state | {"pid": 0}))
    page = reported(own)
    assert "sft is not finished: killed at step 40 of 90." in page.text
    assert "1 line could not be read, the last one, which is cut; 41 could" in page.text


def test_of_two_artifacts_the_newest_is_shown_and_the_other_named(own):
    older = stage(own, "pretrain")
    newer = Path(shutil.copytree(older, older.with_name("pretrain-ffffffffffff")))
    later = (older / "manifest.json").stat().st_mtime + 60
    os.utime(newer / "manifest.json", (later, later))
    page = reported(own)
    assert f"{older.name} (done)" in page.text
    assert "was made from pretrain-000000000003, and the newest pretrain is another one: ffffffffffff" in page.text


def test_a_run_that_has_only_begun_says_what_is_to_come(tmp_path):
    from report_run import RECIPE

    from llmctl.runs.store import RunStore

    RunStore(tmp_path).record_recipe("made", RECIPE)
    page = reported(tmp_path / "made")
    assert f"Not begun yet: {', '.join(STAGES)}; the command" in page.text
    assert "nothing trained yet" in page.text


def test_figures_are_written_as_files(made, tmp_path):
    result = in_process("report", made, "--out", tmp_path / "page.html", "--plots", tmp_path / "figures")
    assert f"12 figures in {tmp_path / 'figures'}" in result.stdout
    names = {"loss", "work", "bits-per-byte", "positions-longctx", "needles-longctx", "differences-eval"}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {f"{n}.{kind}" for n in names for kind in ("png", "svg")}
    assert (tmp_path / "figures" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "loss (nats per token)" in (tmp_path / "figures" / "loss.svg").read_text()


def test_json_has_the_numbers_and_is_json(made):
    result = in_process("report", made, "--json")
    values = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    found = {one["name"]: one for one in values["stages"]}
    assert list(found) == list(STAGES)
    assert found["pretrain"]["steps"]["loss"][8] is None  # it was no number
    assert found["pretrain"]["steps"]["tokens"][-1] == 4000
    assert found["eval"]["scores"]["results"][0]["task"] == "copy"
    assert not (made / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mad"], "'mad' is no run in {root} and no folder of one; did you mean made? there are: made"),
        (["made", "--format", "gif"], "--format gif: expected png, svg or both"),
        (["made", "--out", "{root}"], "{root}: cannot be written (Is a directory); --out names another place"),
        (["made", "--serve", "--json"], "--serve shows the page and writes nothing"),
    ],
)
def test_a_mistake_is_one_line(made, arguments, told):
    result = in_process("report", *(one.format(root=made.parent) for one in arguments), "--runs", made.parent)
    assert result.returncode == 2
    assert told.format(root=made.parent) in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_real_run_has_its_page_on_a_narrow_screen_without_display_or_unicode(pretrained_runs, tmp_path):
    runs = Path(shutil.copytree(pretrained_runs, tmp_path / "runs"))
    finished = in_process("run", pretrained_runs.parent / "small.toml", "--runs", runs)  # the evaluation is left
    assert finished.stdout.endswith(f"all of it on one page: llmctl report small --runs {runs}\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"COLUMNS": "20", "PYTHONIOENCODING": "cp1252", "LLMCTL_RUNS": str(runs), "MPLBACKEND": "tkagg", "LANG": "C"}
    result = run_llmctl("report", "--plots", tmp_path / "figures", "--format", "svg", env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.startswith(f"{runs / 'small' / 'report.html'}\nsmall: a model of ")
    page = Page((runs / "small" / "report.html").read_text(encoding="utf-8"))
    assert set(SECTIONS) <= set(page.ids)
    assert "20 of 20" in page.text
    assert "few-shot tasks, pretrain" in page.text
    assert "1 rank x micro-batch 2" in page.text  # of the stage's log
    assert "Not everything could be read" not in page.text
    assert {file.name for file in (tmp_path / "figures").iterdir()} >= {"loss.svg", "work.svg", "bits-per-byte.svg"}
