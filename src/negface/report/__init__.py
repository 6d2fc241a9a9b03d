"""The report: plain result data in, one self-contained HTML page out. A person looks here first.

Nothing here knows models or pipelines; what the data must look like stands in ``docs/report-schema.md``.
"""

from __future__ import annotations

from .page import render, render_file
from .schema import validate
from .verdict import verdict

__all__ = ["render", "render_file", "validate", "verdict"]
