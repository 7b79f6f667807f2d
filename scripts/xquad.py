"""XQuAD English in BEIR's form: corpus.jsonl, queries.jsonl, qrels.tsv.

The data is not part of the project. It is read from shared/data/xquad beside the clone, or from the directory that
XQUAD names.
"""

import json
import os
from pathlib import Path

from state import SHARED, Failure


def data_directory() -> Path:
    directory = Path(os.environ.get("XQUAD") or SHARED / "xquad")
    missing = [name for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv") if not (directory / name).is_file()]
    if missing:
        raise Failure(f"{directory / missing[0]} is missing, so search can't be compared with the published figures; "
                      "name a directory with XQuAD English in BEIR's form by XQUAD=directory")
    return directory


def texts(path: Path) -> dict:
    """Text by id. The title, if there is one, is part of the text."""
    records = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {r["_id"]: f"{r.get('title') or ''} {r['text']}".strip() for r in records}


def relevant(path: Path) -> dict:
    """The ids of the right paragraphs by question, each with its grade."""
    grades = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        question, paragraph, grade = line.split("\t")
        if int(grade) > 0:
            grades.setdefault(question, {})[paragraph] = int(grade)
    return grades
