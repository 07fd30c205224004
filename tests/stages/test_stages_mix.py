"""The mix of a stage: said before training, and refused when a source is too small for it."""

import re

from helpers import SMALL_RECIPE, run_llmctl


def test_the_mix_is_told_and_a_source_that_is_too_small_is_refused(tmp_path, text_folder):
    recipe = tmp_path / "small.toml"
    two = SMALL_RECIPE.replace("mix = {{ code = 1.0 }}", 'mix = {{ code = "3840", more = "1280" }}').replace(
        "tokens = 5120\n", ""
    )
    recipe.write_text(
        two.format(texts=text_folder) + f'[corpus.sources.more]\npath = "{text_folder}/01.txt"\ntype = "one file"\n'
    )
    few = run_llmctl("pretrain", recipe, "--runs", tmp_path / "runs", "--set", "pretrain.max_repetition.more=0.001")
    assert few.returncode == 2
    assert re.search(r"\[pretrain\] source 'more' has \d+ rows of 64 tokens, and the mix would pass over them", few.stderr)
    assert "(max_repetition = 0.001)" in few.stderr
    assert not list((tmp_path / "runs").glob("small/pretrain-*/model"))
    result = run_llmctl("pretrain", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    table = result.stdout.split("pretrain: mix\n")[1].splitlines()
    assert re.match(r" *code +text +[\d,]+ +\d+ +3,840 +75.0%", table[1])
    assert re.match(r" *more +one file +[\d,]+ +1 +1,280 +25.0%", table[2])
