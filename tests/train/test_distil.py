"""The whole loop on a tiny model: it learns, goes on where it broke off, and says what it did not reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reranker.agreement import compare
from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError, InferenceError
from reranker.evaluate import evaluate
from reranker.model_folder import load_settings
from reranker.rankings import Candidate, DataError, Ranking, qrels_of
from reranker.runtime.tokenizing import PairTokenizer
from reranker.train import loop
from reranker.train.distil import CachedTeacher, Options, ProgressCallbacks, distil, split
from reranker.train.groups import batches_of, targets_of
from reranker.train.loop import Plan, train
from reranker.train.losses import distillation_loss
from reranker.train.students import make_student
from tests.train.conftest import Overlap, torch

pytestmark = pytest.mark.filterwarnings("ignore")

PLAN = Plan(
    epochs=30,
    queries_a_batch=10,
    learning_rate=3e-3,
    head_rate=1.0,
    freeze_embeddings=False,
    max_tokens=32,
    threads=1,
    validate_every=60,
    save_every=20,
)


def options(encoder: Path, out: Path, **changed: Any) -> Options:
    return Options(out=out, student=encoder, layers=(0, 2), plan=PLAN, int8=False, validation=0.25, **changed)


@pytest.fixture(scope="module")
def made(encoder: Path, rankings: list[Ranking], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("student") / "made"
    return out, distil(rankings, None, Overlap, options(encoder, out, data="made up"))


def test_the_student_learns_what_its_teacher_knows(made: tuple[Path, Any]) -> None:
    _, card = made
    assert card.checks.teacher_ndcg == 1.0
    assert card.checks.first_stage_ndcg < 0.7
    assert card.checks.served_ndcg > card.checks.first_stage_ndcg + 0.15


def test_the_folder_can_be_served_and_its_scores_mean_something(
    made: tuple[Path, Any], rankings: list[Ranking]
) -> None:
    out, card = made
    settings = load_settings(out)
    assert settings.calibration is not None
    assert settings.weight > 0
    assert len(CrossEncoder(out, threads=1).score("word1 word2", ["word1 word2", "word40"]).logits) == 2
    found = evaluate(out, rankings, qrels_of(rankings), depth=6, threads=1)
    assert found["as the folder is"]["after"]["ndcg"] > found["as the folder is"]["before"]["ndcg"]
    assert card.fitted["queries reported"] >= 5


def test_the_card_hides_nothing(made: tuple[Path, Any]) -> None:
    out, card = made
    text = (out / "MODEL_CARD.md").read_text()
    assert "made up" in text
    assert "overlap" in text
    assert f"{card.checks.served_ndcg:.4f}" in text
    # counting words takes no time: no student is five times as fast as that
    assert "at least 5 times its speed: **no**" in text


def test_the_same_command_again_asks_no_teacher_and_trains_no_more(
    made: tuple[Path, Any], encoder: Path, rankings: list[Ranking]
) -> None:
    out, card = made
    teachers: list[Overlap] = []

    def opened() -> Overlap:
        teachers.append(Overlap())
        return teachers[-1]

    steps: list[int] = []
    again = distil(
        rankings,
        None,
        opened,
        options(encoder, out, data="made up"),
        bars=ProgressCallbacks(steps=lambda *a: steps.append(a[0])),
    )
    assert steps == []
    assert again.checks.served_ndcg == card.checks.served_ndcg
    assert sum(teacher.asked for teacher in teachers) <= card.held_out, "only the clock's own passages"


def test_other_data_in_the_same_folder_is_refused(
    made: tuple[Path, Any], encoder: Path, rankings: list[Ranking]
) -> None:
    with pytest.raises(ConfigurationError, match=r"belongs to another run.*--fresh"):
        distil(rankings[:-5], None, Overlap, options(encoder, made[0]))


def test_without_labels_the_teacher_is_the_measure(encoder: Path, rankings: list[Ranking], tmp_path: Path) -> None:
    bare = [replace(item, candidates=tuple(replace(c, label=None) for c in item.candidates)) for item in rankings]
    card = distil(bare, None, Overlap, replace(options(encoder, tmp_path / "out"), plan=replace(PLAN, epochs=2)))
    assert card.labels == 0
    assert "not measured" in card.fitted_to
    assert load_settings(tmp_path / "out").weight <= 0.5


def test_a_run_that_broke_off_ends_as_if_it_had_not(encoder: Path, rankings: list[Ranking], tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=4, save_every=5, freeze_embeddings=True)
    targets = targets_of(rankings, [Overlap().scores(ranking) for ranking in rankings])

    def run(folder: Path, *, break_at: int | None = None) -> Any:
        model = make_student(encoder, (0, 1), seed=1)
        tokenizer = PairTokenizer(encoder, max_tokens=32)

        def say(step: int, steps: int, loss: float) -> None:
            if step == break_at:
                raise KeyboardInterrupt

        train(model, tokenizer, rankings, targets, plan, folder, of="x", validate=lambda m: 1.0, say=say)
        return torch.load(folder / loop.CHECKPOINT, weights_only=True)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", break_at=13)
    resumed = run(tmp_path / "broken")
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name


def test_the_seed_decides_the_groups(rankings: list[Ranking]) -> None:
    targets = targets_of(rankings, [Overlap().scores(ranking) for ranking in rankings])

    def documents(epoch: int, seed: int) -> list[tuple[str, ...]]:
        return [
            group.documents
            for batch in batches_of(rankings, targets, epoch=epoch, seed=seed, queries=7, size=4)
            for group in batch
        ]

    assert documents(0, 1) == documents(0, 1)
    assert documents(0, 1) != documents(1, 1)
    assert documents(0, 1) != documents(0, 2)
    assert len(documents(0, 1)) == len(rankings)


def test_a_group_begins_with_the_best_and_ends_with_a_stranger(rankings: list[Ranking]) -> None:
    targets = targets_of(rankings, [Overlap().scores(ranking) for ranking in rankings])
    own = {ranking.query: {item.text: item for item in ranking.candidates} for ranking in rankings}
    for batch in batches_of(rankings, targets, epoch=0, seed=0, queries=7, size=4):
        for group in batch:
            assert own[group.query][group.documents[0]].label == 1
            assert all(text in own[group.query] for text in group.documents[:3])
            assert group.documents[3] not in own[group.query]
            assert group.targets.argmin() == 3


def test_the_loss_is_least_where_the_margins_agree() -> None:
    teacher = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]])
    assert distillation_loss(teacher + 7.0, teacher, hinge_share=0.0) == 0
    assert distillation_loss(2 * teacher, teacher) < distillation_loss(-teacher, teacher)
    assert distillation_loss(teacher, teacher, hinge_share=1.0) == 0, "the hinge asks for a margin of 1 and no more"


def test_a_teacher_that_gives_no_number(encoder: Path, rankings: list[Ranking], tmp_path: Path) -> None:
    class Silent(Overlap):
        def scores(self, ranking: Ranking) -> Any:
            return np.full(len(ranking.candidates), np.nan)

    with pytest.raises(InferenceError, match="finite scores"):
        distil(rankings, None, Silent, options(encoder, tmp_path / "out"))


def test_a_half_line_of_teacher_scores_is_asked_for_again(rankings: list[Ranking], tmp_path: Path) -> None:
    path = tmp_path / "teacher.jsonl"
    first = CachedTeacher(Overlap, path)
    expected = [first.scores(ranking) for ranking in rankings[:3]]
    path.write_text(path.read_text()[:-20])
    teacher = Overlap()
    again = CachedTeacher(lambda: teacher, path)
    assert [again.scores(ranking).tolist() for ranking in rankings[:3]] == [scores.tolist() for scores in expected]
    assert teacher.asked == 1


def test_too_few_queries(encoder: Path, rankings: list[Ranking], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 20"):
        distil(rankings[:5], None, Overlap, options(encoder, tmp_path / "out"))


def test_candidates_that_are_too_few_for_a_group(encoder: Path, tmp_path: Path) -> None:
    single = [Ranking(f"q{n}", f"word{n}", (Candidate("a", f"word{n}", 1.0),)) for n in range(30)]
    with pytest.raises(ConfigurationError, match="no query has 4 candidates"):
        distil(single, None, Overlap, options(encoder, tmp_path / "out"))


def test_held_out_queries_have_a_relevant_document(rankings: list[Ranking], encoder: Path, tmp_path: Path) -> None:
    labels = {ranking.query_id: {"x": 1} for ranking in rankings[:30]}
    taught, held = split(rankings, labels, options(encoder, tmp_path))
    assert set(held) <= set(range(30))
    assert sorted([*taught, *held]) == list(range(60))


def test_int8_is_what_is_served_and_ranks_as_fp32_does(encoder: Path, rankings: list[Ranking], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = replace(PLAN, epochs=20)
    card = distil(rankings, None, Overlap, replace(options(encoder, out), int8=True, plan=plan))
    assert card.checks.served_precision == "int8"
    assert (load_settings(out).precision, load_settings(out / "fp32").precision) == ("int8", "fp32")
    assert load_settings(out).weight == load_settings(out / "fp32").weight
    found = compare(out / "fp32", out, rankings, qrels_of(rankings), depth=6, threads=1)
    assert found["queries"] == len(rankings)
    assert found["NDCG@10"]["of the second"] == pytest.approx(found["NDCG@10"]["of the first"], abs=0.05)
    assert found["largest difference of logits"] > 0
