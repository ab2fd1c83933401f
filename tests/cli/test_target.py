"""Finding the handler that the command line names."""

from pathlib import Path

import pytest

import everserve
from everserve.cli.target import find_handler, split_address
from everserve.errors import HandlerError


def test_a_module() -> None:
    assert (
        find_handler("http.server:SimpleHTTPRequestHandler").__name__ == "SimpleHTTPRequestHandler"
    )
    assert find_handler("everserve:StreamRequestHandler") is everserve.StreamRequestHandler


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("ANSWER = 42\n")
    file = tmp_path / "app.py"
    file.write_text(
        "import neighbour\n"
        "from everserve import BaseRequestHandler as Base\n"
        "class Outer:\n    class H(Base):\n        def handle(self): pass\n"
        "def function(request, client_address, server): pass\n"
    )
    assert find_handler(f"{file}:Outer.H").__qualname__ == "Outer.H"
    assert find_handler(f"{file}:function").__name__ == "function"


def test_a_module_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here_is_my_app.py").write_text(
        "import everserve\nclass H(everserve.BaseRequestHandler):\n    def handle(self): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    assert find_handler("here_is_my_app:H").__name__ == "H"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("app", "write it as module:Class"),
        (":H", "write it as module:Class"),
        ("app:", "write it as module:Class"),
        ("no_such_module:H", "no module 'no_such_module'"),
        ("everserve.nothing:H", "no module 'everserve.nothing'"),
        ("no/such/file.py:H", "no file 'no/such/file.py'"),
        ("json:JSONDecoder", "is not a request handler"),
        ("json:dumps", "is not a request handler"),
        ("json:H", "there is no 'H' in 'json'"),
    ],
)
def test_an_unknown_target_is_one_line(target: str, words: str) -> None:
    with pytest.raises(HandlerError) as caught:
        find_handler(target)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_of_a_wrong_name_lists_those_that_exist(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(
        "import everserve\nclass Good(everserve.BaseRequestHandler):\n    def handle(self): pass\n"
    )
    with pytest.raises(HandlerError, match=r"no 'God' in '.*app.py'; it has Good"):
        find_handler(f"{file}:God")


@pytest.mark.parametrize("code", ["1/0\n", "import no_such_thing\n", "def\n"])
def test_a_file_that_fails_is_reported_with_its_line(tmp_path: Path, code: str) -> None:
    file = tmp_path / "app.py"
    file.write_text(code)
    with pytest.raises(HandlerError, match=r"cannot load '.*app.py': \w+Error: "):
        find_handler(f"{file}:H")


def test_a_module_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_app.py").write_text("\n1/0\n")
    (tmp_path / "needing_app.py").write_text("import no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HandlerError, match=r"ZeroDivisionError: .*broken_app.py, line 2"):
        find_handler("broken_app:H")
    with pytest.raises(HandlerError, match="ModuleNotFoundError: No module named 'no_such_thing'"):
        find_handler("needing_app:H")


DEEP = """import json


def load():
    return json.loads("{")


load()
"""


def test_the_line_of_a_failure_is_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "deep_app.py"
    file.write_text(DEEP)
    with pytest.raises(HandlerError, match=rf"JSONDecodeError: .* \({file}, line 5\)$"):
        find_handler(f"{file}:H")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def\n", r"SyntaxError: .* \(.*app.py, line 1\)$"),
        ("\nraise SystemExit(3)\n", r"it ends the process, by sys.exit\(3\) \(.*app.py, line 2\)$"),
        ("raise ValueError('a\\nb')\n", r"ValueError: a\\nb \(.*app.py, line 1\)$"),
    ],
)
def test_a_failure_is_one_line(tmp_path: Path, code: str, words: str) -> None:
    file = tmp_path / "app.py"
    file.write_text(code)
    with pytest.raises(HandlerError, match=words) as caught:
        find_handler(f"{file}:H")
    assert "\n" not in str(caught.value)


SERVING = """import everserve, threading

class H(everserve.BaseRequestHandler):
    def handle(self): pass

{call}
"""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("everserve.serve(H, 'tcp://127.0.0.1:0')", r"it calls serve\(\) while it is loaded"),
        (
            "with everserve.TCPServer(('', 0), H) as s: s.serve_forever()",
            r"it calls serve_forever\(\) while",
        ),
    ],
)
def test_a_module_that_serves_while_it_is_loaded(tmp_path: Path, call: str, words: str) -> None:
    file = tmp_path / "app.py"
    file.write_text(SERVING.format(call=call))
    with pytest.raises(HandlerError, match=words) as caught:
        find_handler(f"{file}:H")
    assert str(caught.value).endswith(f"__name__ == '__main__': ({file}, line 6)")


def test_a_module_may_serve_in_a_thread_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(
        SERVING.format(
            call="server = everserve.TCPServer(('127.0.0.1', 0), H)\nwith server.running(): pass"
        )
    )
    assert find_handler(f"{file}:H").__name__ == "H"


def test_a_coroutine_that_nothing_awaits_is_no_handler(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(
        "import everserve\nclass H(everserve.StreamRequestHandler):\n    async def handle(self): pass\n"
    )
    with pytest.raises(HandlerError, match=r"is not a request handler: H\.handle is 'async def'"):
        find_handler(f"{file}:H")


def test_a_coroutine_is_a_handler_for_asyncio(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(
        "import everserve\nclass H(everserve.BaseRequestHandler):\n    async def handle(self): pass\n"
    )
    assert find_handler(f"{file}:H").__name__ == "H"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("app:Echo", ("app:Echo", None)),
        ("app:Echo=tcp://*:80", ("app:Echo", "tcp://*:80")),
        ("a=b/app.py:Echo.Inner=unix:/run/a=b", ("a=b/app.py:Echo.Inner", "unix:/run/a=b")),
        ("app", ("app", None)),
    ],
)
def test_an_address_of_its_own(text: str, parts: tuple[str, str | None]) -> None:
    assert split_address(text) == parts
