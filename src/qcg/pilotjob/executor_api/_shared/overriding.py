"""The mark of a method that overrides another one, without the 9 ms that `typing_extensions` takes to be imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["override"]

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method: Any) -> Any:
        """Return `method`: the mark is for whoever checks types."""
        return method
