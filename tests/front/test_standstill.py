"""A process that stood still, by SIGSTOP or with its machine: its clients are not to blame."""

from __future__ import annotations

from tests.front.wire import Door, replies

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def test_i20_deadlines_wait_for_a_process_that_stood_still(door: Door) -> None:
    """Whoever is connected has the rest of the time that was left, and no more."""
    fresh, idle, sending, asking = (door.connect() for _ in range(4))
    idle.send(GET % b"now")
    sending.send(PUT % (b"echo", 5) + b"he")
    asking.send(b"GET /no")
    door.wait(5)
    door.clock.advance(30)  # one tick where there should have been thirty
    for wire in door.wires:
        wire.turn()
    assert [wire.state for wire in door.wires] == ["open"] * 4

    sending.send(b"llo")
    asking.send(b"w HTTP/1.1\r\nHost: a\r\n\r\n")
    assert replies(sending.received)[0].body == b"/echo hello"
    assert replies(asking.received)[0].status == 200
    door.wait(3)
    assert (fresh.state, idle.state) == ("open", "open")
    door.wait(2)
    assert (fresh.state, idle.state) == ("closed", "open")
