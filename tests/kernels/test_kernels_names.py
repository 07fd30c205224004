"""The name `kernels` is another package's, which `transformers` imports when it finds it."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def python(code: str, *path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_in_the_repository_that_package_is_found_and_ours_does_not_hide_it(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("theirs = True\n")
    code = "import kernels, transformers.models.olmo3.modeling_olmo3, llmctl_kernels; print(kernels.theirs)"
    assert python(code, REPOSITORY, tmp_path) == "True"


def test_naming_the_kernels_imports_neither_torch_nor_triton():
    code = "import sys, llmctl_kernels.names; print([name for name in ('torch', 'triton') if name in sys.modules])"
    assert python(code) == "[]"
