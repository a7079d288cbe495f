import titanflow  # noqa: F401 - refuses every system but Linux, and sets NO_PROXY
