from __future__ import annotations

import contextlib
import pickle
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from litmus.errors import MissingExtraError, ModelError, ShapeError, UnsupportedModelError
from litmus.formats import FORMATS, onnx_file, sniff
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.stated_network import StatedNetwork
from litmus.models import InputSpec, Model
from tests.formats.torch_files import (
    SPEC,
    Canary,
    exported,
    network,
    rezipped,
    saved,
    scripted,
    with_pickle,
)

IMAGES = np.random.default_rng(0).random((5, *SPEC.image_shape), dtype=np.float32)
RESNET = "resnet:width=4"


def answers(module: nn.Module) -> Any:
    with torch.inference_mode():
        return module(torch.from_numpy(IMAGES)).numpy()


LOGITS = answers(network())
STATE = network().state_dict()


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., Model]:
    """A function that loads bytes as what they are sniffed to be."""

    def load(content: bytes, architecture: str | None = RESNET, **stated: Any) -> Model:
        path = tmp_path / "net.pt"
        path.write_bytes(content)
        kind = sniff(content[:4096])
        assert isinstance(kind, str)
        spec = stated.pop("expected", SPEC)
        named = StatedNetwork.parse(architecture, trust_code=True) if architecture else None
        preprocessing = Preprocessing.from_table(stated, "")
        return FORMATS[kind].load(path, preprocessing, expected=spec, architecture=named)

    return load


Load = Callable[..., Model]
WITHOUT_COUNTERS = {n: t for n, t in STATE.items() if "num_batches" not in n}


@pytest.mark.parametrize(
    "content",
    [
        saved(STATE),
        saved(STATE, _use_new_zipfile_serialization=False),
        saved(dict(STATE)),
        saved(WITHOUT_COUNTERS),
        save(STATE),
        save(WITHOUT_COUNTERS),
    ],
    ids=["zip", "legacy", "dict", "no counters", "safetensors", "safetensors bare"],
)
def test_weights_of_one_of_ours(loaded: Load, content: bytes) -> None:
    model: Any = loaded(content)
    assert (model.input_spec, model.outputs) == (SPEC, "logits")
    np.testing.assert_array_equal(model(IMAGES), LOGITS)
    assert model.notes == [
        "assumed: scale 1, mean 0, std 1, channels rgb",
        "weights of resnet:width=4, as stated, for images of the detector's size, 3x8x8",
        "outputs read as logits, judged by their values",
    ]
    assert not model.torch_module().training
    weights, _ = model.last_layer()
    assert weights.shape == (3, 16)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_a_checkpoint(loaded: Load, key: str) -> None:
    moments = torch.optim.Adam(network().parameters()).state_dict()
    model: Any = loaded(saved({"epoch": 3, key: STATE, "optimizer": moments}))
    np.testing.assert_array_equal(model(IMAGES), LOGITS)
    assert f"weights from the checkpoint's '{key}'" in model.notes


def test_prefixes_of_wrappers_and_other_types(loaded: Load) -> None:
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in STATE.items()}
    model: Any = loaded(saved(wrapped))
    np.testing.assert_array_equal(model(IMAGES), LOGITS)
    assert "'module.' before all names was left out" in model.notes
    halves = {n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in STATE.items()}
    for content in (saved(halves), save(halves)):
        np.testing.assert_allclose(loaded(content)(IMAGES), LOGITS, atol=0.1)


def test_preprocessing_comes_before_the_network(loaded: Load) -> None:
    model: Any = loaded(save(STATE), scale=255, mean=[1, 2, 3], std=5, channels="bgr")
    fed = (IMAGES[:, ::-1] * 255 - np.reshape([1, 2, 3], (3, 1, 1))) / 5
    with torch.inference_mode():
        expected = network()(torch.from_numpy(fed.astype(np.float32)))
    np.testing.assert_allclose(model(IMAGES), expected, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(model.torch_module()(torch.from_numpy(IMAGES)), model(IMAGES))
    assert loaded(save(STATE), classes=["a", "b", "c"]).classes == ("a", "b", "c")  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="classes do not fit"):
        loaded(save(STATE), classes=["a"])


def test_a_network_keeps_its_own_number_of_classes(loaded: Load) -> None:
    ten = InputSpec(channels=3, height=8, width=8, num_classes=10)
    assert loaded(save(STATE), expected=ten).input_spec == SPEC


@pytest.mark.parametrize(
    ("content", "architecture", "error", "message"),
    [
        (save(STATE), "resnet:width=4,blocks=2", ModelError,
         r"not the weights of resnet:width=4,blocks=2: missing .*\.weight.* and \d+ more"),
        (save({**STATE, "odd": torch.zeros(1)}), RESNET, ModelError, "width=4: unexpected odd$"),
        (save({n: t for n, t in STATE.items() if n != "0.0.weight"} | {"odd": torch.zeros(1)}),
         RESNET, ModelError, r"missing 0\.0\.weight; unexpected odd$"),
        (save(STATE), "resnet:width=8", ShapeError,
         r"another shape than resnet:width=8's: .*is \(4, 3, 3, 3\) and not \(8, 3, 3, 3\)"),
        (saved({"a": 1, "b": [2]}), RESNET, UnsupportedModelError,
         r"no weights in it .*got dict of a \(int\), b \(list\)"),
        (saved([torch.zeros(1)]), RESNET, UnsupportedModelError, "no weights in it .*got list"),
        (saved({}), RESNET, UnsupportedModelError, "no weights in it .*got dict of nothing"),
        (saved({**STATE, "0.0.weight": STATE["0.0.weight"].to_sparse()}), RESNET,
         UnsupportedModelError, r"weights of an unusual kind .*0\.0\.weight: torch.sparse"),
        (save(STATE), "lenet5", ShapeError, "lenet5 can't take 3x8x8 -> 3 classes"),
        (saved(STATE, pickle_protocol=4), RESNET, UnsupportedModelError,
         r"PyTorch's safe reader refuses it \(expected what .*, got Unsupported operand 149\)"),
        (save(STATE), None, UnsupportedModelError,
         r"--architecture, or export it to ONNX .*torch\.zeros\(1, 3, 8, 8\)"),
        (saved(STATE), None, UnsupportedModelError, "weights do not say which network"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(
    loaded: Load, content: bytes, architecture: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        loaded(content, architecture)
    assert type(caught.value) is error


def test_without_any_shape_nothing_is_built(loaded: Load) -> None:
    with pytest.raises(UnsupportedModelError, match="do not tell the images' size"):
        loaded(save(STATE), expected=None)


OWN = """
import torch
from torch import nn

print("imported")


def small(depth=1):
    return nn.Sequential(nn.Flatten(), *[nn.Linear(192, 192) for _ in range(depth - 1)],
                         nn.Linear(192, 5), nn.Softmax(dim=1))

def broken():
    raise RuntimeError("no network today")

def number():
    return 5
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory."""
    (tmp_path / "suppliers_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "suppliers_nets", raising=False)
    return "suppliers_nets"


def test_a_network_of_the_users_own(loaded: Load, own_code: str) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Linear(192, 5), nn.Softmax(dim=1))
    model: Any = loaded(saved(module.state_dict()), f"{own_code}:small:depth=2")
    assert model.input_spec.num_classes == 5
    assert model.outputs == "probabilities"
    np.testing.assert_allclose(model(IMAGES), answers(module), atol=1e-6)
    with pytest.raises(ModelError, match=r"unexpected 2\.bias, 2\.weight$"):
        loaded(saved(module.state_dict()), f"{own_code}:small")
    large = InputSpec(channels=3, height=9, width=9, num_classes=5)
    with pytest.raises(ShapeError, match=r"fails to run .*a network for 3x9x9"):
        loaded(saved(module.state_dict()), f"{own_code}:small:depth=2", expected=large)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", "suppliers_nets:broken failed: RuntimeError: no network today"),
        ("number", "made no network .*got int"),
        ("missing", "failed: AttributeError"),
        ("small:width=3", "failed: TypeError"),
    ],
)
def test_code_that_fails(loaded: Load, own_code: str, function: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        loaded(save(STATE), f"{own_code}:{function}")


def test_an_old_pytorch_is_not_asked(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(MissingExtraError, match=r"expected 2\.10 or later, got 2\.9\.1"):
        loaded(saved(STATE))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (scripted, "a TorchScript archive holds code of its own"),
        (exported, r"a \.pt2 archive may hold a pickle"),
        (saved, r"pickled objects \(.*torch\.nn\.modules\.container\.Sequential"),
    ],
    ids=["TorchScript", "pt2", "module"],
)
def test_what_is_refused_comes_with_the_line_that_exports_it(
    loaded: Load, monkeypatch: pytest.MonkeyPatch,
    make: Callable[[nn.Module], bytes], reason: str,
) -> None:  # fmt: skip
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        loaded(make(network()), None)
    line = str(caught.value).partition("export it to ONNX: ")[2]
    python, flag, code, file, onnx = shlex.split(line)
    assert (python, flag) == ("python", "-c")
    # What a shell would do with it.
    monkeypatch.setattr(sys, "argv", ["-c", file, onnx])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    np.testing.assert_allclose(onnx_file.load(Path(onnx))(IMAGES), LOGITS, atol=1e-4)


@pytest.mark.parametrize(
    "content",
    [
        saved(network(), _use_new_zipfile_serialization=False),
        saved({"model": network(), "epoch": 3}),
    ],
    ids=["legacy", "checkpoint"],
)
def test_a_module_in_any_wrapping_is_refused(loaded: Load, content: bytes) -> None:
    with pytest.raises(UnsupportedModelError, match=r"objects \(.*\) and not weights alone"):
        loaded(content, None)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_no_canary_fires(loaded: Load, tmp_path: Path, protocol: int, legacy: bool) -> None:
    canary = tmp_path / "fired"
    value = {**STATE, "0.0.weight": Canary(canary)}
    if legacy:
        content = saved(value, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    else:
        content = with_pickle(saved(STATE), Canary(canary), protocol)
    with pytest.raises(ModelError, match=r"reaches for the system: .*got (posix|nt)\.mkdir"):
        loaded(content)
    assert not canary.exists()


# Its names come from the memo.
MEMOISED: Final = b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x940h\x00h\x01\x93."


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (pickle.dumps(Canary(Path("x"), eval)), ModelError, r"the system: .*builtins\.eval"),
        (MEMOISED, ModelError, r"the system: .*os\.mkdir"),
        (b"\x80\x04\x93.", UnsupportedModelError, r"pickled objects \(\?\.\?\)"),
        (b"\x80\x02\x82\x05.", UnsupportedModelError, r"copyreg\.extension-5"),
        (b"\x80\x04\x95", ModelError, "a damaged pickle"),
        (b"\x80\x04X\xff\xff\xff\x7f", ModelError, "a damaged pickle"),
        (b"\x80\x02" + b"(" * 600_000 + b".", ModelError, "too long for weights"),
        (b"\x80\x02]q\x00(h\x00h\x00e.", UnsupportedModelError, "no weights in it .*list"),
    ],
)
def test_hostile_pickles(loaded: Load, data: bytes, error: type[Exception], message: str) -> None:
    content = rezipped(saved(STATE), lambda n, old: data if n.endswith("data.pkl") else old)
    with pytest.raises(error, match=message):
        loaded(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(STATE)[:2000], "damaged zip archive"),
        (rezipped(saved(STATE), compress=True), "a compressed archive"),
        (rezipped(saved(STATE), lambda n, d: d + bytes(9) if n.endswith(".pkl") else d[:-4]),
         "damaged PyTorch file|other shape|weights"),
        (save(STATE)[:-20], "damaged safetensors file"),
        ((10**9).to_bytes(8, "little") + b'{"a": 1}', "damaged safetensors file"),
    ],
)  # fmt: skip
def test_damaged_archives(loaded: Load, content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        loaded(content)


@pytest.mark.parametrize("content", [saved(STATE), save(STATE)], ids=["pt", "safetensors"])
def test_a_flipped_bit_anywhere_is_an_error_or_other_weights(loaded: Load, content: bytes) -> None:
    random = np.random.default_rng(5)
    for place in random.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        if not isinstance(sniff(bytes(damaged[:4096])), str):
            continue
        with contextlib.suppress(ModelError):
            assert loaded(bytes(damaged)).input_spec == SPEC
