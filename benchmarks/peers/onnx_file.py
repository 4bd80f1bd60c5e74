"""Writes the small network's weights as an ONNX file, in the peers' environment.

python onnx_file.py WEIGHTS FILE
"""

import sys

import onnx  # type: ignore[import-not-found]  # of the peers' environment
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


def main(weights: str, path: str) -> None:
    """Write dense layers with rectifiers between them: FP32 `image` (rows, 784) to `scores` (rows, 10)."""
    arrays = load_file(weights)
    numbers = sorted({int(name.split(".")[1]) for name in arrays})
    nodes, current = [], "image"
    for number in numbers:
        is_last = number == numbers[-1]
        dense = "scores" if is_last else f"dense{number}"
        parameters = [f"layers.{number}.weight", f"layers.{number}.bias"]
        nodes.append(helper.make_node("Gemm", [current, *parameters], [dense], transB=1))
        if not is_last:
            nodes.append(helper.make_node("Relu", [dense], [f"relu{number}"]))
        current = f"relu{number}"
    shapes = [arrays[f"layers.{numbers[0]}.weight"].shape[1], arrays[f"layers.{numbers[-1]}.weight"].shape[0]]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", shapes[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", shapes[1]])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
