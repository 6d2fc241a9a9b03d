"""Steps of a run: each leaves a record with the hash of its inputs; what is there and unchanged is not made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from negface.foundation.errors import FormatError
from negface.foundation.files import ensure_folder, read_json, write_json
from negface.foundation.hashing import sha256_json


class Journal:
    """The records of a run, ``<root>/<name>.json``; ``made`` and ``kept`` count what this process did and found.

    The folder is made by the first step, so what is refused before leaves none.
    """

    def __init__(self, root: Path, say: Callable[[str], None]):
        self.root, self.say = Path(root), say
        self.made: list[str] = []
        self.kept: list[str] = []

    def step(self, name: str, inputs: Mapping[str, Any], make: Callable[[], dict[str, Any]],
             outputs: Iterable[Path] = ()) -> dict[str, Any]:
        """The result of a step.

        Args:
            name: path of the record below the root, without ending.
            inputs: plain data that decides the result.
            make: makes the outputs and returns plain data; called unless a record of the same inputs stands and all
                outputs exist.
            outputs: files or folders it leaves.
        """
        key = sha256_json({"step": name, "inputs": dict(inputs)})
        outputs = list(outputs)
        found = self.read(name)
        if found is not None and found.get("key") == key and all(path.exists() for path in outputs):
            self.kept.append(name)
            return found["result"]
        ensure_folder(self.path(name).parent)
        self.say(f"{name} ...")
        started = time.monotonic()
        result = make()
        write_json(self.path(name), {"key": key, "inputs": dict(inputs), "result": result,
                                     "seconds": round(time.monotonic() - started, 2)})
        self.made.append(name)
        return result

    def path(self, name: str) -> Path:
        """Where the record of a step lies."""
        return self.root / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a step; None if there is none, or none that can be read."""
        if not self.path(name).is_file():
            return None
        try:
            record = read_json(self.path(name))
        except FormatError:
            return None
        return record if isinstance(record, dict) and "result" in record else None
