"""Whether the trackers that a recipe names can be had."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.execution_schema import TrackingTable


def wandb_mode(table: TrackingTable) -> str:
    return "online" if table.online else os.environ.get("WANDB_MODE") or "offline"


def require_trackers(table: TrackingTable) -> None:
    """Raises:
    UserError: a tracker is not installed, or W&B is to be sent to and knows no key.
    """
    missing = [name for name in table.to if find_spec(name) is None]
    if missing:
        extras = " ".join(f"'llmctl[{name}]'" for name in missing)
        raise UserError(f"tracking.to: {' and '.join(missing)} not installed: pip install {extras}")
    if "wandb" in table.to and wandb_mode(table) == "online":
        require_key()


def require_key() -> None:
    """Ask for W&B's key, where there is a terminal and none is known: later a panel would hide the question.

    Raises:
        UserError: there is none.
    """
    wandb: Any = import_module("wandb")
    try:
        known = wandb.login(verify=False)
    except wandb.errors.Error as error:
        raise UserError(f"tracking.online = true: {error}; or leave online out and send it later with `wandb sync`") from None
    if not known:
        raise UserError("tracking.online = true: W&B knows no key; `wandb login` takes one, or set WANDB_API_KEY")
