"""Every package that is asked for is tried; a broken one and a silent hub are told."""

import json
import os
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY, run_llmctl


def asked_for() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return {re.split(r"[>=<\[; ]", line)[0] for line in project["dependencies"]}


@pytest.fixture(scope="module")
def healthy() -> dict[str, Any]:
    run = run_llmctl("doctor", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def by_name(findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in findings}


def test_every_dependency_is_tried_and_works(healthy):
    packages = by_name(healthy["packages"])
    assert asked_for() <= set(packages)
    assert {packages[name]["status"] for name in asked_for()} == {"ok"}
    assert all(packages[name]["version"] and packages[name]["needed"] for name in asked_for())


def test_attention_a_step_of_deepspeed_and_two_ranks_work(healthy):
    findings = by_name(healthy["findings"])
    assert findings["attention: per_document"]["status"] == "ok"
    assert "forward and backward" in findings["attention: per_document"]["told"]
    assert findings["two gloo ranks"]["status"] == "ok"
    assert "ZeRO" in by_name(healthy["packages"])["deepspeed"]["told"]
    assert healthy["works"] is True


def test_a_broken_package_and_no_network_are_told(tmp_path: Path):
    (tmp_path / "peft.py").write_text('raise ImportError("its library is for another torch")\n')
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    started = time.monotonic()
    run = run_llmctl("doctor", env=environment | {"PYTHONPATH": path, "HF_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "200"})
    assert run.returncode == 1, run.stdout + run.stderr
    assert time.monotonic() - started < 300
    lines = run.stdout.splitlines()
    assert any(line.startswith("broken") and "ImportError: its library is for another torch" in line for line in lines)
    assert any(re.search(r"to do: peft: pip install --force-reinstall --no-deps \"peft>=", line) for line in lines)
    assert any(line.startswith("warning") and "http://127.0.0.1:9 cannot be reached" in line for line in lines)
    assert lines[-1] == "NOT READY: every run needs what does not work here: peft"
