"""What is found without trying packages, and trials that crash or hang."""

import json
import os

import pytest
from helpers import in_process

from llmctl.doctor.diagnosis import diagnose
from llmctl.doctor.findings import Finding, guarded, public
from llmctl.doctor.machine import check_compiler
from llmctl.doctor.network import check_hub
from llmctl.doctor.trial import tried_in_children


@pytest.fixture
def broken_packages(tmp_path, monkeypatch):
    """Packages that crash the process, hang, leave, and are well."""
    bodies = {
        "crashes": "import os\nos.abort()",
        "hangs": "import time\ntime.sleep(600)",
        "leaves": "raise SystemExit(3)",
        "well": "",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def test_a_trial_that_crashes_or_hangs_is_told_of_and_the_next_ones_go_on(broken_packages):
    begun: list[str] = []
    names = ["crashes", "hangs", "leaves", "well"]
    found = dict(tried_in_children(names, begun.append, patience=8.0))
    assert begun == names
    assert found["crashes"].status == "broken"
    assert "SIGABRT" in found["crashes"].told
    assert (found["hangs"].status, found["hangs"].told) == ("broken", "no end after 8 s")
    assert (found["leaves"].status, found["leaves"].told) == ("broken", "SystemExit: 3")
    assert (found["well"].status, found["well"].told) == ("ok", "imports")


def test_what_ends_the_trials_themselves_is_no_readiness(tmp_path):
    def begun(name: str) -> None:
        if name != "disk":
            raise OSError("no more processes")

    found = diagnose(tmp_path, quick=False, begun=begun)
    broken = {finding.name: finding.told for finding in found.failed}
    assert {"torch", "numpy", "attention: per_document"} <= set(broken)
    assert broken["torch"] == "OSError: no more processes"


def test_an_endpoint_that_is_no_address_is_told_without_its_password(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for address in ("https://hub.example:44x", "https://me:password@hub.example:44x", "me:password@hub.example"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        (hub,) = check_hub()
        assert hub.status == "warning"
        assert "hub.example" in hub.told
        assert "cannot be reached: " in hub.told
        assert "password" not in hub.told


def test_a_compiler_may_be_called_by_another_program(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "cpp").write_text('#!/bin/sh\necho "a compiler 1.0"\n')
    for name in ("cache", "cpp"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CXX", "cache cpp")
    (compiler,) = check_compiler()
    assert (compiler.status, compiler.told) == ("ok", "a compiler 1.0")


def test_a_check_that_raises_is_a_finding():
    def check():
        yield Finding("first", "ok", "")
        raise OSError("no such thing\nand more")

    (finding,) = guarded("thing", check)
    assert (finding.name, finding.status, finding.told) == ("thing", "broken", "OSError: no such thing")


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("http://me:password@proxy:8080", "http://proxy:8080"),
        ("me:password@proxy:8080", "proxy:8080"),
        ("http://me:pass/password@proxy", "http://proxy"),
        ("http://me:pass#password@proxy", "http://proxy"),
        ("http://me:p@password@proxy", "http://proxy"),
    ],
)
def test_secrets_and_the_home_folder_stay_out(monkeypatch, tmp_path, proxy, told):
    home = tmp_path / "someone"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("HF_HOME", str(home / "hub"))
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    run = in_process("doctor", "--quick", "--json")
    for private in ("hf_very_secret", "someone", "password"):
        assert private not in run.stdout
    (variables,) = [one["told"] for one in json.loads(run.stdout)["findings"] if one["name"] == "variables"]
    assert "HF_TOKEN=(set)" in variables
    assert "HF_HOME=~/hub" in variables
    assert f"HTTPS_PROXY={told}" in variables.split(", ")
    assert public(f"{home}where/else") == f"{home}where/else"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    run = in_process("doctor", "--quick", "--runs", "/proc/runs")
    assert run.returncode == 1
    assert "nothing can be written to /proc/runs" in run.stdout
    assert "to do: disk: --runs FOLDER" in run.stdout
    assert "NOT READY" in run.stdout.splitlines()[-1]


@pytest.mark.parametrize("columns", ["20", "80"])
def test_it_fits_a_screen(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    lines = in_process("doctor", "--quick").stdout.splitlines()
    commands = [line for line in lines if "pip install" in line]
    assert max(len(line) for line in lines if line not in commands) <= int(columns) + (20 if columns == "20" else 0)
    if columns == "80":
        assert len(lines) <= 45
