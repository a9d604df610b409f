"""Three published rows fit the trainer's model, and the others judge it."""

import pytest

from apriel_mcore.planning import hardware, published

TABLE = published.read()
H100 = hardware.load("h100")
HELD_OUT = [row for row in TABLE.rows if row.use == "held_out"]


def test_the_shipped_profile_is_the_fit_of_three_rows():
    fitted = published.fit(TABLE, H100).efficiency
    for field in ("gemm_bf16", "gemm_fp8", "tensor_exposed"):
        assert getattr(H100.efficiency, field) == pytest.approx(getattr(fitted, field), abs=1e-4)
    assert sum(row.use == "fit" for row in TABLE.rows) == 3


def test_held_out_rows_come_out_within_ten_percent_but_one():
    errors = [abs(TABLE.error(row, H100)) for row in HELD_OUT]
    assert len(errors) == 41
    assert sum(error <= 0.10 for error in errors) >= 40
    assert max(errors) < 0.11


@pytest.mark.parametrize("model", ["llama3-8b", "llama3-70b", "nemotron4-15b"])
@pytest.mark.parametrize("fp8", [False, True])
def test_every_model_and_precision_is_judged(model, fp8):
    rows = [row for row in HELD_OUT if row.model == model and row.fp8 == fp8]
    assert len(rows) >= 4


def test_the_table_names_every_row_with_its_error():
    lines = published.lines(TABLE, H100)
    assert sum(line.startswith("| held_out") for line in lines) == 41
    assert any("40 of 41 within 10%" in line for line in lines)
