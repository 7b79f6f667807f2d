"""Puts scripts/ on the import path. A benchmark imports this module first.

scripts/ comes after bench/, the directory of the program that runs, and before the standard library.
"""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "scripts"))
