"""The sizes of a model, from its config alone: no weight is read."""

from __future__ import annotations

from typing import Any, NamedTuple

from recipe.launch.check_model import text_config


class Model(NamedTuple):
    """Sizes of a model.

    Attributes:
        parameters: All of them.
        trainable: Those that get gradients: all, or those of a LoRA adapter.
        layer: Parameters of its largest layer, one FSDP unit.
        root: Parameters outside its layers (embedding and head), one FSDP unit.
        layers, hidden, intermediate, vocabulary, context: As in its config.
        heads, kv_heads, head: Numbers of heads, and the size of one.
    """

    parameters: int
    trainable: int
    layer: int
    root: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    context: int
    heads: int
    kv_heads: int
    head: int


def model_sizes(hf_config: Any, lora_rank: int = 0) -> Model:
    """Counts a model's parameters on the meta device.

    Args:
        hf_config: Its Hugging Face config.
        lora_rank: Above 0: an adapter of this rank on each linear layer but the head.
    """
    import torch
    from verl.utils.model import get_hf_auto_model_class

    with torch.device("meta"):
        model = get_hf_auto_model_class(hf_config).from_config(
            hf_config, attn_implementation="eager"
        )
    total = sum(parameter.numel() for parameter in model.parameters())
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in model.modules()
        if type(module).__name__ in names
    ]
    head = model.get_output_embeddings()
    adapter = sum(
        lora_rank * (module.in_features + module.out_features)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    text = text_config(hf_config)
    heads = text.num_attention_heads
    return Model(
        parameters=total + adapter,
        trainable=adapter or total,
        layer=max(layers, default=0),
        root=total - sum(layers),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head=getattr(text, "head_dim", None) or text.hidden_size // heads,
    )
