"""The way in from a shell."""

from functools import partial

from recurrent_lm import run

main = partial(run, "recurrent_lm.lm.commands.cli")

if __name__ == "__main__":
    main()
