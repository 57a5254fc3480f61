"""Where the page is served, and what stands in the way."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from web_run import Run, ask

from videogender.errors import ConfigError, OutputError
from videogender.sinks.web import WebScreen, generate_token, is_loopback, parse_serve

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        (" 0 ", "127.0.0.1", 0),
        ("localhost:8080", "localhost", 8080),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("[::1]:80", "::1", 80),
        ("[::]:8080", "::", 8080),
        ("my-host.example:1234", "my-host.example", 1234),
    ],
)
def test_serve_is_read(text: str, host: str, port: int) -> None:
    assert parse_serve(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "x", "65536", ":8080", "::1:8080", "[::1]", "host:", "-1", "8080/", "http://a:1", "a b:1"],
)
def test_serve_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--serve should be \[HOST:\]PORT") as refused:
        parse_serve(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "me")],
    ],
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_tokens_differ_and_need_no_quoting() -> None:
    tokens = {generate_token() for _ in range(20)}
    assert len(tokens) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22,}", token) for token in tokens)  # 128 bits or more


def test_a_taken_port_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OutputError, match=rf"^cannot serve at 127\.0\.0\.1:{port}: .*taken"):
            WebScreen(Run(), "127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.55", "no such address"), ("nowhere.invalid", "no such host")]
)
def test_a_host_that_is_not_ours_is_told(host: str, said: str) -> None:
    with pytest.raises(OutputError, match=rf"^cannot serve at {re.escape(host)}:0: .*{said}"):
        WebScreen(Run(), host, 0, "secret")


def test_others_are_let_in_only_with_a_token() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):  # the refusal leaves the port free
        with pytest.raises(ConfigError, match="token"):
            WebScreen(Run(), "0.0.0.0", port)


def test_the_address_of_everywhere_is_one_that_can_be_opened() -> None:
    with WebScreen(Run(), "0.0.0.0", 0, "secret") as screen:
        found = re.fullmatch(r"http://([^/:]+):\d+/\?token=secret", screen.url)
        assert found
        assert found[1] != "0.0.0.0"
        assert ask(screen, "/?token=secret").status == 200


def test_ipv6_has_brackets() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with WebScreen(Run(), "::1") as screen:
        assert screen.url.startswith("http://[::1]:")
        assert ask(screen, "/healthz").status == 200


def test_the_port_is_free_again_at_once() -> None:
    with WebScreen(Run()) as first:
        assert ask(first, "/healthz").status == 200
        port = int(first.url.rstrip("/").rpartition(":")[2])
    with WebScreen(Run(), port=port) as second:
        assert second.url == first.url
        assert ask(second, "/healthz").status == 200


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_library_is_named_with_its_extra(missing: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from videogender.sinks.web import WebScreen\n"
        "try: WebScreen(None)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(sorted({'starlette', 'uvicorn'} & {n for n, m in sys.modules.items() if m}))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, loaded = ran.stdout.splitlines()
    assert said.startswith(f"ConfigError serving a page needs {missing}: ")
    assert said.endswith("pip install 'videogender[serve]'")
    assert missing not in eval(loaded)


def test_reading_the_flag_loads_nothing_heavy() -> None:
    code = "import videogender.sinks.web, sys; print(sorted(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"starlette", "uvicorn", "numpy", "PIL"} & set(eval(ran.stdout))
