import warnings

import titanflow  # noqa: F401 - refuses every system but Linux, and sets NO_PROXY

# titanflow serve refuses such a home itself, and says what to do.
warnings.filterwarnings("ignore", message="Failed to create the Prefect home directory")
