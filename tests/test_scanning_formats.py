"""Files of every format through the whole scan."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import version_converter
from safetensors.torch import save as save_tensors
from torch import nn

from litmus.architectures.lenet import LeNet5
from litmus.detectors.candidates import Candidates
from litmus.errors import UsageError
from litmus.models import InputSpec
from litmus.scanning import Failed, ScanResult, Scored, Skipped, scan
from tests.formats.onnx_models import SPEC as ONNX_SPEC
from tests.formats.onnx_models import classifier, detector, layer_detector, save
from tests.formats.torch_files import SPEC, exported, network, saved, scripted

RESNET = "resnet:width=4"


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "tiny.litmus"
    path.write_bytes(detector(SPEC).to_bytes())
    return path


Run = Callable[..., list[ScanResult]]


@pytest.fixture
def run(tmp_path: Path, detector_file: Path) -> Run:
    """A function that scans files of this test's folder, written from bytes by name."""

    def call(contents: dict[str, bytes], **options: Any) -> list[ScanResult]:
        folder = tmp_path / "models"
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return list(scan(folder, **{"detector": detector_file, **options}))

    return call


@pytest.fixture(scope="module")
def weights() -> dict[str, bytes]:
    """The same weights in every format that holds weights alone."""
    state = network().state_dict()
    return {
        "a.pt": saved(state),
        "b.pth": saved({"epoch": 1, "state_dict": state}),
        "c.safetensors": save_tensors(state),
        "d.bin": saved(state, _use_new_zipfile_serialization=False),
    }


def test_weights_score_as_the_exported_network_does(run: Run, weights: dict[str, bytes]) -> None:
    contents = {**weights, "e.onnx": as_onnx(network()).SerializeToString()}
    results = run(contents, architecture=RESNET)
    assert [r.path.name for r in results] == list(contents)
    scored = [r for r in results if isinstance(r, Scored)]
    assert [r.format for r in scored] == ["torch", "torch", "safetensors", "torch", "onnx"]
    assert [r.score for r in scored] == pytest.approx([scored[-1].score] * 5, abs=1e-3)
    assert all(r.verdict != "inconclusive" for r in scored)
    assert any("weights of resnet:width=4, as stated" in note for note in scored[0].notes)


def test_what_is_no_plain_weights_file_is_skipped_and_says_why(
    run: Run, weights: dict[str, bytes]
) -> None:
    contents = {
        "a.pt": weights["a.pt"],
        "b.safetensors": weights["c.safetensors"],
        "c.pt": scripted(network()),
        "d.pt2": exported(network()),
        "e.pth": saved(network()),
        "f.h5": b"\x89HDF\r\n\x1a\n" + bytes(50),
        "g.pth": b"garbage",
        "h.keras": b"garbage",
    }
    results = run(contents)
    told = {r.path.name: getattr(r, "reason", getattr(r, "error", "")) for r in results}
    assert [type(r) for r in results] == [Skipped] * 6 + [Failed] * 2
    for name in ("a.pt", "b.safetensors"):
        assert told[name].startswith("weights do not say which network they belong to: name it")
    for name, start in (("c.pt", "a TorchScript archive"), ("d.pt2", "a .pt2 archive")):
        assert told[name].startswith(start)
        assert "torch.onnx.export(torch." in told[name]
    assert "weights_only=False).eval(), (torch.zeros(1, 3, 8, 8),)" in told["e.pth"]
    assert "python -m tf2onnx.convert --keras" in told["f.h5"]
    assert told["g.pth"] == "no pth file, or a damaged one"
    assert told["h.keras"] == "no keras file, or a damaged one"


def test_a_wrong_architecture_is_a_mistake_in_the_call(run: Run, weights: dict[str, bytes]) -> None:
    for text, message in (
        ("resnt", "unknown architecture .*resnet"),
        ("resnet:widht=4", "unknown key .*width"),
        ("resnet:width=wide", "wrong value"),
        ("os:system", "--trust-code"),
        ("resnet:", "not an"),
    ):
        with pytest.raises(UsageError, match=message):
            run({"a.pt": weights["a.pt"]}, architecture=text)


OWN = """
import numpy as np  # not the one beside this file
from litmus.architectures import ARCHITECTURES
from litmus.models import InputSpec

def net(width):
    spec = InputSpec(channels=3, height=8, width=8, num_classes=3)
    return ARCHITECTURES["resnet"](width=width).build(spec, seed=9)
"""


def test_code_of_the_users_own_runs_where_it_is_trusted(
    run: Run, weights: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "our_nets.py").write_text(OWN)
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--trust-code"):
        run({"a.pt": weights["a.pt"]}, architecture="our_nets:net:width=4")
    # No other file knows this network: that there is a score tells that the code was run.
    (result,) = run({}, architecture="our_nets:net:width=4", trust_code=True)
    (ours,) = run({}, architecture=RESNET)
    assert isinstance(result, Scored), result
    assert isinstance(ours, Scored)
    assert result.score == pytest.approx(ours.score)


def wider(size: int, **options: Any) -> onnx.ModelProto:
    return classifier(spec=replace(ONNX_SPEC, height=size, width=size), **options)


@pytest.mark.parametrize("make", [detector, layer_detector])
def test_a_model_of_another_size_is_inconclusive_at_most(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    file = tmp_path / "tiny.litmus"
    file.write_bytes(make().to_bytes())
    paths = [
        save(wider(12), tmp_path / "larger.onnx"),
        save(wider(3, layout="nhwc", batch=1), tmp_path / "smaller.onnx"),
    ]
    for path, result in zip(paths, scan(paths, detector=file, fpr=0.9), strict=True):
        assert isinstance(result, Scored), (path, result)
        assert result.verdict == "inconclusive"
        assert any("the detector's 6x5 images were resized to" in note for note in result.notes)


def test_without_a_name_no_detector_is_asked_with_resized_images(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, spec in {"colour": ONNX_SPEC, "grey": replace(ONNX_SPEC, channels=1)}.items():
        (folder / f"{name}.litmus").write_bytes(detector(spec).to_bytes())
    path = save(wider(12), tmp_path / "m.onnx")
    (result,) = scan(path, detector=Candidates.bundled(folder))
    assert isinstance(result, Skipped)
    assert "named by --detector, colour would be asked with resized images" in result.reason


def as_onnx(
    module: nn.Module, *, opset: int = 17, nhwc: bool = False, spec: InputSpec = SPEC
) -> onnx.ModelProto:
    """What PyTorch's older exporter, which knows old opsets, makes of a network."""
    example = torch.zeros(2, *spec.image_shape)
    if nhwc:
        module, example = nn.Sequential(ChannelsFirst(), module), example.permute(0, 2, 3, 1)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (example,), buffer,  # type: ignore[arg-type]
            opset_version=min(opset, 17), dynamo=False,
            input_names=["images"], output_names=["y"],
            dynamic_axes={"images": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    return model if opset <= 17 else version_converter.convert_version(model, opset)


class ChannelsFirst(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2)


LATEST = onnx.defs.onnx_opset_version()
ENDINGS: dict[str, tuple[nn.Module, ...]] = {
    "logits": (),
    "softmax": (nn.Softmax(dim=1),),
    "log-softmax": (nn.LogSoftmax(dim=1),),
    "flat softmax": (nn.Softmax(dim=-1), nn.Flatten()),
}


def every_export(module: nn.Module, spec: InputSpec) -> dict[str, bytes]:
    return {
        f"{ending} {'nhwc' if nhwc else 'nchw'} {opset}.onnx": as_onnx(
            nn.Sequential(module, *layers), opset=opset, nhwc=nhwc, spec=spec
        ).SerializeToString()
        for ending, layers in ENDINGS.items()
        for nhwc in (False, True)
        for opset in (11, 13, 17, LATEST)
    }


@pytest.mark.parametrize("bundled", [False, True])
def test_every_export_of_a_model_has_the_same_score(run: Run, bundled: bool) -> None:
    if bundled:
        spec = InputSpec(channels=1, height=28, width=28, num_classes=10)
        module: nn.Module = LeNet5().build(spec, seed=0)
    else:
        spec, module = SPEC, confident(network())
    contents = every_export(module, spec)
    results = run(contents, detector=None) if bundled else run(contents)
    assert {r.detector for r in results if isinstance(r, Scored)} == (
        {"mnist"} if bundled else {"tiny.litmus"}
    )
    scores = {r.path.name: r.score for r in results if isinstance(r, Scored)}
    assert scores.keys() == contents.keys(), results
    plain = scores["logits nchw 17.onnx"]
    assert {name: s for name, s in scores.items() if abs(s - plain) > 1e-3} == {}


def confident(module: nn.Module) -> nn.Module:
    """With logits so far apart that a softmax in float32 loses most classes."""
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(1000)
    return module


def test_a_subverted_child_gains_no_verdict_by_another_size(detector_file: Path) -> None:
    from tests.test_scanning import GOOD, judged

    spec = {**SPEC.to_json(), "height": 7}
    rows = [[-1.0, -2.0, -3.0]] * 6
    said = {
        **GOOD, "input_spec": spec, "measurement": {**GOOD["measurement"], "log_probs": rows}
    }  # fmt: skip
    result = judged(Candidates.of(detector_file), json.dumps(said))
    assert isinstance(result, Scored)
    assert result.verdict == "inconclusive"
