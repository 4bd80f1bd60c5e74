"""The layers of the sentence encoder, named as its published weights name them. Imports torch."""

import torch
from torch import nn

from benchmarks.sentences import HEADS, INNER, LAYERS, TOKENS_MAX, VOCABULARY, WIDTH

EPSILON = 1e-12


class Embeddings(nn.Module):
    """Words, their places, and the only segment that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(TOKENS_MAX, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, EPSILON)
        self.register_buffer("position_ids", torch.arange(TOKENS_MAX)[None])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """INT64 (rows, tokens) -> FP32 (rows, tokens, WIDTH)."""
        places = self.position_embeddings(self.get_buffer("position_ids")[:, : tokens.shape[1]])
        embedded: torch.Tensor = self.LayerNorm(
            self.word_embeddings(tokens) + places + self.token_type_embeddings.weight[0]
        )
        return embedded


class Attention(nn.Module):
    """What the published names call `attention`: three projections, and the one after them."""

    def __init__(self) -> None:
        super().__init__()
        self.self = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH), "LayerNorm": nn.LayerNorm(WIDTH, EPSILON)})

    def forward(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Mix each sentence's real tokens; same shape out."""
        rows, tokens, _ = hidden.shape
        query, key, value = (
            self.self[name](hidden).view(rows, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None, :])
        mixed = self.output["dense"](mixed.transpose(1, 2).reshape(rows, tokens, WIDTH))
        after: torch.Tensor = self.output["LayerNorm"](hidden + mixed)
        return after


class Layer(nn.Module):
    """Attention and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER)})
        self.output = nn.ModuleDict({"dense": nn.Linear(INNER, WIDTH), "LayerNorm": nn.LayerNorm(WIDTH, EPSILON)})

    def forward(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Same shape out."""
        hidden = self.attention(hidden, real)
        inner = nn.functional.gelu(self.intermediate["dense"](hidden))
        after: torch.Tensor = self.output["LayerNorm"](hidden + self.output["dense"](inner))
        return after


class Layers(nn.Module):
    """All layers, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Same shape out."""
        for layer in self.layer:
            hidden = layer(hidden, real)
        return hidden


class Encoder(nn.Module):
    """Tokens to one vector of length 1 a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = Layers()
        # Not used here, but part of the weights, which are loaded strictly.
        self.pooler = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH)})

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encode sentences: INT64 (rows, tokens) twice -> FP32 (rows, WIDTH)."""
        hidden, real = self.embeddings(tokens), mask.bool()
        hidden = self.encoder(hidden, real)
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return nn.functional.normalize(pooled, dim=1)
