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


def _add_passwd(commands: _SubParsers) -> None:
    parser = commands.add_parser(
        "passwd",
        help="add, change, delete or verify a user of a password file",
        description="Adds the user to the password file, or changes the password, which is asked "
        "for twice on the terminal and stored as a bcrypt hash. A missing file is made, with mode "
        "640. Everything else in the file stays as it is, and a running guard takes the new "
        "version over within a second.",
        epilog="Ends with status 0, or 1 when nothing was done or the password is not right.",
    )
    parser.add_argument("file", metavar="FILE", help="the password file, such as auth/htpasswd")
    parser.add_argument("user", metavar="USER", help="the user's name")
    parser.add_argument("password", nargs="*", help=argparse.SUPPRESS)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--delete", action="store_true", help="take the user out of the file")
    instead.add_argument(
        "--verify", action="store_true", help="ask for the password and say whether it is right"
    )
    parser.add_argument(
        "--stdin",
        action="store_true",
        help="read the password from standard input, one line, and do not ask",
    )
    parser.add_argument(
        "--cost",
        type=_cost,
        metavar="N",
        help="cost of the bcrypt hash, 10 to 14 (default: 12); each step doubles the time that a "
        "log-in takes, and that a guess takes a thief of the file",
    )

    def run(words: argparse.Namespace) -> int:
        from regguard import passwd
        from regguard.auth.hashes import BCRYPT_COST

        if words.password:
            # As with "htpasswd -b". It is not repeated, as argparse would do.
            parser.error(
                "everybody on the machine can read what stands here: leave the password out to be "
                "asked for it, or use --stdin"
            )
        if words.cost and (words.delete or words.verify):
            parser.error("--cost: goes with a new password only")
        if words.stdin and words.delete:
            parser.error("--stdin: --delete needs no password")
        if words.delete:
            return passwd.delete(words.file, words.user)
        if words.verify:
            return passwd.verify(words.file, words.user, stdin=words.stdin)
        cost = words.cost or BCRYPT_COST
        return passwd.set_password(words.file, words.user, cost=cost, stdin=words.stdin)

    parser.set_defaults(run=run)


def _cost(word: str) -> int:
    # What the guard takes, and neither warns of nor refuses with --minimum-hash bcrypt.
    if word.isascii() and word.isdigit() and 10 <= int(word) <= 14:
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is no cost from 10 to 14")


def _add_check(commands: _SubParsers) -> None:
    def run(words: argparse.Namespace) -> int:
        from regguard import check

        # Prints, and ends the program.
        check.Options().parseOptions(words.words)
        return 0

    parser = commands.add_parser(
        "check",
        help="read every file that options of 'twist regguard' name, and say what was found",
        # Its words are those of twist regguard; here no word is taken for an option.
        add_help=False,
        prefix_chars="\0",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def _add_explain(commands: _SubParsers) -> None:
    def run(words: argparse.Namespace) -> int:
        from regguard import explain

        return explain.run(words.words)

    parser = commands.add_parser(
        "explain",
        help="say whether a user's request would be allowed, and by which rule",
        # As with check.
        add_help=False,
        prefix_chars="\0",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER)
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
    _add_passwd(commands)
    _add_check(commands)
    _add_explain(commands)
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
