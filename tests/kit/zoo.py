"""Small correct models of several kinds, each with rows to learn from, to test the checks on.

They run where a study is installed. Each is as simple as a model of its kind can be.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from my_study.harness.checks import Field, Spec
from my_study.harness.training.trainer import Trainer

NUM_ROWS = 48
NUM_DRAWN = 4 * NUM_ROWS  # equal rows are dropped
LENGTH = 6
IGNORED = -100
Batch = dict[str, Tensor]


class Table(nn.Module):
    """Two categories and four numbers to one of three classes."""

    def __init__(self, *, num_colors: int, num_shapes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.color = nn.Embedding(num_colors, width)
        self.shape = nn.Embedding(num_shapes, width)
        self.numbers = nn.Linear(4, width)
        self.norm = nn.LayerNorm(3 * width)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(3 * width, 32)
        self.output = nn.Linear(32, 3)

    def forward(
        self, color: Tensor, shape: Tensor, numbers: Tensor, target: Tensor | None = None
    ) -> Batch:
        """Color and shape [batch], numbers [batch, 4] to logits [batch, 3]."""
        parts = [self.color(color), self.shape(shape), self.numbers(numbers)]
        joined = self.norm(torch.cat(parts, dim=-1))
        hidden = F.gelu(self.hidden(self.dropout(joined)))
        outputs = {"logits": self.output(hidden)}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], target)
        return outputs


class ConvNet(nn.Module):
    """An image [1, 6, 6] to one of four classes, with batch norm and a residual block."""

    def __init__(self, *, num_channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, num_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(num_channels)
        self.second = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(num_channels * 9, 4)

    def forward(self, image: Tensor, target: Tensor | None = None) -> Batch:
        """Image [batch, 1, 6, 6] to logits [batch, 4]."""
        hidden = F.relu(self.norm(self.first(image)))
        hidden = hidden + F.relu(self.second(hidden))
        flat = F.max_pool2d(hidden, 2).flatten(start_dim=1)
        outputs = {"logits": self.output(self.dropout(flat))}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], target)
        return outputs


class Tagger(nn.Module):
    """Each token of a sentence to one of three tags, by an LSTM in both directions."""

    def __init__(self, *, num_tokens: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, width, padding_idx=0)
        self.lstm = nn.LSTM(
            width, width, num_layers=2, bidirectional=True, batch_first=True, dropout=dropout
        )
        self.output = nn.Linear(2 * width, 3)

    def forward(self, tokens: Tensor, mask: Tensor, target: Tensor | None = None) -> Batch:
        """Tokens and mask [batch, length] to logits [batch, length, 3]."""
        lengths = mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        hidden, _ = self.lstm(packed)
        states, _ = pad_packed_sequence(hidden, batch_first=True, total_length=tokens.shape[1])
        outputs = {"logits": self.output(states)}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"].flatten(0, 1), target.flatten())
        return outputs


class Pair(nn.Module):
    """A question and an answer to whether they agree, by one Transformer for both."""

    def __init__(self, *, num_tokens: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Embedding(16, width)
        self.kind = nn.Embedding(2, width)
        self.encoder = nn.TransformerEncoderLayer(
            width, num_heads, 2 * width, dropout=dropout, batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 2)

    def forward(
        self,
        question: Tensor,
        question_mask: Tensor,
        answer: Tensor,
        answer_mask: Tensor,
        target: Tensor | None = None,
    ) -> Batch:
        """Tokens and masks [batch, length] each to probabilities [batch, 2]."""
        parts = []
        for kind, tokens in enumerate((question, answer)):
            place = torch.arange(tokens.shape[1], device=tokens.device)
            what = torch.full_like(place, kind)
            parts.append(self.tokens(tokens) + self.positions(place) + self.kind(what))
        mask = torch.cat([question_mask, answer_mask], dim=1)
        hidden = self.norm(self.encoder(torch.cat(parts, dim=1), src_key_padding_mask=~mask))
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
        logits = self.output(pooled)
        outputs = {"probabilities": F.softmax(logits, dim=-1)}
        if target is not None:
            outputs["loss"] = F.cross_entropy(logits, target)
        return outputs


class Regression(nn.Module):
    """Five numbers to one, by a perceptron over normalised inputs."""

    def __init__(self, *, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((5,), 0.5))
        self.hidden = nn.Linear(5, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 1)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Batch:
        """Features [batch, 5] to a prediction [batch]."""
        hidden = torch.tanh(self.hidden(features * self.scale))
        prediction = self.output(self.dropout(hidden)).squeeze(-1)
        outputs = {"prediction": prediction}
        if target is not None:
            outputs["loss"] = F.mse_loss(prediction, target)
        return outputs


class LanguageModel(nn.Module):
    """The next token at each position, by causal self-attention; input and output tied."""

    def __init__(self, *, num_tokens: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Parameter(0.1 * torch.randn(LENGTH + 2, width))
        self.before = nn.LayerNorm(width)
        self.joint = nn.Linear(width, 3 * width)
        self.after = nn.Linear(width, width)
        self.middle = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.last = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.1)

    def forward(self, tokens: Tensor, target: Tensor | None = None) -> Batch:
        """Tokens [batch, length] to logits [batch, length, num_tokens]."""
        length, width = tokens.shape[1], self.tokens.embedding_dim
        hidden = self.dropout(self.tokens(tokens) + self.positions[:length])
        query, key, value = self.joint(self.before(hidden)).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / math.sqrt(width)
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        weights = scores.masked_fill(later, float("-inf")).softmax(dim=-1)
        hidden = hidden + self.after(weights @ value)
        hidden = hidden + self.feed(self.middle(hidden))
        outputs = {"logits": self.last(hidden) @ self.tokens.weight.T}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"].flatten(0, 1), target.flatten())
        return outputs


class TwoOptimizers(Trainer):
    """The optimizer of the configuration for matrices; SGD with momentum for biases and norms."""

    def __init__(self, model: nn.Module, *, vector_lr: float, **others: Any) -> None:
        super().__init__(model, **others)
        for group in self.optimizer.param_groups:
            group["params"] = [item for item in group["params"] if item.dim() > 1]
        vectors = [item for item in model.parameters() if item.dim() < 2]
        self.vectors = torch.optim.SGD(vectors, lr=vector_lr, momentum=0.9)

    def train_step(self, batch: Batch) -> Tensor:
        """A step of both optimizers, on one gradient."""
        self.vectors.zero_grad()
        loss = super().train_step(batch)
        self.vectors.step()
        return loss

    def own_state(self) -> dict[str, Any]:
        """The momentum of the second optimizer."""
        return {"vectors": self.vectors.state_dict()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Restores it."""
        self.vectors.load_state_dict(state["vectors"])


def table_rows(draw: torch.Generator) -> Batch:
    """The class depends on the color, and on the sum of the shape and the first number."""
    color = torch.randint(0, 5, (NUM_DRAWN,), generator=draw)
    shape = torch.randint(0, 4, (NUM_DRAWN,), generator=draw)
    numbers = torch.randn(NUM_DRAWN, 4, generator=draw)
    target = ((color > 2).long() + (2 * shape + numbers[:, 0] > 3)).long()
    return {"color": color, "shape": shape, "numbers": numbers, "target": target}


def image_rows(draw: torch.Generator) -> Batch:
    """The class is the index of the bright quarter."""
    target = torch.arange(NUM_DRAWN) % 4
    image = 0.4 * torch.rand(NUM_DRAWN, 1, 6, 6, generator=draw)
    for row, label in enumerate(target.tolist()):
        top, left = 3 * (label // 2), 3 * (label % 2)
        image[row, 0, top : top + 3, left : left + 3] += 0.5
    return {"image": image, "target": target}


def sentence(draw: torch.Generator, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Sentences of 2 to LENGTH tokens, padded with 0, and their masks."""
    lengths = torch.randint(2, LENGTH + 1, (NUM_DRAWN,), generator=draw)
    lengths[0] = LENGTH
    mask = torch.arange(LENGTH) < lengths[:, None]
    tokens = torch.randint(1, num_tokens, (NUM_DRAWN, LENGTH), generator=draw)
    return tokens * mask, mask


def tagged_rows(draw: torch.Generator) -> Batch:
    """A token's tag depends on it and on the one before it."""
    tokens, mask = sentence(draw, 9)
    before = F.pad(tokens, (1, 0))[:, :-1]
    target = ((tokens + (before > 4)) % 3).masked_fill(~mask, IGNORED)
    return {"tokens": tokens, "mask": mask, "target": target}


def pair_rows(draw: torch.Generator) -> Batch:
    """The class is 1 if the mean tokens of both texts are large."""
    (question, question_mask), (answer, answer_mask) = sentence(draw, 7), sentence(draw, 7)
    means = question.sum(1) / question_mask.sum(1) + answer.sum(1) / answer_mask.sum(1)
    target = (means > 7).long()
    names = ("question", "question_mask", "answer", "answer_mask", "target")
    return dict(zip(names, (question, question_mask, answer, answer_mask, target), strict=True))


def number_rows(draw: torch.Generator) -> Batch:
    """A nonlinear sum, normalised."""
    features = torch.randn(NUM_DRAWN, 5, generator=draw)
    target = features[:, 0] + torch.sin(features[:, 1]) - 0.5 * features[:, 2]
    return {"features": features, "target": (target - target.mean()) / target.std()}


def text_rows(draw: torch.Generator) -> Batch:
    """A Markov chain: the next token is the last plus 1, with probability 0.8 and more."""
    tokens = torch.randint(0, 7, (NUM_DRAWN, LENGTH + 1), generator=draw)
    tokens[:, 0] = torch.arange(NUM_DRAWN) % 7
    for place in range(1, LENGTH + 1):
        follows = torch.rand(NUM_DRAWN, generator=draw) < 0.8
        tokens[:, place] = torch.where(follows, (tokens[:, place - 1] + 1) % 7, tokens[:, place])
    return {"tokens": tokens[:, :-1], "target": tokens[:, 1:].contiguous()}


def words(num_tokens: int, mask: str) -> Field:
    """Tokens with a mask."""
    high = num_tokens - 1
    return Field(shape=["length"], kind="index", low=0, high=high, mask=mask, padding=0)


MASK = Field(shape=["length"], kind="mask")
LOGITS = functools.partial(Field, kind="logits")


def classes(number: int, shape: tuple[str, ...] = (), **more: Any) -> Field:
    """An index of one of several classes."""
    return Field(shape=shape, kind="index", low=0, high=number - 1, **more)


NEXT_TOKEN = Spec(
    task="classification",
    inputs={"tokens": classes(7, ("length",))},
    target=classes(7, ("length",)),
    outputs={"logits": LOGITS(shape=["length", 7])},
    causal="tokens",
    ordered="tokens",
    loss="cross_entropy",
)
Kind = tuple[Callable[[torch.Generator], Batch], dict[str, Any], Spec]
MODELS: dict[type[nn.Module], Kind] = {
    Table: (
        table_rows,
        {"num_colors": 5, "num_shapes": 4, "width": 8, "dropout": 0.1},
        Spec(
            task="classification",
            inputs={"color": classes(5), "shape": classes(4), "numbers": Field(shape=[4])},
            target=classes(3),
            outputs={"logits": LOGITS(shape=[3])},
            loss="cross_entropy",
        ),
    ),
    ConvNet: (
        image_rows,
        {"num_channels": 6, "dropout": 0.2},
        Spec(
            task="classification",
            inputs={"image": Field(shape=[1, 6, 6], low=0, high=1)},
            target=classes(4),
            outputs={"logits": LOGITS(shape=[4])},
            loss="cross_entropy",
        ),
    ),
    Tagger: (
        tagged_rows,
        {"num_tokens": 9, "width": 10, "dropout": 0.2},
        Spec(
            task="classification",
            inputs={"tokens": words(9, "mask"), "mask": MASK},
            target=classes(3, ("length",), mask="mask", padding=IGNORED),
            outputs={"logits": LOGITS(shape=["length", 3], mask="mask")},
            ordered="tokens",
            loss="cross_entropy",
        ),
    ),
    Pair: (
        pair_rows,
        {"num_tokens": 7, "width": 12, "num_heads": 2, "dropout": 0.1},
        Spec(
            task="classification",
            inputs={
                "question": words(7, "question_mask"),
                "question_mask": MASK,
                "answer": dataclasses.replace(words(7, "answer_mask"), shape=["answer_length"]),
                "answer_mask": Field(shape=["answer_length"], kind="mask"),
            },
            target=classes(2),
            outputs={"probabilities": Field(shape=[2], kind="probabilities")},
            loss="cross_entropy",
        ),
    ),
    Regression: (
        number_rows,
        {"width": 24, "dropout": 0.1},
        Spec(
            task="regression",
            inputs={"features": Field(shape=[5])},
            target=Field(shape=[]),
            outputs={"prediction": Field(shape=[])},
            loss="mse",
        ),
    ),
    LanguageModel: (
        text_rows,
        {"num_tokens": 7, "width": 16, "dropout": 0.1},
        NEXT_TOKEN,
    ),
}
