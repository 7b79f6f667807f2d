"""Missing, broken and changed models: the SQLSTATE, the message for each role, and the backend afterwards."""

import json
import shutil

import psycopg
import pytest

from measure import counting, embedding, one

NOWHERE = "/nonexistent/directory/of/a/model"


def fails(connection, statement="select embed('a cat')"):
    with pytest.raises(psycopg.Error) as error:
        connection.execute(statement)
    return error.value


def use(connection, directory):
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(directory)])


# --- no model ---


def test_no_model(connection):
    use(connection, NOWHERE)
    for statement in ("select embed('a cat')", "select embed(array['a cat'])", "select embed_query('a cat')", "select * from embed_model()"):
        error = fails(connection, statement)
        assert error.sqlstate == "58P01"
        assert "model.safetensors" in error.diag.message_primary
        assert "make model" in error.diag.message_hint
    # Functions that need no model still work.
    assert one(connection, "select embed(null::text)") is None
    assert one(connection, "select model_runs from embed_stats()") == 0


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_missing_file_is_named(connection, model_copy, file):
    (model_copy / file).unlink()
    use(connection, model_copy)
    error = fails(connection)
    assert error.sqlstate == "58P01" and file in error.diag.message_primary


def test_the_sentence_config_may_be_absent(connection, model_copy):
    (model_copy / "sentence_bert_config.json").unlink(missing_ok=True)
    use(connection, model_copy)
    assert len(embedding(connection, "a cat")) == 384
    assert one(connection, "select max_tokens from embed_model()") == 512


def everything(error):
    diagnosis = error.diag
    return "\n".join(filter(None, [diagnosis.message_primary, diagnosis.message_detail, diagnosis.message_hint, diagnosis.context]))


def test_the_directory_is_shown_only_to_those_who_may_read_settings(database):
    database.configure("gte_small.model_path", NOWHERE)
    superuser, plain = database.connect(), database.connect("gte_plain")
    assert NOWHERE in everything(fails(superuser))
    hidden = fails(plain)
    assert hidden.sqlstate == "58P01" and NOWHERE not in everything(hidden)
    superuser.execute("grant pg_read_all_settings to gte_owner")
    try:
        assert NOWHERE in everything(fails(database.connect("gte_owner")))
    finally:
        superuser.execute("revoke pg_read_all_settings from gte_owner")


def test_the_directory_is_in_the_server_log(database):
    place = NOWHERE + "/for/the/log"
    database.configure("gte_small.model_path", place)
    fails(database.connect("gte_plain"))
    assert place in database.server.cluster.log.read_text(errors="replace")


def test_the_trigger_without_a_model(database, tutorial):
    """The row is refused and nothing is stored. A row with a vector needs no model."""
    use(tutorial, NOWHERE)
    assert fails(tutorial, "insert into embeddings (content) values ('a cat')").sqlstate == "58P01"
    assert one(tutorial, "select count(*) from embeddings") == 0
    tutorial.execute("insert into embeddings (content, embedding) select 'x', array_fill(0.1, array[384])::vector")
    tutorial.execute("set gte_small.own_vectors = on; update embeddings set content = 'y', embedding = array_fill(0.2, array[384])::vector")


# --- broken models ---


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BROKEN = {
    "half the weights": (lambda d: truncate(d / "model.safetensors"), "XX001", "model.safetensors"),
    "empty weights": (lambda d: (d / "model.safetensors").write_bytes(b""), "XX001", "model.safetensors"),
    "an error page for weights": (lambda d: (d / "model.safetensors").write_text("<html>" * 1000), "XX001", "model.safetensors"),
    "a huge header": (lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 64), "XX001", "model.safetensors"),
    "half the tokenizer": (lambda d: truncate(d / "tokenizer.json"), "XX001", "tokenizer.json"),
    "half the config": (lambda d: truncate(d / "config.json"), "XX001", "config.json"),
    "a config that is no object": (lambda d: (d / "config.json").write_text("[]"), "XX001", "config.json"),
    "more layers than weights": (lambda d: rewrite(d / "config.json", num_hidden_layers=5), "XX001", "model.safetensors"),
    "another hidden size": (lambda d: rewrite(d / "config.json", hidden_size=768), "0A000", "config.json"),
    "another kind of model": (lambda d: rewrite(d / "config.json", model_type="llama"), "0A000", "config.json"),
    "an unknown activation": (lambda d: rewrite(d / "config.json", hidden_act="swish"), "0A000", "config.json"),
    "a limit beyond the positions": (
        lambda d: (d / "sentence_bert_config.json").write_text('{"max_seq_length": 100000}'), "XX001", "sentence_bert_config.json"),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_broken_model(connection, model_copy, damage):
    breaks, sqlstate, file = damage
    breaks(model_copy)
    use(connection, model_copy)
    for _ in range(2):
        error = fails(connection)
        assert error.sqlstate == sqlstate, error
        assert file in error.diag.message_primary
        assert "panic" not in everything(error).lower()
    # The same backend works as soon as there is a model.
    connection.execute("reset gte_small.model_path")
    assert len(embedding(connection, "a cat")) == 384


def test_a_model_repaired_in_place(server, connection, model_copy):
    (model_copy / "tokenizer.json").unlink()
    use(connection, model_copy)
    assert fails(connection).sqlstate == "58P01"
    shutil.copy(server.tiny / "tokenizer.json", model_copy / "tokenizer.json")
    assert len(embedding(connection, "a cat")) == 384


def test_a_directory_where_a_file_should_be(connection, model_copy):
    (model_copy / "config.json").unlink()
    (model_copy / "config.json").mkdir()
    use(connection, model_copy)
    assert fails(connection).sqlstate == "XX001"


def test_a_model_path_that_is_a_file(connection, model_copy):
    use(connection, model_copy / "config.json")
    assert fails(connection).sqlstate[:2] in ("58", "XX")
    connection.execute("reset gte_small.model_path")
    assert len(embedding(connection, "a cat")) == 384


# --- changing models ---


def test_a_superuser_switches_models_in_a_session(server, connection):
    first, first_print = embedding(connection, "a cat"), one(connection, "select fingerprint from embed_model()")
    use(connection, server.tiny_other)
    second, second_print = embedding(connection, "a cat"), one(connection, "select fingerprint from embed_model()")
    assert first != second and first_print != second_print
    assert one(connection, "select source from embed_model()") == str(server.tiny_other)
    connection.execute("reset gte_small.model_path")
    assert embedding(connection, "a cat") == first
    assert one(connection, "select fingerprint from embed_model()") == first_print


def test_a_rolled_back_switch(server, connection):
    first = embedding(connection, "a cat")
    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('gte_small.model_path', %s, true)", [str(server.tiny_other)])
        assert embedding(connection, "a cat") != first
    assert embedding(connection, "a cat") == first


def test_the_fingerprint_is_the_files(server, connection, model_copy):
    """An equal copy is the same model. Another token limit makes another model."""
    original = one(connection, "select fingerprint from embed_model()")
    use(connection, model_copy)
    assert one(connection, "select fingerprint from embed_model()") == original
    (model_copy / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    connection.execute("reset gte_small.model_path")
    embedding(connection, "a cat")
    use(connection, model_copy)
    assert one(connection, "select max_tokens from embed_model()") == 16
    assert one(connection, "select fingerprint from embed_model()") != original


def test_the_model_row(connection):
    name, fingerprint, dims, max_tokens, threshold, seconds = connection.execute(
        "select name, fingerprint, dims, max_tokens, suggested_threshold, load_seconds from embed_model()"
    ).fetchone()
    assert name and len(fingerprint) == 64 and dims == 384 and max_tokens > 2
    assert threshold is None, "nobody has measured this model's threshold"
    assert seconds > 0


def test_a_null_call_loads_nothing(connection):
    use(connection, NOWHERE)
    with counting(connection) as counted:
        connection.execute("select embed(null::text), embed(array[null, null]), embed('{}'::text[])")
    assert counted.model_runs == 0


def test_the_directory_does_not_reach_a_client_that_asks_for_log_messages(database):
    database.configure("gte_small.model_path", "/srv/secret/place")
    plain = database.connect("gte_plain")
    heard = []
    plain.add_notice_handler(lambda notice: heard.append(f"{notice.message_primary} {notice.message_detail}"))
    plain.execute("set client_min_messages = log")
    with pytest.raises(psycopg.errors.UndefinedFile) as raised:
        plain.execute("select embed('a cat')")
    assert "secret" not in str(raised.value) + "".join(heard)
    assert "secret" in database.server.cluster.log.read_text(errors="replace")


def test_a_model_overwritten_in_place_is_loaded_again(database, connection, model_copy):
    connection.execute(f"set gte_small.model_path = '{model_copy}'")
    before = embedding(connection, "a cat")
    weights = (database.server.tiny_other / "model.safetensors").read_bytes()
    with open(model_copy / "model.safetensors", "r+b") as file:
        file.write(weights)
        file.truncate()
    connection.execute("set gte_small.memo_size = 0")
    after = embedding(connection, "a cat")
    connection.execute(f"set gte_small.model_path = '{database.server.tiny}'")
    assert before == embedding(connection, "a cat") != after


def test_weights_cut_short_while_in_use_are_an_error(connection, model_copy):
    connection.execute(f"set gte_small.model_path = '{model_copy}'")
    embedding(connection, "a cat")
    with open(model_copy / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    with pytest.raises(psycopg.errors.DataCorrupted) as raised:
        connection.execute("select embed('a dog')")
    assert "model.safetensors" in str(raised.value)
