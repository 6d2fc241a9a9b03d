"""``negface evaluate`` beyond separability: diversity, fidelity, leakage, identification, fairness, causal effects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

Embedded = Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help="Embeddings by the judge, from `negface embed`.")]
Replicates = Annotated[int, typer.Option("--bootstrap", min=0, help="Replicates over identities; 0 for none.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Numbers do not depend on it.  [default: all "
                                             "processors]", show_default=False)]
Contexts = Annotated[Path | None, typer.Option("--contexts", metavar="BANK", help="The bank the images were made from: "
                                               "adherence, and the check that the judge is another.")]
Conditioned = Annotated[Path | None, typer.Option("--conditioner-embeddings", metavar="FILE", help="The same images by "
                                                  "the conditioner: adherence.")]
Training = Annotated[Path | None, typer.Option("--train-embeddings", metavar="FILE", help="Training people by the "
                                               "judge: leakage.")]
Calibration = Annotated[Path | None, typer.Option(
    "--calibration-embeddings", metavar="FILE", help="Real people by the judge, for the leakage threshold at FMR "
    "0.1 %.  [default: the training people]", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Accept a recogniser that was trained on these people; the "
                                     "result says so.")]


def embeddings_at(path: Path | None):
    """What the file holds (``perception.Embeddings``); None without a file."""
    from negface.perception import read_embeddings

    return read_embeddings(path) if path is not None else None


def bank_at(path: Path | None):
    """The bank in the file (``contexts.ContextBank``); None without a file."""
    from negface.contexts import ContextBank

    return ContextBank.load(path) if path is not None else None


def diversity(
    faces: Annotated[Path, typer.Argument(metavar="FACES", help="Identity folders, tar shards or a dataset.")],
    analyser: Annotated[Path | None, typer.Option("--analyser", metavar="FILE", help="Analyser: pose, light, "
                                                  "expression, age.")] = None,
    pose: Annotated[list[Path] | None, typer.Option("--pose", metavar="ONNX", help="Head-pose file in place of the "
                                                    "analyser's pose; two are averaged.")] = None,
    quality: Annotated[Path | None, typer.Option("--quality", metavar="ONNX", help="Face-image-quality file.")] = None,
    photographs: Annotated[bool, typer.Option("--photographs/--renders", help="Whether the faces are photographs (or "
                           "like them): then only pose and quality count as measured.")] = True,
    bootstrap: Replicates = 1000, seed: Seed = 0, json: JsonOption = None,
) -> None:
    """How much a person's own images vary in pose, light, expression and age, the instrument's error beside it.

    Example: negface evaluate diversity generated --analyser analyser.safetensors --photographs --json diversity.json
    """
    from negface import datasets
    from negface.evaluation._attributes import attribute_spread, table
    from negface.evaluation.looking import Instruments, look

    seen = look(datasets.open(faces), Instruments.open(analyser, pose or [], quality))
    result = attribute_spread(seen.values, seen.labels, analyser=seen.names, errors=seen.errors, units=seen.units,
                              photographs=photographs, bootstrap=bootstrap, seed=seed).to_dict()
    emit(result, json=json, text=table(result))


def fidelity(
    embeddings: Embedded,
    reference: Annotated[Path, typer.Option("--reference", metavar="FILE", help="Reference images by the same "
                                            "recogniser, for example the training people.")],
    neighbours: Annotated[int, typer.Option("--neighbours", min=1, help="Of the manifolds of precision and "
                                            "recall.")] = 3,
    bootstrap: Replicates = 1000, seed: Seed = 0, json: JsonOption = None,
) -> None:
    """Vendi score, precision, recall and Fréchet distance against a reference, in a named recogniser's features.

    Example: negface evaluate fidelity generated.npz --reference training.npz --json fidelity.json
    """
    from negface.evaluation._fidelity import fidelity as measure
    from negface.perception import read_embeddings

    made, real = read_embeddings(embeddings), read_embeddings(reference)
    result = measure(made.embeddings, made.labels, real.embeddings, real.labels, neighbours=neighbours,
                     feature_network=(made.recognizer or {}).get("name", "not named"), bootstrap=bootstrap, seed=seed,
                     embedded_by=made.recognizer, reference_embedded_by=real.recognizer).to_dict()
    keys = ("vendi_score", "reference_vendi_score", "frechet_distance", "precision", "recall")
    lines = [f"{result['n_images']} images against {result['n_reference']}, features of {result['feature_network']}"]
    for key in keys:
        low, high = result[f"{key}_low"], result[f"{key}_high"]
        lines.append(f"  {key:<24}{result[key]:.4f}" + ("" if low is None else f"  [{low:.4f}, {high:.4f}]"))
    emit(result, json=json, text="\n".join([*lines, *(f"  note: {note}" for note in result["notes"])]))


def leakage(
    embeddings: Embedded,
    train_embeddings: Annotated[Path, typer.Option("--train-embeddings", metavar="FILE", help="Training people by the "
                                                   "same judge.")],
    calibration: Calibration = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="PNG", help="Write the closest pairs side by side; "
                                               "needs --faces and --train-faces.")] = None,
    faces: Annotated[Path | None, typer.Option("--faces", metavar="FACES", help="What EMBEDDINGS were made "
                                               "from.")] = None,
    train_faces: Annotated[Path | None, typer.Option("--train-faces", metavar="FACES", help="What the training "
                                                     "embeddings were made from.")] = None,
    bootstrap: Replicates = 1000, seed: Seed = 0, json: JsonOption = None,
) -> None:
    """Is a generated person somebody from the training set? Nearest training person, against chance, side by side.

    Example: negface evaluate leakage generated.npz --train-embeddings training.npz --faces generated
    --train-faces training --sheet closest.png
    """
    from negface import datasets
    from negface.evaluation.company import leakage_of
    from negface.evaluation.leakage_sheet import check_order, write_leakage_sheet
    from negface.foundation.errors import InputError
    from negface.perception import read_embeddings

    made, real = read_embeddings(embeddings), read_embeddings(train_embeddings)
    if sheet is not None and (faces is None or train_faces is None):
        raise InputError("pictures are needed for a sheet", where="--sheet", fix="give --faces and --train-faces")
    if sheet is not None:
        shown, beside = datasets.open(faces), datasets.open(train_faces)
        check_order(shown, made, "generated pictures")
        check_order(beside, real, "training pictures")
    result = leakage_of(made, real, embeddings_at(calibration), bootstrap=bootstrap, seed=seed)
    if sheet is not None:
        write_leakage_sheet(sheet, result["leakage_closest"], shown, beside)
    said = "above chance" if result["leakage_exceeds_chance"] else "not above chance"
    emit(result, json=json, text=f"leakage {_share(result, 'leakage_rate', 'leakage_rate')}, {said}: training people "
         f"among themselves {_share(result, 'leakage_chance_rate', 'leakage_chance')}"
         + (f"; closest pairs in {sheet}" if sheet is not None else ""))


def _share(result: dict, key: str, ends: str) -> str:
    low, high = result[f"{ends}_low"], result[f"{ends}_high"]
    return f"{result[key]:.2%}" + ("" if low is None else f" [{low:.2%}, {high:.2%}]")


def identification(
    embeddings: Embedded,
    enrolled_share: Annotated[float, typer.Option("--enrolled-share", help="Of the people.")] = 0.5,
    enrolled_images: Annotated[int, typer.Option("--enrolled-images", min=1, help="Of each enrolled person.")] = 1,
    bootstrap: Replicates = 1000, seed: Seed = 0,
    force: Force = False,
    json: JsonOption = None,
) -> None:
    """Open-set search: TPIR at bounds on FPIR, with a share of the people enrolled.

    Example: negface evaluate identification embeddings.npz --enrolled-share 0.5 --json identification.json
    """
    from negface.evaluation._identification import FPIRS
    from negface.evaluation._identification import identification as measure
    from negface.evaluation.provenance import check_embedded, warning
    from negface.perception import read_embeddings

    given = read_embeddings(embeddings)
    known = check_embedded(given, force=force)
    result = measure(given.embeddings, given.labels, enrolled_share=enrolled_share, enrolled_images=enrolled_images,
                     bootstrap=bootstrap, seed=seed)
    result |= known
    lines = [f"{result['n_enrolled']} people enrolled; {result['n_mated']} searches of them, {result['n_nonmated']} of "
             f"others", f"  rank 1           {_share(result, 'rank1', 'rank1')}"]
    for bound in FPIRS:
        key = f"tpir_at_fpir_{bound:g}"
        lines.append(f"  TPIR@FPIR {bound:<7g}" + ("too few searches" if result[key] is None
                                                   else _share(result, key, key)))
    emit(result, json=json, text="\n".join([*lines, *warning(known)]))


def fairness(
    embeddings: Embedded,
    groups: Annotated[Path, typer.Option("--groups", metavar="FILE", help="A population's labels.jsonl, or a CSV with "
                                         "column identity or image and one column an attribute.")],
    by: Annotated[list[str] | None, typer.Option("--by", metavar="ATTRIBUTE", help="Attribute; repeat for more.  "
                                                 "[default: all]", show_default=False)] = None,
    min_people: Annotated[int, typer.Option("--min-people", min=2, help="Smaller groups are counted, not "
                                            "measured.")] = 20,
    contexts: Contexts = None, conditioner_embeddings: Conditioned = None,
    train_embeddings: Training = None, calibration: Calibration = None,
    faces: Annotated[Path | None, typer.Option("--faces", metavar="FACES", help="What EMBEDDINGS were made from: the "
                                               "attributes' spread by group; needs --analyser.")] = None,
    analyser: Annotated[Path | None, typer.Option("--analyser", metavar="FILE", help="Analyser: pose, light, "
                                                  "expression, age.")] = None,
    photographs: Annotated[bool, typer.Option("--photographs/--renders", help="Whether the faces are photographs (or "
                           "like them): then only pose counts as measured.")] = True,
    bootstrap: Replicates = 1000, seed: Seed = 0, threads: Threads = None,
    force: Force = False,
    json: JsonOption = None,
) -> None:
    """Measures by group: worst group, gap, intervals; each group within itself and at one threshold for all.

    Separability, verification, identification, diversity, adherence, leakage and attribute spreads; not fidelity, which
    compares whole sets.

    Example: negface evaluate fairness judge.npz --groups people/labels.jsonl --by skin_tone --json fairness.json
    """
    from negface.evaluation import company, looking
    from negface.evaluation.group_gaps import table
    from negface.evaluation.group_labels import chosen, groups_of, read_groups
    from negface.evaluation.groups import fairness as measure
    from negface.evaluation.provenance import check_embedded, warning
    from negface.perception import read_embeddings

    given, tables = read_embeddings(embeddings), read_groups(groups)
    known = check_embedded(given, force=force)
    names = chosen(tables, by or [])
    told = company.per_image(given, contexts=bank_at(contexts), conditioned=embeddings_at(conditioner_embeddings),
                             training=embeddings_at(train_embeddings), calibration=embeddings_at(calibration),
                             seed=seed)
    seen = looking.look_at(faces, analyser, given, photographs=photographs)
    result = {attribute: measure(given.embeddings, given.labels, groups_of(given, tables[attribute], attribute),
                                 images=told, attributes=seen.values, min_people=min_people, bootstrap=bootstrap,
                                 seed=seed, threads=threads) | {"instruments": seen.instruments(), **known}
              for attribute in names}
    said = [*(f"by {name}\n{table(found)}" for name, found in result.items()), *warning(known)]
    emit(result, json=json, text="\n\n".join(said))


def causal(
    recognizer: Annotated[Path, typer.Argument(metavar="RECOGNIZER", help="Recogniser: ONNX or state dict.")],
    attribute: Annotated[str, typer.Option("--attribute", help="What changes: a trait (skin_tone, femininity, ...) or "
                                           "a nuisance (age, glasses, yaw, ...) of the population.")],
    levels: Annotated[list[float], typer.Option("--level", help="Its values, two or more; effects are against the "
                                                "first.")],
    people: Annotated[int, typer.Option("--people", min=2, help="Procedural people.")] = 100,
    images: Annotated[int, typer.Option("--images", min=2, help="Pictures of each, the same shots at every "
                                        "level.")] = 4,
    size: Annotated[int, typer.Option("--size", help="Side of the pictures; resized to what the recogniser "
                                      "takes.")] = 112,
    total: Annotated[bool, typer.Option("--total", help="Let what follows the attribute follow: of femininity the "
                                           "traits that depend on it, of skin the camera's exposure.")] = False,
    fmr: Annotated[float, typer.Option("--fmr", help="Bound on FMR that sets the one threshold.")] = 0.01,
    start: Annotated[int, typer.Option("--start", help="Number of the first person; choose people that nobody trained "
                                       "on.")] = 900_000,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=1, help="Replicates over people.")] = 2000,
    seed: Seed = 0, force: Annotated[bool, typer.Option("--force", help="Ask a recogniser about people it was trained "
                                                        "on.")] = False,
    threads: Threads = None, json: JsonOption = None,
) -> None:
    """Bias as an effect: the same people and shots with one attribute changed, and nothing else.

    Example: negface evaluate causal judge.safetensors --attribute skin_tone --level 0.1 --level 0.9 --people 200
    --json skin.json
    """
    from negface.evaluation.causal import table
    from negface.evaluation.provenance import check_unseen
    from negface.experiments.causal import causal as measure
    from negface.perception import load_recognizer

    eye = load_recognizer(recognizer, threads=threads)
    known = check_unseen(eye.declaration, [f"s{seed}-p{number:06d}" for number in range(start, start + people)],
                         benchmark="the experiment", force=force)
    result = measure(eye, attribute, levels, people=people, images=images, size=size, seed=seed, start=start,
                     total=total, fmr=fmr, bootstrap=bootstrap) | known | {"recognizer": eye.declaration.identity}
    emit(result, json=json, text=table(result))


COMMANDS = (diversity, fidelity, leakage, identification, fairness, causal)
