"""Heads with cross-attention from texts to the grid of an image, which predict matches, boxes and relations.

Their inputs are frozen features and, as a number without gradient, the similarity of the embeddings, so that they do
not train the retrieval towers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.data.geometry import RELATIONS
from core.model.attention import POSITION, GridAttention
from core.model.layers import embedded_rows
from core.model.losses import Negatives

HEADS = 1
"""Default number of attention heads. On the demo data, one was as good as four; with one and the default widths, a
model on (1024, 896) features has fewer than 1.5 million parameters, learned pooling included."""
TEXT_WIDTH, WIDTH = 256, 128
"""Hidden widths: of the first layer of the text network, and of all other layers."""
REACH = 0.3
"""Maximum offset of a box's centre from the location of the first attention head, in sides of the image."""
SIZE_BIAS = -1.3
"""Initial bias of a box's sides, of which sigmoid(-1.3) = 0.21 is the length."""


class Queries(NamedTuple):
    """What N texts search for."""

    hidden: Tensor
    """[N, WIDTH], the text"""
    content: Tensor
    """[N, heads, grid_dim], queries of the attention"""
    position: Tensor
    """[N, heads, P], logits of the cells by their position"""

    def rows(self, index: Tensor) -> "Queries":
        """The queries of texts at these rows."""
        parts = (embedded_rows(part.flatten(1), index).view(len(index), *part.shape[1:]) for part in self)
        return Queries(*parts)


class Findings(NamedTuple):
    """What N texts attended to, each in an image."""

    pair: Tensor
    """[N, 3 × WIDTH]: the attended cells, the text, and their product"""
    location: Tensor
    """[N, 2 × heads], mean x and y of the attention, in 0..1"""
    spread: Tensor
    """[N, 2 × heads], standard deviation of x and y"""

    def joined(self) -> Tensor:
        """[N, 3 × WIDTH + 4 × heads]"""
        return torch.cat(self, dim=1)


class GroundingHead(nn.Module):
    """Cross-attention from texts to grids, with match, box and relation heads on top of it.

    The projections of keys and values are part of those of queries and outputs. The centre of a box is the location of
    the attention plus a bounded offset.
    Source: attention of Vaswani et al. 2017 (1706.03762) §3.2.2; its mean position, the soft-argmax, as in Levine et
    al. 2016 (1504.00702).
    """

    def __init__(self, text_dim: int, attention: GridAttention, *, dropout: float, heads: int = HEADS) -> None:
        """Initialise with PyTorch's default weights, except that boxes start at the location of the attention."""
        super().__init__()
        grid_dim = attention.norm.width
        self.heads = heads
        self.attention = attention
        self.text = nn.Sequential(
            nn.Linear(text_dim, TEXT_WIDTH), nn.ReLU(), nn.Dropout(dropout), nn.Linear(TEXT_WIDTH, WIDTH), nn.ReLU()
        )
        self.content = nn.Linear(WIDTH, heads * grid_dim)
        self.position = nn.Linear(WIDTH, heads * POSITION)
        self.value = nn.Linear(heads * grid_dim, WIDTH)
        findings = 3 * WIDTH + 4 * heads
        self.match = _mlp(findings + 1, 1)
        self.box = _mlp(findings, 4)
        self.relation = _mlp(findings + 2 * WIDTH + 4 * heads, len(RELATIONS))
        _start_at_the_location(self.box[-1])

    def odds(self, grid: Tensor, texts: Tensor, similarity: Tensor) -> Tensor:
        """Log-odds that each of N images matches each of its T texts.

        Args:
            grid: [N, P, grid_dim] as stored.
            texts: [N × T, text_dim], normalised features, the T texts of an image consecutive.
            similarity: [N × T], of the embeddings, divided by the temperature. Training shows mostly hard negatives, so
                without it the head would not be calibrated on easy pairs.
        Returns:
            [N × T].
        """
        return self._odds(self.attend(grid, self.queries(texts)), similarity)

    def odds_with_negatives(self, grid: Tensor, texts: Tensor, similarity: Tensor, negatives: Negatives) -> Tensor:
        """Log-odds of B pairs and of their negatives, with one pass of the text network per text.

        Args:
            grid, texts: of the pairs, as in `odds`.
            similarity: [1 + T + 1, B], in the order of the result.
            negatives: rows of the batch, all of which exist.
        Returns:
            [1 + T + 1, B], in the order of `CrossModalModel.odds_with_negatives`.
        """
        queries, own = self.queries(texts), torch.arange(len(grid), device=grid.device)
        shown = torch.cat([own[None], negatives.texts]).T  # [B, 1 + T]
        of_texts = self._odds(self.attend(grid, queries.rows(shown.flatten())), similarity[:-1].T.flatten())
        of_images = self._odds(self.attend(grid.index_select(0, negatives.images), queries), similarity[-1])
        return torch.cat([of_texts.view(shown.shape).T, of_images[None]])

    def ground(self, grid: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """Locate a phrase in each image, and relate it to a reference in the same image.

        Args:
            grid: [N, P, grid_dim] as stored.
            sentences: [N, 2, text_dim], normalised features of phrase and reference.
        Returns:
            Boxes [N, 4] x1 y1 x2 y2, always ordered and within 0..1; relation logits [N, 6].
        """
        both = self.attend(grid, self.queries(sentences.flatten(0, 1)))
        phrases, references = (Findings(*(part[start::2] for part in both)) for start in (0, 1))
        return self.boxes(phrases), self.relations(phrases, references)

    def queries(self, texts: Tensor) -> Queries:
        """Queries of N texts, from their normalised features [N, text_dim]."""
        hidden: Tensor = self.text(texts)
        content = self.content(hidden).view(len(hidden), self.heads, -1)
        position = self.position(hidden).view(len(hidden), self.heads, -1) @ self.attention.positions.T
        return Queries(hidden, content, position)

    def attend(self, grid: Tensor, queries: Queries) -> Findings:
        """Attend with T texts to each of N images.

        Args:
            grid: [N, P, grid_dim] as stored.
            queries: of N × T texts, the T texts of an image consecutive.
        Returns:
            N × T findings, in the order of the texts.
        """
        content, position = (part.reshape(len(grid), -1, part.shape[2]) for part in queries[1:])  # [N, T × heads, …]
        weights, attended = self.attention(grid, content, position)
        value = self.value(attended.reshape(len(queries.hidden), -1))
        pair = torch.cat([value, queries.hidden, value * queries.hidden], dim=1)
        location, spread = (part.reshape(len(pair), -1) for part in self.attention.location(weights))
        return Findings(pair, location, spread)

    def boxes(self, findings: Findings) -> Tensor:
        """Boxes of N findings: [N, 4] x1 y1 x2 y2, always ordered and within 0..1."""
        offset, size = self.box(findings.joined()).chunk(2, dim=1)
        centre = (findings.location[:, :2] + REACH * offset.tanh()).clamp(0, 1)
        half = size.sigmoid() / 2
        return torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)

    def relations(self, findings: Findings, references: Findings) -> Tensor:
        """Logits of the relations of N findings to references in the same images: [N, 6]."""
        reference = references.pair[:, : 2 * WIDTH]
        offset = findings.location - references.location
        logits: Tensor = self.relation(torch.cat([findings.joined(), reference, offset, references.spread], dim=1))
        return logits

    def _odds(self, findings: Findings, similarity: Tensor) -> Tensor:
        odds: Tensor = self.match(torch.cat([findings.joined(), similarity[:, None]], dim=1))
        return odds.squeeze(1)


def _mlp(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, WIDTH), nn.ReLU(), nn.Linear(WIDTH, width_out))


def _start_at_the_location(last: nn.Module) -> None:
    """Initialise the last layer of the box head: no offset, and the same size for all boxes."""
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, 0.0, SIZE_BIAS, SIZE_BIAS]))
