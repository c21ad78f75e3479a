"""`python -m facedex`: the same as the command `facedex`."""

import sys
from pathlib import Path

# `-m` puts the working folder first on the path, and a user's own `api` would hide ours.
if sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd() != Path(__file__).parents[1]:
    del sys.path[0]

from api.cli import main

if __name__ == "__main__":
    main()
