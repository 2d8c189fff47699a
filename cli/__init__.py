"""``turbo-export``, ``turbo-build``, ``turbo-run``, ``turbo-inspect``: signatures and texts, a file for each."""
