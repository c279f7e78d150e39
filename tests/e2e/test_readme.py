"""What the README tells people to copy is run as it stands there: recipes, balancers, certificates.

Ports, folders and host names become those of the test; all other words are the README's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from regguard.demo.image import random_image
from tests.e2e.clients import Skopeo, curl
from tests.e2e.programs import (
    FAULTS,
    PATIENCE,
    Ground,
    Guard,
    Program,
    Registry,
    StartGuard,
    accepts,
    binary,
    free_port,
    twist,
)
from tests.readme import block, call


@dataclass(frozen=True)
class Front:
    """What clients see: a port of this machine, and who is let in."""

    ground: Ground
    port: int

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}"


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs in a folder, waits for their port, and stops them at the end."""
    started: list[Program] = []

    def start(argv: list[str], port: int, folder: Path = tmp_path) -> Program:
        program = Program(argv, tmp_path / f"program-{len(started)}.log", folder)
        started.append(program)
        program.wait_until(f"{argv[0]} to listen", lambda: accepts(port))
        return program

    yield start
    for program in started:
        program.stop()
        assert not FAULTS.search(program.output()), program.output()


def copy_an_image(front: Front, folder: Path, pusher: str, reader: str) -> None:
    """Push one as the one, and pull it as the other."""
    random_image((1_000, 2_000_000)).write_layout(folder / "image", "v1")
    skopeo = Skopeo(cast(Guard, front), folder)
    assert not skopeo.push(folder / "image", "v1", "readme/app:v1", pusher)
    assert not skopeo.pull("readme/app:v1", folder / "back", "v1", reader)


# -- the recipes -----------------------------------------------------------------------------------


def recipe_folder(ground: Ground, folder: Path, htpasswd: str, *hash_option: str) -> None:
    """``auth`` as a recipe leaves it, its password file made by Apache's own program."""
    auth = folder / "auth"
    auth.mkdir()
    for name in ("domain.crt", "domain.key"):
        (auth / name).write_bytes((ground.folder / name).read_bytes())
        (auth / name).chmod(0o600)
    with (auth / htpasswd).open("w") as file:
        for user, password in (ground.reader, ground.pusher):
            words = [binary("htpasswd"), "-in", *hash_option, user]
            subprocess.run(words, input=password, text=True, stdout=file, check=True)
    (auth / "httpd.groups").write_text("pusher: testuserpush\n")


@pytest.mark.parametrize("relative", ["true", "false"])
def test_the_call_that_replaces_the_nginx_recipe(
    ground: Ground,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    relative: str,
) -> None:
    """Everybody pushes; ``http.relativeurls`` may be on or off in the registry."""
    recipe_folder(ground, tmp_path, "nginx.htpasswd")
    monkeypatch.setenv("REGISTRY_HTTP_RELATIVEURLS", relative)
    front = Front(ground, free_port())
    with Registry(tmp_path / "registry").running() as registry:
        words = call("From the nginx recipe", "--htpasswd")
        words += ["--listen", f"tcp:{front.port}:interface=127.0.0.1", "--upstream", registry.url]
        program = start(twist(*words), front.port)

        copy_an_image(front, tmp_path, ground.as_reader, ground.as_pusher)

        guard = cast(Guard, front)
        answer = curl(guard, "/v2/", credentials=ground.as_reader)
        assert answer.status == 200
        assert answer.headers("Docker-Distribution-Api-Version") == ["registry/2.0"]
        assert curl(guard, "/v2/", "--user-agent", "docker/1.5.0").status == 404
        assert curl(guard, "/v2/").headers("Docker-Distribution-Api-Version") == ["registry/2.0"]
        assert "testuser (apr1), testuserpush (apr1)" in program.output()


def test_the_file_that_replaces_the_apache_recipe(
    ground: Ground, registry: Registry, start: Start, tmp_path: Path
) -> None:
    """The group pushes, all others pull; methods outside of ``<Limit>`` are no way around it."""
    recipe_folder(ground, tmp_path, "httpd.htpasswd", "-B")
    (tmp_path / "regguard.toml").write_text(block("From the Apache recipe", "groups", "toml"))
    front = Front(ground, free_port())
    program = start(
        twist(
            *("--config", "regguard.toml", "--upstream", registry.url),
            *("--listen", f"tcp:{front.port}:interface=127.0.0.1"),
        ),
        front.port,
    )

    copy_an_image(front, tmp_path, ground.as_pusher, ground.as_reader)

    skopeo = Skopeo(cast(Guard, front), tmp_path)
    refused = skopeo.push(tmp_path / "image", "v1", "readme/app:v1", ground.as_reader)
    assert "user testuser may pull but not push readme/app: push needs group:pusher" in refused
    assert curl(cast(Guard, front), "/v2/_catalog", "--request", "OPTIONS").status == 405
    assert "testuser (bcrypt cost 5), testuserpush (bcrypt cost 5)" in program.output()


# -- balancers -------------------------------------------------------------------------------------

BALANCER = "Behind an ELB or HAProxy"


@pytest.fixture
def balance(start: Start, ground: Ground, tmp_path: Path) -> Callable[..., Front]:
    """Starts haproxy by a file of the README, its words replaced by those of the test."""

    def balance(words: str, replaced: Mapping[str, str]) -> Front:
        pem = tmp_path / "registry.pem"
        pem.write_bytes(
            ground.certificate.read_bytes() + ground.certificate.with_suffix(".key").read_bytes()
        )
        front = Front(ground, free_port())
        text = block(BALANCER, words)
        for old, new in {
            "bind :443": f"bind 127.0.0.1:{front.port}",
            "/etc/haproxy/registry.pem": str(pem),
            **replaced,
        }.items():
            assert old in text or "pem" in old
            text = text.replace(old, new)
        (tmp_path / "haproxy.cfg").write_text(f"global\n    maxconn 200\n{text}")
        start([binary("/usr/sbin/haproxy"), "-db", "-f", "haproxy.cfg"], front.port)
        return front

    return balance


def introduced(start_guard: StartGuard, ground: Ground, upstream: str) -> tuple[Guard, int]:
    """A guard by the README's call for a balancer that passes TCP on, and the port for that."""
    port = free_port()
    replaced = {
        "domain.crt": str(ground.certificate),
        "haproxy:tcp:5043": f"haproxy:tcp:{port}:interface=127.0.0.1",
        "10.0.0.5": "127.0.0.1",
    }
    words = call(BALANCER, "haproxy:tcp")
    guard = start_guard(upstream, *(replaced.get(word, word) for word in words))
    guard.program.wait_until("its port behind the balancer", lambda: accepts(port))
    return guard, port


def test_two_guards_behind_haproxy_are_one(
    start_guard: StartGuard,
    ground: Ground,
    registry: Registry,
    balance: Callable[..., Front],
    tmp_path: Path,
) -> None:
    """The requests of one push go to both; its checks pass; without one of them it goes on."""
    one, first = introduced(start_guard, ground, registry.url)
    two, second = introduced(start_guard, ground, registry.url)
    front = balance(
        "send-proxy-v2",
        {"10.0.0.9:5043": f"127.0.0.1:{first}", "10.0.0.10:5043": f"127.0.0.1:{second}"},
    )

    copy_an_image(front, tmp_path, ground.as_pusher, ground.as_reader)

    for guard in (one, two):
        guard.wait_for_line("testuserpush", "/v2/readme/app/", " 20")
        guard.wait_for_line('"GET / HTTP/1.0" 200')
    one.program.stop()
    random_image((1_000, 100_000)).write_layout(tmp_path / "more", "v1")
    skopeo = Skopeo(cast(Guard, front), tmp_path)
    assert not skopeo.push(tmp_path / "more", "v1", "readme/app:v2", ground.as_pusher)


def test_haproxy_that_terminates_tls(
    start_guard: StartGuard,
    ground: Ground,
    registry: Registry,
    balance: Callable[..., Front],
    tmp_path: Path,
) -> None:
    """With the call for an ELB."""
    words = call(BALANCER, "--no-tls")
    words[words.index("--trusted-proxy") + 1] = "127.0.0.1"
    guard = start_guard(registry.url, *words)
    front = balance("X-Forwarded-Proto", {"10.0.0.9:5043": f"127.0.0.1:{guard.port}"})

    copy_an_image(front, tmp_path, ground.as_pusher, ground.as_reader)
    guard.wait_for_line('"GET / HTTP/1.0" 200')


# -- certificates ----------------------------------------------------------------------------------


def test_the_certificate_of_the_readme_is_trusted(
    ground: Ground, registry: Registry, start: Start, tmp_path: Path
) -> None:
    """Made by its commands; by curl, and by skopeo with the file where the table says."""
    commands = block("Self-signed certificates: trust them", "openssl")
    commands = commands.replace("registry.example.com", "localhost")
    commands = commands.replace("10.0.0.9", "127.0.0.1")
    made = subprocess.run(
        ["sh", "-ec", commands],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == "domain.crt: OK\n"
    port = free_port()
    start(
        twist(
            *("--tls-cert", "domain.crt", "--listen", f"tcp:{port}:interface=127.0.0.1"),
            *("--htpasswd", str(ground.htpasswd), "--groups", str(ground.groups)),
            *("--upstream", registry.url),
        ),
        port,
    )
    random_image((1_000,)).write_layout(tmp_path / "image", "v1")

    def push() -> str:
        return subprocess.run(
            [
                *(binary("skopeo"), "--insecure-policy", "copy", "--quiet"),
                *("--dest-creds", ground.as_pusher),
                *(f"oci:{tmp_path}/image:v1", f"docker://localhost:{port}/readme/own:v1"),
            ],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        ).stderr

    assert "certificate signed by unknown authority" in push()
    trusted = tmp_path / ".config" / "containers" / "certs.d" / f"localhost:{port}"
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    assert push() == ""
    for name in ("localhost", "127.0.0.1"):
        told = subprocess.run(
            [
                *(binary("curl"), "--silent", "--show-error", "--cacert", "ca.crt"),
                *("--output", os.devnull, "--write-out", "%{http_code}"),
                f"https://{name}:{port}/v2/",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (told.stdout, told.stderr) == ("401", "")
