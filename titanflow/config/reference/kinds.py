"""The kinds of config files that have keys of their own, alone in a file: ``titanflow --help`` needs their names."""

from typing import Literal, get_args

Kind = Literal["experiment", "training", "evaluate", "publish", "model", "data"]
KINDS: tuple[Kind, ...] = get_args(Kind)
