"""What other libraries got wrong, silently or by running out of memory: right here, or refused."""

import gc
import time
import weakref
from pathlib import Path

import pytest
import torch
import torchvision
import transformers as t
from torch import nn

from schemas.allocation import GlobalAllocation
from schemas.criteria import Magnitude
from schemas.method import Structured
from tests.sweep.architectures import cases
from tests.sweep.stages import attempt
from workers.pruning.structured.graph import DependencyGraph, Group
from workers.pruning.structured.plan import choose_groups, plan
from workers.pruning.structured.scores import magnitude
from workers.pruning.structured.surgery import remove
from workers.pruning.structured.trace import trace

CASES = cases()
HEADS = Structured(
    units=("heads",), criterion=Magnitude(norm=2), allocation=GlobalAllocation(cap=1.0), round_to=1
)
LLAMA = {
    "vocab_size": 50,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
ROTARY = ("gemma", "gpt_neox", "llama", "mistral", "phi", "phi3", "qwen2", "qwen3")


def graph_of(module: nn.Module, *inputs: torch.Tensor) -> DependencyGraph:
    return trace(module, lambda part: part(*inputs))


def ids() -> torch.Tensor:
    return torch.randint(0, 50, (2, 6))


def heads_of(graph: DependencyGraph) -> list[Group]:
    return [group for group in graph.groups if group.kind == "heads"]


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/shufflenet_v2_x0_5",
        "transformers/falcon",
        "transformers/gpt2",
        "transformers/phi3",
        "transformers/qwen3",
        "transformers/swin",
        "transformers/t5",
        "transformers/whisper",
    ],
)
def test_architectures_that_crash_or_stay_whole_elsewhere_shrink_and_equal_their_masked_twin(name):
    record = attempt(CASES[name], "check")

    assert record["outcome"] == "passed", record
    assert record["parameters_after"] < 0.8 * record["parameters"]


@pytest.mark.parametrize("name", ["transformers/mamba", "timm/xcit_nano_12_p16_224"])
def test_architectures_that_cannot_follow_are_right_or_refused(name):
    record = attempt(CASES[name], "check")

    assert record["outcome"] in ("passed", "refused"), record


def test_global_ranking_takes_the_weakest_groups_of_queries_and_no_others():
    # eight query heads share four keys and values: units are keys with the two queries that read them
    torch.manual_seed(0)
    module = t.LlamaForCausalLM(t.LlamaConfig(**LLAMA)).eval()
    attention = module.model.layers[0].self_attn
    with torch.no_grad():
        for weak in (0, 2):
            attention.k_proj.weight[8 * weak : 8 * weak + 8] *= 0.01
            attention.v_proj.weight[8 * weak : 8 * weak + 8] *= 0.01
            attention.q_proj.weight[16 * weak : 16 * weak + 16] *= 0.01
            attention.o_proj.weight[:, 16 * weak : 16 * weak + 16] *= 0.01
    queries = attention.q_proj.weight.detach().clone()
    keys = attention.k_proj.weight.detach().clone()
    graph = graph_of(module, ids())

    chosen = choose_groups(graph, HEADS)
    remove(module, graph, plan(chosen.groups, magnitude(module, chosen.groups, norm=2), HEADS, 0.5))

    rows = [*range(16, 32), *range(48, 64)]
    assert torch.equal(attention.q_proj.weight, queries[rows])
    assert torch.equal(attention.k_proj.weight, keys[[*range(8, 16), *range(24, 32)]])


@pytest.mark.parametrize("name", ROTARY)
def test_no_unit_is_a_part_of_a_head_that_is_rotated(name):
    case = CASES[f"transformers/{name}"]
    module = case.build().eval()
    width = getattr(module.config, "head_dim", None) or 16

    graph = graph_of(module, torch.randint(0, 50, (2, 6)))

    for group in graph.groups:
        for axis in group.axes:
            if axis.role == "out" and any(part in axis.tensor for part in ("q_proj", "k_proj", "query_key")):
                assert group.kind == "heads"
                rows_a_unit = (axis.units >= 0).sum() / group.size
                assert rows_a_unit % width == 0, axis.tensor


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t", "maxvit_t"])
def test_windows_are_analysed_in_bounded_time_and_memory(name):
    with torch.device("meta"):
        options = {"input_size": (224, 224)} if name == "maxvit_t" else {}
        module = getattr(torchvision.models, name)(weights=None, **options)
    images = torch.empty(2, 3, 224, 224, device="meta")
    Path("/proc/self/clear_refs").write_text("5")
    rested, begin = memory("VmRSS"), time.process_time()

    graph = graph_of(module, images)

    assert time.process_time() - begin < 30
    assert memory("VmHWM") - rested < 512 * 2**20
    assert heads_of(graph)


def memory(field: str) -> int:
    """Bytes that this process has (VmRSS) or had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def test_six_jobs_leave_no_module_behind():
    left = [weakref.ref(part) for _ in range(6) for part in pruned_parts()]
    gc.collect()

    assert len(left) > 6 * 10
    assert [part for part in left if part() is not None] == []


def pruned_parts() -> list[nn.Module]:
    """The modules of a pruned model: grouped queries, a gated feed-forward, norms."""
    module = t.LlamaForCausalLM(t.LlamaConfig(**LLAMA)).eval()
    method = Structured(round_to=1)
    graph = graph_of(module, ids())
    chosen = choose_groups(graph, method)
    remove(module, graph, plan(chosen.groups, magnitude(module, chosen.groups, norm=2), method, 0.3))
    return list(module.modules())
