"""`python -m aligncap` is the command `aligncap`."""

from aligncap.cli.main import run

if __name__ == "__main__":
    run()
