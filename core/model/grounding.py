"""Heads that look at the image: a text attends to the cells of its grid, and the heads read what it found there.

They see the raw features of the backbone and the similarity of the two embeddings as a number, so no gradient of theirs
reaches the retrieval towers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.data.geometry import RELATIONS
from core.model.attention import POSITION, GridAttention
from core.model.layers import embedded_rows
from core.model.losses import Negatives

HEADS = 1
"""Of the attention. One was as good as four on the demo, and with one and the default widths a model on (1024, 896)
features stays below 1.5 million parameters, learned pooling included."""
TEXT_WIDTH, WIDTH = 256, 128
"""Hidden widths of the network that reads a text: first and second layer. All later parts have the second one."""
REACH = 0.3
"""How far the centre of a box may lie from where the first head of the attention looks, in sides of the image."""
SIZE_BIAS = -1.3
"""Boxes begin with sides of sigmoid(-1.3) = 0.21 of the image's."""


class Reading(NamedTuple):
    """What N texts look for."""

    hidden: Tensor
    """[N, WIDTH]"""
    queries: Tensor
    """[N, heads, grid_dim]"""
    places: Tensor
    """[N, heads, P], logits of where to look whatever is there"""

    def rows(self, index: Tensor) -> "Reading":
        """The texts at these positions."""
        parts = (embedded_rows(part.flatten(1), index).view(len(index), *part.shape[1:]) for part in self)
        return Reading(*parts)


class Finding(NamedTuple):
    """What N texts found, each in an image."""

    pair: Tensor
    """[N, 3 WIDTH]: what was attended, the text, and their product"""
    location: Tensor
    """[N, 2 heads], x and y where each head looked, in 0..1"""
    spread: Tensor
    """[N, 2 heads], standard deviation about it"""

    def flat(self) -> Tensor:
        """[N, 3 WIDTH + 4 heads]"""
        return torch.cat(self, dim=1)


class GroundingHead(nn.Module):
    """Cross-attention from texts to grids, and the match, box and relation heads on top of it.

    Source: the attention is that of Vaswani et al. 2017 (1706.03762) §3.2.2 with the key's projection taken into the
    query's and the value's into the output's; a box lies about the attention's mean position, as keypoints do in
    Levine et al. 2016 (1504.00702) §4.2; only its offset and size are regressed.
    """

    def __init__(self, text_dim: int, attention: GridAttention, *, dropout: float, heads: int = HEADS) -> None:
        super().__init__()
        grid_dim = attention.norm.width
        self.attention = attention
        self.text = nn.Sequential(
            nn.Linear(text_dim, TEXT_WIDTH), nn.ReLU(), nn.Dropout(dropout), nn.Linear(TEXT_WIDTH, WIDTH), nn.ReLU()
        )
        self.query = nn.Linear(WIDTH, heads * grid_dim)
        self.place = nn.Linear(WIDTH, heads * POSITION)
        self.value = nn.Linear(heads * grid_dim, WIDTH)
        found = 3 * WIDTH + 4 * heads
        self.match = _mlp(found + 1, 1)
        self.box = _mlp(found, 4)
        self.relation = _mlp(found + 2 * WIDTH + 4 * heads, len(RELATIONS))
        self.heads = heads
        _begin_at_the_attention(self.box[-1])

    def read(self, texts: Tensor) -> Reading:
        """Normalised features of texts: [N, text_dim] → N readings."""
        hidden: Tensor = self.text(texts)
        queries = self.query(hidden).view(len(hidden), self.heads, -1)
        places = self.place(hidden).view(len(hidden), self.heads, -1) @ self.attention.positions.T
        return Reading(hidden, queries, places)

    def look(self, grid: Tensor, texts: Reading) -> Finding:
        """What texts find in images; N images are shown T texts each, those of an image one after the other.

        Args:
            grid: [N, P, grid_dim] as the store holds it.
            texts: N T readings.
        Returns:
            N T findings, in the order of the texts.
        """
        images = len(grid)
        queries, places = (part.reshape(images, -1, part.shape[2]) for part in texts[1:])  # [N, T heads, …]
        weights, attended = self.attention(grid, queries, places)
        location, spread = self.attention.location(weights)
        found = self.value(attended.reshape(len(texts.hidden), -1))
        pair = torch.cat([found, texts.hidden, found * texts.hidden], dim=1)
        return Finding(pair, *(part.reshape(len(pair), 2 * self.heads) for part in (location, spread)))

    def odds(self, grid: Tensor, texts: Tensor, similarity: Tensor) -> Tensor:
        """Logarithm of the odds that pairs match: N grids, features of N texts, [N] → [N].

        Args:
            similarity: of the embeddings, over the temperature. Without it the head, which learns from hard negatives,
                would say little of pairs that are nothing like each other.
        """
        return self._match_odds(self.look(grid, self.read(texts)), similarity)

    def odds_with_negatives(self, grid: Tensor, texts: Tensor, similarity: Tensor, negatives: Negatives) -> Tensor:
        """The same of B pairs and of their negatives, each text read once, and each image's own texts shown at once.

        Args:
            similarity: [1 + T + 1, B] as `CrossModalModel.odds_with_negatives` orders pairs.
        Returns:
            [1 + T + 1, B] in that order.
        """
        sought, own = self.read(texts), torch.arange(len(grid), device=grid.device)
        shown = torch.cat([own[None], negatives.texts]).T  # [B, 1 + T]
        of_texts = self._match_odds(self.look(grid, sought.rows(shown.flatten())), similarity[:-1].T.flatten())
        of_images = self._match_odds(self.look(grid.index_select(0, negatives.images), sought), similarity[-1])
        return torch.cat([of_texts.view(shown.shape).T, of_images[None]])

    def ground(self, grid: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """Where phrases lie, and how they relate to references in the same image.

        Args:
            sentences: [N, 2, text_dim], the phrase and the reference of each image.
        Returns:
            [N, 4] boxes x1 y1 x2 y2; [N, 6] logits.
        """
        found = self.look(grid, self.read(sentences.flatten(0, 1)))
        finding, reference = (Finding(*(part[which::2] for part in found)) for which in (0, 1))
        return self.boxes(finding), self.relations(finding, reference)

    def boxes(self, finding: Finding) -> Tensor:
        """N findings → [N, 4] x1 y1 x2 y2 within the image, ordered."""
        offset, size = self.box(finding.flat()).chunk(2, dim=1)
        centre = (finding.location[:, :2] + REACH * offset.tanh()).clamp(0, 1)
        half = size.sigmoid() / 2
        return torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)

    def relations(self, finding: Finding, reference: Finding) -> Tensor:
        """How what was found lies relative to what another text found in the same image: N, N → [N, 6] logits."""
        attended_and_text = reference.pair[:, : 2 * WIDTH]
        apart = finding.location - reference.location
        logits: Tensor = self.relation(torch.cat([finding.flat(), attended_and_text, apart, reference.spread], dim=1))
        return logits

    def _match_odds(self, finding: Finding, similarity: Tensor) -> Tensor:
        odds: Tensor = self.match(torch.cat([finding.flat(), similarity[:, None]], dim=1))
        return odds.squeeze(1)


def _mlp(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, WIDTH), nn.ReLU(), nn.Linear(WIDTH, width_out))


def _begin_at_the_attention(last: nn.Module) -> None:
    """Until it has learnt otherwise, a box has its centre where the text looks, and always the same size."""
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, 0.0, SIZE_BIAS, SIZE_BIAS]))
