"""The README is well formed, and what it shows of files is what the options take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from regguard import __version__
from regguard.options import Options
from tests.certificates import Authority
from tests.readme import README, block, blocks, chapter, parsed
from tests.test_check import STRONG
from tests.test_passwd import CALL_SECONDS, environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = README.parent
PEERS = ROOT / "tests" / "bench" / "peers"
USERS = ("testuser", "testuserpush", "alice", "ci")
GROUPS = ("pusher", "team-a", "team-a-ci", "auditors", "devs")


@pytest.mark.parametrize("name", ["README.rst", "CHANGELOG.rst"])
def test_it_is_well_formed(name: str) -> None:
    """The package index and GitHub show it; docutils has nothing to say about it."""
    assert parsed(ROOT / name)[1] == ""


def check(folder: Path, text: str, *more: str) -> str:
    """``regguard check`` on a configuration of the README, with the files that it names."""
    auth = folder / "auth"
    auth.mkdir()
    Authority().issue().write(auth)
    (folder / "ca.crt").write_bytes(Authority().certificate)
    (folder / "secret").write_text("a password for the directory\n")
    for name in ("htpasswd", "httpd.htpasswd"):
        (auth / name).write_text("".join(f"{user}:{STRONG}\n" for user in USERS))
    for name in ("groups", "httpd.groups"):
        (auth / name).write_text("".join(f"{group}: {USERS[0]}\n" for group in GROUPS))
    for path in auth.iterdir():
        path.chmod(0o640)
    (folder / "secret").chmod(0o600)
    text = re.sub(r"/etc/regguard/[a-z-]+-ca\.crt", str(folder / "ca.crt"), text)
    text = text.replace("/etc/regguard/ldap-password", str(folder / "secret"))
    (folder / "regguard.toml").write_text(text.replace("/etc/regguard/", f"{auth}/"))
    words = ["--config", "regguard.toml", *more]
    if "tls-cert" not in text:
        words += ["--tls-cert", "auth/domain.crt"]
    done = subprocess.run(
        [sys.executable, "-m", "regguard.cli", "check", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# The others are for containerd.
CONFIGURATIONS = [each for each in blocks(parsed()[0], "toml") if not each.startswith("server =")]


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: text.split("=", 1)[0].strip())
def test_its_configurations_are_taken(text: str, tmp_path: Path) -> None:
    """Every TOML block is a configuration that ``regguard check`` has nothing against."""
    assert "guarding " in check(tmp_path, text)


def test_the_one_for_containerd_is_toml() -> None:
    """Where it goes is said by its own address."""
    hosts = tomllib.loads(
        block("Self-signed certificates: trust them", "server =", language="toml")
    )

    assert hosts["ca"] == hosts["host"][hosts["server"]]["ca"]
    assert hosts["server"].removeprefix("https://") in hosts["ca"]


# What a recipe of either kind says of its own process, and nobody looks for here.
PLUMBING = {
    *("daemon", "pid", "error_log", "access_log", "worker_processes", "worker_connections"),
    *("events", "http", "client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path"),
    *("uwsgi_temp_path", "scgi_temp_path", "default", "return"),
    *("LoadModule", "SSLRandomSeed", "PidFile", "DefaultRuntimeDir", "ServerName", "ServerAdmin"),
}


@pytest.mark.parametrize(
    ("title", "recipe"),
    [("From the nginx recipe", "nginx.conf"), ("From the Apache recipe", "httpd.conf")],
)
def test_each_directive_of_a_recipe_has_its_equivalent(title: str, recipe: str) -> None:
    """Who looks for one finds it in the table."""
    text = (PEERS / recipe).read_text()
    directives = set(re.findall(r"^ *<?([A-Za-z_]+)[ >]", text, re.MULTILINE)) - PLUMBING
    named = set(re.findall(r"[A-Za-z_]+", chapter(title).astext()))

    assert len(directives) > 15
    assert directives <= named


class _Manifests:
    """The Kubernetes objects of the README, by kind."""

    def __init__(self) -> None:
        (text,) = (
            each for each in blocks(chapter("Many machines"), "yaml") if "Deployment" in each
        )
        self.objects: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(text)}
        self.pod = self.objects["Deployment"]["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.commands = block("Many machines", "kubectl create secret")


@pytest.fixture(scope="module")
def manifests() -> _Manifests:
    """Read once."""
    return _Manifests()


def test_the_manifests_configuration_is_taken(manifests: _Manifests, tmp_path: Path) -> None:
    """Every file that it names is in the secret, and is where the pod mounts it."""
    ((name, text),) = manifests.objects["ConfigMap"]["data"].items()
    folder = manifests.container["volumeMounts"][0]["mountPath"]
    arguments = manifests.container["args"]

    assert arguments[arguments.index("--config") + 1] == f"{folder}/{name}"
    assert "guarding http://registry:5000" in check(tmp_path, text, *arguments[2:])
    secret = set(re.findall(r"--from-file=(\S+)", manifests.commands))
    assert set(re.findall(rf"{folder}/([a-z.]+)", text)) | {"domain.key"} == secret


def test_the_manifests_pod_ends_after_its_transfers(manifests: _Manifests) -> None:
    """The cluster kills it when regguard has had its time to drain, and not before."""
    drain = re.search(r"SIGTERM, seconds\s+\[default: (\d+)\]", str(Options()))
    pause = int(manifests.container["lifecycle"]["preStop"]["exec"]["command"][1])

    assert drain is not None
    assert manifests.pod["terminationGracePeriodSeconds"] > int(drain[1]) + pause


def test_the_manifests_parts_fit_each_other(manifests: _Manifests) -> None:
    """Labels, ports, volumes and the image are the same on both sides."""
    objects, container = manifests.objects, manifests.container
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    (service,) = objects["Service"]["spec"]["ports"]
    configuration = tomllib.loads(objects["ConfigMap"]["data"]["regguard.toml"])
    (ingress,) = objects["NetworkPolicy"]["spec"]["ingress"]
    (volume,) = manifests.pod["volumes"]

    assert objects["Deployment"]["spec"]["replicas"] >= 2
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert ingress["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert configuration["listen"] == f"tcp:{ports[service['targetPort']]}"
    assert f"tcp:{ports['admin']}" in container["args"]
    probes = [each["httpGet"] for name, each in container.items() if name.endswith("Probe")]
    assert {each["port"] for each in probes} == {"admin"}
    assert configuration["upstream"].endswith(f":{ingress['ports'][0]['port']}")
    assert volume["name"] == container["volumeMounts"][0]["name"]
    # Nobody else may read the key: ``regguard`` would not take it.
    assert not volume["projected"]["defaultMode"] & 0o007
    assert f"--tag {container['image']} " in manifests.commands
    assert container["image"].endswith(f":{__version__}")
