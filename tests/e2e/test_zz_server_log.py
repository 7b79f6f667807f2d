"""Last of all: what the server's log says about the whole run."""


def test_no_backend_crashed(server):
    log = server.cluster.log.read_text(errors="replace")
    marks = ("was terminated by signal", "PANIC:", "terminating any other active server processes", "panicked at")
    assert [line for line in log.splitlines() if any(mark in line for mark in marks)] == []
