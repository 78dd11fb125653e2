"""The tables' own arithmetic: cases, results that are measured once, and what holds."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tables.assets import MAKERS, named_by
from tests.tables.libraries import VENV_OF
from tests.tables.packages import Corrupt, check
from tests.tables.places import PEERS
from tests.tables.plan import Case, Limit, load_cases, merged
from tests.tables.results import OURS, Result, Results, Speed
from tests.tables.table import lines, markdown, order_failures

CASES = load_cases()
VALUES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
)


def result(case: Case, metric: float, *, by: str = OURS, dense: float = 0.9, speeds: tuple[Speed, ...] = ()):
    return Result(
        key=case.key,
        digest=case.digest,
        by=by,
        dense=dense,
        metric=metric,
        removed=0.5,
        nonzeros=1,
        macs=None,
        seconds=1.0,
        speeds=speeds,
    )


def speed(speedup: float, batch: int) -> Speed:
    return Speed(f"batch {batch}", speedup, 1.0, speedup, speedup, speedup, "faster")


def seeds_of(row: int) -> list[Case]:
    first = next(case for case in CASES if case.row == row)
    return [case for case in CASES if case.row == row and case.name == first.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_every_case_is_a_spec_that_the_service_takes(case: Case):
    assert case.job().seed == case.seed
    assert set(named_by([case])) <= set(MAKERS)
    assert case.peer is None or (PEERS / f"{VENV_OF[case.peer]}.txt").is_file()


def test_no_two_cases_share_a_key_or_a_digest():
    assert len({case.key for case in CASES}) == len(CASES)
    assert len({case.digest for case in CASES}) == len(CASES)


@given(VALUES, VALUES)
def test_what_is_on_top_wins_and_what_it_does_not_name_stays(base: object, changes: object):
    both = merged(base, changes)

    assert merged(both, changes) == both
    if isinstance(base, dict) and isinstance(changes, dict):
        assert both.keys() == base.keys() | changes.keys()
        assert all(both[key] == base[key] for key in base.keys() - changes.keys())
    else:
        assert both == changes


def test_a_case_that_was_measured_is_not_missing_and_one_that_changed_is(tmp_path: Path):
    first, second, *_ = seeds_of(1)
    Results(tmp_path / "results.jsonl").add(result(first, 0.9, speeds=(speed(1.5, 32),)))

    read_again = Results(tmp_path / "results.jsonl")

    assert read_again.of(first, OURS) == result(first, 0.9, speeds=(speed(1.5, 32),))
    assert read_again.missing([first, second], OURS) == [second]
    changed = replace(first, spec={**first.spec, "goal": {"sparsity": 0.6}})
    assert read_again.missing([changed], OURS) == [changed]


def test_the_last_measurement_of_a_case_counts(tmp_path: Path):
    case = CASES[0]
    results = Results(tmp_path / "results.jsonl")

    for metric in (0.8, 0.9):
        results.add(result(case, metric))

    assert Results(tmp_path / "results.jsonl").of(case, OURS) == result(case, 0.9)


def test_a_loss_beyond_the_limit_in_the_mean_of_the_seeds_is_told(tmp_path: Path):
    seeds = seeds_of(1)
    assert seeds[0].limit.lost_points == 0.2
    results = Results(tmp_path / "results.jsonl")
    for case, metric in zip(seeds, (0.9, 0.9, 0.893), strict=True):
        results.add(result(case, metric))

    [line] = lines(seeds, results)

    assert line.lost == pytest.approx(0.7 / 3)
    assert line.failures() == ["row 1, 50 %, iterative: 0.23 points are lost, at most 0.2 may be"]


def test_a_library_that_is_better_is_told_and_only_common_seeds_are_compared(tmp_path: Path):
    seeds = seeds_of(1)
    results = Results(tmp_path / "results.jsonl")
    for case, ours, theirs in zip(seeds, (0.901, 0.9, 0.9), (0.9, 0.9, None), strict=True):
        results.add(result(case, ours))
        if theirs is not None:
            results.add(result(case, theirs, by="torch_prune"))
    better = Results(tmp_path / "results.jsonl")
    better.add(result(seeds[2], 0.999, by="torch_prune"))

    [line], [beaten] = lines(seeds, results), lines(seeds, better)

    assert line.failures() == []
    assert beaten.failures() == ["row 1, 50 %, iterative: torch.nn.utils.prune is better"]


def test_a_speed_up_below_the_limit_is_told(tmp_path: Path):
    [case, *_] = seeds_of(2)
    assert case.limit == Limit(lost_points=1.0, speedup=1.6, batch=32)
    results = Results(tmp_path / "results.jsonl")
    results.add(result(case, 0.9, speeds=(speed(1.9, 1), speed(1.5, 32))))

    [line] = lines([case], results)

    assert line.failures() == ["row 2, 50 % of MACs: 1.50x as fast, and 1.6x is asked for"]


def test_a_latency_that_was_too_unstable_to_judge_does_not_count_as_met(tmp_path: Path):
    [case, *_] = seeds_of(2)
    results = Results(tmp_path / "results.jsonl")
    results.add(result(case, 0.9, speeds=(replace(speed(1.9, 32), verdict="unstable"),)))

    [line] = lines([case], results)

    assert line.failures() == ["row 2, 50 % of MACs: the latency was too unstable to judge, measure it again"]


def test_a_library_that_removed_another_share_says_so(tmp_path: Path):
    [case, *_] = seeds_of(2)
    results = Results(tmp_path / "results.jsonl")
    results.add(result(case, 0.9))
    results.add(replace(result(case, 0.89, by="torch_pruning"), removed=0.532))

    assert "89.00% (Torch-Pruning, 53.2% removed)" in markdown(lines([case], results))


def test_of_perplexity_less_is_better(tmp_path: Path):
    [case] = seeds_of(4)
    results = Results(tmp_path / "results.jsonl")
    results.add(result(case, 40.0, dense=25.0))
    results.add(result(case, 30.0, dense=25.0, by="llm_compressor"))

    [line] = lines([case], results)

    assert line.lost == 15.0
    assert line.failures() == ["row 4, magnitude, 50 %: LLM Compressor is better"]
    assert "| 25.00 | 40.00 | +15.00 | 30.00 (LLM Compressor) |" in markdown([line])


def test_a_line_that_is_worse_than_the_one_it_should_be_as_good_as_is_told(tmp_path: Path):
    magnitude, wanda, sparsegpt = (case for case in CASES if case.row == 4 and case.name.endswith("50 %"))
    results = Results(tmp_path / "results.jsonl")
    for case, found in ((magnitude, 40.0), (wanda, 30.0), (sparsegpt, 31.0)):
        results.add(result(case, found, dense=25.0))

    assert order_failures(lines([magnitude, wanda], results)) == []
    assert order_failures(lines([magnitude, wanda, sparsegpt], results)) == [
        "row 4: SparseGPT, 50 % is worse than Wanda, 50 %"
    ]


def test_every_order_names_a_line_of_its_row():
    names = {(case.row, case.name) for case in CASES}

    asked = [(case.row, case.limit.as_good_as) for case in CASES if case.limit.as_good_as]

    assert len(asked) == 4
    assert set(asked) <= names


def test_a_line_has_a_cell_for_each_heading_and_says_how_far_the_seeds_lie_apart(tmp_path: Path):
    seeds = seeds_of(1)
    results = Results(tmp_path / "results.jsonl")
    for case, metric in zip(seeds, (0.899, 0.9, 0.901), strict=True):
        results.add(result(case, metric))

    head, rule, row = markdown(lines(seeds, results)).splitlines()[2:5]

    assert head.count("|") == rule.count("|") == row.count("|")
    assert "90.00% ± 0.10" in row


def test_a_file_that_is_not_the_measured_one_is_refused_and_removed(tmp_path: Path):
    path = tmp_path / "a.whl"
    path.write_bytes(b"other")

    with pytest.raises(Corrupt, match="was expected"):
        check(path, "0" * 64)

    assert not path.exists()


@pytest.mark.parametrize("name", ["torch_prune", "torch_pruning", "llm_compressor"])
def test_a_librarys_script_shares_nothing_with_us(name: str):
    text = (PEERS / f"{name}.py").read_text()

    assert not [word for word in ("workers", "schemas", "service", "tests") if f"from {word}" in text]
