"""What is installed, and that it works from any folder."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

from regguard import __version__, check
from regguard.configuration import Configuration
from regguard.options import Options
from tests.certificates import Authority

ROOT = Path(__file__).parent.parent
SOURCES = ["README.rst", "CHANGELOG.rst", "LICENSE", "MANIFEST.in", "setup.cfg", "setup.py"]
SOURCES += ["pyproject.toml", "regguard", "twisted"]
PLUGIN = "twisted/plugins/regguard_plugin.py"


def run(*words: str | Path, folder: Path) -> str:
    """Run a program in ``folder``, away from this checkout; return what it printed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a package is built from, so that no build leaves traces in the checkout."""
    copy = tmp_path_factory.mktemp("sources")
    ignore = shutil.ignore_patterns("__pycache__", "dropin.cache*")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from these sources."""
    out = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out, sources)
    run(sys.executable, "-m", "pip", *build, folder=out)
    (path,) = out.iterdir()
    return path


def environment(folder: Path, *install: str | Path) -> Path:
    """A new environment with regguard installed in this way; its Python.

    What regguard depends on is lent by the environment that runs the tests.  A path in a .pth
    file lends packages only: the .pth files there, an editable regguard's among them, don't count.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, *words, *install, folder=folder)
    return python


@pytest.mark.parametrize("way", ["wheel", "editable"])
def test_both_commands_work_from_any_folder(
    way: str, wheel: Path, sources: Path, tmp_path: Path
) -> None:
    """Installed as a wheel or editable: ``twist regguard`` and ``regguard`` are there."""
    install = [wheel] if way == "wheel" else ["--editable", sources]
    python = environment(tmp_path / "environment", *install)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    where = run(python, "-c", "import regguard; print(regguard.__file__)", folder=elsewhere)
    assert where.startswith(str(sources if way == "editable" else tmp_path))
    assert "--tls-cert" in run(python, "-m", "twisted", "regguard", "--help", folder=elsewhere)
    assert "demo" in run(python.with_name("regguard"), "--help", folder=elsewhere)
    version = run(python.with_name("regguard"), "--version", folder=elsewhere)
    assert version == f"regguard {__version__}\n"


def test_wheel_holds_the_whole_house_and_nothing_else(wheel: Path) -> None:
    """Every module, the type marker and the plugin; no tests, no ``twisted/__init__.py``."""
    house = {path.relative_to(ROOT).as_posix() for path in (ROOT / "regguard").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert held == {*house, "regguard/py.typed", PLUGIN}


def test_plugin_is_found_and_provides_what_it_says() -> None:
    """``twist`` lists it by this name."""
    (maker,) = (found for found in getPlugins(IServiceMaker) if found.tapname == "regguard")

    assert verifyObject(IServiceMaker, maker)


def test_plugin_is_import_light(tmp_path: Path) -> None:
    """Every ``twist`` program on the machine imports it: it brings none of the daemon along."""
    loaded = run(
        sys.executable,
        "-c",
        "import sys; import twisted.application.service as _; before = set(sys.modules)\n"
        "import twisted.plugins.regguard_plugin\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')",
        folder=tmp_path,
    ).split()

    assert "twisted.plugins.regguard_plugin" in loaded
    heavy = (
        "OpenSSL",
        "bcrypt",
        "cryptography",
        "httptools",
        "passlib",
        "twisted.internet.reactor",
    )
    daemon = ("front", "guard", "options", "relay", "service", "transport", "http1", "ops")
    for name in (*heavy, *(f"regguard.{room}" for room in daemon)):
        assert name not in loaded


def unit(name: str) -> configparser.ConfigParser:
    """A unit of ours; of what is said several times the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ROOT / "systemd" / name)
    return parser


def test_i15_f01_unit_waits_for_the_drain_and_leaves_no_core() -> None:
    """Nor does systemd forbid what pyOpenSSL needs."""
    service = unit("regguard.service")["Service"]

    # --drain-timeout is 900 s unless told otherwise.
    assert int(service["TimeoutStopSec"]) > 900
    assert service["KillMode"] == "mixed"
    assert "--log-format=text regguard --config " in service["ExecStart"]
    assert service["LimitCORE"] == "0"
    # pyOpenSSL's callbacks need a writable, executable page.
    assert "MemoryDenyWriteExecute" not in service


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Our units in a folder of their own; the programs that they start are on this machine."""
    for name in ("regguard.service", "regguard.socket"):
        text = (ROOT / "systemd" / name).read_text()
        text = re.sub(r"/usr/lib/regguard/bin/\w+", sys.executable, text)
        (tmp_path / name).write_text(text.replace("/bin/kill", sys.executable))
    return tmp_path


def test_units_are_what_systemd_takes(units: Path) -> None:
    """Without a word from ``systemd-analyze verify``."""
    words = ("systemd-analyze", "verify", "--man=no", "./regguard.service", "./regguard.socket")
    done = subprocess.run(words, cwd=units, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("drop_in", "most"), [(None, 10), ("unix-upstream.conf", 2)])
def test_unit_exposes_next_to_nothing(units: Path, drop_in: str | None, most: int) -> None:
    """By systemd's own score, in tenths; with the registry on a UNIX socket still less."""
    if drop_in is not None:
        folder = units / "regguard.service.d"
        folder.mkdir()
        shutil.copy(ROOT / "systemd" / drop_in, folder)

    words = ("--no-pager", "security", "--offline=yes", f"--threshold={most}")
    shown = run("systemd-analyze", *words, "./regguard.service", folder=units)

    assert "Overall exposure level for regguard.service" in shown


def test_unit_leaves_what_metrics_of_the_process_are_made_of() -> None:
    """prometheus-client tells nothing of a process that cannot read /proc/stat."""
    assert unit("regguard.service")["Service"].get("ProcSubset", "all") == "all"


def test_socket_leaves_room_for_who_waits() -> None:
    """As many as a burst brings while the daemon restarts."""
    assert unit("regguard.socket")["Socket"]["Backlog"] == "4096"


EXAMPLE = ROOT / "systemd" / "regguard.toml"
AT_START = {"help", "help-auth", "help-auth-type", "version"}
ON_THE_COMMAND_LINE = {"config", "check"}


def known_options() -> set[str]:
    """Every option of ``twist regguard``."""
    return {word.rstrip("=") for word in Options().longOpt} - AT_START


def test_example_passes_the_check(tmp_path: Path) -> None:
    """As it is shipped, once certificate and password file are there."""
    Authority().issue("registry.example.com").write(tmp_path)
    (tmp_path / "htpasswd").write_text("# nobody yet\n")
    config = tmp_path / "regguard.toml"
    config.write_text(EXAMPLE.read_text().replace("/etc/regguard/", f"{tmp_path}/"))

    with pytest.raises(SystemExit) as ended:
        check.Options().parseOptions(["--config", str(config)])

    assert ended.value.code == 0


def test_example_names_every_option_and_no_other() -> None:
    """Each as a key with a value that TOML takes, in force or behind a hash."""
    text = re.sub(r"^# (?=[a-z-]+ = |\[\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    text, _, rule = text.partition("[[repository]]")
    keys = re.findall(r"^([a-z-]+) = ", text, re.MULTILINE)
    # One that is said twice shows two ways.
    for line in re.findall(r"^[a-z-]+ = .*", text, re.MULTILINE):
        Configuration(f"{line}\n".encode(), "example")

    assert set(keys) == known_options() - ON_THE_COMMAND_LINE
    assert Configuration(f"[[repository]]{rule}".encode(), "example").rules()


def test_manual_page_has_every_option_and_no_other() -> None:
    """The one of the package."""
    page = (ROOT / "debian" / "regguard.8.rst").read_text()

    assert set(re.findall(r"^(?:-\w .*)?--([a-z][a-z-]+)", page, re.MULTILINE)) == known_options()


def test_package_is_of_this_version() -> None:
    """The changelog's last entry and the manual page say so."""
    entry = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    page = (ROOT / "debian" / "regguard.8.rst").read_text()

    assert entry.startswith(f"regguard ({__version__}) ")
    assert f"\n:Version: {__version__}\n" in page


def test_containers_wait_for_the_drain_and_copy_no_keys() -> None:
    """``docker compose down`` gives as long as systemd; an image holds what runs, by name."""
    compose = (ROOT / "compose.yaml").read_text()
    (grace,) = re.findall(r"stop_grace_period: (\d+)s\n", compose)
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert int(grace) > 900
    assert {word for line in copied for word in line.split()} == {*SOURCES} - {"MANIFEST.in"}


def test_readme_has_every_option_and_no_other() -> None:
    """The options table is what people start from."""
    table = (ROOT / "README.rst").read_text().partition("\nOptions\n")[2].partition("WHO`` is")[0]
    named = set(re.findall(r"^``(?:-\w``, ``)?--([a-z-]+)", table, re.MULTILINE))

    assert named == known_options()
