"""The planner against real files and real passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from firsttoken import models
from firsttoken.claims.scale import measure as scale
from firsttoken.execution import cost
from firsttoken.execution.cost import Load, Plan, plans, shape_of
from firsttoken.execution.streaming import StreamedModel
from firsttoken.models.bundled import BUNDLED
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.machine import Machine, free_memory
from tiny import tiny_model

BIG = "meta-llama-llama-3-1-405b"
NAMES = ("llama", "gemma3_text", "gpt2", "gpt_neox", "opt", "mixtral", "qwen2_moe", "phi", "deepseek_v3-latent")


def by_way(model: str, machine: Machine, load: Load | None = None) -> dict[str, Plan]:
    shape = shape_of(scale.paper_config(model), "bfloat16")
    return {plan.way: plan for plan in plans(shape, machine, load or Load())}


@pytest.mark.parametrize("name", BUNDLED)
def test_sizes_are_those_of_the_files(name: str) -> None:
    lm = models.load(name, device="cpu")
    checkpoint = open_checkpoint(lm.local_folder())
    assert shape_of(lm.config, "float32").bytes == checkpoint.bytes
    files = sum(shard.stat().st_size for shard in checkpoint.shards)
    assert checkpoint.bytes <= files <= 1.001 * checkpoint.bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_pass_reads_what_was_predicted(name: str, tmp_path: Path) -> None:
    tiny_model(name).save_pretrained(tmp_path, max_shard_size="20KB")
    lm = models.load(str(tmp_path), device="cpu")
    shape, streamed = shape_of(lm.config, "float32"), StreamedModel(lm)
    assert shape.bytes == streamed.checkpoint.bytes
    # Converted weights (experts that are saved one by one) have the same size in memory.
    assert shape.layer_bytes == max(streamed.layer_bytes())
    ids = torch.full((2, 8), 5)
    for head in (False, True):
        out = streamed.run(ids, lambda layer, hidden: None, reduce_logits=(lambda x: x) if head else None)
        machine = Machine("any", ram=1e9)
        (predicted,) = [p for p in plans(shape, machine, Load(2, 8, head=head)) if p.way == "streamed"]
        assert predicted.bytes_read == out.bytes_read


def test_the_papers_models_have_their_published_numbers_of_parameters() -> None:
    counts = [scale.size(scale.paper_config(model))["parameters"] for model in scale.PAPER_SHAPES]
    assert counts == [8_030_261_248, 70_553_706_496, 405_853_388_800]


def test_405b_on_one_gpu_only_streamed() -> None:
    ways = by_way(BIG, Machine("one", ram=64e9, gpus=1, gpu_memory=24e9, disk_rate=3e9, compute_rate=5e13))
    assert {way: plan.fits for way, plan in ways.items()} == {"resident": False, "streamed": True}
    # 807 GB at 3 GB/s: the disk is the limit.
    assert ways["streamed"].seconds == pytest.approx(ways["streamed"].bytes_read / 3e9, rel=0.02)


def test_405b_on_a_node_of_large_gpus() -> None:
    ways = by_way(BIG, Machine("node", ram=2e12, gpus=8, gpu_memory=141e9))
    assert ways["tensor_parallel"].fits
    assert ways["device_map='auto'"].fits
    assert not ways["resident"].fits


def test_arithmetic_is_the_limit_where_there_is_much_of_it() -> None:
    machine = Machine("slow", ram=64e9, gpus=1, gpu_memory=24e9, disk_rate=3e9, compute_rate=1e12)
    few, many = (by_way(BIG, machine, Load(passages))["streamed"].seconds for passages in (1, 1700))
    assert many > 100 * few


def test_experts_cost_memory_and_little_time() -> None:
    dense, experts = (shape_of(tiny_model(name).config, "float32") for name in ("llama", "mixtral"))
    assert dense.active == 1
    assert 0.5 < experts.active < 1


def test_free_memory_is_less_than_there_is() -> None:
    assert 0 < free_memory("cpu") < 1 << 50
    assert cost.Load().tokens == 170 * 64


def test_layers_that_differ_in_their_heads_are_counted_by_the_widest() -> None:
    """Gemma 4: `head_dim` is 8 in sliding layers and 16 in the others, and the configuration names no one value."""
    config = AutoConfig.for_model(
        "gemma4_text", vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, global_head_dim=16, sliding_window=6, num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=97, max_position_embeddings=256,
    )  # fmt: skip
    assert cost.shape_of(config, "float32").widest == 3 * 32 + 4 * 4 * 16
