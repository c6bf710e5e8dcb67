"""The training loss: the teacher's margins and its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HINGE_MARGIN = 1.0
_MIN_DIFFERENCE = 0.1
"""Minimum difference of teacher scores (scale: standard deviation `SPREAD`) that counts as an order."""


def distillation_loss(student: Tensor, teacher: Tensor, *, hinge_share: float = 0.3) -> Tensor:
    """Return margin-MSE plus pairwise hinge over all pairs of passages of a query, a scalar.

    Margin-MSE: Hofstätter, Althammer, Schröder, Sertkan, Hanbury, "Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation", 2020 (arXiv 2010.02666). The student learns the differences of the
    teacher's scores, not the scores. The paper uses one pair of a positive and a negative; this uses all pairs.

    Args:
        student: logits, (queries, passages of each).
        teacher: the teacher's scores of the same, on a scale of `groups.SPREAD`.
        hinge_share: share of the hinge in the sum, 0..1.
    """
    import torch

    margins = student.unsqueeze(2) - student.unsqueeze(1)
    wanted = teacher.unsqueeze(2) - teacher.unsqueeze(1)
    above = torch.ones(student.shape[1], student.shape[1], device=student.device).triu(1).bool()
    squared = (margins - wanted)[:, above].square().mean()
    better = wanted > _MIN_DIFFERENCE
    hinge = torch.relu(HINGE_MARGIN - margins)[better]
    ordered = hinge.mean() if hinge.numel() else squared.new_zeros(())
    return (1.0 - hinge_share) * squared + hinge_share * ordered
