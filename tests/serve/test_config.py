from pathlib import Path

import pytest

from serve.config import ConfigError, load_settings


def test_defaults_bind_loopback_with_the_default_models() -> None:
    loaded = load_settings(environ={})
    assert (loaded.settings.host, loaded.settings.port) == ("127.0.0.1", 8080)
    assert loaded.settings.chat_model == "smollm2-135m-instruct"
    assert set(loaded.origins.values()) == {"default"}


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    file = tmp_path / "tarsia.toml"
    file.write_text('port = 1\nmax_slots = 2\nmax_queue = 3\ncors_origins = ["https://a.example"]\n')
    environ = {"TARSIA_PORT": "4", "TARSIA_MAX_SLOTS": "5", "TARSIA_ALLOWED_HOSTS": "a.example, b.example"}
    loaded = load_settings({"port": 6, "host": None}, config_file=file, environ=environ)
    settings = loaded.settings
    assert (settings.port, settings.max_slots, settings.max_queue) == (6, 5, 3)
    assert settings.cors_origins == ("https://a.example",)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert loaded.origins["port"] == "flag"
    assert loaded.origins["max_slots"] == "TARSIA_MAX_SLOTS"
    assert loaded.origins["max_queue"] == str(file)
    assert loaded.origins["host"] == "default"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"TARSIA_PORT": "many"}, "port must be of type int, not 'many' (from TARSIA_PORT)"),
        ({"TARSIA_PORT": "70000"}, "port must be from 0 to 65535, not 70000"),
        (
            {"TARSIA_ACCESS_LOG": "loud"},
            "access_log must be one of common, combined, json, off, not 'loud' (from TARSIA_ACCESS_LOG)",
        ),
        ({"TARSIA_MAX_SLOTS": "0"}, "max_slots must be at least 1, not 0"),
    ],
)
def test_a_bad_value_is_refused_with_its_origin(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ=environ)
    assert str(caught.value) == message


def test_an_unknown_key_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "tarsia.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(ConfigError, match="there is no setting 'prot'"):
        load_settings(config_file=file, environ={})


@pytest.mark.parametrize("content", ["port = ", "port = 'x'", "port = true", "\x00"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tarsia.toml"
    file.write_text(content)
    with pytest.raises(ConfigError):
        load_settings(config_file=file, environ={})


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_settings(environ={"TARSIA_CONFIG": str(tmp_path / "none.toml")})
