"""Three recognisers, three jobs: the conditioner made the contexts, so it may not be the judge that measures them."""

from __future__ import annotations

from typing import Any

from negface.foundation.errors import MismatchError
from negface.perception import same_recognizer


def check_judge(judge: Any, conditioner: Any, *, force: bool = False) -> bool | None:
    """Whether the judge is the conditioner, by hash; None if one of them is not known.

    Raises ``MismatchError`` if it is, unless ``force``.
    """
    if judge is None or conditioner is None:
        return None
    same = same_recognizer(judge, conditioner)
    if same and not force:
        raise MismatchError("the judge is the conditioner: it would grade its own work", where="judge",
                            fix="embed with another recogniser, or force it and let the report say so")
    return same
