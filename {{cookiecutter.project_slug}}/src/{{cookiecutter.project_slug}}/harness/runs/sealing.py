"""The seals of a record: whoever edits it afterwards, by hand or by accident, is found out.

A seal is a hash of the content: evidence of an alteration, and no secret. Whoever writes another
record on purpose can seal it too; a record in a commit is guarded by git.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the seal of each part, which continues that of the part before, and its own.

    A seal that is there already is replaced.
    """
    sealed, previous = dict(record), ""
    if "parts" in record:
        sealed["parts"] = []
        for part in record["parts"]:
            previous = _digest({**part, "seal": previous})
            sealed["parts"].append({**part, "seal": previous})
    sealed.pop("seal", None)
    return {**sealed, "seal": _digest({**sealed, "seal": previous})}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record is as it was when it was sealed."""
    try:
        return _canonical(seal(record)) == _canonical(record)
    except (TypeError, ValueError):  # parts that are no list of mappings
        return False


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(values)).hexdigest()


def _canonical(values: Mapping[str, Any]) -> bytes:
    """The same content gives the same bytes, in whatever order and layout it is written."""
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
