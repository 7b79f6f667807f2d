"""Values in the page that surprise: spaces and line breaks around them, other directions of writing, no embedding at all."""

import json

from test_browser import ask, browser, open_page, page_of_docs, texts  # noqa: F401


def test_a_value_with_spaces_or_line_breaks_is_found_as_it_is_offered(docs, connection, open_page):  # noqa: F811
    connection.execute("alter table docs add place text; update docs set place = ' shelf ' || id where id <> 2; update docs set place = e'two\\nlines' where id = 2; "
                       "select refresh_semantic_search()")
    page = open_page(docs)
    page.wait("document.querySelector('input[data-column=\"place\"]')")
    ask(page, "night")
    for typed, found in [(" shelf 1", 1), ("shelf 1", 1), ("two\nlines", 1), ("  shelf 1 ", 1), ("shelf", 0)]:
        # As the browser does it when a value of the list is chosen: the field drops line breaks.
        page.run(f"(() => {{ const e = document.querySelector('input[data-column=\"place\"]'); e.value = {json.dumps(typed)}; "
                 "e.dispatchEvent(new Event('input', {bubbles: true})); })()")
        page.wait(f"document.querySelectorAll('.list[data-part=\"meaning\"] li').length === {found}", f"{typed!r} finds {found}")


def test_text_is_written_in_its_own_direction(docs, connection, open_page):  # noqa: F811
    connection.execute("insert into docs (body, lang) values (%s, %s)", ["שלום עולם, night (2).", "עברית 12"])
    page = open_page(docs)
    page.wait("!document.querySelector('#table').disabled")
    ask(page, "night")
    direction = ("[...document.querySelectorAll('.list[data-part=\"words\"] {}')].filter((e) => e.textContent.startsWith({}))"
                 ".map((e) => getComputedStyle(e).direction)")
    assert page.run(direction.format(".text", '"שלום"')) == ["rtl"] and page.run(direction.format("dd", '"עברית"')) == ["rtl"]
    assert page.run(direction.format(".text", '"a backup"')) == ["ltr"]


def test_a_table_without_embeddings_says_so(docs, connection, open_page):  # noqa: F811
    connection.execute("alter table docs disable trigger user; update docs set embedding = null; alter table docs enable trigger user")
    page = open_page(docs)
    page.wait("!document.querySelector('#table').disabled")
    ask(page, "night")
    page.wait("document.querySelector('#histogram-note').textContent.includes('No row has an embedding')")
    assert texts(page, "words") == ["a backup is taken every night at two"]
