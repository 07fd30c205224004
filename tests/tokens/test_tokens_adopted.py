"""Token ids that others have written are trained on as they are, or it is said why not."""

import gzip

import numpy as np
import pytest
from helpers import SMALL_RECIPE, run_llmctl

from llmctl.errors import UserError
from llmctl.tokens.adopted_shards import adopt_shards
from llmctl.tokens.shards import TokenShards
from llmctl.tokens.text_shards import TextShards


@pytest.fixture
def written(tmp_path, tokenizer_folder, texts):
    """A folder of two files of ids, as dolma has them."""
    documents = [(f"d{n}", text, "own") for n, text in enumerate(texts[:20])]
    size = sum(len(text.encode()) for text in texts[:20])
    TextShards(str(tokenizer_folder), tmp_path / "written", part_bytes=size // 2 + 1).write(lambda: documents, size)
    for name in ("meta.json", "offsets.npy"):
        (tmp_path / "written" / name).rename(tmp_path / name)
    return tmp_path / "written"


@pytest.mark.parametrize("with_rows", [True, False])
def test_documents_are_those_of_the_rows_or_end_with_the_end_of_text(tmp_path, written, tokenizer, with_rows):
    offsets = np.load(tmp_path / "offsets.npy")
    if not with_rows:
        for file in written.glob("*.csv.gz"):
            file.unlink()
    adopt_shards(written, tokenizer, tmp_path / "own")
    shards = TokenShards(tmp_path / "own")
    assert len(shards.parts) == 2
    assert shards.offsets.tolist() == offsets.tolist()
    ids = np.concatenate([np.fromfile(file, np.uint16) for file in sorted(written.glob("*.npy"))])
    assert shards.stream[0 : shards.tokens].tolist() == ids.tolist()


def test_ids_that_are_not_the_tokenizers_are_told(tmp_path, written, tokenizer):
    file = sorted(written.glob("*.npy"))[1]
    np.array([1, 2, 60_000], np.uint16).tofile(file)
    with pytest.raises(UserError, match=r"part-00001.npy: token 60,000 as uint16, and the tokenizer has 512"):
        adopt_shards(written, tokenizer, tmp_path / "own")
    file.write_bytes(b"abc")
    with pytest.raises(UserError, match="3 bytes are no whole number of uint16 ids"):
        adopt_shards(written, tokenizer, tmp_path / "own")
    assert not (tmp_path / "own").exists()
    with pytest.raises(UserError, match=r"no .npy or .bin file of token ids"):
        adopt_shards(tmp_path / "nothing", tokenizer, tmp_path / "own")


@pytest.mark.parametrize("row", ["0,9999999,d,own,0", "5,9,d,own,0", "start,end"])
def test_rows_that_do_not_fit_are_told(tmp_path, written, tokenizer, row):
    rows = sorted(written.glob("*.csv.gz"))[0]
    rows.write_bytes(gzip.compress(row.encode()))
    with pytest.raises(UserError, match=r"part-00000.csv.gz:1: "):
        adopt_shards(written, tokenizer, tmp_path / "own")


def test_a_stage_trains_on_them(tmp_path, written, tokenizer_folder, text_folder):
    recipe = tmp_path / "own.toml"
    text = SMALL_RECIPE.format(texts=text_folder).replace(
        "vocab_size = 512\ntrain_bytes = 300000", f'path = "{tokenizer_folder}"'
    )
    text = text.replace("mix = { code = 1.0 }", "mix = { ids = 0.75, code = 0.25 }").replace("tokens = 5120", "tokens = 1024")
    recipe.write_text(text + f'[corpus.sources.ids]\npath = "{written}"\nkind = "tokens"\n')
    result = run_llmctl("pretrain", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    assert "ids" in result.stdout.split("training tokens")[1]
    assert "75.0%" in result.stdout
