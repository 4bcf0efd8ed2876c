"""Runs a page of the documentation, as a reader would who copies each block in turn into an empty directory.

``python tests/pages/page.py docs/functions.md [--slurm]``

===========  ===========================================================================================
``python``   is run, in one namespace for all of the page
``console``  what follows ``$ `` is run by bash, and has to print the lines that follow it
``text``     is there to be looked at
===========  ===========================================================================================

A comment before a block, which no reader sees, says more::

    <!-- file: study.py -->     is saved by that name; blocks in other languages are for nothing else
    <!-- output -->             a text that the last Python block has to have printed
    <!-- output varies -->      what is printed now need not be what stands there
    <!-- exit code: 1 -->       of the last command
    <!-- run first: command --> what is not worth the reader's time
    <!-- needs: Slurm -->       is run with ``--slurm`` only, where a cluster is
    <!-- not run: reason -->    the reader cannot run it here either

In what is printed ``...`` stands for anything, and the current directory is called ``/home/me``.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib.metadata
import io
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from markdown_it import MarkdownIt

_REMARK = re.compile(r"<!--\s*(file|output varies|output|exit code|needs|run first|not run)(?::\s*(.*?))?\s*-->")
_EXTRAS = re.compile(r"qcg-pilotjob-executor-api\[([^]]*)\]")


class PageError(Exception):
    """A block does not do what the page says."""


class Block:
    """A block of code, with what is said of it."""

    def __init__(self, text: str, language: str, line: int, remarks: Dict[str, str]) -> None:
        self.text = text
        self.language = language
        self.line = line
        self.remarks = remarks


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page that are in fences."""
    remarks: Dict[str, str] = {}
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block":
            found = _REMARK.findall(token.content)
            if not found and "page needs:" not in token.content:
                raise PageError(f"{page}: {token.content.strip()} is no remark on a block")
            remarks.update(found)
        elif token.type == "fence" and not token.info.startswith("{"):  # a directive of the site's
            yield Block(token.content, token.info, (token.map or [0])[0] + 1, remarks)
            remarks = {}


class Reader:
    """Does what a page says, in the current directory."""

    def __init__(self, page: Path, *, has_slurm: bool) -> None:
        self._page = page
        self._has_slurm = has_slurm
        self._main = types.ModuleType("__main__")
        self._printed = ""
        sys.modules["__main__"] = self._main  # where whoever pickles a function looks for it

    def run(self) -> None:
        """Run all blocks.

        Raises:
            PageError: one does not do what is said of it.
        """
        for block in blocks(self._page):
            try:
                self._run(block)
            except PageError as error:
                raise PageError(f"{self._page}:{block.line}: {error}") from error

    def _is_to_run(self, block: Block) -> bool:
        if "needs" in block.remarks and block.remarks["needs"] != "Slurm":
            raise PageError(f"it needs {block.remarks['needs']!r}; only Slurm is known")
        if block.remarks.get("not run") == "":
            raise PageError("why is it not run?")
        return "not run" not in block.remarks and ("needs" not in block.remarks or self._has_slurm)

    def _run(self, block: Block) -> None:
        if not self._is_to_run(block):
            return
        if "run first" in block.remarks:
            subprocess.run(["bash", "-c", block.remarks["run first"]], check=True)
        if "file" in block.remarks:
            path = Path(block.remarks["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "python":
            self._python(block)
        elif block.language == "console":
            _console(block)
        elif block.language != "text":
            raise PageError(f"a block in {block.language!r} that is no file")
        elif "output" in block.remarks:
            _compare(block.text, self._printed)

    def _python(self, block: Block) -> None:
        source = "\n" * block.line + block.text
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(self._page), "exec"), self._main.__dict__)  # what it is for
        self._printed = printed.getvalue()


def _console(block: Block) -> None:
    commands = list(_commands(block.text))
    for place, (command, expected) in enumerate(commands):
        if command.startswith("pip install "):
            _check_extras(command)
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        wanted = int(block.remarks.get("exit code", "0")) if place == len(commands) - 1 else 0
        if done.returncode != wanted:
            raise PageError(f"{command}: exit code {done.returncode}\n{done.stdout}")
        if "output varies" not in block.remarks:
            _compare(expected, done.stdout)


def _commands(text: str) -> Iterator[Tuple[str, str]]:
    """Yield each command with what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines: List[str] = part.splitlines(keepends=True)
        count = 1
        while lines[count - 1].endswith("\\\n"):
            count += 1
        command = re.sub(r"\s+# .*", "", "".join(lines[:count])).strip()
        yield command, "".join(lines[count:])


def _compare(expected: str, printed: str) -> None:
    printed = printed.replace(str(Path.cwd()), "/home/me")
    checker = doctest.OutputChecker()
    if not checker.check_output(expected, printed, doctest.ELLIPSIS):
        raise PageError(checker.output_difference(doctest.Example("", expected), printed, doctest.ELLIPSIS))


def _check_extras(command: str) -> None:
    known = importlib.metadata.metadata("qcg-pilotjob-executor-api").get_all("Provides-Extra") or []
    for match in _EXTRAS.finditer(command):
        for extra in match.group(1).split(","):
            if extra not in known:
                raise PageError(f"{command}: there is no extra {extra!r}")


if __name__ == "__main__":
    Reader(Path(sys.argv[1]), has_slurm="--slurm" in sys.argv).run()
