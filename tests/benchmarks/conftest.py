import sys
from pathlib import Path

# As a program of benchmarks/ finds its own files.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
