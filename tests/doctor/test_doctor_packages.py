"""Every package that is asked for is tried; a broken one and a silent hub are told."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY, in_process, run_llmctl

from llmctl.doctor.diagnosis import Diagnosis
from llmctl.doctor.packages import finding_of, known_packages
from llmctl.doctor.trial import tried_in_children
from llmctl.views.doctor import show_diagnosis


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


def test_a_broken_package_is_told(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "jinja2.py").write_text('raise ImportError("its library is for another processor")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("COLUMNS", "200")
    ((name, tried),) = tried_in_children(["jinja2"], lambda name: None)
    (package,) = [package for package in known_packages() if package.name == name]
    show_diagnosis(Diagnosis((), (finding_of(package, tried),)), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("broken") and "ImportError: its library is for another processor" in line for line in lines)
    assert any(re.search(r"to do: jinja2: pip install --force-reinstall --no-deps \"jinja2>=", line) for line in lines)
    assert lines[-1] == "NOT READY: every run needs what does not work here: jinja2"


def test_a_silent_hub_is_told(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "200")
    lines = in_process("doctor", "--quick").stdout.splitlines()
    assert any(line.startswith("warning") and "http://127.0.0.1:9 cannot be reached" in line for line in lines)
