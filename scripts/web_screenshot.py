"""`make web-screenshot`: docs/web.png, the search page with the demo's rows. It needs chromium."""

import sys
import threading

import state
import web
from state import CLONE, Failure, say

SEARCH = "how do I see what a query is waiting for"
WIDTH, HEIGHT = 1280, 860
TARGET = CLONE / "docs" / "web.png"


def main() -> int:
    sys.path.insert(0, str(CLONE / "tests" / "web"))
    from browser import Browser, Page, program

    if not program():
        raise Failure("there is no chromium on PATH, so nothing can be drawn; Debian and Ubuntu: apt-get install chromium")
    sys.path.insert(0, str(state.python_packages(web.PACKAGES)))
    from web_database import Database
    from web_server import Server

    server = Server(Database(web.of_the_demo(), web.TIMEOUT * 1000))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Browser()
    try:
        page = Page(browser, server.url, WIDTH, HEIGHT)
        page.wait("!document.querySelector('#table').disabled && !document.querySelector('#suggested').hidden")
        page.type(SEARCH)
        page.wait("document.querySelectorAll('.list ol').length === 3 && document.querySelectorAll('#histogram .bar').length")
        # Not by the mouse, which would stay there.
        page.run("document.querySelector('#suggested').click()")
        page.wait("document.querySelector('#results').getAttribute('aria-busy') === 'false' "
                  "&& document.querySelector('#statements code').textContent.includes('match_threshold')")
        page.run("document.activeElement.blur(); scrollTo(0, 0); "
                 "new Promise((done) => setTimeout(done, 500))")
        TARGET.write_bytes(page.screenshot(whole=False))
    finally:
        browser.close()
        server.shutdown()
        server.server_close()
    say(f"{TARGET.relative_to(CLONE)}: {TARGET.stat().st_size >> 10} kB")
    return 0


if __name__ == "__main__":
    state.verb(main)
