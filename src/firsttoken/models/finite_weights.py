"""Whether every weight is a number."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from firsttoken.errors import FirstTokenError
from firsttoken.models.language_model import DTYPES


def refuse_weights_without_number(name: str, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Look at every weight once: a row of the embeddings, or a head, may be no number without any of a few tokens
    showing it. Weights that are not there, or in a coded form, are left out.

    Args:
        name: the model's, for the sentence.

    Raises:
        FirstTokenError: one is not a finite number.
    """
    for key, parameter in parameters:
        if parameter.is_meta or not parameter.numel() or parameter.dtype not in DTYPES.values():
            continue
        # The extremes are none where one weight is none. A sum would say so too, but of half-precision weights it
        # makes a copy in float32 first, which for the embeddings is more memory than a layer takes.
        if not torch.stack(parameter.detach().aminmax()).isfinite().all():
            raise FirstTokenError(
                f"{name}: {key} holds weights that are no numbers in {str(parameter.dtype).removeprefix('torch.')}; "
                "load it in another dtype, or download it again."
            )
