"""Does the suite notice? Deliberate faults, one at a time, in a copy of attrib.

Every fault replaces a piece of source that must be there exactly once, and some fast tests must
then fail. ``python tests/mutation.py [word ...]`` runs those whose name contains a word, or all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("attrib", "tests", "docs", "pyproject.toml")

TESTS_FAILED = 1
"""The exit status of pytest when it could run and a test failed; a broken import gives another."""

_ANOTHER_COPY = 100
_REPORT = "report.txt"
_SERVE = "--serve"


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        fault: What is wrong with it.
        file: Where, in attrib.
        source: The source that is replaced.
        instead: What is there instead.
        tests: Fast tests that must notice.
    """

    fault: str
    file: str
    source: str
    instead: str
    tests: str


ATTENTION = "tests/test_attention.py::"
CAM = "tests/test_cam.py::"
GAMES = "tests/test_games_"
LAYERS = "tests/test_layers.py"
FLOWS = "tests/test_conductance.py"
CLOSED = "tests/laws/test_closed_forms.py"
LIFT = "tests/test_rules_deep_lift.py"
LRP = "tests/test_rules_lrp.py"
METRICS = "tests/test_metrics"
OVERRIDE = "tests/test_rules_override.py"
PATCHING = "tests/test_patching.py::"
PATH = "tests/test_path.py"
REGRESSIONS = "tests/faults/test_regressions.py"
LINEAR = CLOSED + "::test_a_linear_score_gives_each_feature_weight_times_difference"

MUTANTS: tuple[Mutant, ...] = (
    # Paths and quadratures.
    Mutant(
        "trapezoid with whole weights at its ends",
        "_quadrature.py",
        "inner[[0, -1]] = 0.5",
        "inner[[0, -1]] = 1.0",
        "tests/test_quadrature.py",
    ),
    Mutant(
        "weights that sum to slightly more than one",
        "_quadrature.py",
        "weights / weights.sum()",
        "weights / weights.sum() * 1.0001",
        "tests/test_quadrature.py",
    ),
    Mutant(
        "integrated gradients without the way from the baseline",
        "_paths.py",
        "sums = tree_map(torch.mul, sums, traversal.velocity)",
        "pass",
        PATH + "::test_the_published_example_comes_out",
    ),
    Mutant(
        "baseline ignored",
        "path.py",
        "line = traverse(path, x, check_baseline(baseline, x))",
        "line = traverse(path, x, check_baseline(0, x))",
        PATH + "::test_integrated_gradients_are_the_sum_of_the_paper",
    ),
    Mutant(
        "path walked from its end",
        "_paths.py",
        "return (b + _expand_to(alpha, a) * d).to(a.dtype)",
        "return (a - _expand_to(alpha, a) * d).to(a.dtype)",
        PATH + "::test_integrated_gradients_are_the_sum_of_the_paper",
    ),
    Mutant(
        "result in the dtype of the sum",
        "path.py",
        "return tree_map(lambda s, a: s.to(a.dtype), sums, x)",
        "return sums",
        CLOSED + "::test_the_dtype_of_the_input_is_that_of_the_attribution",
    ),
    Mutant(
        "tolerance believed after three levels",
        "_adaptive.py",
        "if bool((error <= tol * _largest(value, rise.ndim)).all()):",
        "if level >= 2:",
        PATH + "::test_a_row_that_is_not_smooth_does_not_stop_at_the_tolerance_of_another",
    ),
    Mutant(
        "leaves of a baseline drawn apart",
        "path.py",
        "lambda a, b: b[index].to(a.dtype) if differentiable(a) else a, ends, baselines",
        "lambda a, b: b[torch.randint_like(index, len(b))].to(a.dtype), ends, baselines",
        PATH + "::test_all_leaves_of_a_baseline_come_from_the_same_row_and_the_same_point",
    ),
    Mutant(
        "blur from sharp to blurred",
        "blur.py",
        "sigma = (1 - alpha) * max_sigma",
        "sigma = alpha * max_sigma",
        REGRESSIONS,
    ),
    Mutant(
        "interactions without the diagonal",
        "hessians.py",
        "        if a == b:",
        "        if a != b:",
        CLOSED + "::test_a_linear_score_has_only_diagonal_interactions",
    ),
    Mutant(
        "guided path that stops a step early",
        "guided.py",
        "(index + 1) / steps, way)",
        "index / steps, way)",
        LINEAR,
    ),
    # The engine.
    Mutant(
        "last chunk lost",
        "_map.py",
        "    while done < points.total:",
        "    while done + min(size, points.total) <= points.total:",
        "tests/test_map.py",
    ),
    Mutant(
        "one draw for a whole chunk",
        "_map.py",
        "points = [draw() for _ in range(start + leading, stop)]",
        "points = [draw()] * (stop - start - leading)",
        "tests/test_map.py",
    ),
    Mutant(
        "another output of the last layer",
        "_last_layer.py",
        "tensor.narrow(0, column, 1)",
        "tensor.narrow(0, column - 1, 1)",
        "tests/test_last_layer.py",
    ),
    Mutant(
        "hooks of the last layer passed by",
        "_last_layer.py",
        "and not any(getattr(module, name) for name in _HOOKS)",
        "",
        "tests/test_last_layer.py",
    ),
    Mutant(
        "x moved where it is evaluated with its draws",
        "perturb.py",
        "noise[0].fill_(-0.0)",
        "noise[0].fill_(0.25)",
        METRICS + "_robustness.py",
    ),
    Mutant(
        "rows of a batch repeated in the wrong order",
        "_batched.py",
        'return repeat(leaf, "batch ... -> (samples batch) ...", samples=samples)',
        'return repeat(leaf, "batch ... -> (batch samples) ...", samples=samples)',
        "tests/test_batched.py",
    ),
    Mutant(
        "rows of a batch not repeated",
        "_batched.py",
        "rows = Rows(tuple(map(repeated, fn.rows.tensors)), samples * batch)",
        "rows = Rows(fn.rows.tensors, samples * batch)",
        "tests/test_batched.py",
    ),
    Mutant(
        "lack of memory answered although the user chose the chunks",
        "_map.py",
        'if chunk_size != "auto" or width == 1 or not out_of_memory(error):',
        "if width == 1 or not out_of_memory(error):",
        "tests/test_map.py",
    ),
    Mutant(
        "cancellation swallowed",
        "_progress.py",
        "        monitor(done, total)\n",
        "        try:\n            monitor(done, total)\n"
        "        except Exception:\n            pass\n",
        "tests/test_progress.py",
    ),
    # Reducers.
    Mutant(
        "variance of a sample instead of the population",
        "reducers.py",
        "(m / samples).to(d), squares",
        "(m / (samples - 1)).to(d), squares",
        "tests/test_reducers.py",
    ),
    Mutant(
        "chunks merged without the gap of their means",
        "reducers.py",
        "p + q + g.square() * (n * m / (n + m))",
        "p + q",
        "tests/test_reducers.py",
    ),
    Mutant(
        "standard error of a sample instead of the mean",
        "reducers.py",
        "1 / (samples * (samples - 1))",
        "1 / (samples - 1)",
        "tests/test_reducers.py",
    ),
    Mutant(
        "variance under noise replaced by the mean square",
        "smooth.py",
        "samples, generator, variance, chunk_size)",
        "samples, generator, second_moment, chunk_size)",
        "tests/test_smooth.py::test_the_named_methods_have_the_moments_of_their_noise",
    ),
    # Gradients and scores.
    Mutant(
        "gradient of the mean over the batch",
        "gradient.py",
        "total = score.sum()",
        "total = score.mean()",
        "tests/test_gradient.py",
    ),
    Mutant(
        "model given the user's own tensor",
        "gradient.py",
        "own = [None if part is None else part.clone() for part in put(parts, places, variables)]",
        "own = put(parts, places, variables)",
        "tests/laws/test_purity.py::test_a_model_that_writes_to_its_input_writes_to_a_copy",
    ),
    Mutant(
        "derivative of the result lost",
        "gradient.py",
        "    return [score, *check_finite(gradients, score)]",
        "    return [score, *(gradient.detach() for gradient in gradients)]",
        "tests/test_gradient.py",
    ),
    Mutant(
        "scores that are not finite let through",
        "_checks.py",
        "if concrete(score) and math.isfinite((score.sum() if total is None else total).item()):",
        "if True:",
        "tests/test_errors.py",
    ),
    Mutant(
        "further arguments given as they are",
        "_tree.py",
        "return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)",
        "return tree",
        REGRESSIONS,
    ),
    Mutant(
        "numbers not looked at inside of a transform",
        "_transforms.py",
        "    return None if tensor.is_meta or type(tensor) is not Tensor else tensor",
        "    return None",
        REGRESSIONS,
    ),
    Mutant(
        "scores that do not depend on x let through",
        "_transforms.py",
        "return compiling() or (result.requires_grad and",
        "return True or (result.requires_grad and",
        "tests/test_gradient.py",
    ),
    Mutant(
        "index beyond the outputs let through",
        "_outputs.py",
        "    if low < -size or high >= size:",
        "    if low < -size:",
        "tests/test_scores.py",
    ),
    Mutant(
        "negative entries of a tensor of indices not counted from the end",
        "_outputs.py",
        "return torch.where(position < 0, position + size, position)",
        "return position.abs()",
        "tests/test_scores.py",
    ),
    Mutant(
        "dropout in train mode let through",
        "_outputs.py",
        "elif not stochastic:",
        "elif stochastic:",
        "tests/test_scores.py",
    ),
    Mutant(
        "rows of the two scores of a contrast confused",
        "scores.py",
        "first, second = Rows(",
        "second, first = Rows(",
        REGRESSIONS,
    ),
    Mutant(
        "completeness with the sign of the rise reversed",
        "metrics/axioms.py",
        "(torch.stack(summed).sum(0) - rise)",
        "(torch.stack(summed).sum(0) + rise)",
        REGRESSIONS,
    ),
    # Rules.
    Mutant(
        "secant without the difference of the inputs",
        "rules/_secants.py",
        "share = rise.div_((at - reference).add_(least))",
        "share = rise",
        LIFT + "::test_attributions_sum_to_the_rise_of_the_score",
    ),
    Mutant(
        "rules that hold for whoever differentiates the attribution",
        "_carriers.py",
        "return _pulled(ctx, gradients[0], ctx.plain.pulling)",
        "return _pulled(ctx, gradients[0], True)",
        LIFT + "::test_derivatives_of_an_attribution_are_right",
    ),
    Mutant(
        "frozen tensors that lose their derivative",
        "_carriers.py",
        "return tensor.detach() if self.light else self._apply(tensor, None, UNCHANGED)",
        "return tensor.detach()",
        LIFT + "::test_derivatives_of_an_attribution_are_right",
    ),
    Mutant(
        "frozen tensors in the memory that a model writes to",
        "_carriers.py",
        "return value.data if plain.light else value.clone()",
        "return value.data",
        LIFT + "::test_derivatives_of_an_attribution_are_right",
    ),
    Mutant(
        "product shared by the other factor at the input",
        "rules/_secants.py",
        "a_mean, b_mean = ((t + r) / 2 for",
        "a_mean, b_mean = (t + 0 * r for",
        LIFT + "::test_a_product_is_shared_by_the_mean_of_the_other_factor",
    ),
    Mutant(
        "maximum that does not fall",
        "rules/_secants.py",
        "new * (risen + unmoved) + old * fallen, index)",
        "new * (risen + unmoved), index)",
        LIFT + "::test_attributions_sum_to_the_rise_of_the_score",
    ),
    Mutant(
        "softmax with a sum over the whole batch",
        "rules/_secants.py",
        "raised = (torch.where(dead, 0, weight) * x).sum(dim, keepdim=True)",
        "raised = (torch.where(dead, 0, weight) * x).sum(dim, keepdim=True).mean(0, keepdim=True)",
        LIFT + "::test_an_example_gets_in_a_batch_what_it_gets_alone",
    ),
    Mutant(
        "quotient of differences that rounding has eaten",
        "rules/_secants.py",
        "smooth = near & (error <= 4 * precision * (1 + value.abs()))",
        "smooth = step == 0",
        LIFT + "::test_an_input_near_its_baseline_has_nearly_its_gradient_as_multipliers",
    ),
    Mutant(
        "target of an operation in place left as it was",
        "rules/_flow.py",
        "            result = target.copy_(result)\n",
        "",
        LIFT + "::test_attributions_sum_to_the_rise_of_the_score",
    ),
    Mutant(
        "references in the memory that a model writes to",
        "rules/_references.py",
        "                    inputs[place] = tensor.clone()",
        "                    pass",
        LIFT + "::test_attributions_sum_to_the_rise_of_the_score",
    ),
    Mutant(
        "another path let through",
        "rules/_references.py",
        "        if recorded != name or not _fit(inputs, call.inputs):",
        "        if not _fit(inputs, call.inputs):",
        LIFT + "::test_another_path_at_the_baseline_is_refused",
    ),
    Mutant(
        "tensors of the baseline kept",
        "rules/deep_lift.py",
        "        references.clear()",
        "        pass",
        "tests/laws/test_purity.py::test_nothing_is_kept_in_memory",
    ),
    Mutant(
        "way up always first",
        "rules/_cancel.py",
        "raised = (slope(high, reference) + slope(at, low)) / 2",
        "raised = slope(high, reference)",
        LIFT + "::test_attributions_sum_to_the_rise_of_the_score",
    ),
    Mutant(
        "what raises and what lowers confused by negative weights",
        "rules/_cancel.py",
        "product(up, less) + product(down, more),",
        "product(down, less) + product(down, more),",
        "tests/test_rules_reveal_cancel.py",
    ),
    Mutant(
        "negative gradients guided through",
        "rules/override.py",
        "_RECTIFIED = Backward(torch.relu)",
        "_RECTIFIED = Backward(torch.clone)",
        OVERRIDE,
    ),
    Mutant(
        "epsilon on the wrong side of negative results",
        "rules/_relevance.py",
        "torch.add(whole, (sign + 0.5).sign(), alpha=epsilon)",
        "(whole + epsilon)",
        LRP + "::test_a_rule_is_its_formula_on_the_matrix_of_the_layer",
    ),
    Mutant(
        "negative contributions that add relevance",
        "rules/_relevance.py",
        "surrogate = surrogate - down * (beta *",
        "surrogate = surrogate + down * (beta *",
        LRP + "::test_a_rule_is_its_formula_on_the_matrix_of_the_layer",
    ),
    Mutant(
        "batch norm merged with a layer whose result was written over",
        "rules/_relevance_flow.py",
        'if flow is self and own == name and (version == _version(tensor) or name == "stopped"):',
        "if flow is self and own == name:",
        LRP + "::test_batch_norm_after_something_was_written_over_the_layer_is_not_merged",
    ),
    Mutant(
        "all of a product to each of its factors",
        "rules/_passing.py",
        "return carrier.carried(call(*fixed), total / len(parts))",
        "return carrier.carried(call(*fixed), total)",
        LRP + "::test_factors_get_equal_parts_and_frozen_ones_nothing",
    ),
    Mutant(
        "what depends on shares of relevance alone not known to depend on x",
        "rules/_relevance_flow.py",
        "self.origins = Origins([*variables, *shares])",
        "self.origins = Origins(variables)",
        "tests/faults/test_battery.py::test_a_fault_is_refused_in_words_or_answered_rightly_and_"
        "leaves_nothing[model-an operation of its own-lrp epsilon_plus_flat]",
    ),
    # Randomness.
    Mutant(
        "draws from the global generator",
        "perturb.py",
        "                self._copies[device] = _copy_of_global(device)",
        "                return None",
        "tests/test_perturb.py",
    ),
    Mutant(
        "noise on one side",
        "perturb.py",
        "noise.uniform_(-1, 1, generator=source)",
        "noise.uniform_(0, 1, generator=source)",
        "tests/test_perturb.py",
    ),
    # Inside a model.
    Mutant(
        "a site read without a copy",
        "_inside.py",
        "passed.add(spot, place, tensor.clone())\n            if may_stop",
        "passed.add(spot, place, tensor)\n            if may_stop",
        LAYERS + "::test_an_activation_is_not_changed_by_what_follows_in_place",
    ),
    Mutant(
        "a model left before its calls of a site are counted",
        "_inside.py",
        "(call is None and self._once == shapes)",
        "call is None",
        LAYERS + "::test_a_module_used_twice_needs_a_call",
    ),
    Mutant(
        "a site cut off from those before it",
        "_inside.py",
        "if found and tensor.requires_grad:",
        "if False:",
        LAYERS + "::test_sites_behind_each_other_get_their_whole_derivatives",
    ),
    Mutant(
        "a value that a model writes to when it is put in",
        "_inside.py",
        "return new.clone() if laid_out is new else laid_out",
        "return laid_out",
        LAYERS + "::test_the_parts_of_a_score_are_the_score",
    ),
    Mutant(
        "errors of a model hidden by those who read a site",
        "_inside.py",
        "with suppress(_Stop):",
        "with suppress(_Stop, Exception):",
        LAYERS + "::test_errors_of_the_model_pass",
    ),
    Mutant(
        "a site replaced although another one is behind it",
        "_inside.py",
        "if bool(tensor.isnan().all()):",
        "if False:",
        LAYERS + "::test_a_site_behind_another_is_refused_where_it_would_hide_it",
    ),
    Mutant(
        "all of a model computed again for what is behind a site",
        "_inside.py",
        "self._may_defer = bool(models)",
        "self._may_defer = False",
        LAYERS + "::test_only_what_is_behind_a_site_is_computed_again",
    ),
    Mutant(
        "values computed from notes although they were written to",
        "_deferred.py",
        "            if self.written:\n                raise _NotDeferrableError\n",
        "",
        LAYERS + "::test_whatever_leads_to_a_site_the_tail_is_right_and_nothing_is_left",
    ),
    Mutant(
        "tensors without numbers handed to whoever collects them",
        "_inside.py",
        "return None if deferring.leaked() else found",
        "return found",
        LAYERS + "::test_what_code_elsewhere_collects_has_numbers_from_the_second_time_on",
    ),
    Mutant(
        "hooks left on a module of the user",
        "_marked.py",
        "            handle.remove()",
        "            pass",
        LAYERS + "::test_nothing_is_left_behind",
    ),
    Mutant(
        "a mark put on the module of the user instead of its copy",
        "_marked.py",
        "parts[key] = self._own(part, module, twin)",
        "parts[key] = part",
        LAYERS + "::test_nothing_is_left_behind",
    ),
    Mutant(
        "a copy of a model that does not follow its changes",
        "_marked.py",
        "model = self._traced if compiling() else self._copy()",
        "model = self._traced",
        LAYERS + "::test_a_model_that_changes_is_seen_as_it_is",
    ),
    Mutant(
        "the batch left in front of what is put back",
        "_sites.py",
        "return tensor.movedim(0, self.site.batch_dim) if self.site.batch_dim else tensor",
        "return tensor",
        LAYERS + "::test_a_leaf_of_a_structure_is_a_site",
    ),
    Mutant(
        "calls of a site not told apart",
        "_taps.py",
        "Place(name, len(calls) - 1, int(leaf))",
        "Place(name, 0, int(leaf))",
        FLOWS + "::test_every_call_of_a_reused_module_conducts_its_own",
    ),
    Mutant(
        "the baseline of a layer at zero whatever that of x is",
        "layers.py",
        "head(_whole_baseline(baseline, x), *args)",
        "head(_whole_baseline(0, x), *args)",
        LAYERS + "::test_a_layer_method_is_the_method_on_the_rest_of_the_model",
    ),
    Mutant(
        "gradient times gradient",
        "layers.py",
        "tree_map(torch.mul, gradient, activation)",
        "tree_map(torch.mul, gradient, gradient)",
        LAYERS + "::test_activation_and_gradient_are_those_of_autograd",
    ),
    Mutant(
        "slices of neurons averaged",
        "layers.py",
        "flatten(-sliced).sum(-1)",
        "flatten(-sliced).mean(-1)",
        LAYERS + "::test_a_neuron_is_a_score",
    ),
    Mutant(
        "conductance by the gradient at the beginning of a segment",
        "conductance.py",
        "twice = (gradients[1:] + gradients[:-1]) *",
        "twice = 2 * gradients[:-1] *",
        FLOWS + "::test_behind_a_linear_layer_a_quadratic_form_is_exact_at_the_fewest_steps",
    ),
    Mutant(
        "the segment between two chunks lost",
        "conductance.py",
        "joint = [] if last is None else",
        "joint = [] if True else",
        FLOWS + "::test_the_size_of_the_chunks_does_not_matter",
    ),
    Mutant(
        "a path that ends a step early",
        "conductance.py",
        "ends = torch.arange(2, dtype",
        "ends = 0.9 * torch.arange(2, dtype",
        FLOWS + "::test_in_a_linear_network_a_neuron_conducts_its_weight_times_its_change",
    ),
    Mutant(
        "what goes around a layer for what flows through it",
        "conductance.py",
        "like, args, chunk_size)[0]",
        "like, args, chunk_size)[1]",
        FLOWS + "::test_what_goes_around_a_layer_is_not_its_own",
    ),
    Mutant(
        "the change of a layer without its gradient",
        "conductance.py",
        "None if g is None else g * next(speeds)",
        "None if g is None else next(speeds)",
        FLOWS + "::test_in_a_linear_network_a_neuron_conducts_its_weight_times_its_change",
    ),
    Mutant(
        "influence whose weights do not sum to one",
        "_paths.py",
        "return (stack * weight.reshape(",
        "return (1.001 * stack * weight.reshape(",
        FLOWS + "::test_in_a_linear_network_the_weights_of_every_rule_sum_to_one",
    ),
    Mutant(
        "a neuron as if the score were its sum",
        "conductance.py",
        "return read(x, *args) * only_tensor(gradient)",
        "return read(x, *args)",
        FLOWS + "::test_in_a_linear_network_the_weights_of_every_rule_sum_to_one",
    ),
    Mutant(
        "neurons on a path of one's own as on the straight line",
        "conductance.py",
        "return slope if velocity is None else tree_map(torch.mul, slope, velocity)",
        "return slope",
        FLOWS + "::test_another_path_gives_its_own_integral",
    ),
    # Hiding features.
    Mutant(
        "hidden entries blended instead of replaced",
        "games/_covers.py",
        "        return torch.where(kept_by(cover, coalitions, batch_dims), a, b)",
        "        kept = kept_by(cover, coalitions, batch_dims)\n"
        "        return kept * a + ~kept * b",
        GAMES + "ablation.py",
    ),
    Mutant(
        "entries of no feature hidden like the last one's",
        "games/_covers.py",
        "return torch.cat([table, table.new_full(edge, value)], dim)",
        "return torch.cat([table, table.narrow(dim, table.shape[dim] - 1, 1)], dim)",
        GAMES + "groups.py",
    ),
    Mutant(
        "an entry hidden only if two windows over it are absent",
        "games/_covers.py",
        "_absent_on_grid(cover, coalitions) == 0",
        "_absent_on_grid(cover, coalitions) <= 1",
        GAMES + "groups.py",
    ),
    Mutant(
        "windows added up instead of averaged",
        "games/_covers.py",
        "return found.sum(dim) / count",
        "return found.sum(dim) + 0 * count",
        GAMES + "ablation.py",
    ),
    Mutant(
        "the last window left out",
        "games/_players.py",
        "count = math.ceil((length - size) / step) + 1",
        "count = (length - size) // step + 1",
        GAMES + "groups.py",
    ),
    Mutant(
        "gaps between ids kept as players",
        "games/_players.py",
        "np.unique(np.concatenate([np.zeros(0, np.int64), *ids]))",
        "np.arange(max(i.max() for i in ids) + 1)",
        GAMES + "groups.py",
    ),
    Mutant(
        "a coalition whose baselines begin in one chunk drawn again in the next",
        "games/game.py",
        "fresh = first + (start % count > 0)",
        "fresh = first",
        GAMES + "game.py",
    ),
    Mutant(
        "the mean over baselines taken chunk by chunk",
        "games/game.py",
        "rest = [(coalitions[whole:], values[whole:])]",
        "rest = []",
        GAMES + "game.py",
    ),
    Mutant(
        "masks of examples that stay behind when the batch grows",
        "games/_attribution.py",
        "return rows if leaf is not None and mask is not None and mask.ndim == leaf.ndim else mask",
        "return mask",
        GAMES + "ablation.py",
    ),
    Mutant(
        "masks taken for those of examples because they are as long",
        "games/_attribution.py",
        "return rows if leaf is not None and mask is not None and mask.ndim == leaf.ndim else mask",
        "return rows",
        GAMES + "ablation.py",
    ),
    Mutant(
        "the whole evaluated in a batch of its own",
        "games/ablation.py",
        "return (whole - without).movedim(0, -1)",
        "return (v.full - without).movedim(0, -1)",
        GAMES + "ablation.py",
    ),
    Mutant(
        "an order of the examples that changes nothing",
        "games/permutation.py",
        "return torch.where(same, (places + shifts) % max(rows, 1), orders)",
        "return orders",
        GAMES + "permutation.py",
    ),
    Mutant(
        "one order of the examples for all features",
        "games/permutation.py",
        "keys = torch.rand(players, rows, generator=generator, dtype=torch.float64, device=device)",
        "keys = torch.rand(rows, generator=generator, dtype=torch.float64, device=device)"
        ".expand(players, rows)",
        GAMES + "permutation.py",
    ),
    Mutant(
        "integers hidden by fractions",
        "_checks.py",
        "        _check_whole(baseline, leaf, leaf_names(x, name)[place], name)\n",
        "",
        GAMES + "game.py",
    ),
    # Class activation maps, attention, patching.
    Mutant(
        "Grad-CAM weighted by sums instead of means",
        "cam/gradients.py",
        "weighted(maps, gradients.mean(-1))",
        "weighted(maps, gradients.sum(-1))",
        CAM + "test_a_map_is_its_formula",
    ),
    Mutant(
        "Grad-CAM++ with other weights",
        "cam/gradients.py",
        "positive / (2 + positive * a.sum(-1, keepdim=True))",
        "positive / (1 + positive * a.sum(-1, keepdim=True))",
        CAM + "test_a_map_is_its_formula",
    ),
    Mutant(
        "Layer-CAM rectified after the product",
        "cam/gradients.py",
        "lambda a, g: (a * g.relu()).sum(-2)",
        "lambda a, g: (a * g).sum(-2).relu()",
        CAM + "test_a_map_is_its_formula",
    ),
    Mutant(
        "XGrad-CAM of maps that add up to zero",
        "cam/gradients.py",
        "return weighted(a, torch.where(empty, 0, mean))",
        "return weighted(a, mean)",
        CAM + "test_a_channel_that_adds_up_to_zero_has_no_xgrad_weight",
    ),
    Mutant(
        "HiResCAM summed over places",
        "cam/gradients.py",
        "lambda a, g: (a * g).sum(-2))",
        "lambda a, g: (a * g).sum(-1))",
        CAM + "test_a_map_is_its_formula",
    ),
    Mutant(
        "Eigen-CAM of either sign",
        "cam/eigen.py",
        "signed = torch.where(peak < 0, -found, found)",
        "signed = found",
        CAM + "test_eigen_cam_is_the_projection_on_the_first_singular_vector",
    ),
    Mutant(
        "Eigen-CAM with first derivatives alone",
        "cam/eigen.py",
        "for _ in range(2):",
        "for _ in range(1):",
        CAM + "test_second_derivatives_of_eigen_cam_are_exact",
    ),
    Mutant(
        "Eigen-CAM by the smallest direction",
        "cam/eigen.py",
        "vector = vectors[..., -1]",
        "vector = vectors[..., 0]",
        CAM + "test_eigen_cam_of_channels_and_places_in_any_number",
    ),
    Mutant(
        "Score-CAM that shows zeros beside the map",
        "cam/evaluations.py",
        "return baseline + (mask - low) / span * (leaf - baseline)",
        "return (mask - low) / span * leaf",
        CAM + "test_score_cam_shows_a_baseline_where_the_map_is_low",
    ),
    Mutant(
        "Score-CAM with masks of the whole batch",
        "cam/evaluations.py",
        "low, high = mask.amin(places, keepdim=True), mask.amax(places, keepdim=True)",
        "low, high = mask.amin(), mask.amax()",
        CAM + "test_score_cam_is_its_formula",
    ),
    Mutant(
        "Score-CAM without its softmax",
        "cam/evaluations.py",
        "return _weighted(maps, weights.softmax(-1))",
        "return _weighted(maps, weights)",
        CAM + "test_score_cam_is_its_formula",
    ),
    Mutant(
        "Ablation-CAM of one channel alone",
        "cam/evaluations.py",
        "return over(torch.where(chosen, 0, h))",
        "return over(torch.where(chosen, h, 0))",
        CAM + "test_ablation_cam_is_its_formula",
    ),
    Mutant(
        "Ablation-CAM that ablates the class token",
        "cam/_maps.py",
        "nowhere = torch.full((h.numel() + 1,), -1, device=h.device)",
        "nowhere = torch.full((h.numel() + 1,), 0, device=h.device)",
        CAM + "test_ablation_leaves_the_class_token_alone",
    ),
    Mutant(
        "Ablation-CAM that trusts reshape",
        "cam/_maps.py",
        "    _check_moved(h, maps, moved)\n",
        "",
        CAM + "test_what_cannot_be_done_is_refused_in_words",
    ),
    Mutant(
        "guided Grad-CAM of negative places",
        "cam/guided.py",
        "share = cam.relu()",
        "share = cam",
        CAM + "test_guided_grad_cam_is_guided_backprop_where_grad_cam_is_positive",
    ),
    Mutant(
        "guided Grad-CAM with the targets of other rows",
        "cam/guided.py",
        "backprop = of_the_same_rows(guided, given)",
        "backprop = guided",
        CAM + "test_maps_are_smoothed_in_large_batches[guided_grad_cam]",
    ),
    Mutant(
        "maps of the wrong mode",
        "cam/sizes.py",
        '"cubic": ("", "bicubic", ""),',
        '"cubic": ("", "bilinear", ""),',
        CAM + "test_upsample_is_what_torch_does_for_any_batch",
    ),
    Mutant(
        "rollout with the shares exchanged",
        "attention.py",
        "both = (1 - residual) * weights + residual * _identity(weights)",
        "both = residual * weights + (1 - residual) * _identity(weights)",
        ATTENTION + "test_rollout_is_the_product_of_the_layers",
    ),
    Mutant(
        "rollout from the last layer to the first",
        "attention.py",
        "rolled = mixed(weights) @ rolled",
        "rolled = rolled @ mixed(weights)",
        ATTENTION + "test_rollout_is_the_product_of_the_layers",
    ),
    Mutant(
        "rollout whose rows do not share one",
        "attention.py",
        "return both / both.sum(-1, keepdim=True).clamp_min(torch.finfo(both.dtype).tiny)",
        "return both",
        ATTENTION + "test_every_row_of_a_rollout_shares_one_among_the_tokens",
    ),
    Mutant(
        "gradient rollout of negative relevance",
        "attention.py",
        "(g * w).clamp_min(0)",
        "(g * w).abs()",
        ATTENTION + "test_gradient_rollout_is_that_of_finite_differences",
    ),
    Mutant(
        "gradient rollout without the way around",
        "attention.py",
        "rolled = rolled + weight @ rolled",
        "rolled = weight @ rolled",
        ATTENTION + "test_gradient_rollout_is_that_of_finite_differences",
    ),
    Mutant(
        "a softmax from the right taken for attention",
        "_attending.py",
        "else place == 0):",
        "else True):",
        ATTENTION + "test_what_is_no_attention_is_refused",
    ),
    Mutant(
        "factors by keyword not seen",
        "_attending.py",
        "factors = [kwargs.pop(own) for own in _FACTORS if own in kwargs]",
        "factors: list[Any] = []",
        ATTENTION + "test_attention_is_seen_however_it_is_written",
    ),
    Mutant(
        "a mixture of rows of a table taken for attention",
        "_attending.py",
        "isinstance(arg, Tensor) and arg.ndim < 3 for arg in args",
        "isinstance(arg, Tensor) and arg.ndim < 2 for arg in args",
        ATTENTION + "test_what_is_no_attention_is_refused",
    ),
    Mutant(
        "attention that draws accepted",
        "_attending.py",
        'if name in _DROPOUT and not LINEAR_IF["dropout"](*args, **kwargs):',
        "if False:",
        ATTENTION + "test_attention_that_draws_is_refused",
    ),
    Mutant(
        "attention outside of the site",
        "_attending.py",
        "unasked = not self.depth and args[1].startswith(ATTENTION)",
        "unasked = False",
        ATTENTION + "test_a_site_chooses_among_weights_that_are_named_in_the_model",
    ),
    Mutant(
        "heads taken for examples",
        "_attending.py",
        "self.rows = (query.shape[1], heads) if query.ndim == 3 else (heads,)",
        "self.rows = (heads, query.shape[1]) if query.ndim == 3 else (heads,)",
        ATTENTION + "test_multi_head_attention_is_seen_as_it_would_tell",
    ),
    Mutant(
        "effects with the sign of an ablation",
        "patching.py",
        "effect = (own[1:] - own[0]).movedim(0, -1)",
        "effect = (own[0] - own[1:]).movedim(0, -1)",
        PATCHING + "test_the_effect_is_that_of_a_hook_that_puts_in_the_other_value",
    ),
    Mutant(
        "all but one index patched",
        "patching.py",
        "lambda a, b: torch.where(here, b, a), h, other",
        "lambda a, b: torch.where(here, a, b), h, other",
        PATCHING + "test_every_index_is_patched_alone",
    ),
    Mutant(
        "dimensions patched in another order",
        "patching.py",
        "number = number.movedim(tuple(range(len(places))), places)",
        "number = number.movedim(tuple(range(len(places))), tuple(sorted(places)))",
        PATCHING + "test_every_index_is_patched_alone",
    ),
    Mutant(
        "targets of other rows patched",
        "patching.py",
        "tail = inherit(of_the_same_rows(site.f, score), site.tail)",
        "tail = inherit(site.f, site.tail)",
        PATCHING + "test_targets_of_rows_stay_with_their_rows",
    ),
    Mutant(
        "estimates by the value instead of the difference",
        "patching.py",
        "tree_map(lambda g, a, b: g * (b - a), *part)",
        "tree_map(lambda g, a, b: g * b, *part)",
        PATCHING + "test_in_a_linear_model_the_estimate_is_the_effect",
    ),
    Mutant(
        "a line that starts at the corrupted end",
        "_runs.py",
        "line = traverse(None, end, begin)",
        "line = traverse(None, begin, end)",
        PATCHING + "test_steps_average_the_derivative_along_the_inputs",
    ),
    Mutant(
        "edges that lead backward",
        "patching.py",
        "masked_fill(~forward, torch.nan)",
        "masked_fill(~forward, 0)",
        PATCHING + "test_calls_of_a_reused_module_are_ends_of_their_own",
    ),
    Mutant(
        "edges to what a part writes",
        "patching.py",
        'return [Site(part, of="input") if is_module(part) else part for part in parts]',
        "return parts",
        PATCHING + "test_steps_of_edges_average_the_derivative",
    ),
    Mutant(
        "runs of different lengths patched",
        "_runs.py",
        "    if shapes[0] != shapes[1]:\n",
        "    if False:\n",
        PATCHING + "test_runs_in_which_a_site_yields_different_shapes_are_refused",
    ),
    Mutant(
        "a hard tanh taken for a rectifier",
        "rules/override.py",
        "return rule(call, carrier) if low == 0 else gradient()(call, carrier)",
        "return rule(call, carrier)",
        OVERRIDE + "::test_a_hard_tanh_is_no_rectifier",
    ),
    Mutant(
        "a ReLU6 with its plain gradient",
        "rules/override.py",
        'return {"relu": rule, "relu6": rule, ',
        'return {"relu": rule, ',
        OVERRIDE + "::test_a_rectifier_with_an_upper_end_is_one",
    ),
    Mutant(
        "a neuron of the first of several tensors",
        "layers.py",
        "read if callable(index) else single(read)",
        "read",
        LAYERS + "::test_a_neuron_is_one_of_one_tensor",
    ),
    # Measures.
    Mutant(
        "group that gets the attribution of its last entry",
        "metrics/_hiding.py",
        "rows.scatter_add(",
        "rows.scatter(",
        METRICS + "_curves.py",
    ),
    Mutant(
        "share of the features rounded the wrong way",
        "metrics/erasure.py",
        "math.ceil(part * v.players - 1e-9)",
        "math.ceil(part * v.players)",
        METRICS + "_curves.py",
    ),
    Mutant(
        "least relevant features first",
        "metrics/_hiding.py",
        "descending=largest_first",
        "descending=not largest_first",
        METRICS + "_curves.py",
    ),
    Mutant(
        "features kept by the size of their attribution forgotten",
        "metrics/complexity.py",
        "ranks_of(values.abs())",
        "ranks_of(values)",
        METRICS + "_complexity.py",
    ),
    Mutant(
        "last pixel of an image imputed from nothing",
        "metrics/road.py",
        "v.players - 1) for part in parts]",
        "v.players) for part in parts]",
        METRICS + "_road.py",
    ),
    Mutant(
        "corners of an image as near as sides",
        "metrics/road.py",
        "_DIAGONAL if down and right else _BESIDE",
        "_BESIDE",
        METRICS + "_road.py",
    ),
    Mutant(
        "models that share what is deeper inside",
        "metrics/_models.py",
        'own["_modules"] = {',
        "_ = {",
        METRICS + "_sanity.py",
    ),
    Mutant(
        "layers randomised alone where all behind are",
        "metrics/sanity.py",
        "place >= turn if cascading else place == turn",
        "place == turn",
        METRICS + "_sanity.py",
    ),
    Mutant(
        "class that may be the same one",
        "metrics/sanity.py",
        "            1,\n            classes,",
        "            0,\n            classes,",
        METRICS + "_sanity.py",
    ),
    Mutant(
        "baseline kept from attributions that take one",
        "metrics/_calling.py",
        "own = (baseline, *args) if role else args",
        "own = args",
        METRICS + ".py",
    ),
    Mutant(
        "infidelity of the score instead of what it loses",
        "metrics/infidelity.py",
        "wide(full - there.found[0])",
        "wide(there.found[0])",
        METRICS + "_infidelity.py",
    ),
    Mutant(
        "global perturbations per unit of x",
        "metrics/infidelity.py",
        "ratio(a - point, a - b)",
        "a - point",
        METRICS + "_infidelity.py",
    ),
    Mutant(
        "normalised slope of one chunk alone",
        "metrics/_statistics.py",
        "p + share * (q - p), r + u",
        "p, r + u",
        METRICS + "_infidelity.py",
    ),
    Mutant(
        "attributions compared with themselves",
        "metrics/robustness.py",
        "differences(there.found, here.found), dims + 1, unit)\n            return far if",
        "differences(there.found, there.found), dims + 1, unit)\n            return far if",
        METRICS + "_robustness.py",
    ),
    Mutant(
        "mean where the largest is wanted",
        "metrics/robustness.py",
        "batch_dims, chunk_size, maximum),\n    )\n\n\ndef _",
        "batch_dims, chunk_size, mean),\n    )\n\n\ndef _",
        METRICS + "_robustness.py",
    ),
    Mutant(
        "draws that change the prediction counted",
        "metrics/stability.py",
        "result if label is None else result.where(",
        "result if True else result.where(",
        METRICS + "_robustness.py",
    ),
    Mutant(
        "correlation of sums about zero",
        "metrics/_statistics.py",
        "    mean = values.mean(dim, keepdim=True)\n",
        "    mean = 0 * values.mean(dim, keepdim=True)\n",
        METRICS + "_correlation.py",
    ),
    Mutant(
        "sets that hide one feature more",
        "metrics/correlation.py",
        ".argsort(-1).argsort(-1) >= size",
        ".argsort(-1).argsort(-1) > size",
        METRICS + "_correlation.py",
    ),
    Mutant(
        "standard deviation for the error of a mean",
        "metrics/_table.py",
        "there.std() / math.sqrt(count)",
        "there.std()",
        METRICS + "_compare.py",
    ),
    Mutant(
        "method that explains anew for every metric",
        "metrics/compare.py",
        "            if x is not memory.x:\n",
        "            if True:\n",
        METRICS + "_compare.py",
    ),
    Mutant(
        "baseline given to a method that takes none",
        "metrics/compare.py",
        "own = data if role else data[1:]",
        "own = data",
        METRICS + "_compare.py",
    ),
    Mutant(
        "best by the sign where zero is best",
        "metrics/_table.py",
        'abs(mean) if way == "zero" else mean',
        'mean if way == "zero" else mean',
        METRICS + "_compare.py",
    ),
)


class Verdict(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    caught: bool
    report: str


def judge(mutant: Mutant) -> Verdict:
    """Whether the tests of a mutant fail as they should."""
    status, report = run_tests([mutant.tests], mutant)
    return Verdict(mutant, status == TESTS_FAILED, report)


def judge_all(mutants: Sequence[Mutant]) -> list[Verdict]:
    """Several mutants, and first that their tests pass without a fault."""
    status, report = run_tests(sorted({mutant.tests for mutant in mutants}))
    if status != 0:
        raise RuntimeError(f"the tests fail without any fault:\n{report}")
    return [judge(mutant) for mutant in mutants]


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> tuple[int, str]:
    """The exit status of pytest, and what it says, on a copy with a fault or none."""
    with tempfile.TemporaryDirectory(prefix="attrib-mutant-") as folder:
        root = Path(folder)
        copy_to(root)
        if mutant is not None:
            apply(mutant, root)
        status = _ask(root, tests)
        report = (root / _REPORT).read_text(encoding="utf-8", errors="replace")
    return status, f"exit status {status}\n{report[-4000:]}"


def _ask(root: Path, tests: Sequence[str]) -> int:
    """The exit status of pytest in a child of a process of ours."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps([str(root), *tests]) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@cache
def _server() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, _SERVE],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _serve() -> None:
    """Answer with the exit status of pytest, of children that need not import torch again."""
    for name in ("einops", "hypothesis", "torch._dynamo"):
        import_module(name)
    for line in sys.stdin:
        root, *tests = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run_in(Path(root), tests))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run_in(root: Path, tests: Sequence[str]) -> int:
    os.chdir(root)
    os.environ["PYTHONPATH"] = str(root)
    sys.path[:] = [str(root), *(p for p in sys.path if p not in (str(ROOT), str(ROOT / "tests")))]
    report = os.open(_REPORT, os.O_WRONLY | os.O_CREAT)
    os.dup2(report, 1)
    os.dup2(report, 2)
    flags = ["-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow"]
    # Hypothesis has been imported before its plugin.
    flags += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status = int(pytest.main([*flags, *tests]))
    sys.stdout.flush()
    origin = Path(str(sys.modules["attrib"].__file__))
    return status if origin.is_relative_to(root) else _ANOTHER_COPY


def copy_to(root: Path) -> None:
    """A copy of what the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, root / name)


def apply(mutant: Mutant, root: Path) -> None:
    """Put a fault into a copy."""
    path = root / "attrib" / mutant.file
    text = path.read_text(encoding="utf-8")
    found = text.count(mutant.source)
    if found != 1:
        raise LookupError(
            f"mutant {mutant.fault!r}: its source is {found} times in attrib/{mutant.file}, and "
            f"must be there once; adapt it to the new source:\n{mutant.source}"
        )
    path.write_text(text.replace(mutant.source, mutant.instead), encoding="utf-8")


def _main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTANTS if not words or any(word in m.fault for word in words)]
    survivors = 0
    for mutant, caught, report in judge_all(chosen):
        print(f"{'caught  ' if caught else 'SURVIVED'}  {mutant.fault}")
        if not caught:
            survivors += 1
            print(report)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return survivors


if __name__ == "__main__":
    sys.exit(_serve() if sys.argv[1:] == [_SERVE] else _main(sys.argv[1:]))
