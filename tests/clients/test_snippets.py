"""docs/applications.md: each snippet is a part of the example that it names. The examples pin what they need."""

import pathlib
import re
import sys
import textwrap

import pytest

from conftest import CLONE, EXAMPLES

PAGE = (CLONE / "docs" / "applications.md").read_text("utf-8")
SNIPPETS = re.findall(r"^<!-- (examples/\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_each_snippet_names_its_example():
    fenced = len(re.findall(r"^```\w+$", PAGE, re.MULTILINE))
    assert len(SNIPPETS) == fenced > 10


@pytest.mark.parametrize("path, snippet", SNIPPETS)
def test_a_snippet_is_part_of_its_example(path, snippet):
    wanted = textwrap.dedent(snippet).splitlines()
    lines = (CLONE / path).read_text("utf-8").splitlines()
    parts = (textwrap.dedent("\n".join(lines[n:n + len(wanted)])).splitlines() for n in range(len(lines)))
    assert wanted in parts, f"{path} has no such lines:\n{snippet}"


def test_the_page_names_each_example():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert {name for name in folders if f"(../examples/{name})" in PAGE} == folders


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/package-lock.json")), ids=lambda path: path.parent.name)
def test_a_lock_file_has_no_address_of_a_mirror(path):
    addresses = re.findall(r'"resolved": "(https?://[^/"]+)', path.read_text("utf-8"))
    assert set(addresses) <= {"https://registry.npmjs.org"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="libraries need more packages on an older Python")
def test_requirements_pin_every_package(server):
    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    for example, place in server.described["python"].items():
        text = (EXAMPLES / example / "requirements.txt").read_text("utf-8")
        pinned = {plain(name) for name in re.findall(r"^([\w.-]+)(?:\[\w+\])?==", text, re.MULTILINE)}
        installed = {plain(path.name.split("-")[0]) for path in pathlib.Path(place).glob("*.dist-info")}
        assert pinned == installed, example
