import titanflow  # noqa: F401 - refuses every system but Linux
