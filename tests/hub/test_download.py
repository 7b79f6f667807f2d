"""Successful downloads: the files, the requests, and what is kept for the next run."""

import os
import stat

from conftest import FILES, WEIGHTS
from local_hub import LARGE, REVISION, LocalHub, stop, status, whole_file


def test_all_files_arrive(fetch, hub):
    done = fetch(hub)
    assert (done.code, done.err) == (0, "")
    assert fetch.holds(FILES)


def test_the_hubs_redirects_are_followed(fetch, hub):
    fetch(hub)
    for name, data in FILES.items():
        host = "content" if len(data) >= LARGE else "cache"
        assert [r.range for r in hub.bodies(name)] == ["bytes=0-"], name
        assert hub.bodies(name)[0].host == host
        assert all(r.authorization == "" for r in hub.requests)
    assert {r.file for r in hub.requests if r.host == "content"} == {WEIGHTS}


def test_everybody_can_read_the_model_whatever_the_umask(fetch, hub):
    before = os.umask(0o077)
    try:
        assert fetch(hub).code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(fetch.dir.stat().st_mode) == 0o755
    assert {stat.S_IMODE(p.stat().st_mode) for p in fetch.dir.iterdir()} == {0o644}


def test_nothing_stays_beside_the_model(fetch, hub):
    fetch(hub)
    assert [p.name for p in fetch.dir.parent.iterdir()] == [fetch.dir.name]


def test_a_finished_directory_makes_no_request(fetch, hub):
    fetch(hub)
    hub.requests.clear()
    again = fetch(hub)
    assert (again.code, hub.requests) == (0, [])
    assert "nothing to download" in again.out


def test_another_directory_is_filled_from_the_cache(fetch, hub, tmp_path):
    fetch(hub)
    hub.requests.clear()
    assert fetch(hub, to=tmp_path / "second").code == 0
    assert hub.requests == []
    assert fetch.holds(FILES, tmp_path / "second")


def test_a_cache_that_another_tool_filled_is_used(fetch, hub):
    """huggingface_hub for Python writes no refs/ file for a commit."""
    snapshot = fetch.home / "hub" / "models--acme--tiny-encoder" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    for name, data in FILES.items():
        (snapshot / name).write_bytes(data)
    assert fetch(hub).code == 0
    assert hub.requests == []
    assert fetch.holds(FILES)


def test_without_hf_home_the_cache_is_in_the_home_directory(fetch, hub, tmp_path):
    assert fetch(hub, HF_HOME="").code == 0
    assert (tmp_path / ".cache" / "huggingface" / "hub" / "models--acme--tiny-encoder").is_dir()


def test_an_endpoint_may_end_in_a_slash(fetch, hub):
    hub.endpoint += "/"
    assert fetch(hub).code == 0


def test_a_damaged_directory_is_replaced(fetch, hub):
    fetch(hub)
    (fetch.dir / WEIGHTS).write_bytes(b"x" * len(FILES[WEIGHTS]))
    (fetch.dir / "config.json").unlink()
    assert fetch(hub).code == 0
    assert fetch.holds(FILES)
    assert [p.name for p in fetch.dir.parent.iterdir()] == [fetch.dir.name]


def test_a_damaged_cache_is_downloaded_anew(fetch, hub, tmp_path):
    fetch(hub)
    damaged = next(p for p in fetch.cached() if p.stat().st_size == len(FILES[WEIGHTS]))
    damaged.write_bytes(b"x" * len(FILES[WEIGHTS]))
    assert fetch(hub, to=tmp_path / "second").code == 0
    assert fetch.holds(FILES, tmp_path / "second")


def test_another_revision_is_asked_for_and_held_to_the_pinned_hashes(fetch, hub):
    fetch.manifest.write_text(hub.manifest())
    other = "f" * 40
    elsewhere = LocalHub(FILES, revision=other)
    try:
        assert fetch(elsewhere, "--revision", other).code == 0
    finally:
        elsewhere.close()
    assert fetch.holds(FILES)


def test_leftovers_of_a_killed_copy_are_removed(fetch, hub):
    leftover = fetch.dir.parent / f".{fetch.dir.name}.incoming"
    leftover.mkdir(parents=True)
    (leftover / WEIGHTS).write_bytes(b"half")
    assert fetch(hub).code == 0
    assert not leftover.exists()


def test_a_hub_that_recovers_is_asked_again(fetch, hub):
    hub.fault(WEIGHTS, status(503), times=1)
    hub.fault("config.json", status(429), hosts=("hub",), metadata=True, body=False, times=1)
    assert fetch(hub).code == 0
    assert fetch.holds(FILES)


def test_a_connection_cut_midway_is_resumed_in_the_same_run(fetch, hub):
    hub.fault(WEIGHTS, stop("cut", 700_000), times=1)
    assert fetch(hub).code == 0
    first, second = hub.bodies(WEIGHTS)
    assert first.range == "bytes=0-"
    assert 0 < int(second.range[len("bytes="):-1]) <= 700_000
    assert fetch.holds(FILES)


def test_a_cut_download_is_resumed_by_the_next_run(fetch, hub):
    hub.fault(WEIGHTS, stop("cut", 700_000), times=1)
    assert fetch(hub, "--attempts", 1).code == 5
    kept = fetch.parts()[0].stat().st_size
    assert 0 < kept <= 700_000
    hub.requests.clear()
    assert fetch(hub).code == 0
    assert [r.range for r in hub.bodies(WEIGHTS)] == [f"bytes={kept}-"]
    assert fetch.holds(FILES)


def test_a_host_without_ranges_makes_the_next_run_start_over(fetch, hub):
    hub.fault(WEIGHTS, stop("cut", 700_000), times=1)
    fetch(hub, "--attempts", 1)
    hub.fault(WEIGHTS, whole_file(FILES[WEIGHTS]), times=2)
    done = fetch(hub)
    # The host sends the whole file as the rest: the result is too long to be the file, so it is deleted.
    assert done.code == 4
    assert fetch.parts() == []
    assert fetch(hub).code == 0
    assert fetch.holds(FILES)


def test_a_kept_part_with_wrong_bytes_is_thrown_away(fetch, hub):
    hub.fault(WEIGHTS, stop("cut", 700_000), times=1)
    fetch(hub, "--attempts", 1)
    part = fetch.parts()[0]
    part.write_bytes(b"x" * part.stat().st_size)
    assert fetch(hub).code == 0
    assert fetch.holds(FILES)


def test_a_kept_part_as_long_as_the_file_is_thrown_away(fetch, hub):
    for length in (len(FILES[WEIGHTS]), len(FILES[WEIGHTS]) + 10):
        hub.fault(WEIGHTS, stop("cut", 700_000), times=1)
        fetch(hub, "--attempts", 1)
        part = fetch.parts()[0]
        part.write_bytes(b"x" * length)
        hub.heal()
        assert fetch(hub).code == 0, length
        assert fetch.holds(FILES)
        # For the second length: without kept files again.
        for path in [*fetch.cached(), *fetch.dir.iterdir()]:
            path.unlink()
        fetch.dir.rmdir()


def test_two_at_once_download_once(fetch, hub):
    both = [fetch.start(hub), fetch.start(hub)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert sum("nothing to download" in out for out in said) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert len(hub.bodies(WEIGHTS)) == 1
    assert fetch.holds(FILES)


def test_a_proxy_is_used(fetch, hub, proxy):
    through = proxy()
    assert fetch(hub, HTTP_PROXY=f"http://127.0.0.1:{through.port}").code == 0
    assert f"127.0.0.1:{hub.port}" in through.tunnels
    assert f"localhost:{hub.content_port}" in through.tunnels


def test_no_proxy_goes_past_the_proxy(fetch, hub, proxy):
    through = proxy()
    assert fetch(hub, HTTP_PROXY=f"http://127.0.0.1:{through.port}", NO_PROXY="127.0.0.1,localhost").code == 0
    assert through.tunnels == []
