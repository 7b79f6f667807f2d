"""Every link and anchor in README and docs leads somewhere, and README is short."""

import re
import subprocess
import sys

import pytest

from conftest import CLONE

PAGES = [*(CLONE / name for name in ("README.md", "DEVELOPING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md")),
         *sorted((CLONE / "docs").glob("*.md"))]
# Pages to which the questions of README lead.
QUESTIONS = 10


def prose(path):
    """The page without code, in which a link is no link."""
    text = re.sub(r"^[ ]*```.*?^[ ]*```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def anchors(path):
    """The anchors that GitHub makes of the headings."""
    found = []
    for heading in re.findall(r"^#+ (.*?)#*$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(anchor if anchor not in found else f"{anchor}-{found.count(anchor)}")
    return found


def links(path):
    text = re.sub(r"`[^`\n]*`", "", prose(path))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    lost = []
    for link in links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_the_pages_have_links_and_anchors():
    assert "the-trigger" in anchors(CLONE / "docs" / "tables.md")
    assert "docs/install.md#upgrade" in links(CLONE / "README.md")


def test_readme_is_short_and_leads_to_each_page():
    readme = CLONE / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 120
    assert {f"docs/{page.name}" for page in (CLONE / "docs").glob("*.md")} <= {link.partition("#")[0] for link in links(readme)}


def test_each_question_of_a_newcomer_leads_to_a_heading():
    rows = re.findall(r"^\| [^|]*\? \| (.*) \|$", prose(CLONE / "README.md"), re.MULTILINE)
    assert len(rows) >= QUESTIONS
    assert all(re.fullmatch(r"\[[^\]]+\]\(docs/[a-z]+\.md#[a-z-]+\)", answer) for answer in rows)


def test_each_promise_names_tests_that_are_there():
    rows = re.findall(r"^\| .* \| (.*`.*) \|$", prose(CLONE / "docs" / "promises.md"), re.MULTILINE)
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)?(?:::(test_\w+))?`", row)
        assert any(file for file, _ in named) or row.startswith("`make"), row
        for file, test in named:
            found = list((CLONE / "tests").glob(f"*/{file}")) if file else []
            assert bool(found) == bool(file), row
            assert not test or f"def {test}(" in found[0].read_text(encoding="utf-8"), row


def test_the_picture_of_readme_has_the_figures_of_the_page():
    drawn = subprocess.run([sys.executable, CLONE / "bench" / "peers_plot.py"], capture_output=True, text=True, check=True).stdout
    assert drawn.count("<rect") > 20
    assert drawn == (CLONE / "docs" / "speed.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- docs-test: tolerance" in page.read_text(encoding="utf-8")], ids=lambda path: path.name)
def test_a_page_says_by_how_much_its_numbers_may_differ(page):
    [tolerance] = re.findall(r"<!-- docs-test: tolerance (\S+) -->", page.read_text(encoding="utf-8"))
    assert re.search(rf"differ(ences)? (of|by) {re.escape(tolerance)}\b", prose(page))
