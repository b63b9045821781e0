"""python -m fieldloop."""

from fieldloop.cli.main import entry

if __name__ == "__main__":
    entry()
