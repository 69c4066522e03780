"""Models of one operator each, over the values of its attributes and the types of its inputs.

Usage: python make_operators.py     (writes operators/)
"""

import re
import shutil

import numpy as np
import onnxruntime
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from common import ROOT, SEED, build_graph, save_case

FOLDER = ROOT / "operators"
ROWS = 48
POST_TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]

# Values at which operators part: none, infinite, either zero, and those that float32 cannot tell from their neighbour.
FLOAT_TRAPS = [np.nan, np.inf, -np.inf, -0.0, 0.0, 2.0**24 + 2, -(2.0**24) - 2, 1e-40]
INT_TRAPS = [2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31), 0]


def case(name, nodes, inputs, initializers=(), opset=17, ml=3, kinds=None, dry=False):
    """Saves a model of the nodes, unless onnxruntime refuses it. The inputs are arrays by name, or one array, `x`.

    The outputs of the model are those of the nodes that no node takes, of the type and shape that come out. A dry run
    saves nothing and returns why the model is refused.
    """
    nodes = nodes if isinstance(nodes, list) else [nodes]
    taken = {value for node in nodes for value in node.input}
    inputs = inputs if isinstance(inputs, dict) else {"x": inputs}
    inputs = {key: array for key, array in inputs.items() if key in taken}
    names = [value for node in nodes for value in node.output if value not in taken]
    signature = {key: (element_type(array), ["N", *array.shape[1:]]) for key, array in inputs.items()}
    build = lambda outputs: build_graph(nodes, signature, outputs, initializers, opset, [("ai.onnx.ml", ml)])

    untyped = build({})
    untyped.graph.output.extend(ValueInfoProto(name=output) for output in names)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        values = onnxruntime.InferenceSession(untyped.SerializeToString(), options).run(None, inputs)
    except Exception as error:
        reason = re.split(r"was false\. |: ", str(error).strip().splitlines()[0])[-1]
        return reason if dry else print(f"{name} is refused: {reason}")
    if dry:
        return None
    count = len(next(iter(inputs.values())))
    assert all(value.ndim and len(value) == count and value.size for value in values), f"{name}: outputs without rows"
    model = build({output: (element_type(value), ["N", *value.shape[1:]]) for output, value in zip(names, values)})

    array = next(iter(inputs.values()))
    if len(inputs) > 1 or array.ndim == 1:
        form, columns = "columns", inputs
    elif array.ndim > 2:
        form, columns = "list", inputs
    else:
        form, columns = "matrix", {f"x{i}": column for i, column in enumerate(array.T)}
    save_case(name, model, columns, form, kinds, FOLDER)


def variants(name, nodes, inputs, constants=None, **options):
    """Saves a model of those of the nodes (each alone, or a list of a node and those it needs) that are not refused.

    `constants` are arrays by name.
    """
    groups = [group if isinstance(group, list) else [group] for group in nodes]
    constants = [numpy_helper.from_array(np.array(values), key) for key, values in (constants or {}).items()]
    used = lambda group: [constant for constant in constants if any(constant.name in node.input for node in group)]
    accepted, refused = [], {}
    for group in groups:
        reason = case(name, group, inputs, used(group), dry=True, **options)
        if reason:
            refused.setdefault(reason, []).append(group[-1].output[0])
        else:
            accepted += group
    for reason, outputs in refused.items():
        print(f"{name}: {len(outputs)} of {len(groups)} refused ({', '.join(outputs)}): {reason}")
    if accepted:
        case(name, accepted, inputs, used(accepted), **options)


def element_type(array):
    return TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)


def ml_node(operator, output="y", inputs="x", **attributes):
    attributes = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_node(operator, inputs.split(), output.split(), domain="ai.onnx.ml", **attributes)


def tensor(values, dtype, name="tensor"):
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


# Data.


def random(*key):
    """The same numbers for the same key, whatever was made before."""
    return np.random.default_rng([SEED, *"".join(map(str, key)).encode()])


def rows(key, dtype=np.float32, width=3, grid=(-1.5, -1, 0, 0.5, 1, 2), count=ROWS):
    """Values of the grid and close to it, traps and others. The last rows are the first one again."""
    rng = random("rows", key)
    shape = count, width
    exact = rng.choice(np.array(grid, dtype=np.float64), shape)
    values = [exact, exact, np.nextafter(exact.astype(np.float32), np.float32(np.inf)), rng.normal(0, 2, shape)]
    if np.issubdtype(dtype, np.integer):
        exact = np.clip(np.nan_to_num(exact), -(2**31), 2**31 - 1)
        values = [np.trunc(value) for value in [exact, exact, exact, 2 * values[-1]]]
        traps = INT_TRAPS
    else:
        traps = FLOAT_TRAPS
    which = rng.integers(0, 5, shape)
    result = np.choose(which, [*values, rng.choice(np.array(traps, dtype=np.float64), shape)])
    result[-3:] = result[0]
    return result.astype(dtype)


# Trees. A leaf is a list of (target, weight), another node (feature, threshold, mode, tracks, if true, if false).


MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
GRID = (-1.5, -1, 0, 0.5, 1, 2)


def random_tree(rng, leaves, weigh, modes=("BRANCH_LEQ",), grid=GRID, tracks=(0,), features=3):
    """`weigh` makes a leaf."""
    if leaves == 1:
        return weigh(rng)
    left = int(rng.integers(1, leaves))
    split = int(rng.integers(features)), float(rng.choice(grid)), str(rng.choice(modes)), int(rng.choice(tracks))
    branches = [random_tree(rng, count, weigh, modes, grid, tracks, features) for count in (left, leaves - left)]
    return *split, *branches


def random_trees(key, weigh, leaves=8, trees=3, **options):
    rng = random("trees", key)
    return [random_tree(rng, leaves, weigh, **options) for _ in range(trees)]


def one_weight(target=0, low=-1.0, high=1.0):
    """A leaf of one weight, which is a multiple of an eighth so that there are ties."""
    return lambda rng: [(target, int(rng.integers(8 * low, 8 * high + 1)) / 8)]


def all_weights(targets, low=-1.0, high=1.0):
    return lambda rng: [(target, int(rng.integers(8 * low, 8 * high + 1)) / 8) for target in range(targets)]


def some_weights(targets):
    """A leaf that may mention a target twice, or none."""
    return lambda rng: [(int(rng.integers(targets)), float(rng.normal())) for _ in range(rng.integers(0, targets + 1))]


def fine_weights(targets):
    """Weights whose sum depends on the order."""
    return lambda rng: [(target, float(rng.normal() * 10.0 ** rng.integers(-3, 4))) for target in range(targets)]


def tree_attributes(trees, kind, dtype=np.float32, tree_ids=None, scrambled=None, tracks=True):
    """The attributes of the operators before version 5; `kind` is "class" or "target".

    `scrambled` is a random generator: the nodes come in another order and with other ids, but the root first.
    """
    nodes, weights = [], []
    for tree, tree_id in zip(trees, tree_ids or range(len(trees))):
        flat = flatten(tree)
        ids = np.arange(len(flat))
        order = ids
        if scrambled:
            ids = scrambled.permutation(ids)
            order = [0, *(1 + scrambled.permutation(len(flat) - 1))]
        for i in order:
            node, (if_true, if_false) = flat[i]
            if isinstance(node, list):
                nodes.append((tree_id, ids[i], 0, 0.0, "LEAF", 0, 0, 0))
                weights += [(tree_id, ids[i], *weight) for weight in node]
            else:
                feature, threshold, mode, missing = node
                nodes.append((tree_id, ids[i], feature, threshold, mode, missing, ids[if_true], ids[if_false]))
    fields = "treeids nodeids featureids values modes missing_value_tracks_true truenodeids falsenodeids"
    attributes = {f"nodes_{field}": list(values) for field, values in zip(fields.split(), zip(*nodes))}
    fields = "treeids nodeids ids weights".split()
    attributes |= {f"{kind}_{field}": list(values) for field, values in zip(fields, zip(*weights))}
    if not tracks:
        del attributes["nodes_missing_value_tracks_true"]
    if dtype == np.float64:
        for field in ("nodes_values", f"{kind}_weights"):
            attributes[f"{field}_as_tensor"] = tensor(attributes.pop(field), dtype)
    return {key: integers(value) for key, value in attributes.items()}


def integers(values):
    return [int(value) for value in values] if isinstance(values, list) and is_integer(values[0]) else values


def is_integer(value):
    return isinstance(value, (int, np.integer))


def flatten(tree):
    """The nodes in preorder, each with the positions of its branches."""
    flat = []

    def add(node):
        position = len(flat)
        flat.append((node, (0, 0)))
        if not isinstance(node, list):
            flat[position] = node[:4], (add(node[4]), add(node[5]))
        return position

    add(tree)
    return flat


def regressor(name, trees, x=None, targets=1, **options):
    names = "dtype", "tree_ids", "scrambled", "tracks"
    shape = {key: options.pop(key) for key in names if key in options}
    if shape.get("dtype") == np.float64 and "base_values" in options:
        options["base_values_as_tensor"] = tensor(options.pop("base_values"), np.float64)
    attributes = tree_attributes(trees, "target", **shape) | options
    node = ml_node("TreeEnsembleRegressor", n_targets=targets, **attributes)
    case(f"tree_regressor_{name}", node, rows(name) if x is None else x)


def save_tree_modes():
    for mode in MODES:
        short = mode[7:].lower()
        trees = random_trees(short, one_weight(), modes=[mode])
        regressor(f"{short}", trees, tracks=False)
        trees = random_trees(f"{short}_missing", one_weight(), modes=[mode], tracks=[0, 1])
        regressor(f"{short}_missing_mixed", trees)
    trees = random_trees("mixed", one_weight(), leaves=16, modes=MODES)
    regressor("mixed", trees, tracks=False)
    regressor("mixed_missing_none", trees)
    for key, tracks in (("all", [1]), ("mixed", [0, 1])):
        trees = random_trees("mixed", one_weight(), leaves=16, modes=MODES, tracks=tracks)
        regressor(f"mixed_missing_{key}", trees)


def save_tree_aggregates():
    bases = {1: [None, [0.25]], 3: [None, [0.25], [0.25, -0.5, 1.0]]}
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        for targets in (1, 3):
            for base in bases[targets]:
                trees = random_trees(f"aggregate{targets}", all_weights(targets) if targets == 1 else some_weights(3))
                options = {"aggregate_function": aggregate, "base_values": base}
                name = f"{aggregate.lower()}_{targets}_targets_{len(base or [])}_base"
                regressor(name, trees, targets=targets, **options)
    for transform in POST_TRANSFORMS:
        for targets in (1, 3) if transform in ("SOFTMAX", "PROBIT") else (3,):
            # PROBIT takes numbers between 0 and 1.
            trees = random_trees(f"transform{targets}", all_weights(targets, 0 if transform == "PROBIT" else -1, 0.4))
            regressor(f"{transform.lower()}_{targets}_targets", trees, targets=targets, post_transform=transform)
    for transform in ("SOFTMAX", "SOFTMAX_ZERO"):
        trees = random_trees("transform_some", some_weights(3))
        regressor(f"{transform.lower()}_some_weights", trees, targets=3, post_transform=transform)


def save_tree_shapes():
    single = [(0, 0.75)]
    regressor("single_leaf", [single])
    regressor("single_leaf_and_trees", [single, *random_trees("single", one_weight()), single])
    chain = single
    for depth in range(30):
        leaf = [(0, depth / 8)]
        split = depth % 3, depth / 8 - 2, "BRANCH_LEQ", 0
        chain = (*split, leaf, chain) if depth % 2 else (*split, chain, leaf)
    regressor("chain", [chain])
    for leaves in (40, 100, 300):
        grid = random("grid", leaves).normal(0, 1.5, leaves).astype(np.float32)
        trees = random_trees(f"leaves{leaves}", fine_weights(1), leaves=leaves, trees=2, grid=grid)
        regressor(f"{leaves}_leaves", trees, rows(leaves, grid=grid, count=120))
    trees = random_trees("many", fine_weights(1), leaves=8, trees=60)
    regressor("60_trees", trees)
    grid = (np.arange(290) / 8 - 18).astype(np.float32)

    def balanced(low, high):
        """A tree over one feature in which each threshold counts."""
        if low == high:
            return [(0, low / 4)]
        middle = (low + high) // 2
        return 1, float(grid[middle]), "BRANCH_LEQ", 0, balanced(low, middle), balanced(middle + 1, high)

    regressor("290_thresholds", [balanced(0, 290 - 1)], rows("thresholds", grid=grid, count=200))
    trees = random_trees("ids", one_weight(), leaves=12)
    regressor("tree_ids", trees, tree_ids=[3, 7, 20])
    regressor("tree_ids_descending", trees, tree_ids=[20, 7, 3])
    regressor("scrambled", trees, scrambled=random("order"))
    grid = (np.inf, -np.inf, 0.0, -0.0, np.nan)
    for key, modes in (("leq", MODES[:1]), ("mixed", MODES)):
        trees = random_trees(f"infinite{key}", one_weight(), leaves=12, modes=modes, grid=grid[:4], tracks=[0, 1])
        regressor(f"infinite_{key}", trees)
    trees = random_trees("nan", one_weight(), leaves=12, modes=MODES, grid=grid)
    regressor("nan_thresholds", trees)
    regressor("zero_weights", random_trees("zero", lambda rng: [(0, float(rng.choice([0, -0.0, 1])))]))
    regressor("huge_weights", random_trees("huge", lambda rng: [(0, float(rng.choice([3e38, -3e38, 1])))]))
    regressor("several_weights", random_trees("several", some_weights(3)), targets=3)
    regressor("unmentioned_target", random_trees("unmentioned", some_weights(2)), targets=4)
    maybe = lambda rng: one_weight()(rng) * int(rng.integers(2))
    for aggregate in ("SUM", "MIN"):
        trees = random_trees("maybe", maybe)
        regressor(f"leaf_without_weight_{aggregate.lower()}", trees, aggregate_function=aggregate)
    regressor("twice_in_a_leaf", random_trees("twice", lambda rng: one_weight()(rng) + one_weight()(rng)))
    # Chains of equalities with whole numbers, as of a categorical feature.
    sets = lambda numbers, hit, miss: miss if not numbers else (
        0, float(numbers[0]), "BRANCH_EQ", 0, hit, sets(numbers[1:], hit, miss)
    )
    trees = [
        sets([2, 5, 7], [(0, 1.0)], sets([1, 31, 32, 33, 63, 64, 65], [(0, 2.0)], [(0, 4.0)])),
        sets([0, -1, 3, 3.5], [(0, 8.0)], [(0, 16.0)]),
    ]
    regressor("equal_chain", trees, rows("sets", grid=(0, -1, 1, 2, 3, 3.5, 5, 7, 31, 32, 33, 63, 64, 65), width=1))


def save_tree_types():
    fine = (0.1, 1 / 3, -0.7, 2.0**24 + 1)
    for dtype in (np.float32, np.float64, np.int64, np.int32):
        x = rows(f"types{dtype.__name__}", dtype, grid=(*fine, 1, 2, 2**24))
        grid = (1.0, 2.0, 2.0**24, 0.1, -0.7)
        for targets in (1, 3):
            trees = random_trees(f"types{targets}", fine_weights(targets), grid=grid, tracks=[0, 1])
            regressor(f"{dtype.__name__}_{targets}_targets", trees, x, targets)
    x = rows("double", np.float64, grid=fine)
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        for targets in (1, 3) if aggregate == "SUM" else (3,):
            trees = random_trees("double", fine_weights(targets), grid=fine, modes=MODES, tracks=[0, 1])
            options = {"dtype": np.float64, "aggregate_function": aggregate, "base_values": [0.1] * targets}
            regressor(f"tensors_{aggregate.lower()}_{targets}_targets", trees, x, targets, **options)
    for transform in POST_TRANSFORMS[1:]:
        trees = random_trees("double_transform", all_weights(3, 0, 0.4), grid=fine)
        regressor(f"tensors_{transform.lower()}", trees, x, 3, dtype=np.float64, post_transform=transform)


def classifier(name, trees, labels, x=None, **options):
    shape = {key: options.pop(key) for key in ("dtype", "tracks") if key in options}
    if shape.get("dtype") == np.float64 and "base_values" in options:
        options["base_values_as_tensor"] = tensor(options.pop("base_values"), np.float64)
    kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    attributes = tree_attributes(trees, "class", **shape) | {kind: labels} | options
    node = ml_node("TreeEnsembleClassifier", "label scores", **attributes)
    case(f"tree_classifier_{name}", node, rows(name) if x is None else x, kinds={"label": "label"})


# By key: the labels, and what makes a leaf.
CLASSES = {
    "one_id_positive": ([0, 1], one_weight(0, 0, 0.5)),
    "one_id_mixed": ([0, 1], one_weight(0)),
    "one_id_negative": ([0, 1], one_weight(0, -1, -0.125)),
    "id_1_positive": ([0, 1], one_weight(1, 0, 0.5)),
    "id_1_mixed": ([0, 1], one_weight(1)),
    "id_1_negative": ([0, 1], one_weight(1, -1, -0.125)),
    "two_ids_positive": ([0, 1], all_weights(2, 0, 0.5)),
    "two_ids_mixed": ([0, 1], all_weights(2)),
    "two_ids_some": ([0, 1], some_weights(2)),
    "three_positive": ([0, 1, 2], all_weights(3, 0, 0.5)),
    "three_mixed": ([0, 1, 2], all_weights(3)),
    "three_negative": ([0, 1, 2], all_weights(3, -1, -0.125)),
    "three_some": ([0, 1, 2], some_weights(3)),
    "three_one_id": ([0, 1, 2], one_weight(1)),
    "single_positive": ([4], one_weight(0, 0, 0.5)),
    "single_mixed": ([4], one_weight(0)),
    "single_negative": ([4], one_weight(0, -1, -0.125)),
}
ALL_TRANSFORMS = {"one_id_mixed", "id_1_positive", "two_ids_mixed", "three_mixed", "single_mixed"}


def save_tree_classifiers():
    for key, (labels, weigh) in CLASSES.items():
        trees = random_trees(f"classes{key}", weigh)
        transforms = POST_TRANSFORMS if key in ALL_TRANSFORMS else ["NONE", "LOGISTIC"][: 1 if "negative" in key else 2]
        # Of two scores PROBIT writes the first alone, if there is no second; the other is whatever was in memory.
        for transform in transforms[:4] if key == "one_id_mixed" else transforms:
            classifier(f"{key}_{transform.lower()}", trees, labels, post_transform=transform)
    bases = {
        "one_id_mixed": ([0.25], [0.25, -0.5]),
        "id_1_positive": ([0.25], [0.25, -0.5]),
        "two_ids_mixed": ([0.25], [0.25, -0.5]),
        # With one base value and no weight for the second class in a row, its score is whatever was in memory.
        "two_ids_some": ([0.25, -0.5],),
        "three_some": ([0.25], [0.25, -0.5, 1.0]),
        "single_mixed": ([0.25],),
    }
    for key, values in bases.items():
        labels, weigh = CLASSES[key]
        trees = random_trees(f"classes{key}", weigh)
        for base in values:
            transform = "LOGISTIC" if len(base) == 1 else "NONE"
            name = f"{key}_{len(base)}_base_{transform.lower()}"
            classifier(name, trees, labels, base_values=base, post_transform=transform)
    # A word for a single class that gets a score above zero ends the process.
    for key in ("one_id_mixed", "id_1_positive", "two_ids_mixed", "three_mixed", "single_negative"):
        labels, weigh = CLASSES[key]
        trees = random_trees(f"classes{key}", weigh)
        classifier(f"{key}_strings", trees, ["", "no", "yes"][-len(labels) :])
        if key in ("id_1_positive", "three_mixed"):
            classifier(f"{key}_other_labels", trees, [7, -3, 2**40][: len(labels)])
    empty_word = random_trees("empty word", all_weights(3))
    classifier("three_empty_word", empty_word, ["b", "", "a"])
    for dtype in (np.float32, np.float64, np.int64, np.int32):
        x = rows(f"types{dtype.__name__}", dtype, grid=(0.1, -0.7, 1, 2, 2**24))
        for key in ("id_1_mixed", "three_mixed"):
            labels, weigh = CLASSES[key]
            trees = random_trees(f"types{key}", weigh, grid=(1.0, 2.0, 2.0**24, 0.1, -0.7), tracks=[0, 1])
            classifier(f"{key}_{dtype.__name__}", trees, labels, x)
    fine = (0.1, 1 / 3, -0.7, 2.0**24 + 1)
    for key in ("one_id_mixed", "id_1_positive", "two_ids_mixed", "three_mixed"):
        labels, weigh = CLASSES[key]
        trees = random_trees(f"tensors{key}", weigh, grid=fine, modes=MODES, tracks=[0, 1])
        x = rows("double", np.float64, grid=fine)
        classifier(f"{key}_tensors", trees, labels, x, dtype=np.float64)
        options = {"base_values": [0.1] * len(labels), "post_transform": "LOGISTIC"}
        classifier(f"{key}_tensors_base_logistic", trees, labels, x, dtype=np.float64, **options)
    trees = random_trees("classifier modes", all_weights(3), leaves=16, modes=MODES, tracks=[0, 1])
    classifier("mixed_missing", trees, [0, 1, 2])
    classifier("60_trees", random_trees("classifier many", fine_weights(3), trees=60), [0, 1, 2])
    classifier("40_leaves", random_trees("classifier leaves", fine_weights(2), leaves=40), ["no", "yes"])
    classifier("single_leaf", [[(0, 0.25), (1, 0.5), (2, 0.5)]], [0, 1, 2])
    classifier("single_leaf_binary", [[(1, 0.5)]], [0, 1])
    classifier("infinite_weights", random_trees("infinite", lambda rng: [(int(rng.integers(3)), np.inf)]), [0, 1, 2])


# TreeEnsemble, which took the place of both in version 5. A leaf has one weight; a MEMBER's threshold is a set.


def ensemble_attributes(trees, dtype, tracks):
    splits, leaves, members, roots = [], [], [], []

    def add(node):
        """The position of the node, and whether it is a leaf."""
        if isinstance(node, list):
            leaves.extend(node)
            return len(leaves) - 1, 1
        feature, threshold, mode, missing, *branches = node
        position = len(splits)
        splits.append(None)
        if isinstance(threshold, tuple):
            members.extend([*threshold, np.nan])
            threshold, mode = 0, "BRANCH_MEMBER"
        found = [add(branch) for branch in branches]
        splits[position] = feature, threshold, mode, missing, *found[0], *found[1]
        return position, 0

    for tree in trees:
        # A tree that is a leaf is a node with that leaf on both sides.
        roots.append(add((0, 0.0, "BRANCH_LEQ", 0, tree, tree) if isinstance(tree, list) else tree)[0])
    features, thresholds, modes, missing, if_true, true_leaf, if_false, false_leaf = zip(*splits)
    return {
        "nodes_featureids": features,
        "nodes_splits": tensor(thresholds, dtype),
        "nodes_modes": tensor([[*MODES, "BRANCH_MEMBER"].index(mode) for mode in modes], np.uint8),
        "nodes_missing_value_tracks_true": missing if tracks else None,
        "nodes_truenodeids": if_true,
        "nodes_trueleafs": true_leaf,
        "nodes_falsenodeids": if_false,
        "nodes_falseleafs": false_leaf,
        "leaf_targetids": [target for target, _ in leaves],
        "leaf_weights": tensor([weight for _, weight in leaves], dtype),
        "membership_values": tensor(members, dtype) if members else None,
        "tree_roots": roots,
    }


def ensemble(name, trees, x=None, targets=1, dtype=np.float32, tracks=True, **options):
    attributes = ensemble_attributes(trees, dtype, tracks) | {"n_targets": targets} | options
    x = rows(name, dtype) if x is None else x
    case(f"tree_ensemble_{name}", ml_node("TreeEnsemble", **attributes), x, opset=21, ml=5)


def save_tree_ensembles():
    for mode in MODES:
        short = mode[7:].lower()
        trees = random_trees(f"ensemble{short}", one_weight(), modes=[mode], tracks=[0, 1])
        ensemble(f"{short}_missing", trees)
    trees = random_trees("ensemble", one_weight(), leaves=16, modes=MODES, tracks=[0, 1])
    ensemble("mixed", trees)
    ensemble("mixed_no_missing", trees, tracks=False)
    ensemble("mixed_double", trees, dtype=np.float64)
    wide = lambda low, high: lambda rng: [(int(rng.integers(3)), int(rng.integers(8 * low, 8 * high + 1)) / 8)]
    for number, aggregate in enumerate(["average", "sum", "min", "max"]):
        for targets in (1, 3):
            trees = random_trees(f"ensemble{aggregate}", fine_weights(1) if targets == 1 else wide(-1, 1), trees=5)
            ensemble(f"{aggregate}_{targets}_targets", trees, targets=targets, aggregate_function=number)
    trees = random_trees("ensemble double", wide(-1, 1), grid=(0.1, 1 / 3, -0.7, 2.0**24 + 1))
    x = rows("double", np.float64, grid=(0.1, 1 / 3, -0.7, 2.0**24 + 1))
    ensemble("sum_double", trees, x, 3, np.float64, aggregate_function=1)
    for number, transform in enumerate(["none", "softmax", "logistic", "softmax_zero", "probit"]):
        for targets in (1, 3) if transform in ("softmax", "probit") else (3,):
            low = 0 if transform == "probit" else -1
            weigh = one_weight(0, low, 0.4) if targets == 1 else wide(low, 0.4)
            trees = random_trees(f"ensemble{targets}{number}", weigh)
            ensemble(f"{transform}_{targets}_targets", trees, targets=targets, post_transform=number)
    numbers = (0, -1, 1, 2, 3, 3.5, 4, 5, 7, 31, 32, 33, 63, 64, 65)
    for dtype in (np.float32, np.float64):
        # Of a fraction onnxruntime takes the whole part for a member of a large set, other than the specification.
        x = rows(f"members{dtype.__name__}", dtype, grid=numbers)
        x = np.trunc(x)
        small = (0, (1.0, 2.0, 5.0), "", 0, [(0, 1.0)], (1, (3.0,), "", 1, [(0, 2.0)], [(0, 4.0)]))
        large = (0, (-1.0, 0.0, 4.0, 31.0, 32.0, 33.0, 63.0, 64.0, 65.0), "", 1, [(0, 8.0)], [(0, 16.0)])
        mixed = (2, 1.0, "BRANCH_LT", 0, (0, (7.0, 32.0), "", 0, [(0, 32.0)], [(0, 64.0)]), [(0, 128.0)])
        for key, trees in {"small": [small], "large": [large], "mixed": [small, large, mixed]}.items():
            ensemble(f"member_{key}_{dtype.__name__}", trees, x, dtype=dtype)
    ensemble("single_leaf", [[(0, 0.75)], *random_trees("ensemble single", one_weight())])
    ensemble("40_leaves", random_trees("ensemble leaves", fine_weights(1), leaves=40, modes=MODES, tracks=[0, 1]))
    ensemble("20_trees", random_trees("ensemble trees", fine_weights(1), trees=20))
    for dtype in (np.int64, np.int32):
        ensemble(dtype.__name__, random_trees("ensemble types", one_weight()), rows("ensemble", dtype))


# The other operators of ai.onnx.ml.


DTYPES = [np.float32, np.float64, np.int64, np.int32]


def save_linear():
    classes = {
        "binary_1": ([0, 1], 1),
        "binary_2": ([0, 1], 2),
        "three": ([5, -2, 9], 3),
    }
    for key, (labels, count) in classes.items():
        rng = random("linear", key)
        coefficients = rng.choice([-1, -0.5, 0.25, 0.5, 1], 3 * count)
        intercepts = rng.choice([-0.5, 0.5], count)

        def save(suffix, x=None, **options):
            kind = "classlabels_strings" if "strings" in suffix else "classlabels_ints"
            words = ["b", "", "a"][: len(labels)]
            options = {"intercepts": intercepts, kind: words if "strings" in suffix else labels} | options
            node = ml_node("LinearClassifier", "label scores", coefficients=coefficients, **options)
            x = rows(f"linear{key}") if x is None else x
            case(f"linear_classifier_{key}_{suffix}", node, x, kinds={"label": "label"})

        # Of one score PROBIT writes the first of two; the other is whatever was in memory.
        for transform in POST_TRANSFORMS[:4] if count == 1 else POST_TRANSFORMS:
            save(transform.lower(), post_transform=transform)
        save("multi_class", multi_class=1, post_transform="LOGISTIC")
        save("strings")
        save("no_intercepts", intercepts=None)
        if key != "binary_2":
            for dtype in DTYPES[1:3] if count == 1 else DTYPES[1:]:
                save(dtype.__name__, rows("linear", dtype), post_transform="LOGISTIC")

    for targets in (1, 3):
        rng = random("linear regressor", targets)
        coefficients, intercepts = rng.normal(0, 0.5, 3 * targets), rng.normal(0, 0.5, targets)
        for dtype in DTYPES:
            nodes = [
                ml_node("LinearRegressor", transform.lower(), coefficients=coefficients, intercepts=intercepts,
                        targets=targets, post_transform=transform)
                for transform in POST_TRANSFORMS
            ]  # fmt: skip
            nodes.append(ml_node("LinearRegressor", "no_intercepts", coefficients=coefficients, targets=targets))
            variants(f"linear_regressor_{targets}_{dtype.__name__}", nodes, rows(f"linear{targets}", dtype))


KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]


def save_svm():
    for key, labels, supports in (("binary", [0, 1], [4, 3]), ("three", [2, 0, 7], [3, 2, 4])):
        rng = random("svm", key)
        count, pairs = len(labels), len(labels) * (len(labels) - 1) // 2
        machine = {
            "kernel_params": [0.5, 0.25, 3.0],
            "vectors_per_class": supports,
            "support_vectors": rng.choice([-1.5, -1, 0, 0.5, 1, 2], 3 * sum(supports)),
            "coefficients": rng.normal(0, 1, (count - 1) * sum(supports)),
            "rho": rng.normal(0, 0.5, pairs),
        }
        probabilities = {"prob_a": rng.normal(-1, 0.2, pairs), "prob_b": rng.normal(0, 0.2, pairs)}
        linear = {"coefficients": rng.normal(0, 1, count * 3), "rho": rng.normal(0, 0.5, count)}
        linear["kernel_params"] = [1.0, 0.0, 0.0]
        x = rows(f"svm{key}")

        def save(suffix, x=x, **options):
            kind = "classlabels_strings" if "strings" in suffix else "classlabels_ints"
            words = ["b", "", "a"][: len(labels)]
            options = {"kernel_type": "RBF", kind: words if "strings" in suffix else labels} | options
            node = ml_node("SVMClassifier", "label scores", **options)
            case(f"svm_classifier_{key}_{suffix}", node, x, kinds={"label": "label"})

        for kernel in KERNELS:
            save(kernel.lower(), kernel_type=kernel, **machine)
            if kernel in ("RBF", "SIGMOID"):
                save(f"{kernel.lower()}_probabilities", kernel_type=kernel, **machine, **probabilities)
        # Of one score PROBIT writes the first of two; the other is whatever was in memory.
        for transform in POST_TRANSFORMS[1:4] if count == 2 else POST_TRANSFORMS[1:]:
            save(transform.lower(), post_transform=transform, **machine)
        for transform in ("SOFTMAX", "LOGISTIC"):
            save(f"linear_mode_{transform.lower()}", post_transform=transform, kernel_type="LINEAR", **linear)
        save("probabilities_softmax", post_transform="SOFTMAX", **machine, **probabilities)
        save("strings", **machine)
        save("linear_mode", kernel_type="LINEAR", **linear)
        for dtype in DTYPES[1:3]:
            save(dtype.__name__, rows("svm", dtype), **machine)

    rng = random("svm regressor")
    machine = {"kernel_params": [0.5, 0.25, 3.0], "n_supports": 5, "rho": [0.25]}
    machine |= {"support_vectors": rng.choice([-1.5, -1, 0, 0.5, 1, 2], 15), "coefficients": rng.normal(0, 1, 5)}
    linear = {"kernel_type": "LINEAR", "coefficients": rng.normal(0, 1, 3), "rho": [0.25], "kernel_params": [1.0, 0, 0]}
    for dtype in DTYPES:
        nodes = [ml_node("SVMRegressor", "linear_mode", **linear)]
        nodes.append(ml_node("SVMRegressor", "linear_mode_one_class", one_class=1, **linear))
        for kernel in KERNELS:
            nodes.append(ml_node("SVMRegressor", kernel.lower(), kernel_type=kernel, **machine))
            options = {"kernel_type": kernel, "one_class": 1}
            nodes.append(ml_node("SVMRegressor", f"{kernel.lower()}_one_class", **options, **machine))
        for transform in POST_TRANSFORMS[1:]:
            options = {"kernel_type": "LINEAR", "post_transform": transform}
            nodes.append(ml_node("SVMRegressor", transform.lower(), **options, **machine))
        variants(f"svm_regressor_{dtype.__name__}", nodes, rows("svm regressor", dtype))


def save_preparations():
    for dtype in DTYPES:
        x, kind = rows("prepare", dtype), dtype.__name__
        scalers = [
            ml_node("Scaler", "each", offset=[0.5, -1.0, 0.0], scale=[2.0, 0.1, -1.0]),
            ml_node("Scaler", "one", offset=[0.5], scale=[0.1]),
            ml_node("Scaler", "offset_one", offset=[0.5], scale=[2.0, 0.1, -1.0]),
            ml_node("Scaler", "no_offset", scale=[2.0, 0.1, -1.0]),
            ml_node("Scaler", "no_scale", offset=[0.5, -1.0, 0.0]),
        ]
        variants(f"scaler_{kind}", scalers, x)
        some_zero = x.copy()
        some_zero[3:6], some_zero[6:9], some_zero[9] = 0, -abs(some_zero[6:9]), [-1, 2, -2]
        if dtype == np.int32:
            some_zero = np.clip(some_zero, -30_000, 30_000)  # whose squares fit
        normalizers = [ml_node("Normalizer", norm.lower(), norm=norm) for norm in ("MAX", "L1", "L2")]
        variants(f"normalizer_{kind}", normalizers, some_zero)
        # A NaN fails the run.
        binarizers = [ml_node("Binarizer", key, threshold=value) for key, value in
                      {"none": None, "half": 0.5, "negative": -1.0, "nan": np.nan}.items()]  # fmt: skip
        variants(f"binarizer_{kind}", binarizers, no_nan(x))
        imputers = []
        for values, count in (("each", 3), ("one", 1)):
            for key, value in {"nan": np.nan, "zero": 0.0, "half": 0.5, "inf": np.inf, "absent": None}.items():
                imputed = {"imputed_value_floats": [10.0, 20.0, 30.0][:count], "replaced_value_float": value}
                imputers.append(ml_node("Imputer", f"{values}_{key}", **imputed))
            for key, value in {"one": 1, "large": 2**24 + 1, "absent": None}.items():
                imputed = {"imputed_value_int64s": [10, 20, 30][:count], "replaced_value_int64": value}
                imputers.append(ml_node("Imputer", f"{values}_{key}_whole", **imputed))
        variants(f"imputer_{kind}", imputers, x)


WORDS = ["a", "b", "", "Zürich", "unknown", "A", "a "]


def words(key, width=2, known=None):
    return random("words", key).choice(np.array(known or WORDS, dtype=object), (ROWS, width))


def save_categories():
    known = {"cats_strings": ["b", "", "a", "Zürich"]}, {"cats_int64s": [3, 0, -1, 2**24 + 1]}
    texts = {"text": words("one hot"), "text_known": words("known", known=known[0]["cats_strings"])}
    for key, x in texts.items():
        inputs = {"x": x, "column": x[:, :1], "flat": x[:, 0].copy()}
        nodes = [ml_node("OneHotEncoder", f"{input}_zeros{zeros}", input, zeros=zeros, **known[0])
                 for input in inputs for zeros in ((1,) if key == "text" else (0, 1))]  # fmt: skip
        variants(f"one_hot_{key}", nodes, inputs)
    for dtype in DTYPES:
        numbers = rows("one hot", dtype, grid=(3, 0, -1, 4, 2**24 + 1, 2.9), width=2)
        exact = random("one hot").choice([3, 0, -1, 2**24 + 1], (ROWS, 1)).astype(dtype)
        inputs = {"x": numbers, "flat": numbers[:, 0].copy(), "known": exact}
        # Without zeros a number that is no category fails the run, as 2**24 + 1 in float32.
        exact[exact == 2**24] = 3
        nodes = [ml_node("OneHotEncoder", f"{input}_zeros{zeros}", input, zeros=zeros, **known[1])
                 for input, zeros in (("x", 1), ("flat", 1), ("known", 0), ("known", 1))]  # fmt: skip
        variants(f"one_hot_{dtype.__name__}", nodes, inputs)

    mappers = [ml_node("CategoryMapper", "y", cats_strings=["a", "b", "", "a"], cats_int64s=[1, -2, 3, 4], **options)
               for options in ({"default_int64": 99, "default_string": "none"}, {})]  # fmt: skip
    mappers[1].output[0] = "no_default"
    variants("category_mapper_text", mappers, words("mapper"))
    numbers = random("mapper").choice([1, -2, 3, 4, 5, 99], (ROWS, 2))
    variants("category_mapper_int64", mappers, numbers)

    extract = lambda output, indices: ml_node("ArrayFeatureExtractor", output, f"x {indices}")
    nodes = [extract("one", "first"), extract("some", "several"), extract("all", "twice")]
    constants = {"first": [1], "several": [2, 0], "twice": [0, 1, 2, 2, 0]}
    for x in [*(rows("extract", dtype) for dtype in DTYPES), words("extract", 3)]:
        kind = "text" if x.dtype == object else x.dtype.name
        variants(f"array_feature_extractor_{kind}", nodes, x, constants)

    for dtype in DTYPES:
        inputs = {key: rows(f"vector{key}", dtype, width=width) for key, width in {"a": 2, "b": 1, "c": 3}.items()}
        nodes = [ml_node("FeatureVectorizer", f"y{''.join(map(str, sizes))}", "a b c", inputdimensions=sizes)
                 for sizes in ([2, 1, 3], [1, 1, 2], [3, 2, 3])]  # fmt: skip
        variants(f"feature_vectorizer_{dtype.__name__}", nodes, inputs)


def save_label_encoders():
    texts, numbers = words("labels"), random("labels").choice([0, 1, 2, 3, -1, 2**40], (ROWS, 2))
    first = {"classes_strings": ["b", "a", "", "Zürich"]}
    for key, x in {"text": texts, "int64": numbers}.items():
        nodes = [ml_node("LabelEncoder", "y", default_int64=-7, default_string="none", **first)]
        nodes.append(ml_node("LabelEncoder", "no_default", **first))
        variants(f"label_encoder_1_{key}", nodes, x, ml=1)

    # Pairs of keys and values; a key may be there twice.
    keys = {
        "string": ["b", "a", "", "Zürich", "a"],
        "int64": [0, 3, -1, 2**24 + 1, 3],
        "float": [0.5, np.nan, np.inf, 2.0, 0.5],
        "double": [0.1, np.nan, -np.inf, 2.0**24 + 1, 0.1],
    }
    values = {
        "string": ["x", "", "yes", "no", "last"],
        "int64": [7, 0, -1, 2**40, 8],
        "float": [0.25, np.nan, -np.inf, -0.0, 9.0],
        "double": [0.1, np.nan, -np.inf, 1 / 3, 9.0],
    }
    inputs = {
        "string": texts,
        "int64": np.where(random("keys").integers(0, 3, (ROWS, 2)) < 1, 2**24 + 1, numbers),
        "float": rows("keys", np.float32, 2, grid=(0.5, 2, np.inf, np.nan)),
        "double": rows("keys", np.float64, 2, grid=(0.1, 2.0**24 + 1, np.nan)),
    }
    types = {"string": object, "int64": np.int64, "float": np.float32, "double": np.float64}
    defaults = {"string": "none", "int64": -7, "float": -7.5, "double": -7.1}
    lists = {"string": "strings", "int64": "int64s", "float": "floats"}
    for version in (2, 4):
        for kind, plural in lists.items():
            nodes = []
            for to, to_plural in lists.items():
                pair = {f"keys_{plural}": keys[kind], f"values_{to_plural}": values[to]}
                nodes.append(ml_node("LabelEncoder", f"to_{to}", **pair, **{f"default_{to}": defaults[to]}))
                nodes.append(ml_node("LabelEncoder", f"to_{to}_no_default", **pair))
            variants(f"label_encoder_{version}_{kind}", nodes, inputs[kind], ml=version)
    for kind, x in inputs.items():
        nodes = []
        for to in values:
            pair = {"keys_tensor": tensor(keys[kind], types[kind]), "values_tensor": tensor(values[to], types[to])}
            default = tensor([defaults[to]], types[to])
            nodes.append(ml_node("LabelEncoder", f"to_{to}", **pair, default_tensor=default))
            nodes.append(ml_node("LabelEncoder", f"to_{to}_no_default", **pair))
        variants(f"label_encoder_4_{kind}_tensors", nodes, x, ml=4)


# Standard operators.


def op(text, **attributes):
    """'y = Add x 1' is a node."""
    output, call = text.split(" = ")
    operator, *inputs = call.split()
    inputs = ["" if name == "_" else name for name in inputs]
    return helper.make_node(operator, inputs, output.split(), **attributes)


def ints(*values):
    return np.array(values, np.int64)


def stack(dtype, shape=(2, 3)):
    """[N, a, b]."""
    return rows("stack", dtype, int(np.prod(shape))).reshape(-1, *shape)


TYPES = {"float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32}


def save_casts():
    calm = {key: np.trunc(3 * random("cast").normal(0, 50, (ROWS, 2))).astype(dtype) for key, dtype in TYPES.items()}
    calm["float"] += random("cast float").choice(np.array([0, 0.25, 0.5, 0.75], np.float32), (ROWS, 2))
    calm["double"] += random("cast double").choice([0, 0.1, 0.5, 0.9], (ROWS, 2))
    calm["bool"] = calm["int64"] > 0
    numbers = np.array(["1", "-2.5", "1e3", "0", "-0", "16777217"], object)
    calm["string"] = random("cast text").choice(numbers, (ROWS, 2))
    targets = {key: getattr(TensorProto, key.upper()) for key in [*TYPES, "bool", "string"]}
    targets |= {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
    for kind, x in calm.items():
        nodes = [op(f"to_{to} = Cast x", to=number) for to, number in targets.items() if to != kind]
        if kind == "string":
            # A text that is no whole number fails the run.
            whole = np.array(["1", "-2", "0", "16777217"], object)
            variants("cast_string_whole", nodes[:-2], random("cast whole").choice(whole, (ROWS, 2)))
            odd = ["nan", "-inf", "INF", "Infinity", " 1", "1 ", "+1", "0x10", "1e-50", "1.5abc", "1,5"]
            nodes = nodes[:2]
            variants("cast_string_odd", nodes, random("cast odd").choice(np.array(odd, object), (ROWS, 2)))
        variants(f"cast_{kind}", nodes, x)
    for kind, dtype in TYPES.items():
        # What does not fit a whole number gives what the processor gives, so only the others are here.
        keep = "float", "double", "bool", "int64", "string" if kind in ("int64", "int32") else ""
        nodes = [op(f"to_{to} = Cast x", to=number) for to, number in targets.items() if to in keep and to != kind]
        if kind in ("float", "double"):
            nodes = [node for node in nodes if node.output[0] != "to_int64"]
            nodes.append(op("to_string = Cast x", to=TensorProto.STRING))
        variants(f"cast_{kind}_traps", nodes, rows("cast", dtype, grid=(0.1, 1 / 3, 1e-5, 123456.789, 1e20, 2.5)))


def save_shapes():
    texts = words("shape", 3)
    every = {"f": rows("shape", np.float32), "d": rows("shape", np.float64), "i": rows("shape", np.int64), "s": texts}
    every["b"] = every["i"] > 0
    variants("identity", [op(f"y_{key} = Identity {key}") for key in every], every, opset=9)
    one = {key: value[:, :1] for key, value in every.items()}
    pairs = {**every, **{f"{key}1": value for key, value in one.items()}}
    nodes = [op(f"{key}_out = Concat {key} {key}1 {key}", axis=axis) for key, axis in zip(every, (1, -1, 1, 1, 1))]
    variants("concat", nodes, pairs, opset=11)
    t = stack(np.float32)
    nodes = [op("last = Concat t t", axis=2), op("middle = Concat t t", axis=1), op("negative = Concat t t", axis=-2)]
    nodes.append(op("single = Concat t", axis=1))
    variants("concat_3d", nodes, {"t": t})

    t = {"t": stack(np.float32, (2, 6))}
    reshapes = {"rest": [-1, 12], "keep": [0, -1], "split": [0, 3, 4], "deep": [-1, 2, 3, 2], "copy": [0, 0, 6]}
    nodes = [op(f"{key} = Reshape t shape_{key}") for key in reshapes]
    shapes = {f"shape_{key}": ints(*shape) for key, shape in reshapes.items()}
    for opset in (9, 14):
        variants(f"reshape_{opset}", nodes, t, shapes, opset=opset)
    shapes_2d = {"flat": ints(-1), "column": ints(-1, 1)}
    nodes = [op("y = Reshape c flat"), op("z = Reshape c column"), op("w = Reshape s column")]
    variants("reshape_column", nodes, {"c": one["f"], "s": one["s"]}, shapes_2d)
    nodes = [op("one = Flatten t", axis=1), op("negative = Flatten t", axis=-2), op("default = Flatten t")]
    variants("flatten", nodes, t, opset=13)
    nodes = [op("y = Flatten x", axis=1), op("t = Transpose x", perm=[1, 0]), op("back = Transpose t", perm=[1, 0])]
    variants("transpose_2d", [nodes[0], nodes[1:]], every["f"])
    nodes = [op("swapped = Transpose t", perm=[0, 2, 1]), [op("r = Transpose t"), op("reversed = Transpose r")]]
    nodes.append([op("front = Transpose t", perm=[1, 2, 0]), op("returned = Transpose front", perm=[2, 0, 1])])
    variants("transpose_3d", nodes, t)
    squeezed = {"c": one["f"], "t": rows("squeeze", width=2).reshape(-1, 1, 2, 1), "s": one["s"]}
    squeezes = [("c", [1]), ("c", [-1]), ("t", [1]), ("t", [1, 3]), ("t", [-1]), ("t", []), ("s", [1])]
    unsqueezes = [("c", [1]), ("c", [2]), ("c", [-1]), ("t", [1, 3]), ("t", [-1]), ("s", [1])]
    for opset in (11, 13):
        nodes, constants = [], {}
        for operator, cases in (("Squeeze", squeezes), ("Unsqueeze", unsqueezes)):
            for i, (x, axes) in enumerate(cases):
                key = f"{operator.lower()}_{i}"
                constants[f"axes_{key}"] = ints(*axes)
                if not axes:
                    nodes.append(op(f"{key} = {operator} {x}"))
                elif opset < 13:
                    nodes.append(op(f"{key} = {operator} {x}", axes=axes))
                else:
                    nodes.append(op(f"{key} = {operator} {x} axes_{key}"))
        variants(f"squeeze_{opset}", nodes, squeezed, constants, opset=opset)

    indices = {"scalar": np.int64(1), "negative": np.int64(-1), "one": ints(2), "some": ints(2, -3, 2, 0)}
    indices |= {"grid": ints(0, 1, 2, 2).reshape(2, 2), "narrow": np.array([1, 0], np.int32)}
    nodes = [op(f"{key}_{name} = Gather {key} {name}", axis=1) for key in every for name in indices]
    variants("gather", nodes, every, indices, opset=11)
    nodes = [op("middle = Gather t scalar", axis=1), op("last = Gather t some", axis=2)]
    nodes.append(op("end = Gather t negative", axis=-1))
    variants("gather_3d", nodes, {"t": stack(np.float32)}, indices)
    table = {"table": np.array([[1.5, -2], [0.25, 4], [8, 16]], np.float32), "words": np.array(["x", "", "y"], object)}
    wanted = random("lookup").choice([0, 1, 2, -1, -3], ROWS)
    nodes = [op("y = Gather table i"), op("z = Gather words i"), op("w = Gather table c", axis=0)]
    variants("gather_rows_as_indices", nodes, {"i": wanted, "c": wanted.reshape(-1, 1)}, table)
    rng = random("embeddings")
    tables = {"doubles": rng.normal(size=(5, 3)), "counts": rng.integers(0, 9, (5, 2)), "cubes": rng.normal(size=(5, 2, 3)).astype(np.float32)}
    indices = {"two": rng.integers(-5, 5, (ROWS, 2)), "small": rng.integers(-5, 5, (ROWS, 1)).astype(np.int32)}
    nodes = [op(f"{key}_{name} = Gather {key} {name}") for key in tables for name in indices]
    variants("embeddings", nodes, indices, tables)

    x = {"x": rows("slice", width=6), "s": words("slice", 6)}
    cuts = {
        "plain": ([1], [4], [1], None),
        "to_end": ([2], [2**31 - 1], [1], None),
        "negative": ([-3], [-1], [1], None),
        "beyond": ([-100], [100], [1], None),
        "last_axis": ([0], [2], [-1], None),
    }
    steps = {"step": ([0], [6], [1], [2]), "reverse": ([-1], [-(2**31)], [1], [-1]), "back": ([4], [0], [1], [-2])}
    nodes = []
    for name, (starts, ends, axes, _) in cuts.items():
        nodes += [op(f"{key}_{name} = Slice {key}", starts=starts, ends=ends, axes=axes) for key in x]
    variants("slice_9", nodes, x, opset=9)
    nodes, constants = [], {}
    for name, cut in (cuts | steps).items():
        parts = ["starts", "ends", "axes", "steps"][: 3 if cut[3] is None else 4]
        constants |= {f"{part}_{name}": ints(*values) for part, values in zip(parts, cut)}
        nodes += [op(f"{key}_{name} = Slice {key} {' '.join(f'{part}_{name}' for part in parts)}") for key in x]
    for opset in (11, 13):
        variants(f"slice_{opset}", nodes, x, constants, opset=opset)
    t = {"t": stack(np.float32, (3, 4))}
    constants = {"one": ints(1, 1), "three": ints(3, 4), "axes": ints(1, 2), "steps": ints(1, 2)}
    variants("slice_3d", [op("y = Slice t one three axes"), op("z = Slice t one three axes steps")], t, constants)

    for opset in (11, 13, 18):
        sizes = {"split": [1, 2, 3]} if opset < 13 else {}
        halves = {"num_outputs": 2} if opset >= 18 else {}
        nodes = [op("a b c = Split x" + ("" if sizes else " sizes"), axis=1, **sizes)]
        nodes += [op("d e = Split x", axis=-1, **halves), op("f g = Split s", axis=1, **halves)]
        if opset >= 18:
            nodes.append(op("h i j k = Split u", axis=1, num_outputs=4))
        variants(f"split_{opset}", nodes, {**x, "u": rows("uneven", width=7)}, {"sizes": ints(1, 2, 3)}, opset=opset)

    # What the converters make of a shape: a constant for each row, or a new shape.
    constants = {"zero": np.int64(0), "first": ints(0), "one": ints(1), "minus": ints(-1), "two": ints(2)}
    constants |= {"pair": np.array([[1.5, -2.5]], np.float32), "half": np.float32(0.5)}
    fill = lambda value: tensor([value], type(value))
    nodes = [
        [op("shape0 = Shape x"), op("zeros = ConstantOfShape shape0")],
        [op("shape1 = Shape x"), op("filled = ConstantOfShape shape1", value=fill(np.float32(2.5)))],
        [op("shape2 = Shape x"), op("whole = ConstantOfShape shape2", value=fill(np.int64(-3)))],
        [
            *[op("shape3 = Shape x"), op("count3 = Slice shape3 first one"), op("row3 = Concat count3 two", axis=0)],
            op("repeated = Expand pair row3"),
        ],
        [
            *[op("shape4 = Shape x"), op("n4 = Gather shape4 zero"), op("count4 = Unsqueeze n4 first")],
            *[op("row4 = Concat count4 minus", axis=0), op("reshaped = Reshape t row4")],
        ],
        [op("shape5 = Shape x"), op("all = Expand half shape5")],
        [op("shape6 = Shape x", start=0, end=1), op("flags = ConstantOfShape shape6", value=fill(np.True_))],
        [op("shape7 = Shape x", start=-1), op("width7 = Cast shape7", to=1), op("divided = Div x width7")],
        [op("constant8 = Constant", value=tensor([[1, 2, 3]], np.float32)), op("added = Add x constant8")],
        [op("constant9 = Constant", value_float=0.25), op("scaled = Mul x constant9")],
    ]  # fmt: skip
    variants("shape", nodes, {"x": every["f"], "t": stack(np.float32)}, constants, opset=15)
    constants = {"wide": ints(1, 4), "once": ints(1, 1), "twice": ints(1, 2), "deep": ints(1, 2, 3)}
    nodes = [op("wider = Expand c wide"), op("same = Expand c once"), op("words = Expand s wide")]
    nodes.append(op("deep_out = Expand t deep"))
    expanded = {"c": one["f"], "s": one["s"], "t": rows("expand", width=2).reshape(-1, 2, 1)}
    variants("expand", nodes, expanded, constants, opset=13)
    nodes = [op("tiled = Tile f twice"), op("tiled_words = Tile s twice"), op("tiled_whole = Tile i twice")]
    variants("tile", nodes, every, constants, opset=13)


def save_arithmetic():
    for kind, dtype in TYPES.items():
        float_type = kind in ("float", "double")
        x = rows("left", dtype)
        # Whole numbers are not divided by zero, which fails the run.
        y = rows("right", dtype)
        if not float_type:
            y = random("right").choice([-7, -3, -2, 1, 2, 3, 5], (ROWS, 3)).astype(dtype)
        inputs = {"x": x, "y": y, "c": y[:, :1], "n": x[:, 0].copy()}
        constants = {"row": np.array([0.5, -2, 3] if float_type else [2, -2, 3], dtype), "scalar": dtype(-3)}
        nodes = []
        for operator in ("Add", "Sub", "Mul", "Div"):
            # onnxruntime takes c / c for 1, be it 0 / 0.
            for pair in ("x y", "x c", "x row", "scalar y", "n scalar", *(["c c"] if operator != "Div" else [])):
                nodes.append(op(f"{operator.lower()}_{pair.replace(' ', '_')} = {operator} {pair}"))
        for opset in (9, 14) if kind == "float" else (14,):
            variants(f"arithmetic_{kind}_{opset}", nodes, inputs, constants, opset=opset)
        nodes = []
        for operator in ("Min", "Max"):
            for pair in ("x y", "x c", "row x", "x scalar y", "x"):
                nodes.append(op(f"{operator.lower()}_{pair.replace(' ', '_')} = {operator} {pair}"))
        variants(f"min_max_{kind}", nodes, inputs, constants, opset=13)
        small = random("power").choice([-2, -1, 0, 1, 2, 3], (ROWS, 3)).astype(dtype)
        if not float_type:
            x = np.clip(inputs["x"], -9, 9)
            small = abs(small)
        exponents = {"two": dtype(2), "one": dtype(1), "three": dtype(3), "zero": dtype(0), "half": np.float32(0.5)}
        exponents |= {"minus": np.float32(-1), "whole": np.int64(2), "row": np.array([0, 1, 2], dtype)}
        if not float_type:
            # Of a negative number or zero there is no such whole number.
            del exponents["half"], exponents["minus"]
        nodes = [op("power = Pow x e"), op("x_base = Pow two e")]
        nodes += [op(f"power_{key} = Pow x {key}") for key in exponents]
        variants(f"pow_{kind}", nodes, {"x": x, "e": small}, exponents, opset=13)
        if kind == "float":
            variants(f"pow_{kind}_9", nodes[:2] + nodes[2:6], {"x": x, "e": small}, exponents, opset=9)

    functions = "Sqrt Exp Log Abs Neg Sign Floor Ceil Round Reciprocal Sigmoid Tanh Relu LeakyRelu Softplus Erf"
    functions = [*functions.split(), "IsNaN", "IsInf"]
    for kind, dtype in TYPES.items():
        x = rows("functions", dtype, grid=(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 20, -20, 100, -100))
        nodes = [op(f"{function.lower()} = {function} x") for function in functions]
        nodes += [op("leaky = LeakyRelu x", alpha=0.25)]
        nodes += [op(f"inf_{key} = IsInf x", detect_negative=negative, detect_positive=positive)
                  for key, negative, positive in (("positive", 0, 1), ("negative", 1, 0))]  # fmt: skip
        variants(f"functions_{kind}", nodes, x, opset=17)
    for kind, dtype in TYPES.items():
        x = rows("clip", dtype)
        constants = {"low": dtype(-1), "high": dtype(1), "above": dtype(2)}
        forms = {"both": "low high", "low_only": "low", "high_only": "_ high", "none": "", "crossed": "above low"}
        nodes = [op(f"{key} = Clip x {form}".strip()) for key, form in forms.items()]
        for opset in (11, 13) if kind == "float" else (13,):
            variants(f"clip_{kind}_{opset}", nodes, x, constants, opset=opset)
    nodes = [op("both = Clip x", min=-1.0, max=1.0), op("low_only = Clip x", min=-1.0)]
    nodes += [op("high_only = Clip x", max=1.0), op("none = Clip x"), op("crossed = Clip x", min=2.0, max=-1.0)]
    variants("clip_float_9", nodes, rows("clip"), opset=9)


def save_comparisons():
    for kind, dtype in TYPES.items():
        x, y = rows("compare", dtype), rows("compared", dtype)
        inputs = {"x": x, "y": np.where(random("same").integers(0, 3, x.shape) < 1, x, y), "c": y[:, :1]}
        constants = {"row": np.array([0.5, -1, 0], dtype), "scalar": dtype(0), "large": dtype(2**24 + 1)}
        operators = ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"]
        pairs = ["x y", "x c", "x row", "scalar x", "x large"]
        nodes = [op(f"{name.lower()}_{pair.replace(' ', '_')} = {name} {pair}") for name in operators for pair in pairs]
        for opset in (9, 13) if kind == "float" else (13,):
            usable = [node for node in nodes if opset > 9 or "OrEqual" not in node.op_type]
            variants(f"compare_{kind}_{opset}", usable, inputs, constants, opset=opset)
    texts = {"s": words("compare"), "t": words("compared")}
    b = {"a": random("a").integers(0, 2, (ROWS, 2)) > 0, "b": random("b").integers(0, 2, (ROWS, 2)) > 0}
    b["c"] = b["b"][:, :1]
    constants = {"word": np.array(["a"], object), "empty": np.array("", object), "yes": np.True_}
    nodes = [op("same = Equal s t"), op("word_out = Equal s word"), op("empty_out = Equal s empty")]
    variants("compare_string", nodes, texts, constants, opset=19)
    nodes = [op(f"{name.lower()}_{pair.replace(' ', '_')} = {name} {pair}")
             for name in ("And", "Or", "Xor", "Equal") for pair in ("a b", "a c", "a yes")]  # fmt: skip
    variants("logic", [*nodes, op("not_out = Not a")], b, constants, opset=13)
    inputs = {"cond": b["a"], "ccond": b["c"], "f": rows("where", width=2), "s": texts["s"], "t": texts["t"]}
    inputs |= {"g": rows("where else", width=2), "d": rows("where", np.float64, 2), "i": rows("where", np.int64, 2)}
    inputs |= {"j": rows("where", np.int32, 2)}
    constants = {"zero": np.float32(0), "dzero": np.float64(0), "izero": np.int64(0), "jzero": np.int32(0)}
    constants["word"] = np.array(["none"], object)
    pairs = ["f g", "f zero", "zero f", "d dzero", "i izero", "j jzero", "s t", "word s"]
    nodes = [op(f"{c}_{pair.replace(' ', '_')} = Where {c} {pair}") for c in ("cond", "ccond") for pair in pairs]
    variants("where", nodes, inputs, constants, opset=9)


REDUCTIONS = ["Sum", "Mean", "Max", "Min", "SumSquare", "L1", "L2", "Prod", "LogSum", "LogSumExp"]


# What the greatest or least of several is if one of them is NaN depends on where it stands: left out.
ORDERED = ["Max", "Min"]


def save_reductions():
    for kind, dtype in TYPES.items():
        inputs = {"x": rows("reduce", dtype, 4), "t": stack(dtype)}
        if dtype in (np.int64, np.int32):
            # Their sums and products fit.
            inputs = {key: np.clip(array, -99, 99) for key, array in inputs.items()}
        else:
            # Sums of numbers of like size, which hardly depend on their order.
            inputs = {key: np.clip(array, -1e3, 1e3) for key, array in inputs.items()}
        without = {key: no_nan(array) for key, array in inputs.items()}
        for opset in {"float": (11, 13, 18), "int64": (18,)}.get(kind, (13,)):
            save_reduction(f"reduce_{kind}_{opset}", REDUCTIONS, without, opset)
        if kind in ("float", "double"):
            save_reduction(f"reduce_{kind}_nan", [name for name in REDUCTIONS if name not in ORDERED], inputs, 13)
            save_arg(f"arg_{kind}_nan", {"x": rows("arg", dtype, 4, grid=(1, 1, 2)), "t": inputs["t"]}, 13)
        for opset in (11, 13) if kind == "float" else (13,):
            ties = no_nan(rows("arg", dtype, 4, grid=(1, 1, 2)))
            save_arg(f"arg_{kind}_{opset}", {"x": ties, "t": without["t"]}, opset)


def no_nan(array):
    return np.nan_to_num(array, nan=2, posinf=np.inf, neginf=-np.inf)


def save_reduction(name, operators, inputs, opset):
    forms = [("x", [1], 0), ("x", [-1], 1), ("t", [1], 0), ("t", [2], 1), ("t", [1, 2], 0), ("t", [-1, 1], 1)]
    nodes = []
    for operator in operators:
        for i, (x, axes, keepdims) in enumerate(forms):
            text = f"{operator.lower()}_{i} = Reduce{operator} {x}"
            if opset >= 18 or (opset == 13 and operator == "Sum"):
                nodes.append(op(f"{text} axes{i}", keepdims=keepdims))
            else:
                nodes.append(op(text, keepdims=keepdims, axes=axes))
    if opset == 18:
        nodes.append(op("nothing = ReduceSum x", noop_with_empty_axes=1))
    constants = {f"axes{i}": ints(*axes) for i, (_, axes, _) in enumerate(forms)}
    variants(name, nodes, inputs, constants, opset=opset)


def save_arg(name, inputs, opset):
    nodes = []
    for operator in ("ArgMax", "ArgMin"):
        for i, (x, axis, keepdims) in enumerate([("x", 1, 0), ("x", -1, 1), ("t", 1, 0), ("t", 2, 1)]):
            options = {"axis": axis, "keepdims": keepdims}
            nodes.append(op(f"{operator.lower()}_{i} = {operator} {x}", **options))
            if opset >= 12:
                nodes.append(op(f"{operator.lower()}_{i}_last = {operator} {x}", select_last_index=1, **options))
    variants(name, nodes, inputs, opset=opset)


def save_sorting():
    for kind, dtype in TYPES.items():
        x, t = no_nan(rows("sort", dtype, 6, grid=(1, 1, 2, 3))), no_nan(stack(dtype))
        constants = {"k1": ints(1), "k3": ints(3), "k6": ints(6), "k2": ints(2)}
        nodes = [op(f"values{k}_{largest} indices{k}_{largest} = TopK x k{k}", axis=1, largest=largest)
                 for k in (1, 3, 6) for largest in (0, 1)]  # fmt: skip
        nodes += [op(f"tv{axis} ti{axis} = TopK t k2", axis=axis) for axis in (1, 2)]
        nodes.append(op("default_values default_indices = TopK x k2"))
        nodes.append(op("unsorted_values unsorted_indices = TopK x k1", sorted=0))
        variants(f"topk_{kind}", nodes, {"x": x, "t": t}, constants, opset=11)
        if kind == "float":
            variants("topk_10", [op("values indices = TopK x k3", axis=1)], {"x": x}, constants, opset=10)
            variants("topk_9", [op("values indices = TopK x", axis=1, k=3)], {"x": x}, opset=9)
            variants("topk_nan", nodes[:6], {"x": rows("sort", dtype, 6, grid=(1, 2, np.nan))}, constants, opset=11)
        constants = {"axis": np.int64(1), "last": np.int32(-1), "two": ints(2)}
        nodes = [op(f"sum{exclusive}{reverse}_{axis} = CumSum x {axis}", exclusive=exclusive, reverse=reverse)
                 for exclusive in (0, 1) for reverse in (0, 1) for axis in ("axis", "last")]  # fmt: skip
        variants(f"cumsum_{kind}", nodes, np.clip(x, -99, 99), constants, opset=14)

    whole = random("hot").choice([0, 1, 2, 3, -1, -3, -4, 7], (ROWS, 2))
    inputs = {"i": whole[:, 0].copy(), "c": whole, "j": whole.astype(np.int32), "f": whole.astype(np.float32)}
    constants = {"depth": ints(3), "depth_scalar": np.int64(3), "depth_float": np.float32(3), "whole": ints(5, -5)}
    constants |= {"off_on": np.array([0, 1], np.float32), "odd": np.array([0.5, 2.5], np.float32)}
    constants["texts"] = np.array(["no", "yes"], object)
    forms = [("depth", "off_on", -1), ("depth_scalar", "whole", 1), ("depth", "odd", 1), ("depth_float", "off_on", -1)]
    nodes = []
    for x in inputs:
        for depth, values, axis in [*forms, ("depth", "texts", -1)]:
            suffix = "last" if axis < 0 else axis
            nodes.append(op(f"{x}_{depth}_{values}_{suffix} = OneHot {x} {depth} {values}", axis=axis))
    variants("onehot", nodes, inputs, constants, opset=11)


def save_products():
    for kind in ("float", "double"):
        inputs = {"x": rows("softmax", TYPES[kind], 4), "t": stack(TYPES[kind])}
        finite = {f"{key}f": np.nan_to_num(np.clip(array, -50, 50)) for key, array in inputs.items()}
        for opset in (11, 13) if kind == "float" else (13,):
            nodes = []
            for name in ("Softmax", "LogSoftmax"):
                for x, axis in (("x", 1), ("x", -1), ("t", 1), ("t", 2), ("t", -1), ("t", None)):
                    options = {} if axis is None else {"axis": axis}
                    suffix = str(axis).replace("-", "minus").lower()
                    # The logarithm of doubles is another with infinities than that of floats.
                    x = f"{x}f" if name == "LogSoftmax" else x
                    nodes.append(op(f"{name.lower()}_{x}_{suffix} = {name} {x}", **options))
            variants(f"softmax_{kind}_{opset}", nodes, inputs | finite, opset=opset)
    for kind, dtype in TYPES.items():
        eighths = lambda *shape: (np.trunc(16 * random("eighths", kind, shape).normal(0, 1, shape)) / 8).astype(dtype)
        calm = {"x": eighths(ROWS, 4), "t": eighths(ROWS, 2, 3)}
        save_product(kind, eighths, calm, (11, 13) if kind == "float" else (13,))
        if kind == "float":
            traps = {"x": rows("products", dtype, 4), "t": stack(dtype)}
            finite = {key: np.clip(array, -1e3, 1e3) for key, array in traps.items()}  # NaN stays
            save_product("float_traps", eighths, finite, (13,))


def save_product(name, draw, inputs, opsets):
    constants = {"matrix": draw(4, 2), "wide": draw(4, 20), "vector": draw(4), "deep": draw(3, 2), "turned": draw(2, 4)}
    constants |= {"bias": draw(2), "bias_row": draw(1, 2), "bias_scalar": draw(1)[0], "bias_one": draw(1)}
    nodes = [op(f"product_{key} = MatMul x {key}") for key in ("matrix", "wide", "vector")]
    nodes.append(op("product_deep = MatMul t deep"))
    variants(f"matmul_{name}", nodes, inputs, constants, opset=13)
    nodes = [op("plain = Gemm x matrix"), op("turned_out = Gemm x turned", transB=1)]
    nodes += [op(f"{key}_out = Gemm x matrix {key}") for key in ("bias", "bias_row", "bias_scalar", "bias_one")]
    nodes.append(op("scaled = Gemm x turned bias", transB=1, alpha=0.5, beta=-2.0))
    nodes.append(op("no_beta = Gemm x matrix bias", beta=0.0))
    nodes.append([op("xt = Transpose x", perm=[1, 0]), op("trans_a = Gemm xt matrix bias", transA=1)])
    for opset in opsets:
        variants(f"gemm_{name}_{opset}", nodes, {"x": inputs["x"]}, constants, opset=opset)


def save_normalizations():
    numbers = {"scale": [1.5, -0.5, 2], "bias": [0.25, -1, 0], "mean": [0.1, -0.2, 3], "variance": [1.1, 0.7, 1e-7]}
    for key, dtype in [("float", np.float32), ("double", np.float64)]:
        constants = {name: np.array(values, dtype) for name, values in numbers.items()}
        x = {"x": rows("normalized", dtype), "t": rows("normalized stack", dtype, 12).reshape(-1, 3, 2, 2)}
        nodes = [op(f"y{i} = BatchNormalization x scale bias mean variance", epsilon=e) for i, e in enumerate([1e-5, 0.1])]
        nodes.append(op("z = BatchNormalization t scale bias mean variance"))
        variants(f"batch_normalization_{key}", nodes, x, constants)


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    save_tree_modes()
    save_tree_aggregates()
    save_tree_shapes()
    save_tree_types()
    save_tree_classifiers()
    save_tree_ensembles()
    save_linear()
    save_svm()
    save_preparations()
    save_categories()
    save_label_encoders()
    save_casts()
    save_shapes()
    save_arithmetic()
    save_comparisons()
    save_reductions()
    save_sorting()
    save_products()
    save_normalizations()


if __name__ == "__main__":
    main()
