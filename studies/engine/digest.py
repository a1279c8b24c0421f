"""A table's content as one digest. Parquet finds changed bytes in its columns, but not in what it says of them."""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
from pandas.api.types import is_numeric_dtype

if TYPE_CHECKING:
    import pandas as pd

KEY = "digest"  # in a table's ``attrs``


def digest(table: "pd.DataFrame") -> str:
    """SHA-256 of the names and values of all columns and of the ``attrs`` but the digest, which may be any JSON."""

    attrs = json.loads(json.dumps({key: value for key, value in table.attrs.items() if key != KEY}))
    total = hashlib.sha256(json.dumps(attrs, sort_keys=True).encode())
    for name, column in table.items():
        total.update(f"\0{name}\0".encode())
        if is_numeric_dtype(column) and isinstance(column.dtype, np.dtype):
            values = column.to_numpy()
            values = np.where(values != values, np.nan, values).astype(values.dtype)  # one of the many kinds of nan
            total.update(values.dtype.str.encode() + values.tobytes())
        else:
            total.update("\0".join(map(str, column)).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def sealed(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table, with its digest in its ``attrs``."""
    table.attrs[KEY] = digest(table)
    return table


def damaged(table: "pd.DataFrame") -> bool:
    """Whether a table is not what was sealed; one without a digest, as older versions wrote it, is believed."""
    return KEY in table.attrs and table.attrs[KEY] != digest(table)
