"""House style of docstrings for mkdocstrings (mkdocs.yml names this file)."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ATTRIBUTES = re.compile(r"^Attributes:\n(?:(?: .*)?(?:\n|\Z))+", re.MULTILINE)
# "lower, upper: limits" describes two names in one line.
_NAMES = re.compile(r"^    ([\w*]+(?:, [\w*]+)*)(?=: )", re.MULTILINE)
# A session at the prompt, up to the next empty line, which Markdown takes for a quotation.
_SESSION = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class House(griffe.Extension):
    """Names that share a line stay together, sessions are code, ``MODEL.md`` leads to its page."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object once it was read; changes its docstring's text."""
        if obj.docstring is not None:
            text = _SESSION.sub(lambda m: f"```pycon\n{m[0]}\n```", obj.docstring.value)
            obj.docstring.value = text.replace("MODEL.md", "[MODEL.md][sources]")

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called for a class once its members were read.

        The parser would take the second of joint names for a type, and give a name whose type it does
        not find that of the line above: both get an empty type.
        """

        def named(match: re.Match[str]) -> str:
            alone = match[1] in cls.members
            return match[0] if alone else f"    {match[1].replace(', ', f',{chr(0xA0)}')} ()"

        if cls.docstring is not None:
            text = cls.docstring.value
            cls.docstring.value = _ATTRIBUTES.sub(lambda m: _NAMES.sub(named, m[0]), text)
