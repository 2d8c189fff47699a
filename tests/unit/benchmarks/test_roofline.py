"""What a cost table says of a device, and what is said where there is no table."""

from __future__ import annotations

import pytest
from edgeturbo.benchmarks.devices import DEVICES
from edgeturbo.benchmarks.roofline import look_up_costs, peak_of, propose_size
from edgeturbo.engines.costs import SCHEMA, Costs, Growth, Work
from edgeturbo.engines.errors import UsageError


def products(*dtypes: str) -> Costs:
    """One product in each of ``dtypes``, and an elementwise node in FP32."""
    work = [Work("unet", "conv", dtype, 1, dtype, Growth(linear=10), Growth(), Growth(), 0) for dtype in dtypes]
    work.append(Work("unet", "elementwise", "float32", 1, "add", Growth(), Growth(linear=8), Growth(), 0))
    return Costs(SCHEMA, 64, 64, 1, 0, (), tuple(work))


@pytest.mark.parametrize(
    ("dtypes", "tera"),
    [
        (("float32",), "fp32"),
        (("float32", "float16"), "fp16"),
        (("float16", "int8"), "int8"),
        ((), "fp32"),
    ],
    ids=lambda value: "+".join(value) or "none" if isinstance(value, tuple) else value,
)
def test_the_ceiling_is_that_of_the_fastest_products(dtypes, tera):
    device = DEVICES["agx-orin"]
    assert peak_of(products(*dtypes), device) == getattr(device, tera) * 1e12


def test_without_a_cost_table_no_size_is_proposed_and_a_result_says_what_it_lacks(make_bundle):
    bundle, missing = make_bundle(), {}
    with pytest.raises(UsageError, match=r"no costs\.json") as refused:
        propose_size(bundle, ("agx-orin", 15.0))
    assert refused.value.hint == "export the bundle again"
    assert look_up_costs(bundle, None, (), missing) == (None, ())
    assert missing == {
        "roofline": "this bundle has no costs.json, and estimates are made from it: export the bundle again"
    }
    look_up_costs(bundle, None, (DEVICES["agx-orin"],), missing)
    assert missing["predict"] == missing["roofline"]
