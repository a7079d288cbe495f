"""``python -m titanflow`` is ``titanflow``."""

from titanflow.cli.main import main

if __name__ == "__main__":
    main()
