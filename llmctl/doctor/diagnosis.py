"""All checks of `llmctl doctor`, in the order in which they are shown."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread

from llmctl import __version__
from llmctl.doctor import machine
from llmctl.doctor.findings import Finding, guarded, one_line, without_private
from llmctl.doctor.network import check_hub
from llmctl.doctor.packages import Package, finding_of, install_commands, is_tool, known_packages, tools_of
from llmctl.doctor.trial import BACKENDS, Tried, tried_in_children

ON_TORCH = ("torch", "transformers", "peft", "datasets", "deepspeed", "bitsandbytes", "triton", "flash-attn", "tensorboard")
"""Packages that are tried in one process: torch is imported once."""
DEVICES = ("GPU", *(f"attention: {backend}" for backend in BACKENDS))
RANKS = "two gloo ranks"
NEEDED = "attention: per_document"


@dataclass(frozen=True)
class Diagnosis:
    """What works here."""

    findings: tuple[Finding, ...]
    packages: tuple[Finding, ...]
    """Of what llmctl's metadata names."""
    install: tuple[tuple[str, str], ...] = ()
    """Commands for what is optional and not there, and what each brings."""
    tried: bool = True
    llmctl: str = __version__
    python: str = field(default_factory=platform.python_version)

    @property
    def failed(self) -> list[Finding]:
        """What every run needs and does not have."""
        return [finding for finding in (*self.findings, *self.packages) if finding.failed]


def diagnose(runs: Path, quick: bool, begun: Callable[[str], None]) -> Diagnosis:
    """Check everything; `quick` tries no package. `begun` hears what is at work."""
    packages: list[Package] = []
    findings: list[Finding] = []
    try:
        packages.extend(known_packages())
    except ImportError as error:  # of `packaging`, or of llmctl's own metadata
        findings.append(Finding("packages", "broken", one_line(error), "pip install -e . -c constraints.txt", needed=True))
    begun("disk")
    checks = {
        "Python": machine.check_python,
        "processor": machine.check_processor,
        "memory": machine.check_memory,
        "disk": partial(machine.check_disk, runs),
        "C++ compiler": machine.check_compiler,
        "variables": machine.check_variables,
    }
    findings += [finding for name, check in checks.items() for finding in guarded(name, check)]
    tried: dict[str, Tried] = {}
    at_work = [] if quick else [_trying(names, begun, tried) for names in _divided(packages)]
    hub = guarded("hub", check_hub)
    for thread in at_work:
        thread.join()
    if at_work:
        tried.setdefault(NEEDED, Tried("missing", "could not be tried"))
    findings += [_finding(name, tried[name]) for name in (*DEVICES, RANKS) if name in tried] + hub
    of_packages = [finding_of(package, tried.get(package.name)) for package in packages if not is_tool(package)]
    gpu = any(finding.name == "GPU" and finding.status != "missing" for finding in findings)
    return Diagnosis(
        tuple(map(without_private, findings)),
        tuple(map(without_private, [*of_packages, *([tools_of(packages)] if packages else [])])),
        tuple(install_commands(packages, gpu)),
        not quick,
    )


def _divided(packages: Sequence[Package]) -> tuple[list[str], list[str]]:
    """Names of trials for two processes: the one imports torch, the other starts processes that do."""
    names = [package.name for package in packages if package.installed is not None and not is_tool(package)]
    if "torch" not in names:
        return [], [name for name in names if name not in ON_TORCH]
    heavy = [name for name in ON_TORCH if name in names]
    return [heavy[0], *DEVICES, *heavy[1:]], [*(name for name in names if name not in ON_TORCH), RANKS]


def _trying(names: Sequence[str], begun: Callable[[str], None], tried: dict[str, Tried]) -> Thread:
    """Fill `tried` with an outcome of every name, in a thread of its own, which Ctrl-C does not wait for."""

    def work() -> None:
        try:
            tried.update(tried_in_children(names, begun))
        except Exception as error:  # no child could be started or read: nobody waits for what a thread raises
            for name in names:
                tried.setdefault(name, Tried("broken", one_line(error)))

    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread


def _finding(name: str, tried: Tried) -> Finding:
    return Finding(name, tried.status, tried.told, tried.remedy, needed=name == NEEDED)
