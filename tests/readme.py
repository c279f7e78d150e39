"""The README's chapters and literal blocks, so that tests run what people copy from it."""

from __future__ import annotations

import io
import shlex
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.core import publish_doctree

README = Path(__file__).parents[1] / "README.rst"


@cache
def parsed(path: Path = README) -> tuple[nodes.document, str]:
    """The document, and what is to be complained of."""
    complaints = io.StringIO()
    settings = {
        "report_level": 1,
        "warning_stream": complaints,
        "syntax_highlight": "none",
        "file_insertion_enabled": False,
    }
    tree = publish_doctree(path.read_text(), str(path), settings_overrides=settings)
    return tree, complaints.getvalue()


def chapter(title: str) -> nodes.section:
    """A chapter, by its title."""
    tree, _ = parsed()
    (found,) = (each for each in tree.findall(nodes.section) if each[0].astext() == title)
    return found


def blocks(within: nodes.Element, language: str | None = None) -> list[str]:
    """The literal blocks of one language (None: of none), in their order."""
    return [
        block.astext() + "\n"
        for block in within.findall(nodes.literal_block)
        if block["classes"] == ([] if language is None else ["code", language])
    ]


def block(title: str, words: str, language: str | None = None) -> str:
    """The one block of a chapter that holds these words."""
    (found,) = (each for each in blocks(chapter(title), language) if words in each)
    return found


def call(title: str, words: str) -> list[str]:
    """The words after ``twist ... regguard`` of the one call in a chapter that holds these."""
    line = shlex.split(block(title, words).replace("\\\n", " "), comments=True)
    return line[line.index("regguard") + 1 :]
