"""The list of what can be asked."""

from llmctl import events
from llmctl.suites import catalog
from llmctl.suites.olmes_package import INSTALL, find_package
from llmctl.views.tables import print_table


def show_tasks() -> None:
    """Every suite and task with a line about it."""
    print_table(events.Table("suites and tasks", ("name", "what is asked"), tuple(catalog.known().items())))
    if find_package() is None:
        print(f"those of OLMES come with a package that is not installed: {INSTALL}")
    print(f"beside these: {catalog.HARNESS}TASK, any task of lm-evaluation-harness, and own ones from FILE.toml or FILE.jsonl")
