"""What light models see with: the inner maps of the identity network, over the whole portrait.

An identity network forgets glasses and smiles only in its last layers; the maps before them still
know. Shown the portrait instead of the crop it also sees hair, hats and collars. On unseen people
of LFW ridge regression on these maps tells attributes with a median AUC of .89, on the best map of
an EfficientNet-Lite0 with .86 (docs/adr/0016).

The network is the packaged one with other outputs: maps are averaged, flattened and joined, and
what comes after them is left out. Building it takes the package onnx; running it does not.
"""

from typing import Any, Final, NamedTuple

from retrieval.align import CROP_SIDE_PX
from retrieval.errors import LicenceError, ModelUnavailableError
from retrieval.models import catalogue
from retrieval.models.catalogue import ReadWeights
from retrieval.settings import Use

INPUT: Final = "portraits"
OUTPUT: Final = "features"
_EXTRA: Final = "the package onnx is not installed: pip install 'facedex[captions]'"


class _Map(NamedTuple):
    """One inner map: channels x side x side, averaged over fields."""

    name: str
    channels: int
    side: int
    field: int


# Of w600k_mbf: the outputs of its residual blocks at a stride of 4, 8 and 16.
_MAPS: Final = (
    _Map("397", 128, 28, 4),
    _Map("473", 256, 14, 2),
    _Map("505", 256, 7, 1),
)
FEATURES: Final = sum(one.channels * (one.side // one.field) ** 2 for one in _MAPS)


class Base(NamedTuple):
    """A frozen network from portraits to features."""

    model: bytes  # ONNX, see light.py
    weights: ReadWeights  # what it was made of


def identity_base(use: Use) -> Base:
    """The inner maps of the default identity network, (n, 3, 112, 112) to (n, FEATURES).

    Raises:
        LicenceError: the use is commercial: the network is for research.
        ModelUnavailableError: its weights or the package onnx are not installed.
    """
    if use == "commercial":
        raise LicenceError(
            f"{catalogue.W600K_MBF.name}, which face-text models are built on, may not be used"
            " commercially: give a model of your own with `facedex space add`"
        )
    try:
        import onnx
    except ImportError as cause:
        raise ModelUnavailableError(_EXTRA) from cause
    weights = catalogue.read_known(catalogue.W600K_MBF)
    model = onnx.load_from_string(weights.model)
    graph = model.graph
    nodes = _prepared(onnx, graph.input[0].name) + _kept(graph) + _joined(onnx)
    shape = (1, 3, CROP_SIDE_PX, CROP_SIDE_PX)
    made = onnx.helper.make_graph(
        nodes,
        "identity maps",
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, (1, FEATURES))],
        initializer=_constants(onnx, graph, nodes),
    )
    whole = onnx.helper.make_model(made, opset_imports=list(model.opset_import))
    whole.ir_version = model.ir_version
    onnx.checker.check_model(whole)
    return Base(model=whole.SerializeToString(), weights=weights)


def _prepared(onnx: Any, name: str) -> list[Any]:
    """RGB from 0 to 255 to what the network takes, from -1 to 1."""
    node = onnx.helper.make_node
    return [
        node("Sub", [INPUT, "middle"], ["centred"]),
        node("Div", ["centred", "middle"], [name]),
    ]


def _kept(graph: Any) -> list[Any]:
    """The nodes that the maps need, in their order."""
    wanted = {one.name for one in _MAPS}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _joined(onnx: Any) -> list[Any]:
    """The maps averaged, flattened and joined."""
    node = onnx.helper.make_node
    made = []
    for one in _MAPS:
        sides = [one.field, one.field]
        pooled = f"{one.name} pooled"
        made += [
            node("AveragePool", [one.name], [pooled], kernel_shape=sides, strides=sides),
            node("Flatten", [pooled], [f"{one.name} flat"]),
        ]
    made.append(node("Concat", [f"{one.name} flat" for one in _MAPS], [OUTPUT], axis=1))
    return made


def _constants(onnx: Any, graph: Any, nodes: list[Any]) -> list[Any]:
    used = {name for node in nodes for name in node.input}
    middle = onnx.helper.make_tensor("middle", onnx.TensorProto.FLOAT, [1], [127.5])
    return [middle, *(one for one in graph.initializer if one.name in used)]
