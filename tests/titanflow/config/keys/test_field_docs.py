from titanflow.config.keys.docs import field_docs

SOURCE = '''
class A:
    """The class."""
    one: int = 1
    """What it
    is.

    More of it."""
    two: int = 2
    three: str = ""
    """Text."""

def function():
    pass
'''


def test_a_field_s_first_paragraph_on_one_line(tmp_path):
    source = tmp_path / "source.py"
    source.write_text(SOURCE)
    assert field_docs(source) == {"A": {"one": "What it is.", "three": "Text."}}
