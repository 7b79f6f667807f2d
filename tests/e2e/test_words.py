"""`gte_small.words`: the words of the full-text index. They are found, nothing is raised, and policies keep the index."""

import random
import subprocess
import unicodedata

import pytest
from measure import one

# A text, and searches that must find it.
FOUND = [
    ("the error ERR-1042 came back", ["1042", "err", "ERR-1042"]),
    ("see config.json for it", ["config", "json", "config.json"]),
    ("a TCP/IP stack", ["TCP", "ip", "TCP/IP"]),
    ("a café in Paris", ["cafe", "café", "CAFÉ", "cafe\u0301"]),
    ("a cafe in Paris", ["café", "cafe"]),
    ("write to <file_name> here", ["file_name", "file", "<file_name>"]),
    ("<a href='https://example.org/x'>go</a>", ["href", "example", "org"]),
    ("売上報告", ["売上", "報告", "売上報告"]),
    ("東京タワー", ["東京", "タワー"]),
    ("release v1.2.3", ["v1.2.3", "v1", "2"]),
    ("İstanbul", ["istanbul", "Istanbul", "ISTANBUL"]),
    ("istanbul", ["İstanbul", "ıstanbul"]),
    ("Hauptstraße", ["hauptstrasse", "HAUPTSTRASSE"]),
    ("the ﬁle", ["file"]),
    ("ΟΔΟΣ", ["οδός"]),
    ("smørrebrød", ["smorrebrod"]),
    ("한국어", ["한국어"]),
    ("they were running", ["run", "runs"]),
]

# The first and last characters of the scripts that texts are drawn from.
SCRIPTS = {
    "ascii": "\x01\x7f", "latin": "\u00a1\u024f", "marks": "\u0300\u036f", "greek": "\u0370\u03ff", "cyrillic": "\u0400\u052f",
    "hebrew": "\u0590\u05ff", "arabic": "\u0600\u06ff", "devanagari": "\u0900\u097f", "thai": "\u0e00\u0e7f",
    "georgian": "\u10a0\u10ff", "hangul": "\uac00\ud7a3", "jamo": "\u1100\u11ff", "symbols": "\u2000\u2bff",
    "kana": "\u3000\u30ff", "squared": "\u3200\u33ff", "ideographs": "\u4e00\u9fff", "private": "\ue000\uf8ff",
    "presentation": "\ufb00\ufdff", "halfwidth": "\uff00\uffef", "deseret": "\U00010400\U0001044f",
    "letters": "\U0001d400\U0001d7ff", "emoji": "\U0001f300\U0001faff", "more ideographs": "\U00020000\U0002a6df",
    "all": "\x01\U0010ffff",
}

# Texts that PostgreSQL's own to_tsvector drops words of with a notice, refuses, or reads for a long time.
HOSTILE = {
    "a word of 2,047 bytes": "x" * 2047, "a word of 100,000": "x" * 100_000, "a word that grows in lower case": "\u023a" * 1020,
    "İ": "İ" * 50_000, "blanks": " " * 100_000, "punctuation": "- " * 50_000, "a tag": "<a " + "b " * 5000 + ">",
    "a script": "<script>" + "b " * 5000 + "</script>", "comments": "<!-- " * 20_000, "tags": "<" * 100_000,
    "entities": "&#x1;" * 20_000, "an address": "http://example.org/" + "a/" * 5000, "quotes": "'" * 100_000,
    "backslashes": "\\" * 100_000, "control characters": "\x01\x02\x7f" * 30_000, "a base64": "aGVsbG8gd29ybGQK" * 6000,
    "hyphens": "a-" * 50_000, "numbers": "1e" * 50_000, "squares": "㌀a" * 50_000, "long ligatures": "\ufdfa" * 100_000,
    "a tail of marks": "a" + "\u0301\u0327" * 50_000, "ideographs": "".join(map(chr, range(0x20000, 0x2A000))) * 2,
    "hyphenated letters": "".join(chr(0x10400 + i % 40) + chr(0x10400 + i // 40 % 40) + chr(0x10400 + i // 1600 % 40) + "-"
                                  for i in range(25_000)),
}


@pytest.fixture
def notices(connection):
    """What the server says beside results."""
    said = []
    connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
    connection.execute("set client_min_messages = debug1")
    return said


def finds(connection, text, search):
    """Whether the text has all words of the search, as hybrid search asks for them."""
    return one(connection, """
        select gte_small.words('pg_catalog.english', %(text)s) operator(gte_small.@@@) (
          select string_agg('''' || replace(replace(word, '\\', '\\\\'), '''', '''''') || '''', ' & ')::tsquery
            from unnest(tsvector_to_array(gte_small.words('pg_catalog.english', %(search)s))) word)
           and gte_small.words('pg_catalog.english', %(search)s) <> ''""", {"text": text, "search": search})


def has(connection, text, word):
    """Whether the index entry of a text has a word, as a tokenizer's word."""
    return one(connection, "select to_tsvector('pg_catalog.english', gte_small.split(%(word)s)) <> '' and "
                           "tsvector_to_array(to_tsvector('pg_catalog.english', gte_small.split(%(word)s))) "
                           "<@ tsvector_to_array(gte_small.words('pg_catalog.english', %(text)s))",
               {"text": text, "word": word})


@pytest.mark.parametrize("text, searches", FOUND, ids=[text for text, _ in FOUND])
def test_a_text_is_found_by_the_words_in_it(connection, text, searches):
    assert [search for search in searches if not has(connection, text, search)] == []


def test_another_text_is_not_found(connection):
    assert not finds(connection, "the error ERR-1042 came back", "1043")
    assert not finds(connection, "a café in Paris", "tea")
    assert finds(connection, "a café in Paris", "Café, Paris!")


def test_the_words_of_to_tsvector_are_among_them_at_their_places(connection):
    text = "The error ERR-1042 is in config.json, see https://example.org/a?b=c or mail bob@example.org; don't run <b>it</b>"
    missing = connection.execute(
        "select lexeme, positions from unnest(to_tsvector('pg_catalog.english', %(t)s)) "
        "except select lexeme, positions from unnest(gte_small.words('pg_catalog.english', %(t)s))", {"t": text}).fetchall()
    assert missing == []


def test_long_texts_have_the_words_of_to_tsvector_too(connection):
    """A long text is read in pieces, which must not divide a word or change a place."""
    rng = random.Random(1)
    text = " ".join("".join(rng.choices("abcdefgh", k=rng.randint(1, 12))) for _ in range(3000)) + " zebra"
    own, all_words = (connection.execute(f"select lexeme, positions from unnest({f}('pg_catalog.simple', %s)) where lexeme <> ''",
                                         [text]).fetchall() for f in ("to_tsvector", "gte_small.words"))
    assert dict(own) == dict(all_words) and dict(own)["zebra"] == [3001]


# --- NULL and empty ---


@pytest.mark.parametrize("contents, words", [
    ("null::text", ""), ("null, null", ""), ("''", ""), ("'', '  '", ""), ("variadic '{}'::text[]", ""),
    ("null, 'cat', null", "'cat':1"), ("'cat', 'dog'", "'cat':1 'dog':2"), ("variadic array[['cat','dog'],['a','bird']]", "'bird':4 'cat':1 'dog':2"),
    ("'cat'::varchar(9), 'dog'::char(9)::text, 'bird'::name::text", "'bird':3 'cat':1 'dog':2"),
])
def test_columns_that_are_null_or_empty(connection, contents, words):
    assert one(connection, f"select gte_small.words('pg_catalog.english', {contents})::text") == words


def test_null_arguments(connection):
    assert one(connection, "select gte_small.words(null, 'cat')") is None
    assert one(connection, "select gte_small.words('pg_catalog.english', variadic null)") is None
    assert one(connection, "select gte_small.split(null)") is None


def test_100000_characters_of_a_row_are_read(connection):
    text = "é " * 49_999 + "ab cd"
    assert one(connection, "select gte_small.words('pg_catalog.simple', %s)::text", [text]).count("'ab'") == 1
    assert not has(connection, text, "cd")
    assert one(connection, "select length(gte_small.split(repeat('é ', 1000000)))") == 99_999


# --- LEAKPROOF ---


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_raised_for_random_characters(connection, notices, script):
    first, last = map(ord, SCRIPTS[script])
    rng = random.Random(script)
    characters = [chr(code) for code in range(first, last + 1) if not 0xD800 <= code <= 0xDFFF]
    for letters_in_a_word in (1, 8, 5000, 100_000):
        text = " ".join("".join(rng.choices(characters, k=min(letters_in_a_word, 100_000)))
                        for _ in range(-(-100_000 // (letters_in_a_word + 1))))[:100_000]
        connection.execute("select gte_small.words('pg_catalog.english', %(t)s), gte_small.split(%(t)s)", {"t": text})
        connection.execute("select gte_small.words('pg_catalog.russian', variadic %s)", [[text[:10], None, text]])
    assert notices == []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_is_raised_for_hostile_texts(connection, notices, text):
    for language in ("english", "simple", "turkish"):
        words = one(connection, "select tsvector_to_array(gte_small.words(%s::regconfig, %s))", ["pg_catalog." + language, text])
        assert all(0 < len(word.encode()) < 2047 for word in words)
    assert notices == []


def test_what_would_be_raised_without_pieces(connection, notices):
    """The texts above are hostile: PostgreSQL's own function does raise."""
    connection.execute("select to_tsvector('pg_catalog.english', %s)", ["x" * 2048])
    assert notices == ["word is too long to be indexed"]


def test_all_functions_of_the_index_are_leakproof(connection):
    assert one(connection, """
        select array_agg(distinct p.proname::text order by p.proname::text)
          from pg_proc p where pronamespace = 'gte_small'::regnamespace and proleakproof and proparallel = 's' and provolatile = 'i'
            and proname <> 'below'"""
               ) == ["has_words", "split", "unpadded", "words"]


# --- encodings ---

LATIN1_SIGNS = "5 µm ½ © «x»"
LOWER_CASE = ["err-1042 café <file_name> naïve", "straße déjà-vu über", "v1.2.3 tcp/ip", "it's a 'quoted' \\ word"]


@pytest.mark.parametrize("encoding, texts", [
    ("LATIN1", LOWER_CASE + ["CAFÉ ÜBER", LATIN1_SIGNS]), ("UTF8", LOWER_CASE + ["CAFÉ", "売上報告。東京", "İstanbul ΟΔΟΣ", "한국어 हिन्दी"]),
    ("EUC_JP", ["売上報告。東京", "データ、サーバー", "ﾃﾞｰﾀ", "ERR-1042 ＡＢＣ"]), ("SQL_ASCII", ["err-1042 tcp/ip"]),
])
def test_split_words_are_the_same_in_any_encoding(server, encoded, encoding, texts):
    """In databases with the C locale, where PostgreSQL knows the letters of ASCII only, and with a Unicode locale."""
    there = encoded(encoding)
    here = server.create_database("template0", "encoding 'UTF8' locale 'C.UTF-8'")
    try:
        unicode = here.connect()
        unicode.execute('create extension "gte-small" cascade')
        for text in texts:
            expected = one(unicode, "select gte_small.split(%s)", [text])
            if encoding == "LATIN1":
                # The compatibility form of µ is a Greek letter, which is not in Latin 1.
                expected = expected.replace("μ", " ")
            assert one(there, "select gte_small.split(%s)", [text]).split() == expected.split()
            words = [set(one(c, "select tsvector_to_array(to_tsvector('pg_catalog.simple', gte_small.split(%s)))", [text]))
                     for c in (there, unicode)]
            if text != LATIN1_SIGNS:
                assert words[0] == words[1]
            # With one byte a character and the C locale, PostgreSQL's own words end at an accent.
            if text in LOWER_CASE and encoding == "UTF8":
                everything = [one(c, "select strip(gte_small.words('pg_catalog.english', %s))::text", [text]) for c in (there, unicode)]
                assert everything[0] == everything[1]
    finally:
        here.drop()


@pytest.mark.parametrize("encoding", ["LATIN1", "UTF8", "EUC_JP"])
def test_searches_find_in_any_encoding(encoded, encoding):
    there = encoded(encoding)
    codec = {"LATIN1": "latin1", "UTF8": "utf-8", "EUC_JP": "euc_jp"}[encoding]

    def representable(text):
        try:
            return bool(text.encode(codec))
        except UnicodeEncodeError:
            return False

    tried = [(text, search) for text, searches in FOUND for search in searches if representable(text) and representable(search)]
    assert len(tried) > 15 and [pair for pair in tried if not has(there, *pair)] == []


def test_bytes_without_an_encoding(encoded):
    """A SQL_ASCII database stores any bytes. No error may tell which."""
    there = encoded("SQL_ASCII")
    assert one(there, r"select gte_small.words('pg_catalog.english', E'caf\xe9 cat', E'\xff\xc3')::text").count("'cat'") == 1
    assert one(there, r"select gte_small.split(E'caf\xe9 \xffcat')") == "caf cat"


def test_characters_without_a_counterpart_in_unicode(encoded):
    """EUC_JP has code points that are valid and can't be converted to UTF-8."""
    there = encoded("EUC_JP")
    for code in (r"\xa9\xa1", r"\xf5\xa1", r"\x8f\xf4\xa1", r"\x8e\xfe"):
        with_it = rf"E'cat{code}dog {code}'"
        there.execute("set client_encoding = 'SQL_ASCII'")
        try:
            there.execute(f"select {with_it}::text")
        except Exception as refused:
            assert "encoding" in str(refused)
            continue
        assert one(there, f"select tsvector_to_array(gte_small.words('pg_catalog.simple', {with_it}))::text like '%cat%'")
        assert one(there, f"select gte_small.split({with_it})") is not None


def test_control_characters_and_marks_join_nothing_visible(connection):
    for category in ("Po", "Ps", "Pe", "Sm", "Sc", "So", "Zs"):
        character = next(c for c in map(chr, range(0xA0, 0x3100)) if unicodedata.category(c) == category)
        assert one(connection, "select gte_small.split(%s)", [f"cat{character}dog"]) == "cat dog", category


# --- the index ---

INDEX = "using gin (gte_small.words('pg_catalog.english', title::text, body::text) gte_small.words_ops)"
SEARCH = "select id from docs where gte_small.words('pg_catalog.english', title::text, body::text) operator(gte_small.@@@) %s::tsquery"


@pytest.fixture
def docs(connection):
    """Rows of two owners; gte_plain sees its own."""
    connection.execute(
        "create table docs (id int primary key, title varchar(40), body text, owner text not null); "
        "insert into docs select i, 'title ' || i, 'body number ' || i || ' ERR-' || (i + 100000), "
        "case when i % 2 = 0 then 'gte_plain' else 'gte_owner' end from generate_series(1, 2000) i; "
        "alter table docs enable row level security; create policy mine on docs using (owner = current_user); "
        "grant select on docs to gte_plain; alter table docs owner to gte_owner"
    )
    return connection


def plan_of(connection, cast="title::text"):
    search = SEARCH.replace("title::text", cast) % "$$'100400'$$"
    return "\n".join(line for (line,) in connection.execute(f"explain (costs off) {search}"))


def test_a_policy_does_not_forbid_the_index(database, docs):
    docs.execute(f"create index docs_words on docs {INDEX}; analyze docs")
    plain = database.connect("gte_plain")
    assert "docs_words" in plan_of(plain)
    assert plain.execute(SEARCH, ["'100400'"]).fetchall() == [(400,)]
    # The row is there, of another owner.
    assert plain.execute(SEARCH, ["'100401'"]).fetchall() == []
    assert docs.execute(SEARCH, ["'100401'"]).fetchall() == [(401,)]


@pytest.mark.parametrize("column, cast", [("text", "title"), ("varchar(40)", "title::text"), ("name", "title::text"),
                                          ("char(40)", "gte_small.unpadded(title)")])
def test_every_type_of_text_column_reaches_the_index(database, docs, column, cast):
    """The cast from char(n) to text is not leakproof, so there is a function of ours."""
    docs.execute(f"alter table docs alter title type {column}")
    docs.execute(f"create index docs_words on docs {INDEX.replace('title::text', cast)}; analyze docs")
    plain = database.connect("gte_plain")
    assert "docs_words" in plan_of(plain, cast=cast)
    assert plain.execute(SEARCH.replace("title::text", cast), ["'100400'"]).fetchall() == [(400,)]


def test_core_operators_would_read_the_table(database, docs):
    """What the operator class is for."""
    docs.execute("create index docs_core on docs using gin (to_tsvector('pg_catalog.english', body)); analyze docs")
    plain = database.connect("gte_plain")
    plan = "\n".join(line for (line,) in plain.execute(
        "explain (costs off) select id from docs where to_tsvector('pg_catalog.english', body) @@ '100400'::tsquery"))
    assert "docs_core" not in plan


def test_the_owner_makes_and_maintains_the_index(database, docs):
    """Maintenance runs with search_path = pg_catalog, pg_temp since PostgreSQL 17."""
    owner = database.connect("gte_owner")
    docs.execute("grant create on schema public to gte_owner")
    owner.execute(f"create index docs_words on docs {INDEX}")
    owner.execute("reindex table docs")
    owner.execute("reindex index concurrently docs_words")
    owner.execute("update docs set body = body || ' zebra'")
    owner.execute("analyze docs")
    owner.execute("vacuum analyze docs")
    owner.execute(f"create index concurrently on docs {INDEX}")
    owner.execute("cluster docs using docs_pkey")
    owner.execute("set enable_seqscan = off")
    docs.execute("set enable_seqscan = off")
    assert docs.execute(SEARCH, ["'100400' & 'zebra'"]).fetchall() == [(400,)]


def test_parallel_builds_have_the_same_rows(docs):
    docs.execute("set maintenance_work_mem = '128MB'; set max_parallel_maintenance_workers = 2; set min_parallel_table_scan_size = 0; "
                 "alter table docs set (parallel_workers = 2)")
    docs.execute(f"create index docs_words on docs {INDEX}; set enable_seqscan = off")
    assert "docs_words" in plan_of(docs)
    assert docs.execute(SEARCH, ["'bodi' & 'err'"]).rowcount == 2000


def test_a_dump_restores_the_index(server, database, docs):
    docs.execute(f"create index docs_words on docs {INDEX}")
    cluster = server.cluster
    other = server.create_database("template0")
    try:
        dump = subprocess.run([str(cluster.bin / "pg_dump"), "-d", cluster.dsn(dbname=database.name, user="postgres")],
                              env=cluster.environment(), capture_output=True, text=True, check=True).stdout
        subprocess.run([str(cluster.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1",
                        "-d", cluster.dsn(dbname=other.name, user="postgres")],
                       env=cluster.environment(), input=dump, capture_output=True, text=True, check=True)
        restored = other.connect()
        restored.execute("set enable_seqscan = off")
        assert "docs_words" in plan_of(restored)
        assert restored.execute(SEARCH, ["'100400'"]).fetchall() == [(400,)]
    finally:
        other.drop()
