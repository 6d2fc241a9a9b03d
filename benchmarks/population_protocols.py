"""Recognisers on the protocols of procedural people: EER of each, of shuffled labels, and of groups.

    negface population protocol all --size 64 --out protocols
    python benchmarks/population_protocols.py protocols --recognizer judge.safetensors --recognizer edgeface_xs.onnx
    python benchmarks/population_protocols.py protocols --recognizer judge.safetensors --trained-on population.json

A recogniser of pixels (a small grey picture, its mean taken away) stands beside them as the least one should beat.
Shuffled labels must give 50 %. Figures hold only for the protocol version, seed, first person and size printed with
them. A recogniser trained on people of a protocol is refused where ``--trained-on`` tells so.

Not in `make bench`: it needs a folder of protocols, and measures recognisers, not speed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from measuring import machine

from negface.datasets import resize_rgb
from negface.evaluation.verification import verification
from negface.perception import load_recognizer
from negface.population import protocols

BATCH = 64


def pixels(images: np.ndarray) -> np.ndarray:
    """Grey 16 x 16 pictures without their mean, ``[n, 256]``."""
    small = np.stack([resize_rgb(image, 16).astype(np.float64).mean(-1).ravel() for image in images])
    return small - small.mean(1, keepdims=True)


def embedded(embed: Callable[[np.ndarray], np.ndarray], images: Iterable[np.ndarray]) -> np.ndarray:
    """Embeddings of pictures, a batch at a time."""
    found, block = [], []
    for image in images:
        block.append(image)
        if len(block) == BATCH:
            found.append(embed(np.stack(block)))
            block = []
    return np.concatenate([*found, embed(np.stack(block))] if block else found)


def equal_errors(benchmark: protocols.Benchmark, embeddings: np.ndarray) -> dict[str, float]:
    """EER in per cent: of all pairs, of shuffled labels, and of the pairs within each group that has both kinds."""
    pairs, same = embeddings[benchmark.index].reshape(len(benchmark), 2, -1), benchmark.same
    shuffled = np.random.default_rng(0).permutation(same)
    found = {"all": _eer(pairs, same), "shuffled": _eer(pairs, shuffled)}
    for kind, groups in benchmark.groups.items():
        for name in sorted(set(groups.tolist()) - {protocols.MIXED}):
            own = groups == name
            if min(same[own].sum(), (~same[own]).sum()) >= 100:
                found[f"{kind}: {name}"] = _eer(pairs[own], same[own])
    return found


def _eer(pairs: np.ndarray, same: np.ndarray) -> float:
    return 100 * verification(pairs.reshape(2 * len(same), -1), same).eer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the protocols, or one protocol")
    parser.add_argument("--recognizer", action="append", default=[], help="a recogniser's file; may be repeated")
    parser.add_argument("--trained-on", type=Path, action="append", default=[], help="its population.json")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    single = (options.folder / protocols.PROTOCOL_NAME).is_file()
    places = [options.folder] if single else [path for name in protocols.PROTOCOLS
                                              if (path := options.folder / name).is_dir()]
    eyes = {"pixels": pixels}
    for path in options.recognizer:
        recognizer = load_recognizer(path)
        eyes[Path(path).name] = lambda images, of=recognizer: of.embed(images, flip=True, resize=True)
    results = []
    for place in places:
        benchmark = protocols.load(place)
        for card in options.trained_on:
            benchmark.check_unseen(json.loads(card.read_text()))
        settings = {key: benchmark.card[key] for key in ("title", "size", "seed", "start")}
        for name, embed in eyes.items():
            started = time.perf_counter()
            errors = equal_errors(benchmark, embedded(embed, benchmark.images()))
            results.append({**settings, "recognizer": name, "pictures": len(benchmark.names), "pairs": len(benchmark),
                            "seconds": time.perf_counter() - started, "eer_percent": errors})
            groups = ", ".join(f"{key} {value:.1f}" for key, value in errors.items() if key not in ("all", "shuffled"))
            print(f"{settings['title']:<14} {settings['size']} px  {name:<24} EER {errors['all']:5.2f} %  shuffled "
                  f"{errors['shuffled']:4.1f} %  {groups}", flush=True)
    print(machine())
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": machine(), "results": results}, handle, indent=2)


if __name__ == "__main__":
    main()
