"""A real directory says who somebody is, and in which groups."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regguard.auth.directory.checker import DEADLINE
from tests.canary import secret
from tests.certificates import Authority
from tests.e2e.clients import Answer, curl
from tests.e2e.programs import Ground, Guard, Registry, StartGuard, free_port
from tests.e2e.slapd import GROUPS, PASSWORDS, PEOPLE, READER, SUFFIX, TWIN, Slapd

WRONG = secret("wrong")
ALICE = "alice:" + PASSWORDS["alice"]
BOB = "bob:" + PASSWORDS["bob"]
# Seconds, of its login. The guard's answer comes after 10 at most.
DOCKER_GIVES_UP = 15.0


def login(guard: Guard, credentials: str) -> int:
    """What ``docker login`` would be told."""
    return curl(guard, "/v2/", credentials=credentials).status


def try_to_push(guard: Guard, credentials: str) -> Answer:
    """The first request of a push: 202 when it is allowed."""
    target = "/v2/team/app/blobs/uploads/"
    return curl(guard, target, *("--request", "POST", "--data", ""), credentials=credentials)


@pytest.fixture(params=["ldaps", "StartTLS"])
def by_search(
    request: pytest.FixtureRequest, slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> Guard:
    """A guard that finds users by a search, over each kind of TLS."""
    if request.param == "ldaps":
        auth = slapd.searching()
    else:
        auth = slapd.searching("starttls", url=slapd.url)
    return start_guard(registry.url, "--auth", auth, "--push", "group:devs")


def test_search_and_bind(by_search: Guard) -> None:
    """Right passwords are admitted; wrong ones and unknown users are told the same."""
    assert login(by_search, ALICE) == 200
    assert login(by_search, BOB) == 200
    wrong = curl(by_search, "/v2/", credentials=f"alice:{WRONG}")
    unknown = curl(by_search, "/v2/", credentials=f"nobody:{WRONG}")
    assert (wrong.status, unknown.status) == (401, 401)
    assert wrong.body == unknown.body


def test_group_by_common_name_gives_push(by_search: Guard) -> None:
    """``group:devs`` is every group of that CN; who is in none is told what is missing."""
    assert try_to_push(by_search, ALICE).status == 202
    refused = try_to_push(by_search, "Ca(ro)l*:" + PASSWORDS["Ca(ro)l*"])
    (error,) = json.loads(refused.body)["errors"]
    assert (refused.status, error["code"]) == (403, "DENIED")
    assert "Ca(ro)l* may pull but not push team/app: push needs group:devs" in error["message"]


def test_group_by_distinguished_name_gives_push(
    slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """Of two groups with one CN the DN names one, in whatever spelling."""
    named = f'group:"CN=Devs, OU=Groups,{SUFFIX.upper()}"'
    guard = start_guard(registry.url, "--auth", slapd.searching(), "--push", named)

    assert try_to_push(guard, ALICE).status == 202
    refused = try_to_push(guard, BOB)
    assert refused.status == 403
    assert f"push needs {named}" in json.loads(refused.body)["errors"][0]["message"]


def test_groups_below_a_base_only(
    slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """``group-base`` leaves out a group of the same CN elsewhere."""
    auth = slapd.searching(f"group-base={GROUPS}")
    guard = start_guard(registry.url, "--auth", auth, "--push", "group:devs")

    assert try_to_push(guard, ALICE).status == 202
    assert try_to_push(guard, BOB).status == 403


def test_groups_by_search(slapd: Slapd, registry: Registry, start_guard: StartGuard) -> None:
    """``group-filter`` finds groups that no memberOf lists."""
    auth = slapd.searching(
        f"group-base={GROUPS}", "group-filter=(|(memberUid={user})(member={dn}))"
    )
    guard = start_guard(
        registry.url, "--auth", auth, "--push", "group:testers", "--delete", "group:devs"
    )

    assert try_to_push(guard, ALICE).status == 202
    assert try_to_push(guard, BOB).status == 403


def test_groups_of_file_and_directory_count_together(
    slapd: Slapd, registry: Registry, start_guard: StartGuard, tmp_path: Path
) -> None:
    """A groups file adds to what the directory says, under the directory's user name."""
    groups = tmp_path / "groups"
    groups.write_text("writers: bob\n")
    guard = start_guard(
        registry.url,
        *("--auth", slapd.searching(), "--groups", str(groups)),
        *("--push", "group:writers", "--delete", "group:devs"),
    )

    # In the file as bob, in the directory as BOB and bob alike.
    assert try_to_push(guard, "BOB:" + PASSWORDS["bob"]).status == 202
    assert try_to_push(guard, ALICE).status == 403


@pytest.mark.parametrize("said", ["alice", "ALICE", "Alice ", "  aLiCe"])
def test_e20_user_has_the_name_that_the_directory_gives(
    said: str, slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """Case and blanks don't matter to a directory, so they make nobody somebody else here."""
    words = ("--auth", slapd.searching(), "--push", "user:alice")
    guard = start_guard(registry.url, *words)

    assert try_to_push(guard, f"{said}:{PASSWORDS['alice']}").status == 202
    guard.wait_for_line(" - alice ", "POST /v2/team/app/")


@pytest.mark.parametrize("tls", [True, False])
def test_direct_bind(tls: bool, slapd: Slapd, registry: Registry, start_guard: StartGuard) -> None:
    """``user-dn`` needs no service account; the user reads name and groups himself."""
    url, more = (slapd.tls_url, f";ca={slapd.ca}") if tls else (slapd.url, "")
    auth = f"ldap:{url};user-dn=uid={{user}},{PEOPLE}{more}"
    guard = start_guard(registry.url, "--auth", auth, "--push", "group:devs")

    assert login(guard, f"alice:{WRONG}") == 401
    assert login(guard, f"nobody:{WRONG}") == 401
    assert try_to_push(guard, "Alice:" + PASSWORDS["alice"]).status == 202
    guard.wait_for_line(" - alice ", "POST /v2/team/app/")
    # A comma in the name is no way into another branch.
    assert login(guard, f"twin,ou=old,{SUFFIX}:{TWIN[1]}") == 401
    assert login(guard, "Ca(ro)l*:" + PASSWORDS["Ca(ro)l*"]) == 200


def test_e20_name_that_nobody_can_have_is_no_outage(
    slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """A mail address is ASCII, and the directory calls any other a DN of invalid syntax."""
    auth = f"ldap:{slapd.url};user-dn=mail={{user}},{PEOPLE}"
    guard = start_guard(registry.url, "--auth", auth)

    assert login(guard, f"caf\u00e9:{secret('x')}") == 401
    assert "cannot check passwords" not in guard.program.output()


@pytest.mark.parametrize(
    "name",
    ["*", "a*", "*)(uid=*", "alice)(|(uid=*", "alice\\2a", "alice))(&(uid=alice", "(", "\\"],
)
def test_e20_name_is_never_part_of_a_filter(
    name: str, slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """What is special in a filter finds nobody, even with a right password."""
    guard = start_guard(registry.url, "--auth", slapd.searching())

    assert login(guard, f"{name}:{PASSWORDS['alice']}") == 401
    # ... and who has such a name is found.
    assert login(guard, "Ca(ro)l*:" + PASSWORDS["Ca(ro)l*"]) == 200


def test_name_of_two_people_is_refused(
    slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """Two entries fit, and the password of both: no telling who that is."""
    auth = slapd.searching(base=SUFFIX)
    guard = start_guard(registry.url, "--auth", auth)

    assert login(guard, ":".join(TWIN)) == 401
    guard.wait_for_line("'twin' fits more than one entry")
    # References to other servers, which this search meets, are not followed.
    assert login(guard, ALICE) == 200


def test_e20_empty_password_never_reaches_the_directory(
    slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """A bind without password would succeed, as nobody."""
    guard = start_guard(registry.url, "--auth", slapd.searching())
    before = len(slapd.program.output())

    assert login(guard, "alice:") == 401

    assert 'BIND dn="uid=alice' not in slapd.program.output()[before:]


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"ldap://127.0.0.1:{server.getsockname()[1]}"


def _wrong_ca(slapd: Slapd, folder: Path) -> str:
    other = folder / "other-ca.crt"
    other.write_bytes(Authority("another CA").certificate)
    return slapd.searching().replace(str(slapd.ca), str(other))


def _wrong_ca_with_starttls(slapd: Slapd, folder: Path) -> str:
    return _wrong_ca(slapd, folder).replace(slapd.tls_url, slapd.url) + ";starttls"


def _wrong_name(slapd: Slapd, folder: Path) -> str:
    return slapd.searching().replace("127.0.0.1", "localhost")


def _wrong_name_with_starttls(slapd: Slapd, folder: Path) -> str:
    return (
        _wrong_name(slapd, folder)
        .replace("ldaps://", "ldap://")
        .replace(str(slapd.tls_port), str(slapd.port))
        + ";starttls"
    )


def _starttls_with_no_ldap_server(slapd: Slapd, folder: Path) -> str:
    return slapd.searching("starttls", url=f"ldap://127.0.0.1:{slapd.tls_port}")


def _referral(slapd: Slapd, folder: Path) -> str:
    return slapd.searching(base=f"ou=elsewhere,{SUFFIX}")


def _wrong_service_password(slapd: Slapd, folder: Path) -> str:
    file = folder / "password"
    file.write_text(f"{WRONG}\n")
    return slapd.searching().replace(str(slapd.password_file), str(file))


def _filter_that_is_none(slapd: Slapd, folder: Path) -> str:
    return slapd.searching().replace("?uid", "?uid?sub?(=)")


def _nobody_there(slapd: Slapd, folder: Path) -> str:
    return slapd.searching(url=f"ldaps://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (_wrong_ca, "certificate verify failed"),
        (_wrong_ca_with_starttls, "certificate verify failed"),
        (_wrong_name, "for another host"),
        (_wrong_name_with_starttls, "for another host"),
        (_starttls_with_no_ldap_server, ""),
        (_referral, "Referral"),
        (_wrong_service_password, f"bind-dn {READER}: refused"),
        (_filter_that_is_none, "Bad search filter"),
        (_nobody_there, "refused"),
    ],
)
def test_e20_directory_that_cannot_be_asked_is_503(
    broken: Callable[[Slapd, Path], str],
    why: str,
    slapd: Slapd,
    registry: Registry,
    start_guard: StartGuard,
    tmp_path: Path,
) -> None:
    """Whatever is wrong with it: 503, never 200 and never 401; the log says what in one line."""
    guard = start_guard(registry.url, "--auth", broken(slapd, tmp_path))
    before = len(slapd.program.output())

    answer = curl(guard, "/v2/", credentials=ALICE)

    assert answer.status == 503
    assert answer.headers("Retry-After")
    guard.wait_for_line("cannot check passwords", why)
    # Nobody was told the user's password.
    assert 'BIND dn="uid=alice' not in slapd.program.output()[before:]


@pytest.fixture
def switched_off() -> Iterator[str]:
    """Host and port of a server that does not even take connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as first:
        # Linux has room for one, and drops the others without a word.
        first.connect(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_next_replica_is_asked(
    slapd: Slapd, registry: Registry, start_guard: StartGuard, silent: str, switched_off: str
) -> None:
    """Of several hosts the first that answers will do: one is down, one silent, one off."""
    down = f"127.0.0.1:{free_port()}"
    hosts = f"{silent.replace('ldap', 'ldaps')},{switched_off},{down},127.0.0.1:{slapd.tls_port}"
    guard = start_guard(registry.url, "--auth", slapd.searching(url=hosts))

    assert login(guard, ALICE) == 200
    assert login(guard, f"bob:{WRONG}") == 401


@pytest.fixture
def own_slapd(tmp_path: Path) -> Iterator[Slapd]:
    """A directory to be stopped."""
    slapd = Slapd(tmp_path / "own-slapd")
    yield slapd
    os.kill(slapd.program.pid, signal.SIGCONT)
    slapd.stop()
    shutil.rmtree(tmp_path / "own-slapd")


def test_password_file_behind_a_directory_that_is_down(
    own_slapd: Slapd, ground: Ground, registry: Registry, start_guard: StartGuard
) -> None:
    """The directory's users get 503, those of the file get in; up again, all do."""
    file = f"htpasswd:{ground.htpasswd}"
    guard = start_guard(registry.url, "--auth", own_slapd.searching(), "--auth", file)
    assert login(guard, BOB) == 200
    own_slapd.stop()

    assert login(guard, ALICE) == 503
    assert login(guard, guard.ground.as_pusher) == 200
    # A credential that was verified a moment ago still is.
    assert login(guard, BOB) == 200

    own_slapd.start()
    assert login(guard, ALICE) == 200
    guard.wait_for_line("answers again")


@pytest.mark.parametrize("way", ["ldaps", "StartTLS", "a line that is open already"])
def test_silent_directory_delays_nobody_else(
    way: str, own_slapd: Slapd, ground: Ground, registry: Registry, start_guard: StartGuard
) -> None:
    """503 in time, for more log-ins than there are threads; users of the file go on."""
    auth = own_slapd.searching()
    if way == "StartTLS":
        auth = own_slapd.searching("starttls", url=own_slapd.url)
    file = f"htpasswd:{ground.htpasswd}"
    guard = start_guard(registry.url, "--auth", file, "--auth", auth, "--throttle", "off")
    if way == "a line that is open already":
        assert login(guard, ALICE) == 200
    os.kill(own_slapd.program.pid, signal.SIGSTOP)

    start = time.monotonic()
    with ThreadPoolExecutor(20) as clients:
        wrong = [f"bob:{secret(str(number))}" for number in range(20)]
        waiting = [clients.submit(login, guard, each) for each in wrong]
        assert [login(guard, guard.ground.as_pusher) for _ in range(5)] == [200] * 5
        assert not any(each.done() for each in waiting)
        assert [each.result() for each in waiting] == [503] * 20
    assert time.monotonic() - start < DOCKER_GIVES_UP
    os.kill(own_slapd.program.pid, signal.SIGCONT)
    assert login(guard, BOB) == 200


def test_guard_stops_at_once_while_a_directory_is_silent(
    own_slapd: Slapd, registry: Registry, start_guard: StartGuard
) -> None:
    """Threads that wait for it are woken; the end need not wait for the deadline."""
    guard = start_guard(registry.url, "--auth", own_slapd.searching(), "--drain-timeout", "0.1")
    assert login(guard, ALICE) == 200
    os.kill(own_slapd.program.pid, signal.SIGSTOP)
    with guard.connection() as client:
        credentials = b64encode(BOB.encode())
        client.sendall(
            b"GET /v2/ HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\n\r\n" % credentials
        )
        # The search is in the directory's buffer, and a thread waits for what is found.
        guard.program.wait_until(
            "the directory to be asked", lambda: own_slapd.has_unread_octets(own_slapd.tls_port)
        )
        start = time.monotonic()
        guard.stop()
        assert time.monotonic() - start < DEADLINE / 2
