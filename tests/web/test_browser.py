"""The search page in a headless chromium. Run by `python3 scripts/test.py --only browser`, and by make test-debian."""

import json
import time

import psycopg
import pytest

import web_role
from browser import Browser, Page, program
from conftest import DOCS, make_docs, make_role, reader
from test_server import active, make_fast, make_slow, until

SCRIPT = DOCS[3][0]


@pytest.fixture(scope="session")
def browser():
    assert program(), "there is no chromium on PATH; Debian's package is chromium"
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser):
    """Opens pages; at the end of the test none may have an error on its console that the test does not expect."""
    opened = []

    def open_one(running, **options) -> Page:
        page = Page(browser, running if isinstance(running, str) else running.url, **options)
        page.expected = ()
        opened.append(page)
        return page

    yield open_one
    for page in opened:
        complaints = [text for text in page.complaints() if not any(word in text for word in page.expected)]
        page.close()
        assert not complaints


@pytest.fixture
def page_of_docs(docs, open_page):
    page = open_page(docs)
    page.wait("!document.querySelector('#table').disabled")
    return page


def ask(page: Page, text: str, lists: int = 3) -> None:
    page.run("document.querySelector('#search').select()")
    page.type(text)
    shown(page, text, lists)


def shown(page: Page, text: str, lists: int = 3) -> None:
    """Waits for the results of this search."""
    literal = json.dumps("'" + text.replace("'", "''") + "'")
    page.wait(f"document.querySelectorAll('.list ol, .list > .nothing').length >= {lists} && "
              f"[...document.querySelectorAll('#statement-list code')].every((e) => e.textContent.includes({literal})) && "
              f"document.querySelectorAll('#statement-list code').length === {lists}", f"results of {text}")


def texts(page: Page, part: str) -> list:
    return page.texts(f'.list[data-part="{part}"] .text')


# -- searching --

def test_results_come_while_one_types(page_of_docs):
    page_of_docs.type("a backup at night")
    shown(page_of_docs, "a backup at night")
    assert texts(page_of_docs, "meaning") and len(texts(page_of_docs, "meaning")) == len(DOCS)
    assert texts(page_of_docs, "words") == [DOCS[5][0]]
    assert page_of_docs.texts('.list[data-part="words"] mark') == ["backup", "night"]
    measures = page_of_docs.text('.list[data-part="words"] .measures').split("\n")
    assert "similarity" in measures and "words" in measures and "no. 1" in measures and "matched" in measures
    assert page_of_docs.text("#count") == f"{len(DOCS)} rows by meaning, 1 row by words, {len(DOCS)} rows by both"


def test_the_search_has_the_focus_when_the_page_opens(page_of_docs):
    assert page_of_docs.focused() == "Search"


def test_the_view_and_the_number_of_rows_can_be_chosen(page_of_docs):
    ask(page_of_docs, "night")
    page_of_docs.click('input[value="words"]')
    page_of_docs.wait("document.querySelectorAll('.list').length === 1")
    assert texts(page_of_docs, "words") == [DOCS[5][0]]
    page_of_docs.click('input[value="both"]')
    page_of_docs.run("(() => { const e = document.querySelector('#rows'); e.value = '5'; e.dispatchEvent(new Event('change', {bubbles: true})); })()")
    page_of_docs.wait("document.querySelectorAll('.list[data-part=\"both\"] li').length === 5")
    assert "no. 1" in page_of_docs.text('.list[data-part="both"] .measures')


def test_markup_in_rows_is_text(page_of_docs):
    ask(page_of_docs, "script document title bold")
    assert SCRIPT in texts(page_of_docs, "words")
    assert page_of_docs.run("document.title") == "gte-small"
    assert page_of_docs.run("document.querySelectorAll('#results script, #results b').length") == 0


def test_markup_in_names_and_values_is_text(docs, connection, open_page):
    name = "<img src=x onerror=document.title=1>"
    connection.execute(f'create table "{name}" (body text, "{name}" text); insert into "{name}" values (\'night\', \'{name}\')'.encode())
    connection.execute("select enable_semantic_search(%s, '{body}')", [f'"{name}"'])
    connection.execute(f'update "{name}" set body = \'nights\'; grant select on "{name}" to gte_web; drop table docs cascade'.encode())
    page = open_page(docs)
    page.wait("document.querySelectorAll('#filter-fields label').length")
    ask(page, "night")
    assert page.run("document.title") == "gte-small" and page.run("document.querySelectorAll('main img').length") == 0
    assert name in page.text("#results") and name in page.text("#filter-fields") and name in page.text("#table")


def test_inline_script_is_refused_by_the_browser(page_of_docs):
    page_of_docs.expected = ("Content Security Policy", "TrustedHTML", "TrustedScript")
    refused = page_of_docs.run("(() => { try { document.body.innerHTML = '<p>x</p>'; return false; } catch { return true; } })()")
    page_of_docs.run("(() => { const e = document.createElement('script'); try { e.textContent = 'document.title = 1'; document.body.append(e); } catch {} })()")
    assert refused and page_of_docs.run("document.title") == "gte-small"


# -- threshold, filter, copy --

def test_the_slider_moves_by_arrow_keys_and_searches(page_of_docs):
    ask(page_of_docs, "a backup is taken every night at two")
    page_of_docs.wait("document.querySelectorAll('#histogram .bar').length")
    page_of_docs.run("document.querySelector('#threshold').focus()")
    page_of_docs.press("End")
    page_of_docs.press("ArrowLeft", times=3)
    page_of_docs.wait("document.querySelectorAll('.list[data-part=\"meaning\"] li').length === 1")
    value = page_of_docs.text("#threshold-shown")
    assert 0.9 < float(value) < 1 and page_of_docs.run("document.querySelector('#threshold').getAttribute('aria-valuetext')") == value
    assert f"match_threshold => {float(value):g}" in page_of_docs.text('#statements figure[data-part="meaning"] code')
    assert f"1 of all {len(DOCS)} rows are at least so similar" in page_of_docs.text("#histogram-note")
    assert page_of_docs.run("document.querySelectorAll('#histogram .bar.above').length") == 1
    page_of_docs.press("Home")
    page_of_docs.wait(f"document.querySelectorAll('.list[data-part=\"meaning\"] li').length === {len(DOCS)}")
    assert page_of_docs.text("#threshold-shown") == "any"


def test_rows_below_the_threshold_are_grey_where_no_threshold_applies(page_of_docs):
    ask(page_of_docs, "a backup is taken every night at two")
    page_of_docs.click('input[value="both"]')
    page_of_docs.wait("document.querySelectorAll('.list').length === 1 && document.querySelectorAll('#histogram .bar').length")
    page_of_docs.run("document.querySelector('#threshold').focus()")
    page_of_docs.press("End")
    page_of_docs.press("ArrowLeft", times=3)
    page_of_docs.wait(f"document.querySelectorAll('.row.below').length === {len(DOCS) - 1}")
    assert len(texts(page_of_docs, "both")) == len(DOCS) and "this list shows rows below it in grey" in page_of_docs.text("#histogram-note")


def test_a_threshold_without_rows_says_so(page_of_docs):
    ask(page_of_docs, "night")
    page_of_docs.wait("document.querySelectorAll('#histogram .bar').length")
    page_of_docs.run("(() => { const e = document.querySelector('#threshold'); e.focus(); e.value = e.max; })()")
    page_of_docs.press("End")
    page_of_docs.press("ArrowLeft")
    page_of_docs.wait("document.querySelector('.list[data-part=\"meaning\"] > .nothing')?.innerText.includes('No row has a similarity')")


def test_filters_by_choice_and_by_value(page_of_docs):
    page_of_docs.wait("document.querySelectorAll('.picks input').length")
    ask(page_of_docs, "night")
    page_of_docs.click('[data-column="lang"] label:nth-child(1) input')
    page_of_docs.wait("document.querySelectorAll('.list[data-part=\"meaning\"] li').length === 1")
    assert texts(page_of_docs, "meaning") == [DOCS[0][0]] and texts(page_of_docs, "words") == []
    assert """filter => '{"lang": "de"}'""" in page_of_docs.text('#statements figure[data-part="meaning"] code')
    page_of_docs.click('[data-column="lang"] label:nth-child(2) input')
    page_of_docs.wait("document.querySelectorAll('.list[data-part=\"meaning\"] li').length === 4")
    page_of_docs.click("#clear-filters")
    page_of_docs.wait(f"document.querySelectorAll('.list[data-part=\"meaning\"] li').length === {len(DOCS)}")
    assert page_of_docs.run("document.querySelectorAll('.picks input:checked').length") == 0
    page_of_docs.run("document.querySelector('input[data-column=\"id\"]').focus()")
    page_of_docs.type("2")
    page_of_docs.wait("document.querySelectorAll('.list[data-part=\"meaning\"] li').length === 1")
    assert texts(page_of_docs, "meaning") == [DOCS[1][0]]


def test_a_value_that_the_column_cannot_have_is_said_once(page_of_docs):
    ask(page_of_docs, "night")
    page_of_docs.run("document.querySelector('input[data-column=\"id\"]').focus()")
    page_of_docs.type("x")
    page_of_docs.wait("!document.querySelector('#problem').hidden")
    assert "not of its type" in page_of_docs.text("#problem") and page_of_docs.texts(".list") == []
    page_of_docs.click("#clear-filters")
    page_of_docs.wait(f"document.querySelector('#problem').hidden && document.querySelectorAll('.list').length === 3")


def test_the_statement_is_copied(browser, page_of_docs):
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"], browserContextId=page_of_docs._context)
    page_of_docs.send("Emulation.setFocusEmulationEnabled", enabled=True)
    ask(page_of_docs, "it's night")
    page_of_docs.click('figure[data-part="both"] button')
    page_of_docs.wait("document.querySelector('#count').innerText.includes('was copied')")
    copied = page_of_docs.run("navigator.clipboard.readText()")
    assert copied == page_of_docs.run("document.querySelector('figure[data-part=\"both\"] code').textContent")
    assert copied.endswith("hybrid_docs('it''s night', 10) h;")


# -- the table and the model --

def test_status_model_and_self_test(page_of_docs, connection):
    connection.execute("alter table docs disable trigger all; insert into docs (body) values ('new')")
    page_of_docs.click("#status summary")
    page_of_docs.wait("document.querySelector('#status .hints')")
    assert any("embed_backfill" in code for code in page_of_docs.texts("#status .hints code")) and "missing" in page_of_docs.text("#status")
    page_of_docs.click("#model summary")
    page_of_docs.wait("document.querySelector('#model .facts')")
    time.sleep(0.2)
    page_of_docs.click("#selftest")
    page_of_docs.wait("document.querySelector('#selftest-result dd')")
    assert "least cosine" in page_of_docs.text("#selftest-result")


# -- errors --

def test_a_stopped_postgresql_is_said_and_trying_again_works(server, page, open_page):
    with server.another("browser", {"gte_small.model_path": str(server.tiny)}) as cluster:
        web_role.make(cluster, "postgres")
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            make_docs(connection)
            connection.execute("checkpoint")
        window = open_page(page(cluster.dsn("postgres", web_role.ROLE)))
        window.wait("!document.querySelector('#table').disabled")
        ask(window, "night")
        cluster.stop("immediate")
        window.type("s")
        window.wait("!document.querySelector('#problem').hidden")
        assert "PostgreSQL does not answer" in window.text("#problem") and "make start" in window.texts("#problem code")
        assert window.run("document.querySelector('#problem').getAttribute('role')") == "alert"
        cluster.start()
        window.click("#problem button")
        window.wait("document.querySelector('#problem').hidden")
        shown(window, "nights")


def test_a_stopped_page_server_is_said(page_of_docs, docs):
    ask(page_of_docs, "night")
    page_of_docs.expected = ("ERR_CONNECTION_REFUSED", "Failed to load resource")
    docs.close()
    page_of_docs.type("s")
    page_of_docs.wait("!document.querySelector('#problem').hidden")
    assert "The server of this page does not answer" in page_of_docs.text("#problem") and "make web" in page_of_docs.texts("#problem code")


def test_without_a_model_the_page_says_what_to_do(docs, database, page, open_page):
    database.configure("gte_small.model_path", "/nowhere")
    window = open_page(page(reader(database)))
    window.wait("!document.querySelector('#table').disabled")
    window.type("night")
    window.wait("!document.querySelector('#problem').hidden")
    assert "model" in window.text("#problem") and len(window.texts("#problem p")) >= 2
    assert window.texts(".list") == []


def test_a_statement_that_takes_too_long_is_said(docs, database, connection, page, open_page):
    make_slow(connection)
    window = open_page(page(reader(database), timeout_ms=2000))
    window.wait("!document.querySelector('#table').disabled")
    window.type("night")
    window.wait("!document.querySelector('#problem').hidden")
    assert "stopped after 2 seconds" in window.text("#problem") and "TIMEOUT=60 make web" in window.texts("#problem code")


def test_a_table_without_rights_shows_the_grant(docs, connection, open_page):
    connection.execute("create table closed (body text); select enable_semantic_search('closed', '{body}')")
    window = open_page(docs)
    window.wait("document.querySelector('#table').options.length === 2")
    assert "no right to read" in window.text("#table")
    window.run("(() => { const e = document.querySelector('#table'); e.value = '0'; e.dispatchEvent(new Event('change', {bubbles: true})); })()")
    window.wait("!document.querySelector('#problem').hidden")
    assert "may not read closed" in window.text("#problem")
    connection.execute(window.text("#problem code").encode())
    window.click("#problem button")
    window.wait("document.querySelector('#problem').hidden && !document.querySelector('#table').innerText.includes('no right')")


def test_an_address_without_the_key_is_said(docs, open_page):
    window = open_page(docs.url.split("#")[0])
    window.expected = ("403",)
    window.wait("!document.querySelector('#problem').hidden")
    assert "make web" in window.text("#problem") and window.texts("#table option") == []


def test_typing_on_cancels_the_statement_that_runs(docs, connection, open_page):
    make_slow(connection)
    window = open_page(docs)
    # The filters read a sample of the rows, too.
    window.wait("!document.querySelector('#table').disabled")
    make_fast(connection)
    until(lambda: active(connection) == 0)
    window.wait("!document.querySelector('#filters').hidden")
    connection.execute("update pace set seconds = 10")
    window.type("night")
    until(lambda: active(connection) == 1)
    make_fast(connection)
    window.type("s")
    shown(window, "nights")
    assert active(connection) == 0


# -- widths, colours, keyboard, screen reader --

@pytest.mark.parametrize("width", [390, 620, 960, 1280, 1600])
def test_nothing_is_cut_off_at_any_width(docs, connection, open_page, width):
    connection.execute("insert into docs (body, lang) values (%s, %s)", ["night " + "verylongword" * 40, "language" * 20])
    window = open_page(docs, width=width, height=900)
    window.wait("!document.querySelector('#filters').hidden")
    ask(window, "night " + "x" * 200, lists=3 if width >= 960 else 1)
    window.run("for (const d of document.querySelectorAll('details')) d.open = true")
    window.wait("document.querySelector('#model dd') && document.querySelector('#status dd')")
    assert window.run("document.documentElement.scrollWidth") <= width
    outside = window.run("[...document.querySelectorAll('main *:not(.unseen):not(option):not(datalist)')].filter((e) => e.checkVisibility() && "
                         "e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg')).map((e) => e.outerHTML.slice(0, 90))")
    assert outside == []
    lists = window.run("[...document.querySelectorAll('.list')].map((e) => Math.round(e.getBoundingClientRect().top))")
    assert len(set(lists)) == 1


CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; } return [255, 255, 255]; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest('.unseen, noscript')) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push([walker.currentNode.data.trim().slice(0, 40), ((a + .05) / (b + .05)).toFixed(2)]);
  }
  return poor;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(docs, open_page, scheme):
    window = open_page(docs, scheme=scheme)
    window.wait("!document.querySelector('#filters').hidden")
    ask(window, "night")
    window.wait("document.querySelectorAll('#histogram .bar').length")
    window.run("document.querySelector('#threshold').focus()")
    window.press("ArrowRight", times=20)
    window.click('[data-column="lang"] label:nth-child(1) input')
    window.click("#status summary")
    window.wait("document.querySelector('#status dd') && document.querySelector('#threshold-shown').innerText !== 'any'")
    time.sleep(0.3)
    assert window.run(CONTRAST) == []
    dark = window.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((v) => v < 60)")
    assert dark == (scheme == "dark")


def test_everything_is_reached_by_keyboard_in_reading_order(page_of_docs):
    page_of_docs.wait("!document.querySelector('#filters').hidden")
    ask(page_of_docs, "night")
    page_of_docs.wait("document.querySelectorAll('#histogram .bar').length")
    reached = []
    for _ in range(40):
        page_of_docs.press("Tab")
        if page_of_docs.run("document.activeElement === document.body"):
            break
        outlined = page_of_docs.run("(() => { const e = document.activeElement; const s = (x) => x && getComputedStyle(x).outlineStyle !== 'none'; "
                                    "return s(e) || s(e.nextElementSibling) || e.type === 'search'; })()")
        assert outlined, f"no visible focus on {page_of_docs.focused()}"
        reached.append(page_of_docs.focused())
    expected = ["Side by side", "Rows", "Similarity at least", "Filters", "id, integer", "de", "The statement of the search by meaning",
                "Copy the statement of the search by meaning", "This table", "The model"]
    places = [next((i for i, name in enumerate(reached) if name.startswith(word)), None) for word in expected]
    assert None not in places, (expected, reached)
    # The button stands before the statement that it copies.
    places[6], places[7] = places[7], places[6]
    assert places == sorted(places), reached


def test_a_search_from_start_to_copy_by_keyboard_alone(page_of_docs):
    page_of_docs.type("night")
    shown(page_of_docs, "night")
    page_of_docs.press("Tab")
    page_of_docs.press("ArrowLeft", times=2)
    page_of_docs.wait("document.querySelectorAll('.list').length === 1 && document.querySelector('.list').dataset.part === 'words'")
    while not page_of_docs.focused().startswith("This table"):
        page_of_docs.press("Tab")
    page_of_docs.press("Enter")
    page_of_docs.wait("document.querySelector('#status dd')")
    page_of_docs.send("Input.dispatchKeyEvent", type="keyDown", key="/", text="/", code="Slash")
    assert page_of_docs.focused() == "Search" and page_of_docs.run("document.activeElement.value") == "night"


def test_a_screen_reader_finds_names_headings_lists_and_the_count(page_of_docs):
    page_of_docs.wait("!document.querySelector('#filters').hidden")
    ask(page_of_docs, "night")
    page_of_docs.send("Accessibility.enable")
    nodes = [{"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
             for node in page_of_docs.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"] and "role" in node]
    nameless = [node for node in nodes if not node["name"] and node["role"] in
                ("button", "searchbox", "textbox", "slider", "combobox", "radio", "checkbox", "radiogroup", "group", "region", "search", "heading")]
    assert [node for node in nameless if node["role"] not in ("search", "group")] == []
    headings = [node["name"] for node in nodes if node["role"] == "heading"]
    assert sorted(headings) == sorted(["gte-small", "Similarity at least", "Filters", "Results", "By meaning", "By words", "By both",
                        "The statements", "This table", "The model"])
    roles = [node["role"] for node in nodes]
    assert roles.count("list") == 3 and roles.count("listitem") == len(DOCS) * 2 + 1
    assert "status" in roles and "slider" in roles and "searchbox" in roles
    assert page_of_docs.run("document.querySelector('#count').getAttribute('role')") == "status"


def test_only_files_of_this_server_are_loaded(page_of_docs, browser, docs):
    ask(page_of_docs, "night")
    loaded = {event["request"]["url"] for event in browser.events(page_of_docs.session, "Network.requestWillBeSent")}
    assert loaded and all(url.startswith(f"http://127.0.0.1:{docs.port}/") for url in loaded)


def test_an_imported_table_beside_others_is_found(database, connection, page, open_page):
    connection.execute("create table imported (body text, title text); comment on table imported is 'imported from notes.csv'")
    connection.execute("select enable_semantic_search('imported', '{title,body}'); insert into imported values ('all about nights', 'A title')")
    make_role(database)
    window = open_page(page(reader(database)))
    window.wait("!document.querySelector('#table').disabled")
    ask(window, "night")
    assert texts(window, "words") == ["A title", "all about nights"]


def test_documents_are_shown_by_their_best_chunk_and_without_other_views(docs, connection, open_page):
    connection.execute("drop table docs cascade; create table papers (id int primary key, body text); select enable_document_search('papers', '{body}')")
    connection.execute("insert into papers values (1, 'a backup at night'); grant select on papers, papers_chunks to gte_web")
    window = open_page(docs)
    window.wait("!document.querySelector('#table').disabled")
    assert window.text("#table") == "papers, documents" and not window.run("document.querySelector('#view').checkVisibility()")
    ask(window, "night", lists=1)
    assert texts(window, "meaning") == ["a backup at night"] and window.texts(".list h3") == ["By meaning"]
    assert "documents" in window.text(".list > .note")
