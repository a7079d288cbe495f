from __future__ import annotations

import pytest

from titanflow.data.stdlib.documented import LEAST_SHARE, docstring_share, documented
from titanflow.data.stdlib.text import documents, stdlib_folder

pytestmark = pytest.mark.slow


def test_the_documented_files_are_files_of_the_training_part_with_many_docstrings() -> None:
    found, whole = documented(), documents()
    assert set(found) < set(whole)
    names = {file.relative_to(stdlib_folder()).as_posix() for _, file in found}
    assert {"json/__init__.py", "difflib.py", "asyncio/protocols.py"} <= names
    # Constants, a table, and code almost without a docstring.
    assert not {"opcode.py", "token.py", "sre_constants.py"} & names
    sizes = [sum(len(text) for text, _ in rows) for rows in (found, whole)]
    assert 0.2 < sizes[0] / sizes[1] < 0.4
    left_out = [text for text, file in whole if (text, file) not in found]
    assert max(map(docstring_share, left_out)) < LEAST_SHARE <= min(docstring_share(text) for text, _ in found)


@pytest.mark.parametrize("part", ["dev", "test"])
def test_what_is_held_out_is_what_the_whole_library_holds_out(part: str) -> None:
    assert documented(part) == documents(part)


def test_a_limit_counts_documented_files() -> None:
    assert documented(limit=3) == documented()[:3]


def test_docstrings_of_modules_classes_and_functions_count_and_other_texts_do_not() -> None:
    source = '"""abc"""\nclass A:\n    """de"""\n    async def f(self):\n        """f"""\n        return """no"""\n'
    assert docstring_share(source) == pytest.approx(6 / len(source))
    assert docstring_share("x = 1\n") == 0
