"""A disk that is really full: two megabytes of memory as a file system, in a name space of our own (no privileges)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
SCRIPT = """
set -u
mount -t tmpfs -o size=2m tmpfs "$DISK"
$GENERATE; echo "full: $?"
find "$DISK" -name '.tmp-*' | wc -l
cp "$DISK/set/status.json" "$DISK/../status.json"
mount -o remount,size=64m "$DISK"
$GENERATE; echo "space: $?"
cp -r "$DISK/set" "$DISK/../finished"
"""


def may_mount(folder: Path) -> bool:
    """Whether this machine lets anybody mount in a name space of their own."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_is_full_ends_in_one_line_and_with_space_the_same_command_goes_on(bank, model, made, digests,
                                                                                      tmp_path):
    import json

    disk = tmp_path / "disk"
    disk.mkdir()
    if not may_mount(disk):
        pytest.skip("this machine allows no mounts")
    bank(64).save(tmp_path / "bank.safetensors")
    program = (f"{sys.executable} -m negface generate --model {model} --contexts {tmp_path / 'bank.safetensors'} "
               f"--out {disk / 'set'} --images 6 --steps 1 --scheduler ddim --size 112 --codec png --batch 16 "
               "--unit 24")
    done = subprocess.run([*UNSHARE, "sh", "-c", SCRIPT], capture_output=True, text=True, timeout=800, check=False,
                          env={**os.environ, "DISK": str(disk), "GENERATE": program, "OMP_NUM_THREADS": "1"})
    assert "full: 2\n0\n" in done.stdout, done.stdout + done.stderr
    assert "space: 0" in done.stdout, done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error" in line)
    assert line.startswith("negface: error: ")
    assert "no space left on the device; free some space" in line
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"
    _, whole = made("whole", n=64, images=6, steps=1, size=112, codec_name="png", batch=16, unit_images=24)
    assert digests(tmp_path / "finished") == digests(whole)
