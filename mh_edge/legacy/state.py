"""Weights-only files of the v3 layout (`.weights.h5`): Keras reads them, once they are checked and carry today's names.

`layers/<class>_<n>/vars/0` is the first variable of the n-th layer of a class; Keras 2.12 said `layers` otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from mh_edge.errors import InputError

LAYERS = "layers"
LAYERS_BEFORE = "_layer_checkpoint_dependencies"


def check(model: Any, file: Any, source: str) -> None:
    """Raises InputError when the open file holds no weights, or those of more layers than the model has.

    Keras would ignore what is left over, and the model would not be the one that was saved.
    """
    if not _holds_arrays(file):
        raise InputError(f"{source} holds no weights that Keras wrote.", "Give a file that model.save_weights wrote.")
    for word in {LAYERS, LAYERS_BEFORE} & file.keys():
        stored = [name for name, group in file[word].items() if _holds_arrays(group)]
        takers = [layer.name for layer in model.layers if layer.variables]
        if len(stored) > len(takers):
            raise InputError(
                f"{source} holds weights for {len(stored)} layers ({', '.join(sorted(stored))}), "
                f"the model has {len(takers)} layers with weights ({', '.join(takers)}).",
                "Build the same architecture as the one saved.",
            )


def is_current(file: Any, path: Path) -> bool:
    """Whether Keras 3 reads the file as it is, by its name and its words."""
    return path.name.endswith(".weights.h5") and LAYERS_BEFORE not in file


def copy(file: Any, path: Path) -> None:
    """Write the open file to `path` in today's words."""
    with h5py.File(path, "w") as new:

        def take(name: str, item: Any) -> None:
            today = name.replace(LAYERS_BEFORE, LAYERS)
            if isinstance(item, h5py.Dataset):
                new.create_dataset(today, data=item[()])
            else:
                new.require_group(today).attrs.update(item.attrs)

        file.visititems(take)


def _holds_arrays(group: Any) -> bool:
    found = group.visititems(lambda _, item: True if isinstance(item, h5py.Dataset) else None)
    return found is True or isinstance(group, h5py.Dataset)
