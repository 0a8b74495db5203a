"""Links to send customers to: what is accepted, and what is refused at the pointer asked for."""

from __future__ import annotations

import pytest

from tallystick.core.errors import InvalidInput
from tallystick.core.urls import URL_LENGTH_MAX, check_return_url


@pytest.mark.parametrize(
    "link",
    [
        "https://shop.example",
        "https://shop.example/thanks?order=1%202#top",
        "https://shop.example:8443/",
        "HTTPS://SHOP.EXAMPLE/",
        "https://[2001:db8::1]/",
        "http://localhost/done",
        "http://127.0.0.1:8000/done",
        "http://127.8.9.1/",
        "http://[::1]:3000/",
    ],
)
def test_links_that_customers_may_follow(link: str) -> None:
    assert check_return_url(link, pointer="/success_url") == link


@pytest.mark.parametrize(
    "link",
    [
        "",
        "shop.example",
        "//shop.example/",
        "/relative",
        "http://shop.example/",
        "http://10.0.0.1/",
        "http://localhost.evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://2130706433/",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "ftp://shop.example/",
        "https:///path",
        "https://",
        "https:shop.example",
        "https://user@shop.example/",
        "https://user:password@shop.example/",
        "https://@shop.example/",
        "https://shop.example\\@evil.example/",
        "https://shop.example/ space",
        " https://shop.example/",
        "https://shop.example/\n",
        "https://shop.example/\t",
        "java\tscript:alert(1)",
        "https://shop.example/<script>",
        'https://shop.example/"onclick',
        "https://shöp.example/",
        "https://shop.example/100%",
        "https://shop.example:99999/",
        "https://shop.example:port/",
        "https://[::1",
        "https://shop.example/" + "a" * URL_LENGTH_MAX,
    ],
)
def test_links_that_are_refused(link: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_return_url(link, pointer="/cancel_url")
    assert [problem.pointer for problem in refused.value.problems] == ["/cancel_url"]
