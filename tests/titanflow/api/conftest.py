"""Runs that were written without training, and tiny exports, which other rooms' tests are made of."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path += [str(TESTS / "titanflow" / "report"), str(TESTS / "titan")]
