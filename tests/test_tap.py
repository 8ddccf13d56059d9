"""tap() shows what a module handed on, changes it when asked to, and leaves the model as it was."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.tap import tap


class Pair(NamedTuple):
    value: torch.Tensor
    extra: torch.Tensor | None


class Split(nn.Module):
    """Returns its input in the kind of container that it was made with."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        match self.kind:
            case "tuple":
                return x, None
            case "list":
                return [x, None]
            case "named":
                return Pair(x, None)
            case "dict":
                return {"value": x, "extra": None}


class Network(nn.Module):
    """Two layers with dropout between them; `unused` is never called."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.blocks[1](self.drop(torch.relu(self.blocks[0](x))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Network()


def hooks_of(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def use(model, *args, x=None, **kwargs):
    with tap(model, *args, **kwargs):
        if x is not None:
            model(x)


def refusal(model, *args, **kwargs):
    """What tap() says when it refuses: at once, or while the model runs on `x`."""
    with pytest.raises(UserError) as caught:
        use(model, *args, **kwargs)
    assert hooks_of(model) == 0
    return str(caught.value)


# --- reading --------------------------------------------------------------------------------------


def test_reading_shows_what_the_module_returned(model):
    x = torch.randn(5, 3)
    with tap(model, "blocks.0") as seen:
        model(x)
    assert torch.equal(seen.output, model.blocks[0](x))
    assert torch.equal(seen["blocks.0"].output, seen.output)
    assert seen.calls == 1
    assert not seen.output.requires_grad


def test_reading_changes_no_number_and_draws_none(model):
    x = torch.randn(5, 3)
    torch.manual_seed(1)
    plain = model(x)
    plain.sum().backward()
    state, gradient = torch.get_rng_state(), model.blocks[0].weight.grad.clone()
    model.zero_grad()
    torch.manual_seed(1)
    with tap(model, {name: None for name, _ in model.named_modules() if name != "blocks"}, retain="all"):
        tapped = model(x)
        tapped.sum().backward()
    assert torch.equal(tapped, plain)
    assert torch.equal(model.blocks[0].weight.grad, gradient)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_last_output_is_kept_or_all_of_them(model):
    inputs = torch.randn(3, 5, 3)
    with tap(model, "blocks.0") as last, tap(model, "blocks.0", retain="all") as every:
        for x in inputs:
            model(x)
    assert last.calls == every.calls == 3
    assert len(last.outputs) == 1
    assert [torch.equal(out, model.blocks[0](x)) for out, x in zip(every.outputs, inputs, strict=True)] == [True] * 3
    assert torch.equal(last.output, every.outputs[-1])


def test_a_kept_output_is_safe_from_what_happens_in_place_afterwards():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    x = torch.randn(8, 3)
    with tap(model, "0") as seen:
        model(x)
    assert (seen.output < 0).any()
    assert torch.equal(seen.output, model[0](x))


def test_without_detach_the_output_leads_to_gradients(model):
    model.eval()
    with tap(model, "blocks.0", detach=False) as seen:
        loss = model(torch.randn(5, 3)).sum()
    (gradient,) = torch.autograd.grad(loss, seen.output)
    assert gradient.shape == (5, 4)
    assert gradient.abs().sum() > 0


def test_the_model_itself_is_the_empty_name(model):
    model.eval()
    x = torch.randn(5, 3)
    with tap(model, "") as seen:
        out = model(x)
    assert torch.equal(seen.output, out)


def test_several_modules_are_asked_for_by_name(model):
    with tap(model, {"blocks.0": None, "drop": None}) as seen:
        model(torch.randn(5, 3))
    assert list(seen) == ["blocks.0", "drop"]
    assert "drop" in seen
    assert "blocks.9" not in seen
    assert seen["drop"].output.shape == (5, 4)
    with pytest.raises(UserError, match=r"several modules are tapped; ask for one by name: blocks\.0, drop"):
        _ = seen.output
    with pytest.raises(UserError, match=r"'blocks\.9' is not tapped\. Did you mean 'blocks\.0'\?"):
        _ = seen["blocks.9"]


def test_an_output_that_was_never_made_is_an_error_and_not_none(model):
    with tap(model, "unused") as seen:
        model(torch.randn(5, 3))
    assert seen.calls == 0
    assert seen.outputs == ()
    with pytest.raises(UserError, match="tap 'unused': the module was never called inside the block"):
        _ = seen.output


# --- editing --------------------------------------------------------------------------------------


def test_an_edit_reaches_what_comes_after(model):
    model.eval()
    x = torch.randn(5, 3)
    with tap(model, "blocks.0", edit=lambda output: torch.full_like(output, 2.0)) as seen:
        out = model(x)
    assert torch.equal(seen.output, torch.full((5, 4), 2.0))
    assert torch.equal(out, model.blocks[1](torch.full((5, 4), 2.0)))


def test_gradients_flow_through_an_edit(model):
    model.eval()
    with tap(model, "blocks.0", edit=lambda output: 3 * output):
        model(torch.ones(1, 3)).sum().backward()
    assert model.blocks[0].weight.grad.abs().sum() > 0


def test_the_relative_change_of_each_edit_is_measured(model):
    factors = iter([0.5, 0.9])
    with tap(model, "blocks.0", edit=lambda output: next(factors) * output) as seen:
        model(torch.randn(5, 3))
        assert seen.change == pytest.approx(0.5)
        model(torch.randn(5, 3))
    assert seen.change == pytest.approx(0.1, rel=1e-4)
    assert seen.largest_change == pytest.approx(0.5)
    assert seen.calls == 2


@pytest.mark.parametrize(
    ("before", "edit", "change"),
    [
        (torch.ones(4), torch.clone, 0.0),
        (torch.zeros(4), torch.clone, 0.0),
        (torch.zeros(4), lambda output: output + 1, float("inf")),
        (torch.ones(4), lambda output: -output, 2.0),
    ],
)
def test_the_change_is_zero_only_where_nothing_changed(before, edit, change):
    model = nn.Identity()
    with tap(model, "", edit=edit) as seen:
        model(before)
    assert seen.change == seen.largest_change == change


def test_an_edit_works_in_inference_mode(model):
    model.eval()
    with torch.inference_mode(), tap(model, "blocks.1", edit=lambda output: output * 0) as seen:
        assert model(torch.randn(5, 3)).abs().sum() == 0
    assert seen.change == 1.0


def test_a_mapping_gives_each_module_its_own_edit(model):
    model.eval()
    with tap(model, {"blocks.0": lambda output: 2 * output, "blocks.1": None}) as seen:
        model(torch.randn(5, 3))
    assert seen["blocks.0"].change == pytest.approx(1.0)
    assert seen["blocks.1"].change == 0.0


def test_an_edit_that_was_never_applied_is_an_error_unless_so_meant(model):
    x = torch.randn(5, 3)
    assert "tap 'unused': the edit was never applied" in refusal(model, "unused", torch.clone, x=x)
    with tap(model, "unused", torch.clone, required=False) as seen:
        model(x)
    assert seen.calls == 0


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda output: None, "edit must return a tensor, it returned NoneType"),
        (lambda output: output.add_(1), "edit changed its argument in place; let it return a new tensor"),
        (lambda output: output[:, :2], "edit returned float32 (5, 2) on cpu, expected float32 (5, 4) on cpu"),
        (lambda output: output.double(), "edit returned float64 (5, 4) on cpu, expected float32"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(model, edit, said):
    assert f"tap 'blocks.0': {said}" in refusal(model, "blocks.0", edit, x=torch.randn(5, 3))


# --- outputs with several parts -------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "index"), [("tuple", 0), ("list", 0), ("named", 0), ("dict", "value")])
def test_one_part_of_an_output_is_chosen_by_its_index(kind, index):
    model, x = Split(kind), torch.randn(3)
    with tap(model, "", lambda output: output + 1, index=index) as seen:
        returned = model(x)
    assert torch.equal(seen.output, x + 1)
    assert type(returned) is type(model(x))
    assert torch.equal(returned[index], x + 1)
    assert len(returned) == 2


def test_an_output_with_several_parts_needs_an_index():
    said = refusal(Split("tuple"), "", x=torch.randn(3))
    assert said.endswith("a tuple of (Tensor, NoneType); choose one of its tensors with index=")


@pytest.mark.parametrize(("kind", "index"), [("tuple", 5), ("tuple", "value"), ("dict", 0)])
def test_an_index_that_does_not_fit_is_refused(kind, index):
    said = refusal(Split(kind), "", index=index, x=torch.randn(3))
    assert f"index={index!r} does not fit what the module returned, a {kind}" in said


# --- leaving --------------------------------------------------------------------------------------


def test_the_hooks_are_gone_after_the_block(model):
    with tap(model, {"blocks.0": torch.clone, "drop": None}):
        assert hooks_of(model) == 2
        model(torch.randn(5, 3))
    assert hooks_of(model) == 0


def test_an_exception_in_the_block_passes_through_and_the_hooks_are_gone(model):
    with pytest.raises(ZeroDivisionError), tap(model, "unused", torch.clone):
        _ = 1 / 0
    assert hooks_of(model) == 0


# --- refusals -------------------------------------------------------------------------------------


def test_an_unknown_name_is_refused_with_the_nearest_known_one(model):
    assert refusal(model, "block.1") == (
        "tap: Network has no module 'block.1'. Did you mean 'blocks.1'? "
        "Directly below the model: blocks, drop, unused"
    )  # fmt: skip
    assert "Directly below 'blocks.0': no modules" in refusal(model, "blocks.0.bias")


def test_edits_are_given_in_one_place(model):
    assert "not both" in refusal(model, {"blocks.0": None}, torch.clone)


def test_what_to_retain_is_one_of_three_words(model):
    assert refusal(model, "blocks.0", retain="first") == "tap: retain='first'; expected 'last', 'all' or 'none'"


def test_an_edit_counts_though_nothing_is_retained(model):
    with tap(model, "blocks.0", edit=lambda output: 0.5 * output, retain="none") as seen:
        model(torch.randn(5, 3))
    assert (seen.calls, len(seen.outputs)) == (1, 0)
    assert seen.change == pytest.approx(0.5)
    with pytest.raises(UserError, match="retain='none' keeps no output"):
        _ = seen.output


def test_a_module_inside_a_compiled_region_is_refused(model):
    compiled = torch.compile(model, backend="eager")
    assert "tap 'blocks.0': the model is compiled" in refusal(compiled, "blocks.0")
    assert "no module 'block.0'. Did you mean 'blocks.0'?" in refusal(compiled, "block.0")
    outer = nn.Sequential(nn.Identity(), model)
    outer[1].compile(backend="eager")
    assert "tap '1.drop': '1' is compiled" in refusal(outer, "1.drop")
    assert "tap '1': '1' is compiled" in refusal(outer, "1")
    with tap(outer, "0") as seen:
        outer[0](torch.ones(2))
    assert seen.calls == 1


def test_a_compiled_module_is_tapped_from_outside(model):
    compiled = torch.compile(model.eval(), backend="eager")
    assert isinstance(compiled, nn.Module)
    x = torch.randn(5, 3)
    with tap(compiled, "") as seen:
        out = compiled(x)
    assert torch.equal(seen.output, out)


def test_a_fused_transformer_layer_differs_in_its_last_digits_only():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        plain = layer(x)
        with tap(layer, "norm2") as seen:
            tapped = layer(x)
    assert torch.allclose(tapped, plain, atol=1e-5)
    assert seen.calls == 1
