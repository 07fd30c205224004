"""The recipes that are shipped: they are read, their models can be built, and every stage can be planned."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from helpers import REPOSITORY, in_process

from llmctl.errors import UserError
from llmctl.preflight.plan import plan_stage
from llmctl.recipe.graph import stage_order
from llmctl.recipe.load import load_recipe
from llmctl.recipe.schema import TrainTable
from llmctl.recipe.shipped import about
from llmctl.train.schedule import Schedule

RECIPES = sorted((REPOSITORY / "recipes").glob("*.toml"))
# Weights with the padded vocabulary of 100,352, input embedding included: 267M is Olmo 3's "190M".
WEIGHTS = {"olmo_190m": 267e6, "olmo_1b": 1.48e9, "olmo3_7b": 7.30e9, "olmo3_32b": 32.2e9}
RANKS = {"olmo_small": 2, "olmo_190m": 8, "olmo_1b": 8, "olmo3_7b": 512, "olmo3_32b": 1024}
RANKS |= {"continue_pretrained": 1, "long_64k": 1}


def test_all_are_there():
    assert {path.stem for path in RECIPES} == set(RANKS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_stage_is_planned(path):
    recipe = load_recipe(path)
    for stage in stage_order(recipe):
        if isinstance(stage, TrainTable):
            plan = plan_stage(stage, min(RANKS[path.stem], stage.steps.rows))
            assert plan.steps is None or plan.steps > 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_shrinks_to_a_smoke_run(path):
    recipe = load_recipe(path, smoke=True)
    for stage in stage_order(recipe):
        if isinstance(stage, TrainTable):
            assert plan_stage(stage).steps == 8


def test_a_recipe_of_many_ranks_shrinks_to_a_smoke_run():
    """Whose steps have two rows."""
    recipe = load_recipe(REPOSITORY / "recipes" / "olmo_small.toml", ["pretrain.processes=8"], smoke=True)
    assert recipe.stages["pretrain"].processes == 1


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_model_has_the_published_size(name):
    from llmctl.model.build import ModelShape, build_model
    from llmctl.stages.shape import model_shape

    recipe = load_recipe(REPOSITORY / "recipes" / f"{name}.toml")
    model = build_model(ModelShape(**model_shape(recipe, 100_278, 8192)), seed=1, device="meta")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(WEIGHTS[name], rel=0.005)
    kinds = model.config.layer_types
    assert kinds[3] == kinds[-1] == "full_attention"
    assert kinds.count("full_attention") * 4 == len(kinds)
    assert model.config.sliding_window == 4096


def test_olmo3_7b_has_the_published_numbers():
    recipe = load_recipe(REPOSITORY / "recipes" / "olmo3_7b.toml")
    plans = {stage.name: plan_stage(stage, 8) for stage in stage_order(recipe)}
    assert [s.name for s in stage_order(recipe)] == ["pretrain", "midtrain", "longctx", "think", "sft"]
    assert plans["pretrain"].shape.rows == 512
    assert plans["pretrain"].steps == pytest.approx(1_413_814, rel=1e-3)  # the report's last step of stage 1
    assert plans["longctx"].steps == pytest.approx(11_921, rel=1e-3)
    assert plans["longctx"].shape.rows == 64
    assert plans["pretrain"].final_lr == pytest.approx(3e-5)


def pretraining(name: str) -> tuple[TrainTable, Schedule]:
    table = load_recipe(REPOSITORY / "recipes" / f"{name}.toml").stages["pretrain"]
    assert isinstance(table, TrainTable)
    assert table.tokens
    return table, Schedule.of(table, table.steps.within_tokens(table.tokens))


def test_olmo3_7b_stretches_the_second_half_of_its_cosine():
    _, schedule = pretraining("olmo3_7b")
    half = schedule.stretch_from
    assert half == 597_046
    assert schedule.multiplier(half) == pytest.approx(0.55, abs=1e-5)  # between the peak and a tenth of it
    assert schedule.multiplier(schedule.steps - 1) == pytest.approx(0.1, abs=1e-5)


def test_olmo3_32b_cuts_its_cosine_where_the_rate_is_as_published():
    recipe = load_recipe(REPOSITORY / "recipes" / "olmo3_32b.toml")
    table, schedule = pretraining("olmo3_32b")
    assert table.lr
    # The published peak, length and end of the cosine give 6.70e-5 there; the report's own figure is 6.21e-5.
    assert table.lr * schedule.multiplier(655_650) == pytest.approx(6.21e-5, rel=0.1)
    assert len({recipe.stages[name].seed for name in ("midtrain_1", "midtrain_2")}) == 2  # type: ignore[union-attr]


MIXES = {"dolma3": ("pretrain", 5.93e12, 6), "dolmino": ("midtrain", 100e9, 15), "longmino": ("longctx", 50e9, 18)}


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_is_extended_by_a_recipe_of_ones_own(tmp_path, name):
    kind, tokens, sources = MIXES[name]
    own = tmp_path / "own.toml"
    base = (REPOSITORY / "recipes" / "mixes" / f"{name}.toml").resolve()
    start = "" if kind == "pretrain" else 'from = "allenai/Olmo-3-1025-7B"\n'
    own.write_text(
        f'extends = "{base}"\n[tokenizer]\npath = "allenai/dolma2-tokenizer"\n[model]\npreset = "olmo3_7b"\n'
        f'[{kind}]\n{start}batch_tokens = "4M"\nseq_len = 8000\n[corpus.sources.web]\npath = "{tmp_path}"\nfiles = []\n'
    )
    recipe = load_recipe(own)
    stage = recipe.stages[kind]
    assert isinstance(stage, TrainTable)
    assert stage.tokens == pytest.approx(tokens, rel=2e-3)
    assert len(stage.mix) == sources
    assert sum(stage.mix.values()) == pytest.approx(1, abs=1e-3)
    assert all(recipe.corpus.sources[source].type for source in stage.mix)


@pytest.mark.parametrize(("name", "total"), [("dolci_think_sft", 2_268_468), ("dolci_instruct_sft", 2_152_112)])
def test_a_mix_of_conversations_is_extended_and_its_table_adds_up(tmp_path, name, total):
    mix, own = REPOSITORY / "recipes" / "mixes" / f"{name}.toml", tmp_path / "own.toml"
    own.write_text(
        f'extends = "{mix.resolve()}"\n[tokenizer]\npath = "allenai/dolma2-tokenizer"\n[model]\npreset = "olmo3_7b"\n'
        '[sft]\nfrom = "allenai/Olmo-3-1025-7B"\nbatch_tokens = "1M"\nseq_len = 8000\n'
    )
    recipe = load_recipe(own)
    stage = recipe.stages["sft"]
    assert isinstance(stage, TrainTable)
    assert (list(stage.mix.values()), stage.epochs) == ([1.0], 2)
    assert all(recipe.corpus.sources[source].kind == "chat" for source in stage.mix)
    rows = re.findall(r"^#   (\S.*?) +([\d,]+) +([\d.]+)%$", mix.read_text(), re.MULTILINE)
    counts = {label: int(count.replace(",", "")) for label, count, _ in rows}
    assert counts.pop("all") == sum(counts.values()) == total
    for label, count, share in rows:
        assert float(share) == pytest.approx(100 * int(count.replace(",", "")) / total, abs=0.006), label


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_head_says_what_is_made_and_what_it_costs(path):
    head = about(path)
    assert head.makes.endswith(".")
    assert re.search(r"minutes|hours|days", head.cost), head.cost


def test_a_bare_name_means_the_recipe_that_ships_unless_there_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("olmo_small")) == load_recipe(REPOSITORY / "recipes" / "olmo_small.toml")
    (tmp_path / "olmo_small").mkdir()
    assert load_recipe(Path("olmo_small")).name == "olmo_small"
    (tmp_path / "olmo_1b").write_text('name = "mine"')
    with pytest.raises(UserError, match="mistake in the recipe"):  # it has no stage
        load_recipe(Path("olmo_1b"))


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="did you mean 'olmo_small'"):
        load_recipe(Path("olmo_smal"))
    (tmp_path / "mine.toml").touch()
    with pytest.raises(UserError, match=r"did you mean 'mine\.toml'"):
        load_recipe(Path("mine"))


def test_all_that_ships_is_listed_with_size_needs_and_cost():
    shipped = {row["name"]: row for row in json.loads(in_process("recipes", "--json").stdout)}
    assert shipped.keys() == set(RANKS)
    for name, weights in WEIGHTS.items():
        assert shipped[name]["weights"] == pytest.approx(weights, rel=0.005)
        assert "tokenizer allenai/dolma2-tokenizer" in shipped[name]["needs"]
    assert shipped["olmo_small"]["needs"] == []
    assert shipped["olmo_small"]["stages"] == ["pretrain", "midtrain", "longctx", "sft", "lora"]
    assert "nothing but this machine" in in_process("recipes").stdout


def test_an_installation_has_the_recipes():
    """What the wheel puts beside the package is what is looked for there."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        placed = tomllib.load(file)["tool"]["setuptools"]["data-files"]
    patterns = [pattern for folder in placed for pattern in placed[folder]]
    names = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
    assert {path for path in (REPOSITORY / "recipes").rglob("*") if path.is_file()} == names
    assert set(placed) == {"share/llmctl/recipes", "share/llmctl/recipes/mixes"}
