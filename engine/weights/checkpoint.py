"""`load_checkpoint`: a folder in Hugging Face layout or a GGUF file, as a model ready to run."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from engine.errors import BadCheckpoint, ModelNotFound, UnsupportedModel
from engine.models import decoder, encoder
from engine.models.decoder_config import DecoderConfig, unsupported
from engine.models.decoder_gguf import GGUF_ARCHITECTURES, decoder_from_gguf
from engine.models.decoder_hf import HF_ARCHITECTURES, decoder_from_hf
from engine.models.encoder_config import EncoderConfig, embedding_decoder
from engine.models.encoder_hf import HF_ARCHITECTURES as ENCODER_ARCHITECTURES
from engine.models.encoder_hf import encoder_from_hf
from engine.models.fields import Fields
from engine.weights import families
from engine.weights.build import Quant, build_params
from engine.weights.colbert import ColbertSettings, colbert_settings, is_colbert
from engine.weights.files import read_object, read_object_if_there, read_text
from engine.weights.gguf import GgufSource
from engine.weights.gguf_container import GgufFile
from engine.weights.gguf_split import first_part, read_gguf_parts
from engine.weights.identity import content_identity
from engine.weights.names import ENCODER_HEADS, PROJECTION
from engine.weights.pooling import Prompts, sentence_prompts, sentence_settings
from engine.weights.safetensors import INDEX, SINGLE, SafetensorsSource
from engine.weights.source import TensorSource

if TYPE_CHECKING:
    from engine.text.tokenizer import Tokenizer

Kind: TypeAlias = Literal["decoder", "encoder", "reranker"]
"""A chat model, an embedding model, or an encoder that scores documents: by a head, or as ColBERT."""

_FACTORS = ("rope_freqs", "rope_factors_short", "rope_factors_long")
_MOST_FACTORS = 4096


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. Immutable; `params` go to the functions of `engine.models`.

    Attributes:
        params: nested dict of float32 arrays and QTensors; see `models.decoder` and `models.encoder`.
        tokenizer: None where the folder has no tokenizer.json: token ids only.
        chat_template: Jinja source, untrusted; None where the model has none.
        eos_ids: tokens that end a reply, as the model's configuration lists them; may be empty.
        prompts: what an embedding model wants before a query or a document; none for most.
        colbert: how a ColBERT model reads queries and documents; None in others.
        identity: 32 hex digits of the content; see `identity.content_identity`.

    Example:
        >>> model = load_checkpoint(Path("smollm2-135m-instruct"), quant="int8")
        >>> decoder.forward(model.params, model.config, tokens)
    """

    name: str
    path: Path
    architecture: str
    kind: Kind
    quant: Quant
    config: DecoderConfig | EncoderConfig
    params: dict[str, Any]
    identity: str
    tokenizer: "Tokenizer | None" = None
    chat_template: str | None = None
    eos_ids: tuple[int, ...] = ()
    prompts: Prompts = Prompts()
    colbert: ColbertSettings | None = None

    def __post_init__(self) -> None:
        # JAX clamps an id out of range, so a foreign tokenizer would give wrong vectors in silence.
        if self.tokenizer is not None and self.tokenizer.vocab_size > self.config.vocab_size:
            raise BadCheckpoint(
                f"{self.path}: the tokenizer has {self.tokenizer.vocab_size} tokens, "
                f"the model {self.config.vocab_size}; they do not belong together"
            )


def load_checkpoint(path: Path, *, quant: Quant = "f32") -> Checkpoint:
    """Loads weights, configuration, tokenizer and chat template.

    Args:
        path: a folder with config.json and safetensors, a .gguf file or a part of one, or a folder
            with one .gguf, whole or in parts.
        quant: how matrices stay in memory. "int8" takes Q8_0 tensors over exactly; "int4" Q4_0 and
            Q4_1, and keeps the vocabulary tables in int8. Other tensors are requantised.

    Raises:
        ModelNotFound, UnsupportedModel, BadCheckpoint: each with one line that names the file.
    """
    if quant not in get_args(Quant):
        raise ValueError(f"quant must be one of {', '.join(get_args(Quant))}, not {quant!r}")
    if not path.exists():
        raise ModelNotFound(f"no model at {path}: `tarsia models list` shows what is there")
    if path.is_file():
        if path.suffix != ".gguf":
            raise UnsupportedModel(f"{path}: give the model's folder, or a .gguf file")
        return _from_gguf(path, path.stem, quant)
    if _has_safetensors(path):
        return _from_folder(path, quant)
    return _from_gguf(_only_gguf(path), path.name, quant)


def checkpoint_kind(path: Path) -> Kind:
    """What a model is, read from its configuration alone; the errors are those of `load_checkpoint`."""
    if _has_safetensors(path):
        values = read_object(path / "config.json")
        config = _hf_config(path, values)
        if isinstance(config, EncoderConfig):
            return "encoder" if config.head is None and not is_colbert(values) else "reranker"
    return "decoder"


def _projection(files: SafetensorsSource) -> int:
    """How many numbers a token's vector has in a ColBERT checkpoint."""
    if PROJECTION not in files.names() or len(files.shape(PROJECTION)) != 2:
        raise BadCheckpoint(f"{files.label}: the weights lack ColBERT's matrix {PROJECTION!r}")
    return files.shape(PROJECTION)[0]


def _has_safetensors(path: Path) -> bool:
    return (path / SINGLE).is_file() or (path / INDEX).is_file()


def _only_gguf(folder: Path) -> Path:
    files = {first_part(file) for file in folder.glob("*.gguf")}
    if len(files) == 1:
        return files.pop()
    if files:
        raise BadCheckpoint(f"{folder}: holds {len(files)} .gguf files; give the path of one")
    raise BadCheckpoint(
        f"{folder}: holds neither {SINGLE} nor a .gguf file (pickled weights such as pytorch_model.bin "
        "are never read)"
    )


def _from_folder(folder: Path, quant: Quant) -> Checkpoint:
    from engine.text.tokenizer import tokenizer_from_folder

    values = read_object(folder / "config.json")
    config = _hf_config(folder, values)
    files = SafetensorsSource(folder)
    source: TensorSource = files
    if isinstance(config, EncoderConfig) and is_colbert(values):
        config = replace(config, projection=_projection(files))
    if isinstance(config, EncoderConfig):
        shapes, ignored = encoder.parameter_shapes(config), ENCODER_HEADS
        source, rename = families.encoder_hf(config, source)
    else:
        shapes = decoder.parameter_shapes(config)
        ignored = ("lm_head.weight",) if config.tied else ()
        source, rename = families.decoder_hf(config, source)
    return Checkpoint(
        name=folder.name,
        path=folder,
        architecture=config.architecture,
        kind=checkpoint_kind(folder),
        quant=quant,
        config=config,
        params=build_params(source, shapes, rename, quant, ignored),
        identity=content_identity(files.paths, _settings_files(folder)),
        tokenizer=tokenizer_from_folder(folder),
        chat_template=_folder_template(folder),
        eos_ids=_eos_ids(folder, values),
        colbert=colbert_settings(folder) if is_colbert(values) else None,
        prompts=sentence_prompts(folder) if isinstance(config, EncoderConfig) else Prompts(),
    )


def _hf_config(folder: Path, values: dict[str, Any]) -> DecoderConfig | EncoderConfig:
    source = str(folder / "config.json")
    architecture = Fields(values, source).text("model_type")
    if architecture not in HF_ARCHITECTURES + ENCODER_ARCHITECTURES:
        raise unsupported(architecture, HF_ARCHITECTURES + ENCODER_ARCHITECTURES)
    decodes = architecture in HF_ARCHITECTURES
    if decodes and not (folder / "modules.json").is_file():
        return decoder_from_hf(values, source)
    settings = sentence_settings(folder)
    pooling, longest = settings.pooling, settings.max_seq_length
    if decodes:
        return embedding_decoder(decoder_from_hf(values, source), pooling=pooling, max_seq_length=longest)
    return encoder_from_hf(values, source, pooling=pooling, max_seq_length=longest)


def _settings_files(folder: Path) -> list[Path]:
    sentence = (
        "artifact.metadata",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    )
    files = ("config.json", "tokenizer.json", *sentence)
    return [*(folder / name for name in files), *sorted(folder.glob("*_Pooling/config.json"))]


def _folder_template(folder: Path) -> str | None:
    """chat_template.jinja, else tokenizer_config.json's, which may be a list of named ones."""
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    template = read_object_if_there(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        items = (item for item in template if isinstance(item, dict) and item.get("name") == "default")
        template = next(items, {}).get("template")
    return template if isinstance(template, str) else None


def _eos_ids(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """From generation_config.json, else config.json; one id or a list."""
    value = read_object_if_there(folder / "generation_config.json").get("eos_token_id")
    value = config.get("eos_token_id") if value is None else value
    ids = value if isinstance(value, list) else [value]
    return tuple(i for i in ids if isinstance(i, int) and not isinstance(i, bool))


def _from_gguf(path: Path, name: str, quant: Quant) -> Checkpoint:
    from engine.text.tokenizer import tokenizer_from_gguf

    file = read_gguf_parts(path)
    config = _gguf_config(file)
    source, rename = families.decoder_gguf(config, GgufSource(file))
    params = build_params(source, decoder.parameter_shapes(config), rename, quant)
    template = file.fields.get("tokenizer.chat_template")
    ends = (file.fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot"))
    return Checkpoint(
        name=name,
        path=path,
        architecture=config.architecture,
        kind="decoder",
        quant=quant,
        config=config,
        params=params,
        identity=content_identity(file.paths),
        tokenizer=tokenizer_from_gguf(file.fields) if "tokenizer.ggml.tokens" in file.fields else None,
        chat_template=template if isinstance(template, str) else None,
        eos_ids=tuple(dict.fromkeys(i for i in ends if isinstance(i, int))),
    )


def _gguf_config(file: GgufFile) -> DecoderConfig:
    architecture = file.fields.get("general.architecture")
    if isinstance(architecture, str) and architecture not in GGUF_ARCHITECTURES:
        raise unsupported(architecture, GGUF_ARCHITECTURES)
    factors = {
        name: _factors(file, f"{name}.weight") for name in _FACTORS if f"{name}.weight" in file.tensors
    }
    return decoder_from_gguf(file.fields, file.tensors.keys(), str(file.path), factors)


def _factors(file: GgufFile, name: str) -> tuple[float, ...]:
    if math.prod(file.tensors[name].shape) > _MOST_FACTORS:
        raise BadCheckpoint(f"{file.path}: {name} holds more numbers than half a head has")
    return tuple(map(float, GgufSource(file).array(name).ravel()))
