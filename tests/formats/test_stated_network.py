from __future__ import annotations

from typing import Any

import pytest

from litmus.errors import UsageError
from litmus.formats.stated_network import StatedNetwork


@pytest.mark.parametrize(
    ("text", "name", "function", "options"),
    [
        ("resnet", "resnet", None, {}),
        ("resnet:width=16,blocks=2", "resnet", None, {"width": 16, "blocks": 2}),
        ("cnn:channels=[8,16],norm=batch", "cnn", None, {"channels": [8, 16], "norm": "batch"}),
        ('vgg:configuration=[1, "M"], width=4', "vgg", None,
         {"configuration": [1, "M"], "width": 4}),
        ("nets:build", "nets", "build", {}),
        ("my.nets:Net.small:depth=3", "my.nets", "Net.small", {"depth": 3}),
        ("nets:build:url=a:b", "nets", "build", {"url": "a:b"}),
    ],
)  # fmt: skip
def test_what_the_option_says(
    text: str, name: str, function: str | None, options: dict[str, Any]
) -> None:
    network = StatedNetwork.parse(text, trust_code=True)
    assert (network.name, network.function, network.options) == (name, function, options)
    assert network.text == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "resnet:", "resnet:width=1,width=2", "resnet:name=vgg",
     "../net:build", "net:build()", "net:", "a b", "net:build:3"],
)  # fmt: skip
def test_other_texts(text: str) -> None:
    with pytest.raises(UsageError, match="--architecture: not an"):
        StatedNetwork.parse(text, trust_code=True)


def test_own_code_has_to_be_trusted() -> None:
    with pytest.raises(UsageError, match=r"nets:build is code outside of Litmus.*--trust-code"):
        StatedNetwork.parse("nets:build")
