"""The datatypes of records in torch's terms."""

import torch

TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}
"""By datatype; BYTES has none, it travels as a list of bytes."""

DATATYPES: dict[torch.dtype, str] = {dtype: datatype for datatype, dtype in TORCH_DTYPES.items()}
"""By torch's dtype; what is missing here (complex, quantised, 8-bit floats) cannot be in a record."""
