from __future__ import annotations

import pytest

from app.addresses import masked, with_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:9200", "http://127.0.0.1:9200"),
        ("https://user:word@host:9200", "https://user:***@host:9200"),
        ("redis://:word@127.0.0.1:1/0", "redis://:***@127.0.0.1:1/0"),
        ("http://a:1@h1:9200,http://b:2@h2:9200", "http://a:***@h1:9200,http://b:***@h2:9200"),
        ("http://h1:9200,http://b:2@h2:9200", "http://h1:9200,http://b:***@h2:9200"),
        # not quoted as it should be
        ("redis://:w/o@r,d:?#@host/0", "redis://:***@host/0"),
        ("no address: http://u:word@h (refused)", "no address: http://u:***@h (refused)"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_credentials_are_put_into_each_address() -> None:
    assert with_credentials("http://a:1,http://b:2", "me", "p@ss") == "http://me:p%40ss@a:1,http://me:p%40ss@b:2"
    assert with_credentials("http://a:1", None, None) == "http://a:1"
