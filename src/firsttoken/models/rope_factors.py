"""How a GGUF file stretches rotary positions, in the words of a transformers configuration.

llama.cpp keeps the factors of Llama 3.1 as a tensor (`rope_freqs.weight`: one divisor for each frequency), those of
Phi 3 as two (`rope_factors_long`, `rope_factors_short`), and linear and YaRN stretching as keys. transformers' reader
of GGUF files knows none of them and would turn queries and keys by other angles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError


def llama3_scaling(factors: Tensor, theta: float) -> dict[str, Any] | None:
    """The `llama3` parameters that give these divisors, or None where no such parameters do.

    The rule divides frequencies of long wavelength by `factor`, leaves short ones alone and goes between linearly in
    1 / wavelength. Only the ratios of its three other numbers matter, so `low_freq_factor` is 1.

    Args:
        factors: (frequency,) from the highest frequency to the lowest.
        theta: the rotary base.
    """
    factors = factors.double()
    size = 2 * len(factors)
    wavelength = 2 * math.pi * theta ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    factor = float(factors.max())
    if factor <= 1 or not torch.isfinite(factors).all() or float(factors.min()) < 1 - 1e-6:
        return None
    # 1 / divisor = (1 - s) / factor + s, and s = original / (high - low) / wavelength - low / (high - low).
    smooth = (1 / factors - 1 / factor) / (1 - 1 / factor)
    between = (smooth > 1e-4) & (smooth < 1 - 1e-4)
    candidates = [(4.0, 8192.0)]
    if int(between.sum()) >= 2:
        inverse, s = 1 / wavelength[between], smooth[between]
        slope = float((s[-1] - s[0]) / (inverse[-1] - inverse[0]))
        offset = float(s[0] - slope * inverse[0])
        if offset < 0:
            high = 1 - 1 / offset
            candidates.append((high, slope * (high - 1)))
    elif between.any():
        # One frequency in between says less than there are numbers; the published models' 4 is tried first.
        at, s_at = float(wavelength[between]), float(smooth[between])
        candidates += [(high, at * (1 + (high - 1) * s_at)) for high in (4.0, 8.0, 2.0, 16.0, 1.5, 32.0, 1.1)]
    elif bool((smooth < 0.5).any()) and bool((smooth > 0.5).any()):
        # No frequency lies in between, so any narrow band that keeps to the same sides gives the same divisors.
        edge = math.sqrt(float(wavelength[smooth > 0.5].max()) * float(wavelength[smooth < 0.5].min()))
        candidates.append((1 + 1e-6, edge))
    for high, original in candidates:
        near = round(high, 3), round(original)
        for h, o in (near, (high, original)):
            if h > 1 and o >= 1 and torch.allclose(_llama3(wavelength, factor, h, o), factors, rtol=1e-4):
                return {
                    "rope_type": "llama3",
                    "rope_theta": theta,
                    "factor": factor,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": float(h),
                    "original_max_position_embeddings": int(o) if o == int(o) else o,
                }
    return None


def _llama3(wavelength: Tensor, factor: float, high: float, original: float) -> Tensor:
    smooth = ((original / wavelength - 1) / (high - 1)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _refuse_impossible(
    keys: Mapping[str, Any], factors: Mapping[str, Tensor], kind: str, factor: float | None, head_size: int
) -> None:
    for name, tensor in factors.items():
        if len(tensor) != head_size // 2:
            raise FirstTokenError(f"{name} has {len(tensor)} factors for {head_size // 2} rotary frequencies.")
        if not (torch.isfinite(tensor).all() and (tensor > 0).all()):
            raise FirstTokenError(f"{name} has factors that are no positive numbers; the file is damaged.")
    pair = {"rope_factors_short.weight", "rope_factors_long.weight"}
    if len(pair & set(factors)) == 1:
        raise FirstTokenError(
            f"The file has {next(iter(pair & set(factors)))} and lacks {next(iter(pair - set(factors)))}, so rotary "
            "positions are not known; use the original safetensors instead."
        )
    if factor is None:
        return
    # llama.cpp takes a linear factor of 0 for none.
    if not (math.isfinite(factor) and (factor > 0 or (factor == 0 and kind in ("none", "linear")))):
        raise FirstTokenError(f"The file stretches rotary positions by the factor {factor}; it is damaged.")
    if f"{keys['general.architecture']}.rope.scaling.type" not in keys and factor not in (0, 1):
        raise FirstTokenError(
            f"The file stretches rotary positions by the factor {factor:g} and does not say how; use the original "
            "safetensors instead."
        )


def rope_parameters(
    keys: Mapping[str, Any], factors: Mapping[str, Tensor], own: dict[str, Any], head_size: int
) -> dict[str, Any]:
    """A model's rotary parameters with what its GGUF file says about stretching.

    Args:
        keys: the file's keys.
        factors: its tensors `rope_*`, (frequency,) each.
        own: the parameters that transformers read, perhaps one set for each kind of layer.
        head_size: numbers of a head that are rotated.

    Raises:
        FirstTokenError: the file stretches positions in a way that transformers cannot express, or in none.
    """
    prefix = f"{keys['general.architecture']}.rope.scaling"
    kind = keys.get(f"{prefix}.type", "none")
    factor = keys.get(f"{prefix}.factor", keys.get(f"{keys['general.architecture']}.rope.scale_linear"))
    original = keys.get(f"{prefix}.original_context_length")
    _refuse_impossible(keys, factors, kind, factor, head_size)
    stretched: dict[str, Any] = {}
    if "rope_freqs.weight" in factors:
        theta = own.get("rope_theta", 10000.0)
        scaling = llama3_scaling(factors["rope_freqs.weight"], theta)
        if scaling is None and not torch.allclose(factors["rope_freqs.weight"], torch.ones(1)):
            raise FirstTokenError(
                "The file's rotary factors (rope_freqs.weight) follow no rule that transformers has; use the original "
                "safetensors instead."
            )
        stretched = scaling or {}
    elif "rope_factors_short.weight" in factors and "rope_factors_long.weight" in factors:
        stretched = {
            "rope_type": "longrope",
            "short_factor": factors["rope_factors_short.weight"].tolist(),
            "long_factor": factors["rope_factors_long.weight"].tolist(),
        }
        if (attention := keys.get(f"{prefix}.attn_factor")) is not None:
            stretched["attention_factor"] = float(attention)
    elif kind in ("linear", "yarn") and factor:
        stretched = {"rope_type": kind, "factor": float(factor)}
    elif kind not in ("none", "linear", "yarn", "longrope"):
        raise FirstTokenError(
            f"The file stretches rotary positions by {kind!r}, which cannot be read from GGUF files."
        )
    if original and stretched and "original_max_position_embeddings" not in stretched and kind != "linear":
        stretched["original_max_position_embeddings"] = int(original)
    if "full_attention" in own:
        # Gemma 3 and its like stretch only the layers that see everything.
        return own | {"full_attention": own["full_attention"] | stretched} if stretched else own
    return own | stretched
