"""Puts the examples of docstrings into code blocks, for mkdocstrings: `>>>` alone is a quotation in Markdown."""

from typing import Any

from griffe import Extension, Object


def fenced(text: str) -> str:
    """The docstring with each run of lines from `>>>` to an empty line as a block of Python console."""
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        if not inside and line.lstrip().startswith(">>>"):
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append(f"{indent}```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, f"{indent}```"] if inside else lines)


class FenceDoctests(Extension):
    """Found by mkdocstrings through its option `extensions`."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
