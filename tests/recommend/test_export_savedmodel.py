"""SavedModels say what the towers say. In a process of its own: TensorFlow and torch need not share one, and nothing serves both."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.recommend.tower_world import towers

EXPORT_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
from genba_recommend.export_savedmodel import write_item_tower, write_user_tower
folder = Path(sys.argv[1])
weights, users, items = ({**np.load(folder / name)} for name in ("weights.npz", "users.npz", "items.npz"))
vectors = np.load(folder / "vectors.npy")
write_user_tower(weights, vectors, folder / "user_tower")
write_item_tower(weights, folder / "item_tower")
import tensorflow as tf
for name, columns in (("user_tower", users), ("item_tower", items)):
    signature = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
    asked = set(signature.structured_input_signature[1])
    given = {column: tf.constant(value) for column, value in columns.items() if column in asked}
    np.save(folder / f"{name}.npy", signature(**given)["vector"].numpy())
"""


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra tensorflow: make savedmodel-test"
)


@pytest.mark.parametrize("embedding_len", [0, 5])
def test_saved_models_agree_with_torch_within_a_hundred_thousandth(embedding_len: int, tmp_path: Path) -> None:
    world = towers(embedding_len=embedding_len)
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **world.weights)
    np.savez(tmp_path / "users.npz", allow_pickle=False, **world.users.columns())
    np.savez(tmp_path / "items.npz", allow_pickle=False, **world.items.columns())
    np.save(tmp_path / "vectors.npy", world.vectors)
    done = subprocess.run([sys.executable, "-c", EXPORT_AND_RUN, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(np.load(tmp_path / "user_tower.npy"), world.answers, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "item_tower.npy"), world.vectors, rtol=0, atol=1e-5)
