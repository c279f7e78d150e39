"""The ``regguard`` command.

The daemon itself is ``twist regguard``; this command holds what stands around it.  Each
sub-command is one function that adds its words to the parser and names what runs it, and its
room is imported only when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from regguard import __version__

if TYPE_CHECKING:
    _SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_Run = Callable[[argparse.Namespace], int]


def _port(word: str) -> int:
    if word.isascii() and word.isdigit() and int(word) < 65536:
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is no port number (0 to 65535; 0: any free one)")


def _add_demo(commands: _SubParsers) -> None:
    def run(words: argparse.Namespace) -> int:
        from regguard import demo

        return demo.smoke_test() if words.smoke else demo.serve(words.port)

    parser = commands.add_parser(
        "demo",
        help="a guarded registry on this machine, with lines to try",
        description="Makes a throw-away folder with a certificate for localhost, two users and a "
        "registry, starts the registry with regguard in front of it, and prints lines to try. "
        "Ctrl-C stops both and removes the folder.",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=5043,
        metavar="N",
        help="where the guard listens on localhost (default: 5043; 0: any free port)",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="on a free port: push and pull an image, show a refused push, and exit 0 or 1",
    )
    parser.set_defaults(run=run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regguard",
        description="What stands around regguard, the guard in front of a container registry.",
        epilog="The guard itself runs as 'twist regguard'; see 'twist regguard --help'.",
    )
    parser.add_argument("--version", action="version", version=f"regguard {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named in ``argv`` (default: the process's own words); return its status."""
    words = _parser().parse_args(argv)
    run: _Run = words.run
    try:
        return run(words)
    except BrokenPipeError:
        # The reader of our output went away (``regguard demo | head``). What is still
        # buffered has nowhere to go, and the interpreter shall not try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
