"""A question a file: ``measure(bench)`` keeps its figures, and the docstring is what the page says of it."""
