"""llama.cpp's own HTTP server, built once from the sources that llama-cpp-python's sdist carries."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from engine.registry import cache_dir

OPTIONS = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"),
    *("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF"),
)
NO_TILES = "-mno-amx-int8 -mno-amx-tile -mno-amx-bf16"
"""Its AMX kernels crash on processors that are told of tiles and may not use them, as virtual ones; those of
AVX-512 VNNI stay."""


def llama_server() -> Path:
    """The program, of the installed llama-cpp-python's version; built in some minutes where it is not yet.

    Raises RuntimeError where cmake or a compiler is missing, or the build fails.
    """
    release = version("llama-cpp-python")
    program = cache_dir() / "bench" / f"llama-server-{release}"
    if program.exists():
        return program
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        raise RuntimeError("llama.cpp's server is built with cmake and c++: install both")
    program.parent.mkdir(parents=True, exist_ok=True)
    print(f"building llama.cpp's server of llama-cpp-python {release}: some minutes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        begun = program.with_suffix(".part")
        shutil.copy2(_built(_sources(Path(folder), release)), begun)
    return begun.rename(program)


def _sources(folder: Path, release: str) -> Path:
    wanted = ["--no-deps", "--no-binary", ":all:", f"llama-cpp-python=={release}"]
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (found,) = folder.glob("*/vendor/llama.cpp")
    return found


def _built(sources: Path) -> Path:
    build = sources / "build"
    flags = [f"-DCMAKE_{language}_FLAGS={NO_TILES}" for language in ("C", "CXX")] if _is_x86() else []
    _run(["cmake", "-S", str(sources), "-B", str(build), *OPTIONS, *flags])
    _run(["cmake", "--build", str(build), "--target", "llama-server", "--parallel"])
    return build / "bin" / "llama-server"


def _is_x86() -> bool:
    import platform

    return platform.machine() in ("x86_64", "AMD64")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed: {done.stderr[-800:]}")
