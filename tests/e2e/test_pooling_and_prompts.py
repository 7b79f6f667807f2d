"""Models with CLS pooling and with prompts: as they were trained in every function, or refused."""

import json
import pathlib
import shutil

import psycopg
import pytest

from measure import counting, embedding, max_abs, one, vector

QUERY, DOCUMENT = "search: ", "the data: "


def write(directory, file, value):
    path = pathlib.Path(directory) / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def use(connection, directory):
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(directory)])


@pytest.fixture
def place(server):
    """A directory for models, which the server can read."""
    directory = server.scratch / f"variants-{server.serial}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def cls(server, place):
    """The tiny model with the pooling of bge and arctic."""
    return variant(server, place / "cls", pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})


@pytest.fixture
def prompted(server, place):
    """The tiny model with prompts as e5 has them."""
    return variant(server, place / "prompted", prompts={"query": QUERY, "passage": DOCUMENT})


def variant(server, directory, pooling=None, prompts=None, modules=None):
    shutil.copytree(server.tiny, directory)
    if pooling:
        write(directory, "1_Pooling/config.json", pooling)
    if prompts:
        write(directory, "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    if modules:
        write(directory, "modules.json", [{"idx": i, "path": path, "type": f"sentence_transformers.models.{name}"}
                                          for i, (path, name) in enumerate(modules)])
    return directory


def facts(connection):
    return connection.execute("select pooling, query_prompt, document_prompt from embed_model()").fetchone()


def fingerprint(connection):
    return one(connection, "select fingerprint from embed_model()")


def test_a_model_without_these_files_is_mean_pooled_without_prompts(connection):
    assert facts(connection) == ("mean", "", "")


def test_cls_pooling_makes_other_vectors_and_another_fingerprint(connection, cls):
    mean, mean_print = embedding(connection, "a cat"), fingerprint(connection)
    use(connection, cls)
    assert facts(connection) == ("cls", "", "")
    found = embedding(connection, "a cat")
    assert max_abs(found, mean) > 0.001 and fingerprint(connection) != mean_print
    assert vector(connection, "embed_query('a cat')") == found


def test_the_selftest_compares_cls_pooling_too(connection, cls):
    use(connection, cls)
    assert one(connection, "select least_cosine from embed_selftest()") >= 0.9999


@pytest.mark.parametrize("files, file, reason", [
    ({"pooling": {"pooling_mode": "max"}}, "1_Pooling/config.json", '"max"'),
    ({"pooling": {"pooling_mode": ["cls", "mean"]}}, "1_Pooling/config.json", "cls + mean"),
    ({"pooling": {}, "modules": [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]}, "modules.json", "Dense"),
    ({"prompts": {"query": "cat " * 600}}, "config_sentence_transformers.json", "tokens"),
], ids=["max", "joined", "dense", "a long prompt"])
def test_another_model_is_refused(server, connection, place, files, file, reason):
    use(connection, variant(server, place / "other", **files))
    with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
        connection.execute("select embed('a cat')")
    assert file in error.value.diag.message_primary and reason in error.value.diag.message_primary


def test_a_pooling_that_is_named_and_missing_is_an_error(server, connection, place):
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    use(connection, variant(server, place / "half", modules=modules))
    with pytest.raises(psycopg.errors.UndefinedFile) as error:
        connection.execute("select embed('a cat')")
    assert '"1_Pooling/config.json" does not exist' in error.value.diag.message_primary
    assert f'The model directory is "{place}/half". ' in error.value.diag.message_detail


def test_each_function_takes_its_prompt(connection, prompted):
    plain = {prompt: embedding(connection, prompt + "a cat") for prompt in (QUERY, DOCUMENT)}
    use(connection, prompted)
    assert facts(connection) == ("mean", QUERY, DOCUMENT)
    assert plain[QUERY] != plain[DOCUMENT]
    assert embedding(connection, "a cat") == plain[DOCUMENT]
    assert vector(connection, "(embed(array['a cat']))[1]") == plain[DOCUMENT]
    assert vector(connection, "embed_query('a cat')") == plain[QUERY]


def test_rows_have_the_prompt_of_documents_and_searches_that_of_queries(connection, prompted):
    use(connection, prompted)
    connection.execute("create table docs (id int, content text); select enable_semantic_search('docs'); "
                       "insert into docs values (1, 'a cat'), (2, 'a red stone')")
    stored = vector(connection, "select embedding from docs where id = 1")
    assert stored == embedding(connection, "a cat")
    # As a document the search has cosine 1 to the row.
    found = "select count(*) from query_docs({}, 0.9999)"
    assert one(connection, found.format("embed('a cat')")) == 1
    assert one(connection, found.format("embed_query('a cat')")) == 0 == one(connection, found.format("'a cat'"))
    assert one(connection, "select count(*) from query_docs('a cat', null)") == 2
    connection.execute("update docs set embedding = null")
    connection.execute("call embed_backfill('docs')")
    assert vector(connection, "select embedding from docs where id = 1") == stored
    assert one(connection, "select wrong from embed_verify('docs')") == 0


def test_the_memo_keeps_a_vector_for_each_role(connection, prompted):
    use(connection, prompted)
    document, query = embedding(connection, "a cat"), vector(connection, "embed_query('a cat')")
    assert document != query
    with counting(connection) as counted:
        assert (embedding(connection, "a cat"), vector(connection, "embed_query('a cat')")) == (document, query)
    assert (counted.memo_hits, counted.texts) == (2, 0)


def test_a_prompt_counts_as_tokens(server, connection, place):
    directory = variant(server, place / "short", prompts={"query": QUERY, "passage": DOCUMENT})
    write(directory, "sentence_bert_config.json", {"max_seq_length": 16})
    assert one(connection, "select token_count('cat cat')") == 4
    use(connection, directory)
    assert one(connection, "select token_count('cat cat')") == 7
    connection.execute("set gte_small.on_truncate = error; set gte_small.memo_size = 0")
    words = "cat " * 11
    with counting(connection) as counted:
        connection.execute("select embed(%s::text)", [words])
    assert counted.tokens == 16
    with pytest.raises(psycopg.errors.StringDataRightTruncation) as error:
        connection.execute("select embed(%s::text)", [words + "cat"])
    assert "last token" in error.value.diag.message_detail
    # The prompt of queries is a token shorter.
    connection.execute("select embed_query(%s::text)", [words + "cat"])
    with pytest.raises(psycopg.errors.StringDataRightTruncation):
        connection.execute("select embed_query(%s::text)", [words + "cat cat"])
    parts = connection.execute("select chunk, tokens from chunk_text(%s, 16)", ["cat " * 40]).fetchall()
    assert [tokens for _, tokens in parts] == [16, 16, 16, 12]
    for chunk, tokens in parts:
        assert one(connection, "select token_count(%s)", [chunk]) == tokens
        connection.execute("select embed(%s::text)", [chunk])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="it must be at least 11"):
        connection.execute("select * from chunk_text('cat', 10)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="overlap must be from 0 to 10 "):
        connection.execute("select * from chunk_text('cat', 16, 11)")


def test_a_model_that_gets_a_prompt_is_another_model(server, connection, place):
    """The files are read anew by each session."""
    prints = {fingerprint(connection)}
    for number, prompts in enumerate([{"query": "a "}, {"document": "a "}, {"query": "a ", "document": "a "}]):
        use(connection, variant(server, place / str(number), prompts=prompts))
        prints.add(fingerprint(connection))
    assert len(prints) == 4


def test_unknown_tokens_are_counted(connection):
    def unknown():
        return one(connection, "select unknown_tokens from embed_stats()")
    before = unknown()
    embedding(connection, "a cat")
    assert unknown() == before
    # A word of more than 100 characters has no tokens, and all such words have one vector.
    hashes = ["ab" * 64, "cd" * 64]
    assert embedding(connection, hashes[0]) == embedding(connection, hashes[1])
    assert unknown() == before + 2


def test_mask_in_a_text_is_the_special_token(connection):
    assert one(connection, "select token_count('[MASK]')") == 3
    assert embedding(connection, "[MASK]") != embedding(connection, "[ MASK ]")


def test_databases_of_one_server_have_a_model_each(server, database, cls, prompted):
    other = server.create_database()
    try:
        database.configure("gte_small.model_path", cls)
        other.configure("gte_small.model_path", prompted)
        first, second = database.connect(), other.connect()
        assert facts(first) == ("cls", "", "") and facts(second) == ("mean", QUERY, DOCUMENT)
        assert embedding(first, "a cat") != embedding(second, "a cat")
        # A plain role embeds with the model of its database, and can't change it.
        plain = database.connect("gte_plain")
        assert embedding(plain, "a cat") == embedding(first, "a cat")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute("select set_config('gte_small.model_path', %s, false)", [str(prompted)])
    finally:
        other.drop()
