"""Define what every template is: a callable that returns text with placeholders, and their defaults."""

from __future__ import annotations

from typing import Any, Callable, Dict, Protocol, Tuple, Union

__all__ = ["QCGPJTemplate", "TemplateLike", "read"]

TemplateResult = Union[str, Tuple[str, Dict[str, Any]]]


class QCGPJTemplate:
    """The base of template classes: override `template`.

    The class, an object of it, or its ``template`` function can each be given to ``QCGPJExecutor.submit``.
    """

    @staticmethod
    def template() -> Tuple[str, Dict[str, Any]]:
        """Return the text of a job description with ``${placeholders}``, and the defaults for some of them."""
        raise NotImplementedError("a template class must define template(), which returns (text, defaults)")


class HasTemplate(Protocol):
    """A class or an object with a ``template`` function of no arguments."""

    @property
    def template(self) -> Callable[[], TemplateResult]:
        """Return the text of a description, or the text and defaults."""


_FOR_FUNCTIONS = "to call a function with its arguments, use executor.functions().submit(...)"

TemplateLike = Union[Callable[[], TemplateResult], HasTemplate]


def read(template: Any) -> Tuple[str, Dict[str, Any]]:
    """Return the text and the defaults of anything that `submit` takes for a template.

    Raises:
        TypeError: `template` is no template, or returns something else than text and defaults.
    """
    function = getattr(template, "template", template)
    if not callable(function):
        raise TypeError(
            f"submit() takes a template, that is a callable that returns the text of a job description, or an object "
            f"with such a 'template' function; got {template!r}"
        )
    try:
        result = function()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # it is the template's own
        raise TypeError(f"a template is called without arguments: {error}; {_FOR_FUNCTIONS}") from None
    text, defaults = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(text, str) or not (defaults is None or isinstance(defaults, dict)):
        raise TypeError(
            f"the template {template!r} returned {type(result).__name__}; it must return the text of a job "
            f"description, or (text, dictionary of defaults); {_FOR_FUNCTIONS}"
        )
    return text, defaults or {}
