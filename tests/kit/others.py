"""Right models of other kinds than those of the zoo, with rows to learn from.

Graphs, sets, several labels, quantiles, experts; and models without a target, or with a loss that
is coupled across the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from zoo import (
    IGNORED,
    LENGTH,
    LOGITS,
    MASK,
    NEXT_TOKEN,
    NUM_DRAWN,
    Batch,
    Kind,
    classes,
    sentence,
    text_rows,
    words,
)

from my_study.harness.checks import Field, Spec


class PackedLSTM(nn.Module):
    """A sentence to one of two classes, by the last state of an LSTM over packed tokens."""

    def __init__(self, *, num_tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.output = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, mask: Tensor, target: Tensor | None = None) -> Batch:
        """Tokens and mask [batch, length] to logits [batch, 2]."""
        packed = pack_padded_sequence(
            self.embedding(tokens), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        _, (state, _) = self.lstm(packed)
        outputs = {"logits": self.output(state[-1])}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], target)
        return outputs


class Graph(nn.Module):
    """A graph to one of two classes: each node takes the sum of its neighbours."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(3, width)
        self.neighbours = nn.Linear(3, width, bias=False)
        self.output = nn.Linear(width, 2)

    def forward(
        self, nodes: Tensor, edges: Tensor, mask: Tensor, target: Tensor | None = None
    ) -> Batch:
        """Nodes [batch, nodes, 3], edges [batch, nodes, nodes] to logits [batch, 2]."""
        counted = mask.unsqueeze(-1).to(nodes.dtype)
        summed = (edges * counted.transpose(1, 2)) @ (nodes * counted)
        hidden = F.relu(self.own(nodes) + self.neighbours(summed)) * counted
        outputs = {"logits": self.output(hidden.sum(1) / counted.sum(1))}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], target)
        return outputs


class UNet(nn.Module):
    """Each pixel of an image [1, 6, 6] to one of three classes; some pixels have no label."""

    def __init__(self, *, num_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, num_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(num_channels)
        self.bottom = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.up = nn.Conv2d(2 * num_channels, 3, 3, padding=1)

    def forward(self, image: Tensor, target: Tensor | None = None) -> Batch:
        """Image [batch, 1, 6, 6] to logits [batch, 6, 6, 3]."""
        fine = F.relu(self.norm(self.down(image)))
        coarse = F.relu(self.bottom(F.avg_pool2d(fine, 2)))
        joined = torch.cat([fine, F.interpolate(coarse, scale_factor=2)], dim=1)
        outputs = {"logits": self.up(joined).movedim(1, -1)}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"].flatten(0, 2), target.flatten())
        return outputs


class SeveralLabels(nn.Module):
    """Six numbers to three labels, each of which may be present."""

    def __init__(self, *, width: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 3)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Batch:
        """Features [batch, 6] to scores [batch, 3], a logit for each label."""
        outputs = {"scores": self.output(self.dropout(F.relu(self.hidden(features))))}
        if target is not None:
            present = target.to(features.dtype)
            outputs["loss"] = F.binary_cross_entropy_with_logits(outputs["scores"], present)
        return outputs


class Ordinal(nn.Module):
    """Four numbers to one of four ordered classes, by a score and three thresholds."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.first = nn.Parameter(torch.tensor([-1.0]))
        self.gaps = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, features: Tensor, target: Tensor | None = None) -> Batch:
        """Features [batch, 4] to probabilities [batch, 4]."""
        score = self.score(torch.tanh(self.hidden(features)))
        thresholds = torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])
        below = torch.sigmoid(thresholds - score)
        edges = F.pad(F.pad(below, (1, 0)), (0, 1), value=1.0)
        outputs = {"probabilities": edges.diff(dim=-1)}
        if target is not None:
            outputs["loss"] = F.nll_loss(outputs["probabilities"].clamp_min(1e-12).log(), target)
        return outputs


class SetModel(nn.Module):
    """A set of vectors to one of two classes; a batch norm over the elements that exist."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.element = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.output = nn.Linear(width, 2)

    def forward(self, elements: Tensor, mask: Tensor, target: Tensor | None = None) -> Batch:
        """Elements [batch, size, 3] and mask [batch, size] to logits [batch, 2]."""
        encoded = self.element(elements) * mask.unsqueeze(-1)
        hidden = torch.zeros_like(encoded)
        hidden[mask] = F.relu(self.norm(encoded[mask]))
        outputs = {"logits": self.output(hidden.sum(1) / mask.sum(1, keepdim=True))}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], target)
        return outputs


class CausalConv(nn.Module):
    """The next token at each position, by convolutions that are padded on the left."""

    def __init__(self, *, num_tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, width)
        self.first = nn.Conv1d(width, width, 2)
        self.second = nn.Conv1d(width, width, 2, dilation=2)
        self.output = nn.Linear(width, num_tokens)

    def forward(self, tokens: Tensor, target: Tensor | None = None) -> Batch:
        """Tokens [batch, length] to logits [batch, length, num_tokens]."""
        hidden = self.embedding(tokens).transpose(1, 2)
        hidden = hidden + F.relu(self.first(F.pad(hidden, (1, 0))))
        hidden = hidden + F.relu(self.second(F.pad(hidden, (2, 0))))
        outputs = {"logits": self.output(hidden.transpose(1, 2))}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"].flatten(0, 1), target.flatten())
        return outputs


class Quantiles(nn.Module):
    """Four numbers to three quantiles of another."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.output = nn.Linear(width, 3)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Batch:
        """Features [batch, 4] to the median [batch] and quantiles [batch, 3]."""
        quantiles = self.output(F.gelu(self.hidden(features)))
        outputs = {"median": quantiles[:, 1], "quantiles": quantiles}
        if target is not None:
            levels = torch.tensor([0.2, 0.5, 0.8]).to(features)
            apart = target[:, None] - quantiles
            outputs["loss"] = torch.maximum(levels * apart, (levels - 1) * apart).mean()
        return outputs


class Experts(nn.Module):
    """Five numbers to one of three classes, by experts that share the work evenly."""

    def __init__(self, *, num_experts: int, width: int, balance: float) -> None:
        super().__init__()
        self.balance = balance
        self.gate = nn.Linear(5, num_experts)
        self.experts = nn.ModuleList(nn.Linear(5, width) for _ in range(num_experts))
        self.output = nn.Linear(width, 3)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Batch:
        """Features [batch, 5] to logits [batch, 3]."""
        share = self.gate(features).softmax(-1)
        hidden = torch.stack([F.relu(expert(features)) for expert in self.experts], dim=1)
        outputs = {"logits": self.output((share.unsqueeze(-1) * hidden).sum(1))}
        if target is not None:
            load = share.mean(0)
            uneven = load.var(correction=0) / load.mean() ** 2
            outputs["loss"] = F.cross_entropy(outputs["logits"], target) + self.balance * uneven
        return outputs


class VAE(nn.Module):
    """Six numbers to themselves, through a normal distribution of two."""

    def __init__(self, *, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.encoder = nn.Linear(6, width)
        self.center, self.spread = nn.Linear(width, 2), nn.Linear(width, 2)
        self.decoder = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 6))

    def forward(self, features: Tensor) -> Batch:
        """Features [batch, 6] to their reconstruction [batch, 6] and code [batch, 2]."""
        hidden = torch.tanh(self.encoder(features))
        mean, log_variance = self.center(hidden), self.spread(hidden)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        reconstruction = self.decoder(mean + (log_variance / 2).exp() * noise)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
        squared = (reconstruction - features).square().sum(-1)
        loss = (squared + self.weight * divergence).mean()
        return {"reconstruction": reconstruction, "code": mean, "loss": loss}


class TwoTowers(nn.Module):
    """Queries and items to vectors that are close for those of one row (InfoNCE)."""

    def __init__(self, *, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.query = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 6))
        self.item = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 6))

    def forward(self, query: Tensor, item: Tensor) -> Batch:
        """Query [batch, 4] and item [batch, 5] to vectors [batch, 6] each."""
        left = F.normalize(self.query(query), dim=-1)
        right = F.normalize(self.item(item), dim=-1)
        scores = left @ right.T / self.temperature
        own = torch.arange(len(scores), device=scores.device)
        loss = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
        return {"query_vector": left, "item_vector": right, "loss": loss}


class RunningNorm(nn.Module):
    """Normalises by the batch in training, and by the running statistics in evaluation."""

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """Values [batch, width], normalised."""
        if not self.training:
            return (values - self.mean) / (self.variance + 1e-5).sqrt()
        mean, variance = values.mean(0), values.var(0, correction=0)
        self.mean.lerp_(mean.detach().to(self.mean), self.momentum)
        self.variance.lerp_(variance.detach().to(self.variance), self.momentum)
        return (values - mean) / (variance + 1e-5).sqrt()


class Autoencoder(nn.Module):
    """An image [1, 6, 6] to itself, through a few numbers."""

    def __init__(self, *, width: int, code_size: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(36, width)
        self.norm = RunningNorm(width)
        self.code = nn.Linear(width, code_size)
        self.decoder = nn.Sequential(nn.Linear(code_size, width), nn.ReLU(), nn.Linear(width, 36))

    def forward(self, image: Tensor) -> Batch:
        """Image [batch, 1, 6, 6] to its reconstruction and its code."""
        code = self.code(F.relu(self.norm(self.encoder(image.flatten(1)))))
        reconstruction = torch.sigmoid(self.decoder(code)).reshape(image.shape)
        loss = F.mse_loss(reconstruction, image)
        return {"reconstruction": reconstruction, "code": code, "loss": loss}


class Contrastive(nn.Module):
    """Two views of an instance to vectors that are close, and far from all others (SimCLR)."""

    def __init__(self, *, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.encoder = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 5)

    def forward(self, first: Tensor, second: Tensor) -> Batch:
        """Views [batch, 6] to vectors [batch, 5] each."""
        hidden = F.relu(self.norm(self.encoder(torch.cat([first, second]))))
        vectors = F.normalize(self.head(hidden), dim=-1)
        scores = vectors @ vectors.T / self.temperature
        itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        other = torch.arange(len(scores), device=scores.device).roll(len(first))
        loss = F.cross_entropy(scores.masked_fill(itself, float("-inf")), other)
        left, right = vectors.chunk(2)
        return {"vector": left, "other_vector": right, "loss": loss}


class SequenceTagger(nn.Module):
    """Each token of a sentence to one of six tags, by a Transformer with learned positions."""

    def __init__(self, *, num_tokens: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width, padding_idx=0)
        self.positions = nn.Parameter(0.3 * torch.randn(LENGTH, width))  # no longer rows
        self.encoder = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=dropout, batch_first=True, norm_first=True
        )
        self.output = nn.Linear(width, LENGTH)

    def forward(self, tokens: Tensor, mask: Tensor, target: Tensor | None = None) -> Batch:
        """Tokens and mask [batch, length] to logits [batch, length, 6]."""
        hidden = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        outputs = {"logits": self.output(self.encoder(hidden, src_key_padding_mask=~mask))}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"].flatten(0, 1), target.flatten())
        return outputs


class Ranking(nn.Module):
    """A query and five candidates to the index of the best."""

    def __init__(self, *, width: int, dropout: float) -> None:
        super().__init__()
        self.pair = nn.Linear(9, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 1)

    def forward(self, query: Tensor, candidates: Tensor, target: Tensor | None = None) -> Batch:
        """Query [batch, 3] and candidates [batch, 5, 3] to logits [batch, 5]."""
        repeated = query.unsqueeze(1).expand_as(candidates)
        pairs = torch.cat([repeated, candidates, repeated * candidates], dim=-1)
        outputs = {"logits": self.output(self.dropout(F.relu(self.pair(pairs)))).squeeze(-1)}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], target)
        return outputs


class Series(nn.Module):
    """A number at each time of a series of unequal length, by a GRU."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(2, width, batch_first=True)
        self.output = nn.Linear(width, 1)

    def forward(self, series: Tensor, mask: Tensor, target: Tensor | None = None) -> Batch:
        """Series [batch, length, 2] and mask [batch, length] to a prediction [batch, length]."""
        states, _ = self.gru(series)
        outputs = {"prediction": self.output(states).squeeze(-1)}
        if target is not None:
            outputs["loss"] = (outputs["prediction"] - target)[mask].square().mean()
        return outputs


class SeveralNumbers(nn.Module):
    """Five numbers to three others, by their absolute error."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, width)
        self.output = nn.Linear(width, 3)

    def forward(self, features: Tensor, target: Tensor | None = None) -> Batch:
        """Features [batch, 5] to predictions [batch, 3]."""
        outputs = {"prediction": self.output(F.gelu(self.hidden(features)))}
        if target is not None:
            outputs["loss"] = F.l1_loss(outputs["prediction"], target)
        return outputs


def randn(draw: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, a row for each instance."""
    return torch.randn(NUM_DRAWN, *shape, generator=draw)


def last_rows(draw: torch.Generator) -> Batch:
    """The class is 1 if the last token is large."""
    tokens, mask = sentence(draw, 7)
    last = tokens.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    return {"tokens": tokens, "mask": mask, "target": (last > 3).long()}


def graph_rows(draw: torch.Generator) -> Batch:
    """The class is the sign of a number of each node, summed over all its edges."""
    sizes = torch.randint(3, 6, (NUM_DRAWN, 1), generator=draw)
    mask = torch.arange(5) < sizes
    nodes = randn(draw, 5, 3) * mask.unsqueeze(-1)
    upper = (torch.rand(NUM_DRAWN, 5, 5, generator=draw) < 0.6).triu(1)
    edges = (upper | upper.mT) & mask.unsqueeze(1) & mask.unsqueeze(2)
    target = ((edges.sum(2) * nodes[:, :, 0]).sum(1) > 0).long()
    return {"nodes": nodes, "edges": edges.float(), "mask": mask, "target": target}


def pixel_rows(draw: torch.Generator) -> Batch:
    """The class of a pixel is its brightness; a third of the pixels have no label."""
    image = torch.rand(NUM_DRAWN, 1, 6, 6, generator=draw)
    unknown = torch.rand(NUM_DRAWN, 6, 6, generator=draw) < 0.3
    target = (3 * image[:, 0]).long().clamp_max(2)
    return {"image": image, "target": target.masked_fill(unknown, IGNORED)}


def label_rows(draw: torch.Generator) -> Batch:
    """Each label depends on two numbers."""
    features = randn(draw, 6)
    return {"features": features, "target": (features[:, :3] > features[:, 3:] - 0.3).long()}


def ordinal_rows(draw: torch.Generator) -> Batch:
    """The class is a sum, in four steps."""
    features = randn(draw, 4)
    steps = torch.tensor([-1.0, 0.0, 1.0])
    return {"features": features, "target": torch.bucketize(features[:, 0] + features[:, 1], steps)}


def set_rows(draw: torch.Generator) -> Batch:
    """The class is the sign of the mean of the first number."""
    mask = torch.arange(5) < torch.randint(1, 6, (NUM_DRAWN, 1), generator=draw)
    elements = randn(draw, 5, 3) * mask.unsqueeze(-1)
    return {"elements": elements, "mask": mask, "target": (elements[..., 0].sum(1) > 0).long()}


def noisy_rows(draw: torch.Generator) -> Batch:
    """A sum with noise."""
    features = randn(draw, 4)
    return {"features": features, "target": features[:, 0] - features[:, 1] + 0.3 * randn(draw)}


def sector_rows(draw: torch.Generator) -> Batch:
    """The class is the largest of three numbers."""
    features = randn(draw, 5)
    return {"features": features, "target": features[:, :3].argmax(1)}


def factor_rows(draw: torch.Generator) -> Batch:
    """Six numbers that two others explain."""
    mixing = torch.randn(2, 6, generator=draw)
    return {"features": randn(draw, 2) @ mixing + 0.1 * randn(draw, 6)}


def couple_rows(draw: torch.Generator) -> Batch:
    """A query is a part of its item, with noise."""
    item = randn(draw, 5)
    return {"query": item[:, :4] + 0.2 * randn(draw, 4), "item": item}


def view_rows(draw: torch.Generator) -> Batch:
    """Two noisy views of the same numbers."""
    numbers = randn(draw, 6)
    views = [numbers + 0.2 * randn(draw, 6) for _ in range(2)]
    return {"first": views[0], "second": views[1]}


def picture_rows(draw: torch.Generator) -> Batch:
    """Images of two gradients, with noise."""
    ramp = torch.linspace(0, 0.5, 6)
    strength = torch.rand(NUM_DRAWN, 2, 1, 1, generator=draw)
    image = strength[:, :1] * ramp + strength[:, 1:] * ramp[:, None]
    return {"image": (image + 0.05 * torch.rand(NUM_DRAWN, 1, 6, 6, generator=draw)).clamp(0, 1)}


def placed_rows(draw: torch.Generator) -> Batch:
    """A token's tag depends on it and on its position."""
    tokens, mask = sentence(draw, 7)
    target = (tokens + (torch.arange(LENGTH) < 2)) % LENGTH
    return {"tokens": tokens, "mask": mask, "target": target.masked_fill(~mask, IGNORED)}


def candidate_rows(draw: torch.Generator) -> Batch:
    """The best candidate has the largest product with the query."""
    query, candidates = randn(draw, 3), randn(draw, 5, 3)
    target = (query.unsqueeze(1) * candidates).sum(-1).argmax(1)
    return {"query": query, "candidates": candidates, "target": target}


def series_rows(draw: torch.Generator) -> Batch:
    """The target is a number plus half of the one before."""
    mask = torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (NUM_DRAWN, 1), generator=draw)
    series = randn(draw, LENGTH, 2) * mask.unsqueeze(-1)
    target = series[..., 0] + 0.5 * F.pad(series[:, :-1, 0], (1, 0))
    return {"series": series, "mask": mask, "target": target * mask}


def sums_rows(draw: torch.Generator) -> Batch:
    """Three sums of two numbers."""
    features = randn(draw, 5)
    return {"features": features, "target": features[:, :3] + features[:, 2:]}


VIEW = Field(shape=[6])
OTHERS: dict[type[nn.Module], Kind] = {
    PackedLSTM: (
        last_rows,
        {"num_tokens": 7, "width": 12},
        Spec(
            task="classification",
            inputs={"tokens": words(7, "mask"), "mask": MASK},
            target=classes(2),
            outputs={"logits": LOGITS(shape=[2])},
            ordered="tokens",
            loss="cross_entropy",
        ),
    ),
    Graph: (
        graph_rows,
        {"width": 16},
        Spec(
            task="classification",
            inputs={
                "nodes": Field(shape=["nodes", 3], mask="mask"),
                "edges": Field(shape=["nodes", "nodes"], low=0, high=1, mask="mask"),
                "mask": Field(shape=["nodes"], kind="mask"),
            },
            target=classes(2),
            outputs={"logits": LOGITS(shape=[2])},
            loss="cross_entropy",
        ),
    ),
    UNet: (
        pixel_rows,
        {"num_channels": 6},
        Spec(
            task="classification",
            inputs={"image": Field(shape=[1, 6, 6], low=0, high=1)},
            target=Field(shape=[6, 6], kind="index", low=0, high=2),
            outputs={"logits": LOGITS(shape=[6, 6, 3])},
            loss="cross_entropy",
        ),
    ),
    SeveralLabels: (
        label_rows,
        {"width": 16, "dropout": 0.1},
        Spec(
            task="classification",
            inputs={"features": VIEW},
            target=Field(shape=[3], kind="index", low=0, high=1),
            outputs={"scores": LOGITS(shape=[3])},
            loss="cross_entropy",
        ),
    ),
    Ordinal: (
        ordinal_rows,
        {"width": 16},
        Spec(
            task="classification",
            inputs={"features": Field(shape=[4])},
            target=classes(4),
            outputs={"probabilities": Field(shape=[4], kind="probabilities")},
            loss="cross_entropy",
        ),
    ),
    SetModel: (
        set_rows,
        {"width": 12},
        Spec(
            task="classification",
            inputs={
                "elements": Field(shape=["size", 3], mask="mask"),
                "mask": Field(shape=["size"], kind="mask"),
            },
            target=classes(2),
            outputs={"logits": LOGITS(shape=[2])},
            loss="cross_entropy",
        ),
    ),
    CausalConv: (
        text_rows,
        {"num_tokens": 7, "width": 12},
        NEXT_TOKEN,
    ),
    Quantiles: (
        noisy_rows,
        {"width": 24},
        Spec(
            task="regression",
            inputs={"features": Field(shape=[4])},
            target=Field(shape=[]),
            outputs={"median": Field(shape=[]), "quantiles": Field(shape=[3])},
        ),
    ),
    Experts: (
        sector_rows,
        {"num_experts": 3, "width": 12, "balance": 0.1},
        Spec(
            task="classification",
            inputs={"features": Field(shape=[5])},
            target=classes(3),
            outputs={"logits": LOGITS(shape=[3])},
            coupled=True,
        ),
    ),
    VAE: (
        factor_rows,
        {"width": 12, "weight": 0.5},
        Spec(
            task="unsupervised",
            inputs={"features": VIEW},
            outputs={"reconstruction": VIEW, "code": Field(shape=[2])},
        ),
    ),
    TwoTowers: (
        couple_rows,
        {"width": 16, "temperature": 0.2},
        Spec(
            task="unsupervised",
            inputs={"query": Field(shape=[4]), "item": Field(shape=[5])},
            outputs={
                "query_vector": Field(shape=[6], low=-1, high=1),
                "item_vector": Field(shape=[6], low=-1, high=1),
            },
            coupled=True,
        ),
    ),
    Autoencoder: (
        picture_rows,
        {"width": 16, "code_size": 3},
        Spec(
            task="unsupervised",
            inputs={"image": Field(shape=[1, 6, 6], low=0, high=1)},
            outputs={
                "reconstruction": Field(shape=[1, 6, 6], low=0, high=1),
                "code": Field(shape=[3]),
            },
        ),
    ),
    Contrastive: (
        view_rows,
        {"width": 16, "temperature": 0.3},
        Spec(
            task="unsupervised",
            inputs={"first": VIEW, "second": VIEW},
            outputs={"vector": Field(shape=[5]), "other_vector": Field(shape=[5])},
            coupled=True,
        ),
    ),
    SequenceTagger: (
        placed_rows,
        {"num_tokens": 7, "width": 16, "dropout": 0.1},
        Spec(
            task="classification",
            inputs={"tokens": words(7, "mask"), "mask": MASK},
            target=classes(6, ("length",), mask="mask", padding=IGNORED),
            outputs={"logits": LOGITS(shape=["length", 6], mask="mask")},
            ordered="tokens",
            loss="cross_entropy",
        ),
    ),
    Ranking: (
        candidate_rows,
        {"width": 24, "dropout": 0.1},
        Spec(
            task="classification",
            inputs={"query": Field(shape=[3]), "candidates": Field(shape=[5, 3])},
            target=classes(5),
            outputs={"logits": LOGITS(shape=[5])},
            loss="cross_entropy",
        ),
    ),
    Series: (
        series_rows,
        {"width": 12},
        Spec(
            task="regression",
            inputs={"series": Field(shape=["length", 2], mask="mask"), "mask": MASK},
            target=Field(shape=["length"], mask="mask"),
            outputs={"prediction": Field(shape=["length"], mask="mask")},
            causal="series",
            ordered="series",
            loss="mse",
        ),
    ),
    SeveralNumbers: (
        sums_rows,
        {"width": 24},
        Spec(
            task="regression",
            inputs={"features": Field(shape=[5])},
            target=Field(shape=[3]),
            outputs={"prediction": Field(shape=[3])},
            loss="mae",
        ),
    ),
}
