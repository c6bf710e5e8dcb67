"""What the student is taught by: the teacher's margins, and its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HINGE_MARGIN = 1.0
_ALIKE = 0.1
"""Teacher scores closer together than this (on its scale of standard deviation `SPREAD`) order nobody."""


def distillation_loss(student: Tensor, teacher: Tensor, *, hinge_share: float = 0.3) -> Tensor:
    """Margin-MSE and pairwise hinge over all pairs of passages of a query, a scalar.

    Margin-MSE: Hofstätter, Althammer, Schröder, Sertkan, Hanbury, "Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation", 2020 (arXiv 2010.02666): the student need not reach the teacher's
    scores, only their differences. There it is one pair of a positive and a negative; here all pairs of a group.

    Args:
        student: logits, (queries, passages of each).
        teacher: its scores of the same, on a scale of `groups.SPREAD`.
        hinge_share: of the hinge in the sum, 0..1.
    """
    import torch

    margins = student.unsqueeze(2) - student.unsqueeze(1)
    wanted = teacher.unsqueeze(2) - teacher.unsqueeze(1)
    above = torch.ones(student.shape[1], student.shape[1], device=student.device).triu(1).bool()
    squared = (margins - wanted)[:, above].square().mean()
    better = wanted > _ALIKE
    hinge = torch.relu(HINGE_MARGIN - margins)[better]
    ordered = hinge.mean() if hinge.numel() else squared.new_zeros(())
    return (1.0 - hinge_share) * squared + hinge_share * ordered
