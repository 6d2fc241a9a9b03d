"""Pickles and checkpoints from strangers: what is read, what is refused by name, and that nothing of it ever runs."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negface.foundation.checkpoints import LEGACY_MAGIC, LEGACY_PROTOCOL, read_checkpoint
from negface.foundation.errors import FormatError, InputError, UnsafePickleError
from negface.foundation.pickles import Placeholder, restricted_loads


class Attack:
    """An object whose pickle calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def by_name(module, name, argument, protocol=0):
    """A pickle that calls ``module.name(argument)``, whatever is importable here."""
    if protocol >= 4:
        parts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        head = b"\x80\x04" + parts + b"\x93"
    else:
        head = f"c{module}\n{name}\n".encode()
    return head + b"X" + len(argument).to_bytes(4, "little") + argument.encode() + b"\x85R."


def attacks(target):
    command = f"touch {target}"
    nested = {"state_dict": OrderedDict(a=[1, {"deep": (Attack(os.system, command),)}])}
    return {
        "os.system": pickle.dumps(Attack(os.system, command)),
        "builtins.eval": pickle.dumps(Attack(eval, f"open({str(target)!r}, 'w')")),
        "nested reduce": pickle.dumps(nested),
        "reduce in reduce": pickle.dumps(Attack(getattr, Attack(__import__, "os"), "system")),
        "STACK_GLOBAL": by_name("os", "system", command, protocol=4),
        "dotted name": by_name("numpy", "lib.npyio.os.system", command, protocol=4),
        "dotted inert": by_name("pytorch_lightning", "os.system", command, protocol=4),
        "old module": by_name("__builtin__", "eval", command),
        "torch.load": by_name("torch", "load", str(target)),
        "numpy.load": by_name("numpy", "load", str(target)),
        "io.open": by_name("io", "open", str(target)),
    }


NAMES = tuple(attacks("x"))
HARMLESS = ("dotted inert",)  # a framework's name is not imported: a placeholder stands there


def in_zip(path, pickled, extra=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in (("archive/data.pkl", pickled), ("archive/version", b"3\n"), *extra):
            archive.writestr(name, data)
    return path


def in_stream(path, pickled):
    heads = (LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(item, protocol=2) for item in heads) + pickled
                     + pickle.dumps([], protocol=2))
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["pickle", "zip", "stream"])
def test_attack_is_refused_by_name_before_anything_runs(tmp_path, name, form):
    target, path = tmp_path / "ran", tmp_path / "attack.ckpt"
    data = attacks(target)[name]

    def read():
        if form == "pickle":
            return restricted_loads(data, where="attack.ckpt", inert=True)
        return read_checkpoint((in_zip if form == "zip" else in_stream)(path, data))

    if name in HARMLESS:
        assert isinstance(read(), Placeholder)
    else:
        with pytest.raises(UnsafePickleError, match=r"attack\.ckpt.*(system|eval|getattr|load|open)"):
            read()
    assert not target.exists()


def test_placeholder_cannot_be_called_and_keeps_its_name():
    found = restricted_loads(by_name("pytorch_lightning.callbacks", "Checkpoint", "x"), where="w", inert=True)
    assert found.qualified_name == "pytorch_lightning.callbacks.Checkpoint"
    with pytest.raises(UnsafePickleError, match="pytorch_lightning.callbacks.Checkpoint"):
        found()
    with pytest.raises(UnsafePickleError, match="pytorch_lightning"):
        restricted_loads(by_name("pytorch_lightning.callbacks", "Checkpoint", "x"), where="w")


@pytest.mark.parametrize("entry", ["../../evil", "archive/../../evil", "/etc/evil", "C:/evil", "archive\\..\\evil"])
def test_archive_entry_that_points_outside_is_refused_and_nothing_written(tmp_path, entry):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = in_zip(inside / "model.ckpt", pickle.dumps({}, protocol=2), [(entry, b"evil")])
    with pytest.raises(UnsafePickleError, match="points outside"):
        read_checkpoint(path)
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a", "b", "model.ckpt"]


def test_compressed_archive_is_refused_so_a_small_file_stays_small(tmp_path):
    path = in_zip(tmp_path / "bomb.ckpt", pickle.dumps({}, protocol=2), [("archive/data/0", bytes(1 << 22))],
                  zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="is compressed"):
        read_checkpoint(path)


def every_tensor():
    state = OrderedDict((str(dtype), torch.arange(6).to(dtype).reshape(2, 3)) for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool))
    base = torch.randn(4, 6)
    state.update(transposed=base.t(), slice=base[1:3, 2:], shared=base, parameter=torch.nn.Parameter(torch.randn(3)),
                 empty=torch.empty(0, 3), number=torch.tensor(7))
    state._metadata = OrderedDict(version=1)
    return {"state_dict": state, "epoch": 3, "array": np.arange(5.0), "best": np.float64(0.25), "size": torch.Size([2])}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_every_kind_of_tensor_comes_back_as_torch_reads_it(tmp_path, zipped):
    path = tmp_path / "model.ckpt"
    torch.save(every_tensor(), path, _use_new_zipfile_serialization=zipped)
    found, expected = read_checkpoint(path), torch.load(path, weights_only=False)
    assert list(found["state_dict"]) == list(expected["state_dict"])
    for key, value in expected["state_dict"].items():
        assert found["state_dict"][key].dtype == value.dtype, key
        assert torch.equal(found["state_dict"][key], value), key
    assert np.array_equal(found["array"], expected["array"])
    assert (found["epoch"], found["best"], found["size"]) == (3, 0.25, (2,))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_checkpoint_cut_anywhere_is_a_clear_error(tmp_path, zipped):
    path, cut = tmp_path / "model.ckpt", tmp_path / "cut.ckpt"
    torch.save({"a": torch.arange(64.0), "b": [1, "two"]}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"cut\.ckpt"):
            read_checkpoint(cut)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_damaged_checkpoint_is_read_or_refused_and_never_crashes(tmp_path_factory, zipped, changes):
    path = tmp_path_factory.getbasetemp() / f"damaged-{zipped}.ckpt"
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(4.0), "n": np.arange(3), "t": (1, "x", None, 2.5)}, buffer,
               _use_new_zipfile_serialization=zipped)
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    fault = None
    try:
        read_checkpoint(path)
    except InputError as error:
        fault = str(error)
    assert fault is None or str(path) in fault


def test_damaged_weight_is_noticed(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.full((64,), 1.5)}, path)
    data = path.read_bytes()
    at = data.index(torch.full((8,), 1.5).numpy().tobytes())
    path.write_bytes(data[:at] + b"\x01" + data[at + 1:])
    with pytest.raises(FormatError, match="CRC"):
        read_checkpoint(path)


def test_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.arange(10.0)}, path)
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("model/data.pkl").replace(b"K\n\x85", b"K\xc8\x85")  # shape (10,) becomes (200,)
        storage = archive.read("model/data/0")
    with pytest.raises(FormatError, match="reaches beyond its 10 stored numbers"):
        read_checkpoint(in_zip(path, pickled, [("archive/data/0", storage)]))


def doubling(levels):
    """A pickle of a dict whose key is a tuple that holds itself twice, ``levels`` deep: 2 ** levels steps to hash."""
    pairs = b"".join(b"0h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x94" for level in range(levels))
    return b"\x80\x04}K\x01\x85\x94" + pairs + b"K\x01s."


def test_tuple_that_takes_for_ever_to_hash_is_refused_before_it_is_built(tmp_path):
    assert len(restricted_loads(doubling(10), where="w")) == 1
    with pytest.raises(FormatError, match="w: .*grow without end"):
        restricted_loads(doubling(60), where="w")
    with pytest.raises(FormatError, match="grow without end"):
        read_checkpoint(in_zip(tmp_path / "a.ckpt", doubling(60)))


@pytest.mark.parametrize("protocol", range(6))
def test_tuples_shared_many_times_are_no_attack(protocol):
    shape = (1, (2, 3))
    content = {"rows": [(shape, shape, row) for row in range(3000)], "nested": {(row, shape) for row in range(50)}}
    assert restricted_loads(pickle.dumps(content, protocol=protocol), where="w") == content


def test_whole_modules_and_scripts_are_refused_with_advice(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UnsafePickleError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_checkpoint(tmp_path / "module.pt")
    script = in_zip(tmp_path / "script.pt", pickle.dumps({}, protocol=2), [("archive/constants.pkl", b"")])
    with pytest.raises(FormatError, match="TorchScript"):
        read_checkpoint(script)


def test_what_is_no_checkpoint_says_so(tmp_path):
    for content, word in ((b"", "empty"), (b"GIF89a", "no torch checkpoint"), (pickle.dumps([1]), "no torch check")):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(FormatError, match=word):
            read_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("code", ["f4", ">f8", "i2", "u1", "?", "c8", "S3", "U2", "O"])
def test_plain_arrays_come_back_for_every_protocol(code, protocol):
    array = np.array([[1, 0], [0, 1]]).astype(code)
    for written in (array, np.asfortranarray(array), array[:, :1]):
        data = pickle.dumps(written, protocol=protocol)
        found = restricted_loads(data, where="w")
        assert np.array_equal(found, written)
        assert found.dtype == pickle.loads(data).dtype


def crafted_array(code, state, data):
    """A pickle of an array whose data type was given a state of its own."""
    class Type:
        def __reduce__(self):
            return np.dtype, (code, False, True), state

    class Array:
        def __reduce__(self):
            return np.ndarray, ((0,), "b"), (1, (1,), Type(), False, data)

    return pickle.dumps(Array())


def test_data_types_that_would_make_numpy_read_bytes_as_objects_are_refused():
    plain = (3, "<", None, None, None, -1, -1, 0)
    assert restricted_loads(crafted_array("f8", plain, bytes(8)), where="w") == 0
    with pytest.raises(FormatError, match="8 items|1 items"):
        restricted_loads(crafted_array("O", (3, "|", None, None, None, -1, -1, 63), b"AAAAAAAA"), where="w")
    fields = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
    with pytest.raises(UnsafePickleError, match="compound"):
        restricted_loads(crafted_array("V8", fields, b"AAAAAAAA"), where="w")
    with pytest.raises(UnsafePickleError, match="not plain"):
        restricted_loads(crafted_array("V8", plain, b"AAAAAAAA"), where="w")


def test_pickle_cannot_ask_for_memory_or_slow_codecs():
    with pytest.raises(FormatError, match="memo place 2147483647"):
        restricted_loads(b"\x80\x02}r\xff\xff\xff\x7f.", where="w")
    with pytest.raises(FormatError, match="TypeError"):
        restricted_loads(pickle.dumps(Attack(bytearray, 1 << 50)), where="w")
    with pytest.raises(UnsafePickleError, match="idna"):
        restricted_loads(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00idnatR.", where="w")


@pytest.mark.parametrize("name", ["_reconstruct", "scalar"])
def test_pickle_cannot_change_what_later_pickles_are_read_with(name):
    """BUILD sets attributes of what stands before it: a rebuilder's defaults must be out of reach."""
    defaults = b"X" + len(b"__defaults__").to_bytes(4, "little") + b"__defaults__"
    attack = f"cnumpy.core.multiarray\n{name}\n".encode() + b"N}" + defaults + b")s\x86b."
    assert restricted_loads(attack, where="w", extra={("numpy.core.multiarray", name): lambda: 0}).__defaults__ == ()
    with pytest.raises(FormatError, match="__defaults__"):
        restricted_loads(attack, where="w")
