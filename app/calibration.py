"""Calibration: everything that depends on the scale of one embedding model, read from one file per precision.

Cosines mean something else with each model: those of unrelated texts are about 0.0 with all-MiniLM-L6-v2 and 0.4 with
bge-small-en-v1.5. A calibration has the thresholds of answers and near-identical queries, the weight model of fusion
and the token projection of late interaction. `braid calibrate` makes one (docs/calibration.md); those in
`app/calibrations` ship with Braid. A model without one is served, but nothing is refused or reused on its account, and
answers say so.

A folder holds the files of one model: ``fp32.json``, ``int8.json`` with a card each, and one ``token_projection.npz``
for all precisions. fp16 is served by fp32's file, since its vectors are the same to three digits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.config.retrieval import EmbeddingSettings
from app.errors import ConfigurationError
from app.tuning import Share, WeightModel

SHIPPED = Path(__file__).with_name("calibrations")
"""Folder with a folder for each model that is calibrated by Braid."""
OWN_FOLDER = "calibration"
"""Folder beside the files of a model of one's own, in `BRAID_EMBEDDING_PATH`."""
TOKEN_PROJECTION = "token_projection.npz"  # noqa: S105 - a file's name
FORMAT: Literal[1] = 1

_STANDS_IN = {"fp16": "fp32"}
"""Precision -> another one whose file serves it."""
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerThresholds(_Value):
    """Thresholds of relevance, and the parts of a sentence's score (`app.generation.evidence`).

    Passages are about a question if the best cosine of a sentence is at least `min_cosine`; or `min_covered_cosine`,
    where they hold at least the share `min_coverage` of the question's words. `zero_cosine` and `cosine_unit` bring
    cosines to the scale of all-MiniLM-L6-v2, on which `cosine_share` and `rank_weight` mean the same for all models:
    ``(cosine - zero_cosine) / cosine_unit``. `second_share` is the least score of a further quoted sentence, as a share
    of the best one's.
    """

    min_cosine: Cosine
    min_covered_cosine: Cosine
    min_coverage: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    zero_cosine: Cosine = 0.0
    cosine_unit: Positive = 1.0
    cosine_share: Share = 0.6
    rank_weight: Share = 0.1
    second_share: Share = 0.85

    @model_validator(mode="after")
    def _in_order(self) -> AnswerThresholds:
        if self.min_covered_cosine > self.min_cosine:
            raise ValueError(f"min_covered_cosine {self.min_covered_cosine} is above min_cosine {self.min_cosine}")
        return self


class TokenProjectionFile(_Value):
    """Name and SHA-256 of the token projection, in the folder of the calibration."""

    file: Literal["token_projection.npz"] = "token_projection.npz"
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CalibrationFile(_Value):
    """The form of ``<precision>.json``. `about` has date, method, data with their licences, and figures."""

    format: Literal[1] = FORMAT
    embedding_model: str
    precision: Literal["fp32", "fp16", "int8"]
    answers: AnswerThresholds
    near_min_cosine: Cosine
    weight_model: WeightModel | None = None
    token_projection: TokenProjectionFile | None = None
    about: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration of one model and precision, checked.

    `near_min_cosine`: least cosine of two queries that are served the same answer. `weight_model`: None if there were
    no judgements to learn from. `token_projection`: path of the projection; None: no late interaction. `digest`
    identifies the content.
    """

    embedding_model: str
    answers: AnswerThresholds
    near_min_cosine: float
    weight_model: WeightModel | None
    token_projection: Path | None
    digest: str
    about: dict[str, Any]


def calibration_for(embedding: EmbeddingSettings, name: str) -> Calibration | None:
    """Return the calibration of the embedding model `name` (`Encoder.name`); None if it has none.

    It is read from `BRAID_EMBEDDING_CALIBRATION`, else from the folder `calibration` beside the model's own files, else
    from those that ship with Braid.

    Raises:
        ConfigurationError: a file is unusable, or is of another model.
    """
    model, precision = split_name(name)
    if embedding.calibration is not None:
        found = read_calibration(embedding.calibration, model, precision)
        if found is None:
            raise ConfigurationError(
                f"BRAID_EMBEDDING_CALIBRATION={embedding.calibration}: no {precision}.json in that folder; "
                f"`braid calibrate --out {embedding.calibration}` makes it"
            )
        return found
    if embedding.path is not None:
        found = read_calibration(embedding.path / OWN_FOLDER, model, precision)
        if found is not None:
            return found
    folder = SHIPPED / model
    # the name may come from a setting and must not lead outside the folder
    return read_calibration(folder, model, precision) if folder.parent == SHIPPED and model else None


def read_calibration(folder: Path, model: str, precision: str) -> Calibration | None:
    """Return the calibration of a model in `folder`; None if there is none for this precision.

    Raises:
        ConfigurationError: the file is unusable, or is of another model.
    """
    for known in (precision, _STANDS_IN.get(precision)):
        path = folder / f"{known}.json"
        if known is not None and path.is_file():
            found = _load(path, path.stat().st_mtime_ns)
            if found.embedding_model != model:
                raise ConfigurationError(
                    f"{path} was made for the embedding model {found.embedding_model!r}, and this service has "
                    f"{model!r}: make one with `braid calibrate`"
                )
            return found
    return None


def split_name(name: str) -> tuple[str, str]:
    """Return model and precision of an embedding model's id, such as ``all-MiniLM-L6-v2-int8``."""
    for precision in ("int8", "fp16"):
        if name.endswith(f"-{precision}"):
            return name.removesuffix(f"-{precision}"), precision
    return name, "fp32"


@cache
def _load(path: Path, changed: int) -> Calibration:
    """Read a file; `changed` makes a replaced file another entry of the cache."""
    try:
        content = path.read_bytes()
        found = CalibrationFile.model_validate_json(content)
        projection = None
        if found.token_projection is not None:
            projection = path.with_name(found.token_projection.file)
            digest = hashlib.sha256(projection.read_bytes()).hexdigest()
            if digest != found.token_projection.sha256:
                raise ConfigurationError(f"{projection} is not the file that {path.name} names: {_remedy(path)}")
    except (OSError, ValidationError) as error:
        why = f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else error
        raise ConfigurationError(f"{path} is not a usable calibration ({why}): {_remedy(path)}") from error
    return Calibration(
        found.embedding_model,
        found.answers,
        found.near_min_cosine,
        found.weight_model,
        projection,
        hashlib.sha256(content).hexdigest()[:16],
        found.about,
    )


def _remedy(path: Path) -> str:
    return "reinstall Braid" if path.is_relative_to(SHIPPED) else "remove it, and make it with `braid calibrate`"
