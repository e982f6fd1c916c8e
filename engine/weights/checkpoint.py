"""`load_checkpoint`: a folder in Hugging Face layout or a GGUF file, as a model ready to run."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from engine.errors import BadCheckpoint, ModelNotFound, UnsupportedModel
from engine.models import decoder, encoder
from engine.models.clip_config import ClipConfig
from engine.models.decoder_config import DecoderConfig, unsupported
from engine.models.decoder_gguf import GGUF_ARCHITECTURES, decoder_from_gguf
from engine.models.decoder_hf import HF_ARCHITECTURES, decoder_from_hf
from engine.models.encoder_config import EncoderConfig, embedding_decoder
from engine.models.encoder_hf import HF_ARCHITECTURES as ENCODER_ARCHITECTURES
from engine.models.encoder_hf import encoder_from_hf
from engine.models.fields import Fields
from engine.models.vit_config import VitConfig
from engine.models.vit_onnx import vit_from_onnx
from engine.vision.preprocess import Preprocessing, preprocessing_from_hf
from engine.weights import families
from engine.weights.colbert import ColbertSettings, colbert_settings, is_colbert
from engine.weights.files import read_object, read_object_if_there, read_text
from engine.weights.gguf import GgufSource
from engine.weights.gguf_container import GgufFile
from engine.weights.gguf_settings import FACTORS, SETTINGS
from engine.weights.gguf_split import first_part, read_gguf_parts
from engine.weights.loading import Tensors, Weights, Wish, is_packed
from engine.weights.names import ENCODER_HEADS, PROJECTION, decoder_gguf
from engine.weights.onnx import OnnxSource
from engine.weights.onnx_container import read_onnx
from engine.weights.packed import PackedWeights
from engine.weights.packed_cache import PackedCache
from engine.weights.policy import Policy, Quant
from engine.weights.pooling import Prompts, sentence_prompts, sentence_settings
from engine.weights.safetensors import INDEX, SINGLE, SafetensorsSource
from engine.weights.vision import (
    ARCHITECTURES as VISION_ARCHITECTURES,
)
from engine.weights.vision import (
    IGNORED,
    PREPROCESSOR,
    is_vision,
    plain,
    vision_config,
    vision_preprocessing,
    vision_shapes,
    vision_source,
)

if TYPE_CHECKING:
    from engine.text.tokenizer import Tokenizer

Kind: TypeAlias = Literal["decoder", "encoder", "reranker", "vision"]
"""A chat model, an embedding model, an encoder that scores documents (by a head, or as ColBERT), or a model
that reads images."""
Config: TypeAlias = DecoderConfig | EncoderConfig | VitConfig | ClipConfig

ONNX = ".onnx"
_MOST_FACTORS = 4096


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. Immutable; `params` go to the functions of `engine.models`.

    Attributes:
        quant: the usual form of its matrices; a policy's overrides differ.
        params: nested dict of float32 arrays and QTensors; see `models.decoder` and `models.encoder`.
        tokenizer: None where the folder has no tokenizer.json: token ids only.
        chat_template: Jinja source, untrusted; None where the model has none.
        eos_ids: tokens that end a reply, as the model's configuration lists them; may be empty.
        prompts: what an embedding model wants before a query or a document; none for most.
        colbert: how a ColBERT model reads queries and documents; None in others.
        preprocessing: what is done to images before the model; None for text.
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
    config: Config
    params: dict[str, Any]
    identity: str
    tokenizer: "Tokenizer | None" = None
    chat_template: str | None = None
    eos_ids: tuple[int, ...] = ()
    prompts: Prompts = Prompts()
    colbert: ColbertSettings | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        if self.tokenizer is None or isinstance(self.config, VitConfig):
            return
        # JAX clamps an id out of range, so a foreign tokenizer would give wrong vectors in silence.
        if self.tokenizer.vocab_size > self.config.vocab_size:
            raise BadCheckpoint(
                f"{self.path}: the tokenizer has {self.tokenizer.vocab_size} tokens, "
                f"the model {self.config.vocab_size}; they do not belong together"
            )


def load_checkpoint(
    path: Path,
    *,
    quant: Quant | None = None,
    overrides: Sequence[str] = (),
    cache: PackedCache | None = None,
) -> Checkpoint:
    """Loads weights, configuration, tokenizer and chat template.

    Args:
        path: a folder with config.json and safetensors, a .gguf file or a part of one, a folder
            with one .gguf, whole or in parts, one that `packed_folder.save_packed` made, or the .onnx file
            of a vision transformer.
        quant: how matrices stay in memory; None is as they are packed, or else float32. "int8" takes
            Q8_0 tensors over exactly; "int4" Q4_0 and Q4_1, and keeps the vocabulary tables in int8.
            Other tensors are requantised.
        overrides: other forms for some matrices, as `Policy.of` reads them.
        cache: where quantised weights are kept for the next time.

    Raises:
        ModelNotFound, UnsupportedModel, BadCheckpoint: each with one line that names the file.
        InvalidRequest: a form that does not exist, or an override that fits nothing.
    """
    wish = Wish(Policy.of(quant or "f32", overrides) if quant or overrides else None, cache)
    if not path.exists():
        raise ModelNotFound(f"no model at {path}: `tarsia models list` shows what is there")
    if path.suffix == ONNX:
        return _of_onnx(path, wish)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UnsupportedModel(f"{path}: give the model's folder, or a .gguf or .onnx file")
        return _from_gguf(path, path.stem, wish)
    if _has_config(path):
        return _from_folder(path, wish)
    return _from_gguf(_only_gguf(path), path.name, wish)


def checkpoint_kind(path: Path) -> Kind:
    """What a model is, read from its configuration alone; the errors are those of `load_checkpoint`."""
    if path.suffix == ONNX:
        return "vision"
    if _has_config(path):
        values = read_object(path / "config.json")
        if is_vision(values):
            return "vision"
        config = _hf_config(path, values)
        if isinstance(config, EncoderConfig):
            return "encoder" if config.head is None and not is_colbert(values) else "reranker"
    return "decoder"


def _has_config(path: Path) -> bool:
    """Whether it is a folder in Hugging Face layout, and not one around a GGUF file."""
    packed = is_packed(path) and (path / "config.json").is_file()
    return packed or (path / SINGLE).is_file() or (path / INDEX).is_file()


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


def _from_folder(folder: Path, wish: Wish) -> Checkpoint:
    from engine.text.tokenizer import tokenizer_from_folder

    values = read_object(folder / "config.json")
    files = wish.packed(folder) or SafetensorsSource(folder)
    if is_vision(values):
        return _of_images(folder, values, files, wish)
    config = _hf_config(folder, values)
    if isinstance(config, EncoderConfig) and is_colbert(values):
        config = replace(config, projection=_projection(folder, files))
    origin = files if isinstance(files, PackedWeights) else _hf_tensors(config, files)
    weights = wish.load(origin, _shapes(config), _settings_files(folder))
    return Checkpoint(
        name=folder.name,
        path=folder,
        architecture=config.architecture,
        kind=checkpoint_kind(folder),
        quant=weights.quant,
        config=config,
        params=weights.params,
        identity=weights.identity,
        tokenizer=tokenizer_from_folder(folder),
        chat_template=_folder_template(folder),
        eos_ids=_eos_ids(folder, values),
        colbert=colbert_settings(folder) if is_colbert(values) else None,
        prompts=sentence_prompts(folder) if isinstance(config, EncoderConfig) else Prompts(),
    )


def _of_images(
    folder: Path, values: dict[str, Any], files: SafetensorsSource | PackedWeights, wish: Wish
) -> Checkpoint:
    from engine.text.tokenizer import tokenizer_from_folder

    origin: Tensors | PackedWeights
    if isinstance(files, PackedWeights):
        origin, config = files, vision_config(folder, values, None)
    else:
        tensors = plain(files)
        config = vision_config(folder, values, tensors)
        origin = Tensors(files.paths, *vision_source(config, tensors), IGNORED)
    tokenizer = tokenizer_from_folder(folder) if isinstance(config, ClipConfig) else None
    settings = [folder / name for name in ("config.json", PREPROCESSOR, "tokenizer.json")]
    preprocessing = vision_preprocessing(folder, values, config)
    weights = wish.load(origin, vision_shapes(config), settings)
    return _image_model(folder, config, weights, preprocessing, tokenizer)


def _of_onnx(path: Path, wish: Wish) -> Checkpoint:
    """A backbone of images in an exported graph, whose other parts are left unread."""
    tensors = plain(OnnxSource(read_onnx(path)))
    config = vit_from_onnx(tensors, str(path))
    origin = Tensors((path,), *vision_source(config, tensors), IGNORED)
    weights = wish.load(origin, vision_shapes(config), ())
    return _image_model(path, config, weights, preprocessing_from_hf({}, config, str(path)), None)


def _image_model(
    path: Path,
    config: VitConfig | ClipConfig,
    weights: Weights,
    preprocessing: Preprocessing,
    tokenizer: "Tokenizer | None",
) -> Checkpoint:
    return Checkpoint(
        name=path.stem if path.suffix == ONNX else path.name,
        path=path,
        architecture=config.architecture,
        kind="vision",
        quant=weights.quant,
        config=config,
        params=weights.params,
        identity=weights.identity,
        tokenizer=tokenizer,
        preprocessing=preprocessing,
    )


def _hf_tensors(config: DecoderConfig | EncoderConfig, files: SafetensorsSource) -> Tensors:
    if isinstance(config, EncoderConfig):
        return Tensors(files.paths, *families.encoder_hf(config, files), ENCODER_HEADS)
    ignored = ("lm_head.weight",) if config.tied else ()
    return Tensors(files.paths, *families.decoder_hf(config, files), ignored)


def _shapes(config: DecoderConfig | EncoderConfig) -> dict[str, tuple[int, ...]]:
    if isinstance(config, EncoderConfig):
        return encoder.parameter_shapes(config)
    return decoder.parameter_shapes(config)


def _projection(folder: Path, files: SafetensorsSource | PackedWeights) -> int:
    """How many numbers a token's vector has in a ColBERT checkpoint."""
    name = "projection" if isinstance(files, PackedWeights) else PROJECTION
    if name not in files.names() or len(files.shape(name)) != 2:
        raise BadCheckpoint(f"{folder}: the weights lack ColBERT's matrix {name!r}")
    return files.shape(name)[0]


def _hf_config(folder: Path, values: dict[str, Any]) -> DecoderConfig | EncoderConfig:
    source = str(folder / "config.json")
    architecture = Fields(values, source).text("model_type")
    if architecture not in HF_ARCHITECTURES + ENCODER_ARCHITECTURES:
        raise unsupported(architecture, HF_ARCHITECTURES + ENCODER_ARCHITECTURES + VISION_ARCHITECTURES)
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


def _from_gguf(path: Path, name: str, wish: Wish) -> Checkpoint:
    from engine.text.tokenizer import tokenizer_from_gguf

    file = read_gguf_parts(path)
    packed = wish.packed(path.parent) if path.name == SETTINGS else None
    config = _gguf_config(file, packed)
    origin = packed or Tensors(file.paths, *families.decoder_gguf(config, GgufSource(file)))
    weights = wish.load(origin, decoder.parameter_shapes(config), file.paths if packed else ())
    template = file.fields.get("tokenizer.chat_template")
    ends = (file.fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot"))
    return Checkpoint(
        name=name,
        path=path,
        architecture=config.architecture,
        kind="decoder",
        quant=weights.quant,
        config=config,
        params=weights.params,
        identity=weights.identity,
        tokenizer=tokenizer_from_gguf(file.fields) if "tokenizer.ggml.tokens" in file.fields else None,
        chat_template=template if isinstance(template, str) else None,
        eos_ids=tuple(dict.fromkeys(i for i in ends if isinstance(i, int))),
    )


def _gguf_config(file: GgufFile, packed: PackedWeights | None) -> DecoderConfig:
    architecture = file.fields.get("general.architecture")
    if isinstance(architecture, str) and architecture not in GGUF_ARCHITECTURES:
        raise unsupported(architecture, GGUF_ARCHITECTURES)
    factors = {name: _factors(file, f"{name}.weight") for name in FACTORS if f"{name}.weight" in file.tensors}
    names: Collection[str] = file.tensors.keys()
    if packed is not None:
        names = [decoder_gguf()(name) for name in packed.names()]
    return decoder_from_gguf(file.fields, names, str(file.path), factors)


def _factors(file: GgufFile, name: str) -> tuple[float, ...]:
    if math.prod(file.tensors[name].shape) > _MOST_FACTORS:
        raise BadCheckpoint(f"{file.path}: {name} holds more numbers than half a head has")
    return tuple(map(float, GgufSource(file).array(name).ravel()))
