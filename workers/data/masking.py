"""Hidden tokens, which a masked language model learns to guess."""

from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from workers.errors import ModelError
from workers.loss import IGNORED

SHARE = 0.15


def mask_some(ids: Tensor, tokenizer: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels [N,T]: of the tokens `ids` that are not special 15 % are to be guessed, of which 80 %
    are masked, 10 % are another token and 10 % stay (Devlin et al. 2019, section 3.1); the library draws.

    Drawn once, with `seed`, so each pass sees the same. At least one token of each block is masked: a mean
    over none is no number. ModelError where the tokenizer has no mask.
    """
    if tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask: set 'mask_token' in tokenizer_config.json")
    generator = torch.Generator().manual_seed(seed)
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=SHARE)
    collator.generator = generator
    inputs, labels = collator.torch_mask_tokens(ids.clone(), special_tokens_mask=special)
    for row in (labels == IGNORED).all(dim=1).nonzero().flatten().tolist():
        words = (~special[row]).nonzero().flatten()
        places = words if len(words) else torch.arange(ids.shape[1])
        place = places[torch.randint(len(places), (1,), generator=generator)]
        inputs[row, place], labels[row, place] = tokenizer.mask_token_id, ids[row, place]
    return inputs, labels
