"""Settings: defaults < tarsia.toml < TARSIA_* environment < flags, each value with where it came from.

One field of `Settings` is one setting: its name is the TOML key, `TARSIA_<NAME>` the environment
variable, and its help text what `tarsia config show` prints.
"""

import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import platformdirs

from engine.errors import TarsiaError

if typing.TYPE_CHECKING:
    from engine.weights.policy import Quant

_DATA_DIR = platformdirs.user_data_path("tarsia")


class ConfigError(TarsiaError):
    """A setting that does not exist or has a value of the wrong kind; names where it was set."""

    code = "invalid_config"


def _setting(default: Any, description: str) -> Any:
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. Sizes in bytes, times in seconds."""

    host: str = _setting("127.0.0.1", "address to bind; loopback only until authentication exists")
    port: int = _setting(8080, "port to bind; 0 takes a free one")
    data_dir: Path = _setting(_DATA_DIR, "folder of the documents and collections; one process at a time")
    chat_model: str = _setting("smollm2-135m-instruct", "alias, folder or .gguf of the chat model")
    chat_quant: Literal["auto", "f32", "bf16", "int8", "int4"] = _setting(
        "auto",
        "weights of the chat model in memory: f32, bf16 (on a GPU), int8, int4; auto is as packed, or int8",
    )
    embedding_model: str = _setting("all-minilm-l6-v2", "alias or folder of the embedding model")
    rerank_model: str = _setting("", "alias or folder of the reranker; empty for none")
    vision_model: str = _setting("vit-fashion", "alias or folder of the image model; empty for none")
    max_slots: int = _setting(4, "chats that decode together; more wait in the queue")
    max_context: int = _setting(2048, "most tokens of one chat, prompt and reply together")
    max_queue: int = _setting(64, "chats that may wait for a slot; more are refused with 503")
    kv_bytes: int = _setting(
        256 * 2**20, "memory for chats' keys and values; when short, the last to come waits"
    )
    speculate: int = _setting(3, "tokens guessed ahead where a chat repeats itself; never changes a reply")
    max_body_bytes: int = _setting(8 * 2**20, "largest JSON body")
    max_upload_bytes: int = _setting(64 * 2**20, "largest uploaded document")
    max_image_pixels: int = _setting(40_000_000, "largest image, width times height")
    max_connections: int = _setting(512, "open connections; more are refused")
    max_header_bytes: int = _setting(32 * 2**10, "largest request header")
    header_timeout: float = _setting(10.0, "time a client has to send its headers")
    body_timeout: float = _setting(30.0, "time a client may pause while it sends a body")
    drain_seconds: float = _setting(10.0, "time streams have to finish after SIGTERM")
    allowed_hosts: tuple[str, ...] = _setting((), "host names beside localhost that clients may use")
    cors_origins: tuple[str, ...] = _setting((), "browser origins that may call the API")
    access_log: Literal["common", "combined", "json", "off"] = _setting(
        "common", "common, combined, json or off"
    )

    @property
    def quant(self) -> "Quant | None":
        """`chat_quant` as `Engine.load` takes it."""
        return None if self.chat_quant == "auto" else self.chat_quant

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, not {self.port}")
        positive = ("max_slots", "max_context", "max_body_bytes", "max_upload_bytes", "max_image_pixels")
        for name in (*positive, "max_connections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("kv_bytes", "speculate"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")


@dataclass(frozen=True)
class LoadedSettings:
    settings: Settings
    origins: Mapping[str, str]
    """Setting -> where its value came from: `default`, a file, an environment variable or `flag`."""


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LoadedSettings:
    """Joins all sources. A flag of None counts as not given.

    Raises:
        ConfigError: an unreadable file, an unknown key, a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    origins = {f.name: "default" for f in fields(Settings)}
    kinds = typing.get_type_hints(Settings)
    for origin, source in (*_file_values(config_file, environ), *_environment_values(environ)):
        for name, raw in source.items():
            values[name] = _convert(name, raw, kinds[name], origin)
            origins[name] = origin
    for name, value in (flags or {}).items():
        if value is not None:
            values[name], origins[name] = _convert(name, value, kinds[name], "flag"), "flag"
    return LoadedSettings(Settings(**values), origins)


def _file_values(config_file: Path | None, environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    path = config_file or _find_file(environ)
    if path is None:
        return []
    try:
        content = tomllib.loads(path.expanduser().read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    known = {f.name for f in fields(Settings)}
    for name in content:
        if name not in known:
            raise ConfigError(f"{path}: there is no setting {name!r}; `tarsia config show` lists them")
    return [(str(path), content)]


def _find_file(environ: Mapping[str, str]) -> Path | None:
    if environ.get("TARSIA_CONFIG"):
        return Path(environ["TARSIA_CONFIG"])
    candidates = (Path("tarsia.toml"), platformdirs.user_config_path("tarsia") / "tarsia.toml")
    return next((path for path in candidates if path.is_file()), None)


def _environment_values(environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    names = {f"TARSIA_{f.name.upper()}": f.name for f in fields(Settings)}
    return [(variable, {name: environ[variable]}) for variable, name in names.items() if variable in environ]


def _convert(name: str, raw: Any, kind: Any, origin: str) -> Any:
    try:
        return _to_kind(raw, kind)
    except (TypeError, ValueError):
        wanted = _described(kind)
        raise ConfigError(f"{name} must be {wanted}, not {raw!r} (from {origin})") from None


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    return "a list of strings" if isinstance(kind, types.GenericAlias) else f"of type {kind.__name__}"


def _to_kind(raw: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        if raw not in typing.get_args(kind):
            raise ValueError
        return raw
    if isinstance(kind, types.GenericAlias):
        parts = raw.split(",") if isinstance(raw, str) else raw
        return tuple(part.strip() for part in parts if part.strip())
    if kind is Path:
        return Path(raw).expanduser()
    if kind in (int, float) and not isinstance(raw, bool):
        if isinstance(raw, kind | str) or (kind is float and isinstance(raw, int)):
            return kind(raw)
        raise TypeError
    if kind is str and isinstance(raw, str):
        return raw
    raise TypeError
