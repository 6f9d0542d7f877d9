"""What the leaves of a forest prove: that it answers probabilities, whatever the rows."""

from __future__ import annotations

import numpy as np
import onnx

from .index import attribute

_SUM_TOLERANCE = 1e-4
_BINARY = 2


def leaves_are_distributions(node: onnx.NodeProto, classes: int) -> bool:
    """Return True if the weights of a forest prove that it answers probabilities.

    That is so if no weight is negative, all leaves of a tree have the same sum, and these sums
    add up to 1, as in a forest of scikit-learn's. Of two classes it has the weights of the second
    one alone: ONNX Runtime then adds 1 - p.
    """
    names = ("class_treeids", "class_nodeids", "class_ids", "class_weights")
    lists = [attribute(node, name) for name in names]
    has_base = any(attribute(node, name) for name in ("base_values", "base_values_as_tensor"))
    if has_base or not all(isinstance(each, list) and each for each in lists):
        return False
    trees, nodes, ids, weights = (np.asarray(each) for each in lists)
    if not len(trees) == len(nodes) == len(ids) == len(weights) or weights.dtype.kind != "f":
        return False
    if not (weights >= 0).all():
        return False
    leaves, of_leaf = np.unique(np.stack([trees, nodes]), axis=1, return_inverse=True)
    sums = np.bincount(of_leaf.ravel(), weights=weights)
    _, of_tree = np.unique(leaves[0], return_inverse=True)
    largest, smallest = np.zeros(of_tree.max() + 1), np.full(of_tree.max() + 1, np.inf)
    np.maximum.at(largest, of_tree, sums)
    np.minimum.at(smallest, of_tree, sums)
    if classes == _BINARY and not ids.any():
        return bool(largest.sum() <= 1 + _SUM_TOLERANCE)
    if len(np.unique(ids)) != classes:
        return False
    alike = np.abs(largest - smallest).max() <= _SUM_TOLERANCE / len(largest)
    return bool(alike and abs(largest.sum() - 1) <= _SUM_TOLERANCE)
