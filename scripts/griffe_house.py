"""House style of docstrings for mkdocstrings (mkdocs.yml names this file): what Markdown and Google's sections
do not know."""

from __future__ import annotations

import re
from typing import Any

import griffe

# "scale, shift: ``[b, g, d]``" describes two names in one line; the parser takes the second for a type.
_JOINT = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+)(?=: )", re.MULTILINE)


class House(griffe.Extension):
    """Names that share a line stay together; ``MODEL.md`` leads to the page of sources."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for every object that was read; changes its docstring's text."""
        if obj.docstring is not None:
            text = _JOINT.sub(
                lambda m: m[1] + m[2].replace(", ", ",\N{NO-BREAK SPACE}"), obj.docstring.value
            )
            obj.docstring.value = text.replace("MODEL.md", "[MODEL.md][sources]")
