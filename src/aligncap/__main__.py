"""`python -m aligncap` is the command `aligncap`."""

import sys

from aligncap.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
