"""What the tables of the schema are built from."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Of runs and stages: they name folders."""

Rate = Annotated[float, Field(ge=0, lt=1)]

Share = Annotated[float, Field(ge=0, le=1)]


def expanded(place: Any) -> Any:
    """A path with its `~` written out; one of a home folder that there is not stays as it is."""
    return str(Path(os.path.expanduser(place))) if isinstance(place, str) and place.startswith("~") else place


Place = Annotated[str, BeforeValidator(expanded)]

BUILTIN, HUB = "builtin:", "hf:"


def is_address(place: str) -> bool:
    """Whether a place is in an object store or on the web: s3://, gs://, az://, hf://, https://."""
    return re.match(r"[a-z][a-z0-9]*://", place) is not None


def is_path(place: str) -> bool:
    """Whether a place is a file or folder of this machine."""
    return not is_address(place) and not place.startswith((BUILTIN, HUB))


def execution(default: Any, **constraints: Any) -> Any:
    """A field that does not change the outcome."""
    return Field(default=default, json_schema_extra={"role": "execution"}, **constraints)


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, populate_by_name=True, frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """A key that a table gives a default of its own keeps the meaning it has in the table above."""
        for name, info in cls.model_fields.items():
            for base in cls.__mro__[1:]:
                if info.description is None and issubclass(base, BaseModel) and name in base.model_fields:
                    info.description = base.model_fields[name].description
