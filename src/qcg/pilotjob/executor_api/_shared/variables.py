"""The variables of the core in descriptions: ``${name}``, with ``$$`` for the character itself."""

from __future__ import annotations

from string import Template
from typing import Any, Mapping

__all__ = ["replaced"]


def replaced(value: Any, variables: Mapping[str, str]) -> Any:
    """Return a copy of `value` with the variables replaced in all its texts.

    In what was parsed, text by text: the core pastes into JSON, where a quote or a backslash in a value does damage
    (mends C14), and which takes longer than all else that is done with a submission.
    """
    if isinstance(value, str):
        return Template(value).safe_substitute(variables) if "$" in value else value
    if isinstance(value, dict):
        return {replaced(key, variables): replaced(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, variables) for item in value]
    return value
