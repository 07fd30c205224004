"""The JSON schema that editors have, and the reference of all keys: as the code, and as strict as the file format."""

import json
import re
import tomllib

import pytest
from helpers import REPOSITORY
from jsonschema import Draft7Validator

from llmctl.recipe.json_schema import file_schema
from llmctl.views.explain import keys
from llmctl.views.reference import reference, schema_text

VALIDATOR = Draft7Validator(file_schema())
SHIPPED = sorted((REPOSITORY / "recipes").rglob("*.toml"))
PAGES = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
TASKS = "docs/evaluation-tasks.md"
"""Of files of another format."""
EXAMPLES = [
    text
    for page in PAGES
    if page != REPOSITORY / TASKS
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]


def mistakes(text: str) -> list[str]:
    values = tomllib.loads(text.replace("\n...\n", "\n"))  # pages leave out what does not matter
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in VALIDATOR.iter_errors(values)]


@pytest.mark.parametrize(("file", "text"), [("recipes/recipe.schema.json", schema_text), ("docs/recipe.md", reference)])
def test_what_is_generated_is_current(file, text):
    written = (REPOSITORY / file).read_text(encoding="utf-8")
    assert written == text(), "make it anew: llmctl schema --out docs/recipe.md --out recipes/recipe.schema.json"


def test_the_schema_is_a_schema():
    Draft7Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_fits_and_names_the_schema(file):
    text = file.read_text(encoding="utf-8")
    assert mistakes(text) == []
    (named,) = re.findall(r"\A#:schema (\S+)\n", text)
    assert (file.parent / named).resolve() == REPOSITORY / "recipes" / "recipe.schema.json"


def test_examples_of_the_pages_fit():
    assert EXAMPLES
    assert [found for text in EXAMPLES for found in mistakes(text)] == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("[pretrain]\nlearing_rate = 1", "pretrain"),
        ('[pretrain]\nseq_len = "64q"', "pretrain.seq_len"),
        ('[pretrain]\ntokens = "5X"', "pretrain.tokens"),
        ("[pretrain]\ntokens = 0", "pretrain.tokens"),
        ('[pretrain]\noptimizer = "adam"', "pretrain.optimizer"),
        ("[pretrain]\nname = 'x'", "pretrain"),
        ("pretrain = true", "pretrain"),
        ("[stages.x]\nkind = 'sft'", ""),
        ('[stage.x]\nkind = "stf"', "stage.x"),
        ('[corpus.sources.a]\npth = "x"', "corpus.sources.a"),
        ('[corpus.sources.a]\nfilter = "wep"', "corpus.sources.a.filter"),
        ('[longctx]\nrope = { method = "yarrn" }', "longctx.rope.method"),
        ('[sft.mix]\na = "lots"', "sft.mix.a"),
        ('[corpus.sources.a]\nmax_bytes = "20XB"', "corpus.sources.a.max_bytes"),
    ],
)
def test_a_typo_is_found_at_its_own_place(text, at):
    found = mistakes(text)
    assert len(found) == 1
    assert found[0].startswith(f"{at}: ")


@pytest.mark.parametrize(
    "text",
    [
        "midtrain = false\n[pretrain]\nbatch_tokens = false\neval = false",
        '[pretrain]\ntokens = "1.5B"\nseq_len = "8k"\nactivation_checkpointing = 2\nmix = { a = "3B", b = "1B" }',
        '[lora]\ntargets = "all-linear"\n[corpus.sources.a]\nfilter = "code"\nmax_bytes = "2GiB"',
        '[corpus.sources]\na = false\nb = { max_bytes = 5 }\n[stage.second]\nkind = "sft"\nepochs = 2',
        '[longctx]\nbuckets = { 8k = 2, 16k = 2.5 }\n[sft.checkpoint]\ngrace_seconds = "90s"\n[deepspeed]\nany = { of = "it" }',
    ],
)
def test_all_forms_of_the_file_format_fit(text):
    assert mistakes(text) == []


def test_the_reference_has_every_key():
    page = reference()
    assert {key.rsplit(".", 1)[-1] for key in keys()} <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
