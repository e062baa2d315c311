"""Does the suite notice? Deliberate faults, one at a time, in a copy of attrib.

Every fault replaces a piece of source that must be there exactly once, and some fast tests must
then fail. ``python tests/mutation.py [word ...]`` runs those whose name contains a word, or all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("attrib", "tests", "docs", "pyproject.toml")

TESTS_FAILED = 1
"""The exit status of pytest when it could run and a test failed; a broken import gives another."""


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


GAMES = "tests/test_games_"
LAYERS = "tests/test_layers.py"
FLOWS = "tests/test_conductance.py"
CLOSED = "tests/laws/test_closed_forms.py"
LIFT = "tests/test_rules_deep_lift.py"
LRP = "tests/test_rules_lrp.py"
OVERRIDE = "tests/test_rules_override.py"
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
        "drawn = [draw() for _ in range(start, stop)]",
        "drawn = [draw()] * (stop - start)",
        "tests/test_map.py",
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
        "rows = Rows(tuple(map(copies, fn.rows.tensors)), samples * batch)",
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
        "    return [score, *gradients]",
        "    return [score, *(gradient.detach() for gradient in gradients)]",
        "tests/test_gradient.py",
    ),
    Mutant(
        "scores that are not finite let through",
        "_checks.py",
        "if concrete(score) and math.isfinite(score.detach().sum().item()):",
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
        "return leaf + scale * (2 * draw - 1)",
        "return leaf + scale * draw",
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
        "if not (found and tensor.requires_grad):",
        "if True:",
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
        "self._may_defer = bool(self._models)",
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
        "mean = (gradient[1:] + gradient[:-1]) / 2",
        "mean = gradient[:-1]",
        FLOWS + "::test_behind_a_linear_layer_a_quadratic_form_is_exact_at_one_step",
    ),
    Mutant(
        "the segment between two chunks lost",
        "conductance.py",
        "        if last is not None:\n",
        "        if False:\n",
        FLOWS + "::test_the_size_of_the_chunks_does_not_matter",
    ),
    Mutant(
        "a path that ends a step early",
        "conductance.py",
        ".to(wide) / steps",
        ".to(wide) / (steps + 1)",
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
        "_weighted(g * next(speeds), weight)",
        "_weighted(next(speeds), weight)",
        FLOWS + "::test_in_a_linear_network_a_neuron_conducts_its_weight_times_its_change",
    ),
    Mutant(
        "influence whose weights do not sum to one",
        "conductance.py",
        "weighted = stack * weight.reshape(",
        "weighted = 1.001 * stack * weight.reshape(",
        FLOWS + "::test_in_a_linear_network_the_weights_of_every_rule_sum_to_one",
    ),
    Mutant(
        "a neuron as if the score were its sum",
        "conductance.py",
        "return read(x, *args) * gradient",
        "return read(x, *args)",
        FLOWS + "::test_in_a_linear_network_the_weights_of_every_rule_sum_to_one",
    ),
    Mutant(
        "neurons on a path of one's own as on the straight line",
        "conductance.py",
        "slope = tree_map(torch.mul, slope, velocity)",
        "pass",
        FLOWS + "::test_another_path_gives_its_own_integral",
    ),
    # Hiding features.
    Mutant(
        "hidden entries blended instead of replaced",
        "games/_covers.py",
        "        return torch.where(_kept(cover, coalitions, batch_dims), a, b)",
        "        kept = _kept(cover, coalitions, batch_dims)\n        return kept * a + ~kept * b",
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
        "a window absent only if all windows over an entry are",
        "games/_covers.py",
        "lambda found, dim, _: found.all(dim)",
        "lambda found, dim, _: found.any(dim)",
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
    """Several mutants side by side, and first that their tests pass without a fault."""
    status, report = run_tests(sorted({mutant.tests for mutant in mutants}))
    if status != 0:
        raise RuntimeError(f"the tests fail without any fault:\n{report}")
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as workers:
        return list(workers.map(judge, mutants))


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> tuple[int, str]:
    """The exit status of pytest, and what it says, on a copy with a fault or none."""
    with tempfile.TemporaryDirectory(prefix="attrib-mutant-") as folder:
        root = Path(folder)
        copy_to(root)
        if mutant is not None:
            apply(mutant, root)
        flags = ["-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow"]
        found = subprocess.run(
            [sys.executable, "-m", "pytest", *flags, *tests],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    return found.returncode, found.stdout[-2000:] + found.stderr[-2000:]


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
    sys.exit(_main(sys.argv[1:]))
