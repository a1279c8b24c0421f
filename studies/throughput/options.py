"""The short options of ``studies run throughput`` as parameters of the study."""

from recurrent_lm.lm import InputError
from recurrent_lm.studies.throughput.comparison import AXES
from recurrent_lm.studies.timing import own

LETTERS = {letter: parameter for axes in AXES.values() for _, letter, parameter in axes}


def settings(variants: list[str], cells: str, sizes: list[str], dtype: str) -> dict[str, str]:
    """Translate the short options into parameters.

    Args:
        variants: ``module:factory`` each; then only their parts are measured, and the machine's peaks.
        cells, dtype: names separated by commas.
        sizes: LETTER=NUMBERS each, or several separated by spaces; other sizes vary at the first number.

    Returns:
        Parameters as ``--set`` takes them.

    Raises:
        InputError: for a letter that is no size, and a variant that cannot be imported or takes other arguments.
    """
    parameters: dict[str, str] = {}
    for part in " ".join(sizes).split():
        letter, equals, numbers = part.partition("=")
        if not equals or letter not in LETTERS:
            raise InputError(
                f"--sizes takes LETTER=NUMBERS, such as H=256,512, with a letter of {', '.join(LETTERS)}; not {part!r}"
            )
        parameters[LETTERS[letter]] = numbers
    if variants:
        parts = {own.load(name).part for name in variants}
        parameters |= {"own": ",".join(variants), "parts": ",".join(("peak", *sorted(parts)))}
    return parameters | {name: text for name, text in (("cell", cells), ("dtype", dtype)) if text}
