"""The attention probe: exact attention to chosen keys, entropy and interventions, without the T x T matrix."""

from firsttoken.probe.attention_probe import Probe, probe

__all__ = ["Probe", "probe"]
