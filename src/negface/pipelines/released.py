"""``compat`` at the pipeline: what the released code would have made of a scheduler, its steps and the negatives.

The quirks and their sources stand in ``negface.sampling.compat``; what is corrected is the default.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from negface.contexts import Selection
from negface.contexts.selection import LEARNED, ZERO
from negface.foundation.errors import InputError
from negface.sampling.compat import Compat

from .inputs import NULL_LEARNED

WHERE = "compat"


def released(choice: Compat, scheduler: Any, steps: int, negative: Any, *, default: str,
             shape: tuple[int, int]) -> tuple[Any, int, Any]:
    """Scheduler, steps and negatives under the chosen quirks; unchanged where none is chosen.

    Args:
        scheduler, steps, negative: as given to the pipeline.
        default: name of the pipeline's own scheduler.
        shape: ``(n, d)`` of the contexts.

    Raises:
        InputError: a scheduler given otherwise than by name, or one the quirks are not of; a selection made by a
            strategy that the released code carries out otherwise (it cannot be redone from its vectors).
    """
    if not choice.quirks:
        return scheduler, steps, negative
    if not (scheduler is None or isinstance(scheduler, str)):
        raise InputError("the scheduler's settings are what the quirks change, so it must be given by name",
                         where=WHERE, fix="scheduler='ddim' or 'ddpm', or put the settings in the description yourself")
    described, steps = choice.scheduler(scheduler or default, steps)
    if described == default:
        described = scheduler  # as given: the pipeline's own may have settings of its own
    return described, steps, _negatives(choice, negative, shape)


def _negatives(choice: Compat, negative: Any, shape: tuple[int, int]) -> Any:
    zero = choice.negatives(NULL_LEARNED) != NULL_LEARNED
    if not isinstance(negative, Selection):
        is_null = isinstance(negative, str) and negative == NULL_LEARNED
        return np.zeros(shape, np.float32) if zero and is_null else negative
    learned = negative.kind == LEARNED
    if zero and learned.any():
        vectors = np.where(learned[:, None], np.float32(0), negative.negatives)
        return replace(negative, kind=np.where(learned, ZERO, negative.kind).astype(np.uint8), negatives=vectors)
    asked = negative.strategy or ""
    if choice.negatives(asked) != asked:
        raise InputError(f"were selected by {asked!r}, which the released code does otherwise", where=WHERE,
                         fix=f"select them by {choice.negatives(asked)!r}: negatives.select(bank, ...)")
    return negative
