"""``sockets.tls.names``: the form in which host names are compared."""

from __future__ import annotations

import pytest

from everserve.sockets.tls.names import canonical


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("example.org", "example.org"),
        ("Example.ORG.", "example.org"),
        ("*.example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("localhost", "localhost"),
    ],
)
def test_one_form_for_all_spellings(name: str, form: str) -> None:
    assert canonical(name) == form


@pytest.mark.parametrize("name", ["", ".", "*", "*.", "a*.example.org", "a.*.org", "*.*.org"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="whole first label"):
        canonical(name)
