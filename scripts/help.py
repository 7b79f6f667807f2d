"""`make help`: lists the verbs and variables that are in the Makefile."""

import re

import state


def main() -> int:
    text = (state.CLONE / "Makefile").read_text(encoding="utf-8")
    print("gte-small: text embeddings inside PostgreSQL\n")
    for verb, what in re.findall(r"^([a-z-]+):\s+## (.*)$", text, re.MULTILINE):
        print(f"  make {verb:<14} {what.replace('$$', '$')}")
    print()
    for variable, what in re.findall(r"^# ([A-Z_]+=\S*) +(.*)$", text, re.MULTILINE):
        print(f"  {variable:<19} {what}", flush=True)
    return 0


if __name__ == "__main__":
    state.verb(main)
