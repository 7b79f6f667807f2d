"""The server's log of the whole run. This file runs last."""


def test_no_backend_crashed(server):
    log = server.cluster.log.read_text(errors="replace")
    marks = ("was terminated by signal", "PANIC:", "terminating any other active server processes", "panicked at")
    assert [line for line in log.splitlines() if any(mark in line for mark in marks)] == []
