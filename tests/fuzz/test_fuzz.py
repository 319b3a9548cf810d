"""A few damaged files for each reader, always the same; and a check that the fuzzer finds each kind of fault."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = re.findall(r'^    "(\w+)": Target\(', (HERE / "targets.py").read_text(), re.MULTILINE)


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def output() -> str:
    return run("run.py", "--mutants", "40")[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_gives_a_valid_value_or_one_line(output, name):
    line = re.search(rf"^{name} +40 +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE)
    assert line, output
    accepted, refused, faults = map(int, line.groups())
    assert faults == 0, "\n".join(line for line in output.splitlines() if f"fault: {name}," in line)
    assert accepted + refused == 40 and (refused or name == "text_asr_part")


BAD = """
import os, sys, time, zlib
sys.argv = ["run.py", "--mutants", "40"]
import run
from ser.cli import UserError

def make(folder):
    (folder / "x.txt").write_text("a b c d e f g h")
    return {"x.txt": "text"}

def read(path):
    content = path.read_bytes()
    if content == b"a b c d e f g h":
        return
    kind = zlib.crc32(content) % 9
    if kind == 0: raise ValueError("ours")
    if kind == 1: raise UserError("y.txt: bad; fix it")
    if kind == 2: bytearray(2 << 30)
    if kind == 3: time.sleep(9)
    if kind == 4: os.abort()
    if kind == 5: assert False, "not valid"
    if kind == 6: raise UserError(f"{path}: bad; fix it")
    if kind == 7: path.unlink(), path.read_bytes()

run.SECONDS = 0.5
run.TARGETS.clear()
run.TARGETS["bad"] = run.Target(make, read)
run.main()
"""


def test_the_fuzzer_finds_faults():
    status, output = run("-c", BAD)
    assert status == 1
    for what in (
        "ValueError: ours", "names no file: error: y.txt: bad; fix it", "MemoryError: ", "takes more than 0.5 s", "the process dies of Aborted",
        "AssertionError: not valid",
    ):  # fmt: skip
        assert output.count(what) == 1, output
    total, accepted, refused, faults = map(
        int, re.search(r"^bad +(\d+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE).groups()
    )
    assert total == accepted + refused + faults == 40 and accepted and refused and faults > 10
