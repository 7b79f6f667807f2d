"""Failed downloads: the exit code, the message, and no directory that could be loaded."""

import signal
import subprocess
import time

import pytest
from conftest import DEFAULT_PATIENCE, FILES, PATIENCE, SHORT_CONTACT, SHORT_STALL, WEIGHTS, Address
from local_hub import (LocalHub, endless, redirect, silent, status, stop, trickle, unused_port, whole_file,
                       without)

OTHER, NO_HUB, REFUSED, BROKE_OFF = 1, 3, 4, 5


def failed(fetch, outcome, code, *words):
    """Checks that the outcome is this failure, with a message of three lines, and that no files are left."""
    assert outcome.code == code, outcome.err
    for word in words:
        assert word in outcome.err
    fact, consequence, action = outcome.err.rstrip("\n").split("\n")
    assert fact.startswith("error: ")
    assert consequence.startswith("  so ") and action.startswith("  ")
    assert "panicked" not in outcome.said
    assert "s3cr3t" not in outcome.said
    assert fetch.left_nothing()
    return True


# --- no answer ---


def test_refused_port(fetch):
    done = fetch(Address(f"http://127.0.0.1:{unused_port()}"))
    assert failed(fetch, done, NO_HUB, "cannot be reached", "refused", "HF_ENDPOINT")
    assert done.seconds < DEFAULT_PATIENCE


def test_a_name_that_does_not_exist(fetch):
    done = fetch(Address("http://hub.invalid"))
    assert failed(fetch, done, NO_HUB, "http://hub.invalid cannot be reached")


def test_dropped_packets(fetch, black_hole):
    done = fetch(Address(black_hole.endpoint), *SHORT_CONTACT)
    assert failed(fetch, done, NO_HUB, "cannot be reached", f"no answer within {PATIENCE:g} s")
    assert PATIENCE <= done.seconds < PATIENCE + 5


def test_dropped_packets_are_waited_for_twenty_seconds_at_most(patient_fetch):
    done = patient_fetch()
    assert (done.code, f"no answer within {DEFAULT_PATIENCE} s" in done.err) == (NO_HUB, True)
    assert DEFAULT_PATIENCE - 1 <= done.seconds <= DEFAULT_PATIENCE + 5


def test_a_hub_that_accepts_and_never_answers(fetch, hub):
    hub.fault("config.json", silent, hosts=("hub",), metadata=True)
    done = fetch(hub, *SHORT_CONTACT)
    assert failed(fetch, done, NO_HUB, "cannot be reached", "no answer within")
    assert done.seconds < PATIENCE + 5


@pytest.mark.parametrize("file, code, short", [("config.json", NO_HUB, SHORT_CONTACT), (WEIGHTS, BROKE_OFF, SHORT_STALL)])
def test_dropped_packets_behind_the_redirect(fetch, hub, black_hole, file, code, short):
    hub.fault(file, redirect(f"{black_hole.endpoint}/elsewhere"), hosts=("hub",), metadata=True)
    done = fetch(hub, *short)
    assert failed(fetch, done, code, f"{PATIENCE:g} s")
    assert done.seconds < PATIENCE + 5


def test_a_proxy_that_refuses(fetch, hub, proxy):
    through = proxy(refusal=403)
    done = fetch(hub, HTTPS_PROXY=f"http://user:pa55word@127.0.0.1:{through.port}")
    assert failed(fetch, done, NO_HUB, "cannot be reached", "403", "HTTPS_PROXY")
    assert "pa55word" not in done.said
    assert hub.requests == []


def test_tls_with_a_host_that_has_none(fetch, hub):
    done = fetch(Address(hub.endpoint.replace("http:", "https:")))
    assert failed(fetch, done, NO_HUB, "cannot be reached", "TLS")


# --- another server ---


def test_a_sign_in_page(fetch, hub):
    for name in FILES:
        hub.fault(name, whole_file(b"<html>sign in</html>"), hosts=("hub",), metadata=True)
        hub.fault(name, without("x-repo-commit", "etag", "location"), hosts=("hub",), metadata=True)
    assert failed(fetch, fetch(hub), NO_HUB, "does not answer like a hub")


def test_redirects_in_a_circle(fetch, hub):
    hub.fault("config.json", redirect(f"/{hub.repo}/resolve/{hub.revision}/config.json"), hosts=("hub",),
              metadata=True)
    done = fetch(hub, *SHORT_CONTACT)
    assert done.code == NO_HUB and fetch.left_nothing()
    assert done.seconds < PATIENCE + 5


def test_a_redirect_without_an_address(fetch, hub):
    hub.fault(WEIGHTS, without("location"), hosts=("hub",), metadata=True)
    assert failed(fetch, fetch(hub), NO_HUB, "does not answer like a hub")


@pytest.mark.parametrize("header", ["x-repo-commit", "etag"])
def test_a_missing_header(fetch, hub, header):
    hub.fault("config.json", without(header), metadata=True, body=False)
    assert failed(fetch, fetch(hub), NO_HUB, "does not answer like a hub", header)


# --- the hub refuses ---


def test_401_without_a_token(fetch, private_hub):
    assert failed(fetch, fetch(private_hub), OTHER, "wants a token", "401", "HF_TOKEN")


def test_401_with_a_wrong_token(fetch, private_hub):
    done = fetch(private_hub, HF_TOKEN="hf_wr0ng")
    assert failed(fetch, done, OTHER, "does not accept the token", "401")
    assert "hf_wr0ng" not in done.said


def test_hf_token_is_sent_when_the_hub_asks_for_one(fetch, private_hub):
    assert fetch(private_hub, HF_TOKEN=" hf_right\n").code == 0
    assert fetch.holds(FILES)


def test_the_token_file_is_read(fetch, private_hub):
    fetch.home.mkdir()
    (fetch.home / "token").write_text("hf_right\n")
    assert fetch(private_hub).code == 0


def test_the_token_stays_at_home_unless_asked_for(fetch, hub):
    assert fetch(hub, HF_TOKEN="hf_right").code == 0
    assert {r.authorization for r in hub.requests} == {""}


def test_a_token_that_no_header_can_carry(fetch, private_hub):
    done = fetch(private_hub, HF_TOKEN="hf_\nbr0ken")
    assert done.code != 0 and fetch.left_nothing()
    assert "br0ken" not in done.said


def test_403(fetch, hub):
    hub.fault("config.json", status(403), hosts=("hub",), metadata=True)
    assert failed(fetch, fetch(hub), NO_HUB, "refuses", "403")


def test_404(fetch, hub):
    del hub.files["tokenizer.json"]
    fetch.manifest.write_text(LocalHub.manifest(Address(hub.endpoint)).replace("0" * 40, hub.revision))
    assert failed(fetch, fetch(hub), OTHER, "has no tokenizer.json of acme/tiny-encoder", "404", "HF_ENDPOINT")


def test_429(fetch, hub):
    hub.fault("config.json", status(429), hosts=("hub",), metadata=True)
    assert failed(fetch, fetch(hub, "--attempts", 2), NO_HUB, "too many requests", "429", "HF_TOKEN")
    assert len([r for r in hub.requests if r.file == "config.json"]) == 2


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_5xx(fetch, hub, code):
    hub.fault("config.json", status(code), hosts=("hub",), metadata=True)
    assert failed(fetch, fetch(hub, "--attempts", 2), NO_HUB, "out of order", str(code))
    assert len([r for r in hub.requests if r.file == "config.json"]) == 2


def test_5xx_of_the_content_host(fetch, hub):
    hub.fault(WEIGHTS, status(500))
    assert failed(fetch, fetch(hub, "--attempts", 1), NO_HUB, "out of order", "500")


def test_5xx_for_longer_than_the_patience(fetch, hub):
    hub.fault("config.json", status(503), hosts=("hub",), metadata=True)
    done = fetch(hub, "--attempts", 30, *SHORT_CONTACT)
    assert failed(fetch, done, NO_HUB, "out of order", "503")
    assert done.seconds < PATIENCE + 5


# --- during the download ---


def test_a_stall_breaks_off_and_the_next_run_resumes(fetch, hub):
    hub.fault(WEIGHTS, stop("stall", 700_000))
    done = fetch(hub, *SHORT_STALL)
    assert failed(fetch, done, BROKE_OFF, "broke off", f"nothing more came for {PATIENCE:g} s", "goes on")
    assert PATIENCE <= done.seconds < PATIENCE + 5
    kept = fetch.parts()[0].stat().st_size
    assert 0 < kept <= 700_000
    hub.heal()
    hub.requests.clear()
    assert fetch(hub).code == 0
    assert [r.range for r in hub.bodies(WEIGHTS)] == [f"bytes={kept}-"]
    assert fetch.holds(FILES)


def test_a_byte_now_and_then_is_a_stall(fetch, hub):
    hub.fault(WEIGHTS, trickle)
    done = fetch(hub, *SHORT_STALL)
    assert failed(fetch, done, BROKE_OFF, "nothing more came")
    assert done.seconds < PATIENCE + 5


def test_a_connection_cut_for_good(fetch, hub):
    hub.fault(WEIGHTS, stop("cut", 1_000))
    done = fetch(hub, "--attempts", 2)
    assert failed(fetch, done, BROKE_OFF, "broke off", "the connection closed", "goes on")
    assert len(hub.bodies(WEIGHTS)) == 2
    assert len(fetch.parts()) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_is_resumed(fetch, hub, how):
    hub.fault(WEIGHTS, stop("stall", 700_000))
    process = fetch.start(hub, "--stall-timeout", 60)
    until = time.monotonic() + 30
    while not (fetch.parts() and fetch.parts()[0].stat().st_size > 600_000):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=10)
    assert process.returncode == -how
    assert fetch.left_nothing()
    hub.heal()
    hub.requests.clear()
    assert fetch(hub).code == 0
    assert hub.bodies(WEIGHTS)[0].range != "bytes=0-"
    assert fetch.holds(FILES)


# --- other content than the pinned one ---


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_wrong_hash_is_refused_and_deleted(fetch, hub, name):
    fetch.manifest.write_text(hub.manifest())
    good = hub.files[name]
    hub.files[name] = bytes([good[0] ^ 1]) + good[1:]
    assert failed(fetch, fetch(hub), REFUSED, f"{name} from", "not the pinned file", "sha256", "deleted")
    assert hub.files[name] not in [p.read_bytes() for p in fetch.cached()]
    assert fetch.parts() == []
    hub.files[name] = good
    hub.requests.clear()
    assert fetch(hub).code == 0
    assert [r.range for r in hub.bodies(name)] == ["bytes=0-"]
    assert fetch.holds(FILES)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size_is_refused_before_the_download(fetch, hub, change):
    fetch.manifest.write_text(hub.manifest())
    good = hub.files[WEIGHTS]
    hub.files[WEIGHTS] = good[:-1] if change < 0 else good + b"x"
    size = len(good)
    assert failed(fetch, fetch(hub), REFUSED, "not the pinned file", f"{size + change} bytes instead of {size}")
    assert hub.bodies(WEIGHTS) == []
    assert fetch.parts() == []


def test_a_body_that_ends_early_without_a_length_is_refused(fetch, hub):
    def short(reply):
        reply.body, reply.unbounded = reply.body[:1_000], True
        del reply.headers["Content-Length"]
    hub.fault(WEIGHTS, short, times=1)
    assert failed(fetch, fetch(hub), REFUSED, "1000 bytes instead of 1500007")
    assert fetch(hub).code == 0


def test_a_body_without_an_end_is_refused(fetch, hub):
    hub.fault(WEIGHTS, endless)
    assert failed(fetch, fetch(hub), REFUSED, "not the pinned file")
    assert fetch.parts() == []
    assert fetch.cached() and all(p.stat().st_size < 10_000 for p in fetch.cached())


def test_a_mirror_of_another_model(fetch, hub):
    fetch.manifest.write_text(hub.manifest())
    for name in FILES:
        hub.files[name] = b"something else of " + name.encode()
    assert failed(fetch, fetch(hub), REFUSED, "not the pinned file")


def test_html_in_place_of_the_content(fetch, hub):
    hub.fault("tokenizer.json", whole_file(b"<html>blocked</html>"))
    assert failed(fetch, fetch(hub), REFUSED, "tokenizer.json", "20 bytes instead of")


# --- this machine ---


def test_a_place_that_cannot_be(fetch, hub, tmp_path):
    (tmp_path / "file").write_text("")
    done = fetch(hub, to=tmp_path / "file" / "model")
    assert failed(fetch, done, OTHER, "could not use")
    assert hub.requests == []


def test_a_cache_that_cannot_be(fetch, hub, tmp_path):
    (tmp_path / "file").write_text("")
    done = fetch(hub, HF_HOME=str(tmp_path / "file"))
    assert failed(fetch, done, OTHER, "download cache", "HF_HOME")


def test_a_directory_with_other_files_is_left_alone(fetch, hub):
    fetch.dir.mkdir(parents=True)
    (fetch.dir / "thesis.txt").write_text("years of work")
    done = fetch(hub)
    assert done.code == OTHER and "thesis.txt" in done.err
    assert fetch.holds({"thesis.txt": b"years of work"})
    assert hub.requests == []


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "http://"])
def test_an_endpoint_that_is_none(fetch, endpoint):
    done = fetch(Address(endpoint))
    assert done.code in (OTHER, NO_HUB) and done.err.startswith("error: ")
    assert fetch.left_nothing()


def test_an_endpoints_password_is_not_shown(fetch):
    done = fetch(Address(f"http://user:pa55word@127.0.0.1:{unused_port()}"))
    assert failed(fetch, done, NO_HUB, "cannot be reached")
    assert "pa55word" not in done.said


@pytest.mark.parametrize("manifest", ["{", "{}", '{"repo":"a/b","revision":"c","files":[]}',
                                      '{"repo":"a/b","revision":"../c","files":[{"name":"x","size":1,"sha256":"00"}]}'])
def test_a_broken_manifest(fetch, hub, manifest):
    fetch.manifest.write_text(manifest)
    done = fetch(hub)
    assert done.code == OTHER and done.err.startswith("error: the ")
    assert fetch.left_nothing() and hub.requests == []


@pytest.mark.parametrize("arguments", [[], ["get"], ["fetch"], ["fetch", "--to"], ["check"],
                                       ["fetch", "--to", "x", "--attempts", "many"],
                                       ["fetch", "--to", "x", "--stall-timeout", "0"],
                                       ["fetch", "--to", "x", "y"]])
def test_wrong_arguments(tool, arguments):
    done = subprocess.run([tool, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "gte-model fetch --to" in done.stderr
