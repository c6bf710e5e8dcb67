"""The training loop: steps, checkpoints, resuming, validation. All randomness derives from the seed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ConfigurationError
from reranker.rankings import Ranking
from reranker.runtime.tokenizing import PairTokenizer
from reranker.train.groups import Group, batches_of
from reranker.train.losses import distillation_loss
from reranker.train.scoring import pad_pairs, takes_types

Scores = npt.NDArray[np.float64]
_DECAY = 0.01
CHECKPOINT, BEST = "checkpoint.pt", "best.pt"


@dataclass(frozen=True, slots=True)
class Plan:
    """Training parameters. `minutes` ends the run early; the learning rate falls to 0 by then."""

    epochs: int = 2
    queries_a_batch: int = 8
    passages: int = 4
    learning_rate: float = 8e-5
    head_rate: float = 10.0
    """Factor on the learning rate for randomly initialised weights."""
    freeze_embeddings: bool = True
    """Keep the word embeddings: few queries of one collection would change only some of them, and steps are cheaper."""
    warm_up: float = 0.06
    max_tokens: int = 256
    hinge_share: float = 0.3
    seed: int = 0
    bf16: bool = False
    threads: int = 2
    minutes: float | None = None
    validate_every: int = 200
    save_every: int = 50


@dataclass
class Progress:
    """Progress of a run, and the validation figure by step (higher is better)."""

    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    best_step: int = 0
    validated: list[tuple[int, float]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)


def train(
    model: Any,
    tokenizer: PairTokenizer,
    rankings: Sequence[Ranking],
    targets: Sequence[Scores],
    plan: Plan,
    folder: Path,
    *,
    of: str,
    validate: Callable[[Any], float],
    say: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Progress:
    """Train `model` in place; it ends in the best state that validation saw.

    Args:
        targets: targets of their candidates, from `groups.targets_of`.
        folder: folder of the checkpoints; an interrupted run resumes from it.
        of: other inputs of the run (data, teacher, student); a checkpoint of another run is an error.
        validate: returns the figure for comparing states; called periodically and at the end.
        say: receives step, total steps and loss.

    Raises:
        ConfigurationError: the checkpoint belongs to another run, or no query is usable for training.
    """
    import torch

    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    device = _device()
    model.to(device).train()
    first = batches_of(rankings, targets, epoch=0, seed=plan.seed, queries=plan.queries_a_batch, size=plan.passages)
    if not first:
        raise ConfigurationError(
            f"no query has {plan.passages} candidates with a preference of the teacher: add queries or candidates"
        )
    steps = plan.epochs * len(first)
    optimizer = torch.optim.AdamW(_parameter_groups(model, plan))
    run = Progress()
    key = _key(plan, of)
    if (folder / CHECKPOINT).is_file():
        run = _restore(folder, model, optimizer, key)
    began = time.perf_counter() - run.seconds
    smooth = run.losses[-1][1] if run.losses else 0.0

    def ended() -> bool:
        return run.step >= steps or bool(plan.minutes and run.seconds >= plan.minutes * 60)

    def check() -> None:
        if run.validated and run.validated[-1][0] == run.step:
            return
        run.validated.append((run.step, validate(model)))
        if run.validated[-1][1] > run.best:
            run.best, run.best_step = run.validated[-1][1], run.step
            _write(folder / BEST, {"model": model.state_dict(), "step": run.step})

    for epoch in range(run.step // len(first), plan.epochs):
        batches = first if epoch == 0 else batches_of(
            rankings, targets, epoch=epoch, seed=plan.seed, queries=plan.queries_a_batch, size=plan.passages
        )  # fmt: skip
        for batch in batches[run.step - epoch * len(first) :]:
            if ended():
                break
            done = max(run.step / steps, run.seconds / (plan.minutes * 60) if plan.minutes else 0.0)
            for part in optimizer.param_groups:
                part["lr"] = (
                    part["times"]
                    * plan.learning_rate
                    * min(1.0, (run.step + 1) / (plan.warm_up * steps + 1), 1.0 - done)
                )
            loss = _step(model, tokenizer, batch, optimizer, plan, device)
            run.step += 1
            run.seconds = time.perf_counter() - began
            smooth = loss if run.step == 1 else 0.95 * smooth + 0.05 * loss
            say(run.step, steps, smooth)
            if run.step % plan.save_every == 0 or ended():
                run.losses.append((run.step, round(smooth, 4)))
            if run.step % plan.validate_every == 0:
                check()
            if run.step % plan.save_every == 0:
                _save(folder, model, optimizer, run, key)
        if ended():
            break
    check()
    _save(folder, model, optimizer, run, key)
    model.load_state_dict(torch.load(folder / BEST, weights_only=True)["model"])
    model.eval()
    return run


def has_native_bf16() -> bool:
    """Return whether this machine computes in bfloat16 natively."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(flag in flags.read_text(encoding="utf-8") for flag in ("avx512_bf16", "amx_bf16"))


def _step(
    model: Any, tokenizer: PairTokenizer, batch: Sequence[Group], optimizer: Any, plan: Plan, device: Any
) -> float:
    import torch

    pairs = [pair for group in batch for pair in tokenizer.encode(group.query, group.documents).pairs]
    inputs = {
        name: value.to(device) for name, value in pad_pairs(pairs, tokenizer.padding_id, takes_types(model)).items()
    }
    with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
        logits = model(**inputs).logits
    wanted = torch.tensor(np.stack([group.targets for group in batch]), dtype=torch.float32, device=device)
    loss = distillation_loss(logits.float().view(wanted.shape), wanted, hinge_share=plan.hinge_share)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.item())


def _parameter_groups(model: Any, plan: Plan) -> list[dict[str, Any]]:
    """Return parameter groups: randomly initialised head and pooler learn faster; norms and biases do not decay."""
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, value in model.named_parameters():
        if plan.freeze_embeddings and "word_embeddings" in name:
            value.requires_grad_(False)
            continue
        groups.setdefault((_is_head(name), value.ndim > 1), []).append(value)
    return [
        {
            "params": values,
            "weight_decay": _DECAY if decays else 0.0,
            "lr": plan.learning_rate,
            "times": plan.head_rate if head else 1.0,
        }
        for (head, decays), values in groups.items()
    ]


def _is_head(name: str) -> bool:
    return any(part in name.split(".") for part in ("classifier", "pooler", "pre_classifier", "score"))


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _key(plan: Plan, of: str) -> str:
    decides = {
        name: value
        for name, value in asdict(plan).items()
        if name not in {"threads", "minutes", "save_every", "validate_every", "bf16"}
    }
    return hashlib.sha256(json.dumps([decides, of], sort_keys=True).encode()).hexdigest()


def _save(folder: Path, model: Any, optimizer: Any, run: Progress, key: str) -> None:
    import torch

    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "run": json.dumps(asdict(run)),
        "key": key,
    }
    _write(folder / CHECKPOINT, state)


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a run killed while writing keeps the previous checkpoint."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(state, fresh)
    fresh.replace(path)


def _restore(folder: Path, model: Any, optimizer: Any, key: str) -> Progress:
    import torch

    state = torch.load(folder / CHECKPOINT, weights_only=True)
    if state["key"] != key:
        raise ConfigurationError(
            f"{folder / CHECKPOINT} belongs to another run (other data, teacher, student or plan): pass another --out, "
            "or --fresh to start again"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    read = json.loads(state["run"])
    return Progress(
        **{
            **read,
            "validated": [(step, value) for step, value in read["validated"]],
            "losses": [(step, value) for step, value in read["losses"]],
        }
    )
