"""The way in from a shell."""

import sys


def main() -> None:
    """Run the command line; an interrupt in the first instants, before it can be handled, is no traceback either."""
    try:
        from recurrent_lm.lm.commands import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
