"""What `make run` does after the installation: a working Tarsia, shown by one question.

Pulls the default models, ingests `examples/documents`, starts the server, waits until it is ready, asks,
prints the answer with its citation, and stays in the foreground until Ctrl-C.
"""

import argparse
import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
TARSIA = Path(sys.executable).with_name("tarsia")
START_TIMEOUT = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--question", default="How hot is the sand for shading?")
    options = parser.parse_args()
    take_the_terminal()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    print("== models (fetched once)", flush=True)
    step("models", "pull")
    print(f"== serving on port {options.port}", flush=True)
    # In a group of its own: Ctrl-C comes to us, and we tell the server once.
    server = subprocess.Popen([TARSIA, "serve", "--port", str(options.port)], process_group=0)
    try:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{options.port}", timeout=300.0, trust_env=False
        ) as client:
            wait_until_ready(client, server)
            print(f"== ready {time.monotonic() - started:.1f} s after the start", flush=True)
            ingest_examples(client)
            show(ask(client, options.question), options.port)
        return server.wait()
    except KeyboardInterrupt:
        return stop(server)
    finally:
        if server.poll() is None:
            stop(server)


def take_the_terminal() -> None:
    """Becomes the terminal's foreground group: Ctrl-C then ends us, with 0, and not the `make` above."""
    try:
        if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            above = os.getpgrp()
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpgrp())
            atexit.register(os.tcsetpgrp, 0, above)
    except OSError:
        return  # No job control here: Ctrl-C then reaches make too.


def step(*arguments: str) -> None:
    done = subprocess.run([TARSIA, *arguments])
    if done.returncode:
        sys.exit(done.returncode)


def wait_until_ready(client: httpx2.Client, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(server.returncode or 1)
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    sys.exit("the server did not become ready")


def ingest_examples(client: httpx2.Client) -> None:
    for path in sorted((HERE / "documents").iterdir()):
        if path.suffix in {".pdf", ".html"}:
            answer = client.post("/v1/documents", files={"file": (path.name, path.read_bytes())})
            answer.raise_for_status()
            print(f"== {path.name}: {answer.json()['pages']} pages", flush=True)


def ask(client: httpx2.Client, question: str) -> dict[str, Any]:
    answer = client.post("/v1/ask", json={"question": question})
    answer.raise_for_status()
    result: dict[str, Any] = answer.json()
    return result


def show(answer: dict[str, Any], port: int) -> None:
    print(f"\n  Question  {answer['question']}\n  Answer    {answer['answer']}")
    for citation in answer["citations"][:1]:
        quote = " ".join(citation["quote"].split())
        print(f"  Cited     {citation['document']}, page {citation['page']}: “{quote}”")
    url = f"http://127.0.0.1:{port}"
    command = os.path.relpath(TARSIA)
    body = '{"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hello"}]}'
    print(
        f"\n  Dashboard {url}/\n\n  Try next, in another terminal:\n"
        f'    {command} ask "To what moisture content is the veneer dried?" examples/documents/*\n'
        f'    {command} chat "What is the capital of France?"\n'
        f"    curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n\n"
        "  Ctrl-C stops it.",
        flush=True,
    )


def stop(server: "subprocess.Popen[bytes]") -> int:
    """Lets the server drain, and says 0 when it ended in order."""
    server.send_signal(signal.SIGTERM)
    try:
        return server.wait(timeout=30)
    except subprocess.TimeoutExpired:
        server.kill()
        return 1


if __name__ == "__main__":
    sys.exit(main())
