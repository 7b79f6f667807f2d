"""`embed_selftest()`: the kernels of a backend agree with stock candle, and the call leaves nothing behind."""

import os
import pathlib

import psycopg
import pytest

from measure import memory_kb, one, proc_file, sqlstate, wait_until

ROW = "select kernels, precision, texts, least_cosine, max_abs from embed_selftest()"
# The signals that no thread can block: SIGKILL, SIGSTOP and two of the C library.
NEVER_BLOCKED = sum(1 << (signal - 1) for signal in (9, 19, 32, 33))
ALL_SIGNALS = (1 << 64) - 1


def threads(pid):
    """The masks of blocked signals of the process's threads, without its main thread."""
    if not pathlib.Path("/proc/self/task").exists():
        pytest.skip("needs /proc to watch the threads of the backend")
    masks = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            status = pathlib.Path(f"/proc/{pid}/task/{task}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(task) != pid:
            masks[int(task)] = int(status.split("SigBlk:")[1].split()[0], 16)
    return masks


def private_kb(pid):
    """Memory that the process has for itself alone."""
    lines = proc_file(pid, "smaps_rollup").splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return sizes["Private_Dirty"] + sizes["Private_Clean"]


def start(connection):
    """Sends the call and waits until candle's thread runs."""
    pid = connection.info.backend_pid
    before = threads(pid)
    connection.pgconn.send_query(ROW.encode())
    connection.pgconn.flush()
    wait_until(lambda: set(threads(pid)) - set(before))
    return before


@pytest.fixture
def loaded(minilm_database):
    """A backend of its own that has embedded a long text, so its helpers and buffers exist."""
    connection = minilm_database.connect()
    connection.execute("set gte_small.threads = 2; set gte_small.memo_size = 0")
    connection.execute("select embed(repeat('a long text ', 1000)), embed(array_fill('a text'::text, array[64]))")
    yield connection
    connection.close()


@pytest.mark.parametrize("precision, cosine, max_abs", [("f32", 0.999999, 1e-5), ("auto", 0.9999, 5e-3)])
def test_the_kernels_agree_with_stock_candle(minilm, precision, cosine, max_abs):
    minilm.execute(f"set gte_small.precision = {precision}")
    kernels, used, texts, least_cosine, largest = minilm.execute(ROW).fetchone()
    print(kernels, used, texts, least_cosine, largest)
    assert (kernels, used) == minilm.execute("select kernels, precision from embed_model()").fetchone()
    assert precision in (used, "auto")
    assert 8 <= texts <= 16
    assert cosine <= least_cosine <= 1.0000001
    # No two programs that add in different orders have the same bits: the kernels did run.
    assert 0 < largest <= max_abs


def test_all_kernels_of_this_cpu_agree_on_the_tiny_model(connection):
    with pytest.raises(psycopg.errors.FeatureNotSupported) as refused:
        connection.execute("set gte_small.kernels = 'no such kernels'; select embed('a')")
    names = str(refused.value).splitlines()[0].split(" has ")[1].split(", ")
    assert "portable-f32" in names
    for name in names:
        connection.execute(f"set gte_small.kernels = '{name}'")
        kernels, _, _, least_cosine, _ = connection.execute(ROW).fetchone()
        assert kernels == name
        assert least_cosine >= (0.9999 if name.endswith("bf16") else 0.999999)


def test_the_memo_and_the_counters_take_no_part(connection):
    before = connection.execute("select * from embed_stats()").fetchone()
    rows = [connection.execute(ROW).fetchone() for _ in range(2)]
    assert rows[0] == rows[1]
    assert connection.execute("select * from embed_stats()").fetchone() == before


def test_only_a_role_that_was_granted_it_may_call_it(database, connection):
    plain = database.connect("gte_plain")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        plain.execute(ROW)
    connection.execute("grant execute on function embed_selftest() to gte_plain")
    assert plain.execute(ROW).fetchone() == connection.execute(ROW).fetchone()


def test_candle_has_one_thread_which_blocks_all_signals_and_ends(loaded):
    pid = loaded.info.backend_pid
    before = start(loaded)
    running = threads(pid)
    assert sqlstate(loaded) is None
    assert len(running) <= len(before) + 1
    for mask in running.values():
        assert mask | NEVER_BLOCKED == ALL_SIGNALS
    wait_until(lambda: set(threads(pid)) == set(before))


def test_at_most_200_mb_and_none_of_it_stays(loaded):
    pid = loaded.info.backend_pid
    loaded.execute(ROW)
    before, resident = private_kb(pid), memory_kb(pid, "VmRSS")
    # The first call counts too: this is the peak of the process's whole life.
    peak = memory_kb(pid, "VmHWM") - resident
    for _ in range(3):
        loaded.execute(ROW)
    after = private_kb(pid)
    print(f"peak {peak >> 10} MB, private {before >> 10} MB, after three more calls {after >> 10} MB")
    assert peak <= 200 << 10
    assert after - before <= 8 << 10


def test_the_first_call_gives_its_memory_back(loaded):
    pid = loaded.info.backend_pid
    before, resident = private_kb(pid), memory_kb(pid, "VmRSS")
    loaded.execute(ROW)
    peak, after = memory_kb(pid, "VmHWM") - resident, private_kb(pid)
    print(f"peak {peak >> 10} MB above {resident >> 10} MB, {(after - before) >> 10} MB kept")
    assert 20 << 10 <= peak <= 200 << 10
    assert after - before <= 12 << 10


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_it_can_be_stopped_and_works_afterwards(loaded, how):
    pid = loaded.info.backend_pid
    if how == "timeout":
        loaded.execute("set statement_timeout = '50ms'")
        before = threads(pid)
        with pytest.raises(psycopg.errors.QueryCanceled):
            loaded.execute(ROW)
    else:
        before = start(loaded)
        loaded.cancel()
        assert sqlstate(loaded) == "57014"
    wait_until(lambda: set(threads(pid)) == set(before))
    loaded.execute("set statement_timeout = 0")
    private = private_kb(pid)
    assert one(loaded, "select least_cosine >= 0.9999 from embed_selftest()")
    assert private_kb(pid) - private <= 12 << 10


def test_a_terminated_backend_ends(loaded, server):
    pid = loaded.info.backend_pid
    start(loaded)
    server.execute(f"select pg_terminate_backend({pid})")
    assert sqlstate(loaded) in ("57P01", "gone")
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists())


def test_a_missing_and_a_broken_model_are_errors(connection, model_copy):
    connection.execute(f"set gte_small.model_path = '{model_copy}'")
    assert connection.execute(ROW).fetchone()[3] >= 0.9999
    weights = model_copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(psycopg.errors.DataCorrupted):
        connection.execute(ROW)
    weights.unlink()
    with pytest.raises(psycopg.errors.UndefinedFile):
        connection.execute(ROW)
    weights.write_bytes(content)
    assert connection.execute(ROW).fetchone()[3] >= 0.9999


def test_a_file_that_is_replaced_does_not_change_what_is_compared(connection, model_copy, server):
    """The kernels and candle read the same file, which stays open, also when another model is in its place."""
    connection.execute(f"set gte_small.model_path = '{model_copy}'")
    row = connection.execute(ROW).fetchone()
    new = model_copy / "new"
    new.write_bytes((server.tiny_other / "model.safetensors").read_bytes())
    new.rename(model_copy / "model.safetensors")
    assert connection.execute(ROW).fetchone() == row


def test_it_runs_in_the_leader_of_a_parallel_query(connection):
    connection.execute("set debug_parallel_query = on" if connection.info.server_version >= 160000
                       else "set force_parallel_mode = on")
    assert connection.execute(ROW).fetchone()[3] >= 0.9999
