"""tools/install.sh and path.sh, on small packages made here: no network, and torch is left alone."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = f"tools/venv/lib/python3.{sys.version_info.minor}/site-packages"


def make_wheel(folder, name, version, files):
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def make_repository(folder):
    (folder / "tools").mkdir(parents=True)
    for file in ("path.sh", "tools/install.sh"):
        shutil.copy(ROOT / file, folder / file)
    (folder / "tools/requirements.txt").write_text("# pins\ntiny==1.0\nsmall==1.0\n")
    return folder


def install(repository, *arguments, pip="no-index = true", **variables):
    """Run tools/install.sh with a pip that knows the wheels made here and nothing else."""
    home = repository.parent / "home"
    (home / "pip").mkdir(parents=True, exist_ok=True)
    wheels = repository.parent / "wheels"
    (home / "pip/pip.conf").write_text(f"[global]\nretries = 1\nfind-links = {wheels}\n{pip}\n")
    mine = ("PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA")  # the tester's own settings
    environment = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHON": sys.executable} | variables
    return subprocess.run(
        [repository / "tools/install.sh", *arguments], env=environment, capture_output=True, text=True
    )


def error_line(result):
    """What a failed call said: one line."""
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    make_wheel(folder / "wheels", "tiny", "1.0", {"tiny/__init__.py": "", "tiny/more.py": "x = 1\n"})
    make_wheel(folder / "wheels", "small", "1.0", {"small/__init__.py": ""})
    make_wheel(folder / "wheels", "tiny", "2.0", {"tiny/__init__.py": ""})
    repository = make_repository(folder / "repository")
    ruin = repository / SITE / "ruin.py"  # of an environment whose Python is gone: it is made anew
    ruin.parent.mkdir(parents=True)
    ruin.touch()
    result = install(repository)
    assert (result.returncode, result.stderr) == (0, "")
    assert not ruin.exists()
    assert result.stdout.endswith("  tiny 1.0\n  small 1.0\n")
    return repository


@pytest.fixture
def repository(installed, tmp_path):
    shutil.copytree(installed.parent / "wheels", tmp_path / "wheels")
    site = installed / SITE
    shared = [file.name for file in site.iterdir() if not file.name.startswith(("tiny", "small"))]

    def ignore(folder, names):  # pip's thousand files are linked to instead
        return shared if Path(folder) == site else []

    copy = shutil.copytree(installed, tmp_path / "repository", symlinks=True, ignore=ignore)
    for name in shared:
        (copy / SITE / name).symlink_to(site / name)
    return copy


def assert_all_is_there(repository):
    result = install(repository)
    assert (result.returncode, result.stdout, result.stderr) == (0, "tools/venv: everything is installed\n", "")


def test_nothing_is_done_where_all_is_there(repository):
    assert_all_is_there(repository)


def test_the_whole_environment_is_looked_at_in_under_a_second(tmp_path):
    real = Path(sys.prefix)
    if not (real / "ser-requirements.txt").exists():
        pytest.skip(f"{real} was not finished by tools/install.sh")
    repository = make_repository(tmp_path / "repository")
    shutil.copy(ROOT / "tools/requirements.txt", repository / "tools")
    venv = repository / "tools/venv"
    venv.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (venv / part).symlink_to(real / part)
    for stamp in ("ser-requirements.txt", "ser-packages.txt"):
        shutil.copy(real / stamp, venv)
    took = []
    for _ in range(3):  # the machine may be busy with other things
        began = time.monotonic()
        assert_all_is_there(repository)
        took.append(time.monotonic() - began)
    assert min(took) < 1


def test_damaged_packages_are_reinstalled(repository):
    lost = [repository / SITE / file for file in ("tiny/more.py", "small-1.0.dist-info/RECORD")]
    for file in lost:
        file.unlink()
    result = install(repository)
    assert result.returncode == 0, result.stderr
    assert "reinstalling in tools/venv: small==1.0 tiny==1.0\n" in result.stdout
    assert all(file.exists() for file in lost)
    assert_all_is_there(repository)


def test_a_new_pin_is_installed(repository):
    (repository / "tools/requirements.txt").write_text("tiny==2.0\n")
    assert "  tiny 2.0\n" in install(repository).stdout
    assert_all_is_there(repository)


def test_a_pin_that_the_index_lacks_is_named(repository):
    (repository / "tools/requirements.txt").write_text("tiny==9.9\n")
    assert "not tiny==9.9 for Python 3." in error_line(install(repository))
    assert not (repository / "tools/venv/ser-requirements.txt").exists()


def test_a_package_that_the_index_lacks_is_named(repository):
    (repository / "tools/requirements.txt").write_text("absent==1.0\n")
    assert "pip finds no version of absent==1.0" in error_line(install(repository))


def test_an_index_out_of_reach_is_named(repository):
    (repository / "tools/requirements.txt").write_text("absent==1.0\n")
    began = time.monotonic()
    line = error_line(install(repository, pip="index-url = https://127.0.0.1:9/simple"))
    assert "pip cannot reach its package index" in line and "Connection refused" in line
    assert time.monotonic() - began < 10  # pip would try again for 15


def test_a_package_that_cannot_be_imported_is_named(repository):
    make_wheel(repository.parent / "wheels", "tiny", "3.0", {"tiny/__init__.py": "1 / 0\n"})
    (repository / "tools/requirements.txt").write_text("tiny==3.0\n")
    assert "tiny is installed but cannot be imported (ZeroDivisionError" in error_line(install(repository))


def test_types_for_mypy_have_no_module_to_import(repository):
    make_wheel(repository.parent / "wheels", "types_tiny", "1.0", {"tiny-stubs/__init__.pyi": ""})
    (repository / "tools/requirements.txt").write_text("tiny==1.0\ntypes-tiny==1.0\n")
    result = install(repository)
    assert (result.returncode, result.stderr) == (0, "")
    assert_all_is_there(repository)


TORCHAUDIO = """
import os
if os.path.exists(os.path.join(os.path.dirname(__file__), "lib")):
    raise OSError("{reason}: cannot open shared object file: No such file or directory")
"""


def install_torchaudio(repository, reason):
    files = {"torchaudio/__init__.py": TORCHAUDIO.format(reason=reason), "torchaudio/lib/part.so": "so"}
    make_wheel(repository.parent / "wheels", "torchaudio", "1.0", files)
    (repository / "tools/requirements.txt").write_text("torchaudio==1.0\n")
    return install(repository)


def test_torchaudio_beside_a_cpu_build_of_torch(repository):
    result = install_torchaudio(repository, "libc10_cuda.so")
    assert result.returncode == 0, result.stderr
    assert "torch is a CPU build: moved" in result.stdout and "  torchaudio 1.0\n" in result.stdout
    assert (repository / SITE / "torchaudio/lib.aside/part.so").exists()
    assert_all_is_there(repository)


def test_torchaudio_with_another_fault_is_left_alone(repository):
    assert "torchaudio is installed but cannot be imported" in error_line(install_torchaudio(repository, "libsox.so"))
    assert (repository / SITE / "torchaudio/lib/part.so").exists()


def fake_python(folder, script):
    folder.mkdir(parents=True)
    (folder / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python3").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": "python3"}


@pytest.mark.parametrize("version", ["3.8.18", "3.9.2", "2.7.18"])
def test_an_old_python_is_named(tmp_path, version):
    python = fake_python(tmp_path / "bin", f"echo Python {version}")
    line = error_line(install(make_repository(tmp_path / "repository"), **python))
    assert f"python3 is Python {version}, but Python 3.10 or newer is needed" in line


def test_a_missing_python_is_named(tmp_path):
    line = error_line(install(make_repository(tmp_path / "repository"), PYTHON="python3.99"))
    assert "no python3.99 on PATH" in line


def test_a_python_without_venv_is_named(tmp_path):
    python = fake_python(tmp_path / "bin", '[ "$1" = --version ] && echo Python 3.12.1')
    line = error_line(install(make_repository(tmp_path / "repository"), **python))
    assert "has no venv module" in line and "python3-venv" in line


FULL_DISK = """case "$*" in
  *--version) echo Python 3.12.1 ;;
  *install*) echo "ERROR: Could not install packages: [Errno 28] No space left on device" >&2; exit 1 ;;
esac"""


def test_a_full_disk_is_named(tmp_path):
    repository = make_repository(tmp_path / "repository")
    fake_python(repository / "tools/venv/bin", FULL_DISK)
    (repository / "tools/venv/bin/python").symlink_to("python3")
    assert "the disk is full" in error_line(install(repository))


def test_the_active_environment_is_used_where_asked_for(repository, tmp_path):
    active = repository / "tools/venv"
    other = make_repository(tmp_path / "other")
    result = install(other, "--active", VIRTUAL_ENV=str(active))
    assert result.returncode == 0, result.stderr
    assert (other / "tools/venv").resolve() == active.resolve()
    assert_all_is_there(other)


def test_active_without_an_active_environment(tmp_path):
    repository = make_repository(tmp_path / "repository")
    assert "no environment is active" in error_line(install(repository, "--active"))


def test_active_does_not_replace_an_environment_in_use(repository, tmp_path):
    line = error_line(install(repository, "--active", VIRTUAL_ENV=str(tmp_path)))
    assert "remove it first" in line
    assert (repository / SITE / "tiny").exists()


def test_an_unknown_option_is_an_error(repository):
    assert "unknown option --activ" in error_line(install(repository, "--activ"))


def source_path(repository, then):
    command = f'. "{repository}/path.sh" && {then}'
    return subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, text=True)


def test_path_finds_the_environment_from_anywhere(repository, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/module/of/a/cluster")  # its packages must not stand before the pinned ones
    began = time.monotonic()
    result = source_path(repository, 'command -v python; echo "$PYTHONPATH"; python -c "print(chr(233))"')
    assert time.monotonic() - began < 0.5
    python, pythonpath, e_acute = result.stdout.splitlines()
    assert python == f"{repository}/tools/venv/bin/python"
    assert pythonpath == str(repository)
    assert e_acute == "é"


@pytest.mark.parametrize("status", [0, 1])
def test_path_sets_up_what_is_missing(tmp_path, status):
    repository = make_repository(tmp_path / "repository")
    (repository / "tools/install.sh").write_text(f"#!/bin/sh\necho set up\nexit {status}\n")
    result = source_path(repository, "echo and on")
    assert result.stdout == ("set up\nand on\n" if status == 0 else "set up\n")
    assert result.returncode == status
