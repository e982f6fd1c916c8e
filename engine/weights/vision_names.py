"""Key maps of the image models: the dotted names of `engine.models.vit` to those of checkpoints."""

from collections.abc import Collection

from engine.weights.names import Rename

_HF_EMBED = {
    "embed.patch.weight": "embeddings.patch_embeddings.projection.weight",
    "embed.patch.bias": "embeddings.patch_embeddings.projection.bias",
    "embed.cls": "embeddings.cls_token",
    "embed.distillation": "embeddings.distillation_token",
    "embed.registers": "embeddings.register_tokens",
    "embed.position": "embeddings.position_embeddings",
}
_HF_ATTENTION = {
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "o": "attention.output.dense",
}
_VIT = {
    **_HF_EMBED,
    **_HF_ATTENTION,
    "layers": "encoder.layer",
    "norm": "layernorm",
    "attn_norm": "layernorm_before",
    "mlp_norm": "layernorm_after",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_DINO = {
    **_HF_EMBED,
    **_HF_ATTENTION,
    "layers": "encoder.layer",
    "norm": "layernorm",
    "attn_norm": "norm1",
    "mlp_norm": "norm2",
    "attn_scale": "layer_scale1.lambda1",
    "mlp_scale": "layer_scale2.lambda1",
    "gate": "mlp.gate",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
_DINO_GATED = {**_DINO, "up": "mlp.up", "down": "mlp.weights_out"}
_TOWER = {
    "embed.patch.weight": "embeddings.patch_embedding.weight",
    "embed.patch.bias": "embeddings.patch_embedding.bias",
    "embed.cls": "embeddings.class_embedding",
    "embed.position": "embeddings.position_embedding.weight",
    "layers": "encoder.layers",
    "pre_norm": "pre_layrnorm",
    "norm": "post_layernorm",
    "attn_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.out_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "pool.probe": "head.probe",
    "pool.q": "head.attention.q",
    "pool.k": "head.attention.k",
    "pool.v": "head.attention.v",
    "pool.o": "head.attention.out_proj",
    "pool.norm": "head.layernorm",
    "pool.up": "head.mlp.fc1",
    "pool.down": "head.mlp.fc2",
}
_TEXT_TOWER = {
    **{name: there for name, there in _TOWER.items() if not name.startswith(("embed", "pool", "pre_norm"))},
    "embed.token": "embeddings.token_embedding.weight",
    "embed.position": "embeddings.position_embedding.weight",
    "norm": "final_layer_norm",
    "head": "head",
}
_TIMM = {
    "embed.patch.weight": "patch_embed.proj.weight",
    "embed.patch.bias": "patch_embed.proj.bias",
    "embed.cls": "cls_token",
    "embed.distillation": "dist_token",
    "embed.registers": "reg_token",
    "embed.position": "pos_embed",
    "layers": "blocks",
    "pre_norm": "norm_pre",
    "norm": "norm",
    "attn_norm": "norm1",
    "mlp_norm": "norm2",
    "q": "attn.q",
    "k": "attn.k",
    "v": "attn.v",
    "o": "attn.proj",
    "q_norm": "attn.q_norm",
    "k_norm": "attn.k_norm",
    "attn_scale": "ls1.gamma",
    "mlp_scale": "ls2.gamma",
    "gate": "mlp.gate",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "pool.probe": "attn_pool.latent",
    "pool.q": "attn_pool.q",
    "pool.k": "attn_pool.k",
    "pool.v": "attn_pool.v",
    "pool.o": "attn_pool.proj",
    "pool.norm": "attn_pool.norm",
    "pool.up": "attn_pool.mlp.fc1",
    "pool.down": "attn_pool.mlp.fc2",
    "head": "head",
    "distillation_head": "head_dist",
}
_HEADS = {"head": "classifier", "distillation_head": "distillation_classifier"}
PREFIXES = ("vit.", "deit.", "dinov2.", "dinov2_with_registers.", "vision_model.")


def vit_hf(architecture: str, present: Collection[str], *, gated: bool = False) -> Rename:
    """Names in a Hugging Face checkpoint, after `vit.` or the like where it has that."""
    if architecture.startswith(("clip", "siglip")):
        table = _TOWER
    elif architecture.startswith("dinov2"):
        table = _DINO_GATED if gated else _DINO
    else:
        table = _VIT
    patch = table["embed.patch.weight"]
    prefix = next((prefix for prefix in PREFIXES if prefix + patch in present), "")
    heads = {**_HEADS, **({"head": "cls_classifier"} if "cls_classifier.weight" in present else {})}
    inner = _renamer(table)

    def rename(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if name == "projection":
            return "visual_projection.weight"
        return f"{heads[module]}.{leaf}" if module in heads else prefix + inner(name)

    return rename


def clip_hf(architecture: str, present: Collection[str]) -> Rename:
    """Names in a Hugging Face checkpoint of both towers."""
    vision, text = vit_hf(architecture, present), _renamer(_TEXT_TOWER)

    def rename(name: str) -> str:
        tower, _, inner = name.partition(".")
        if tower == "vision":
            return vision(inner)
        if name == "text.projection":
            return "text_projection.weight"
        return f"text_model.{text(inner)}" if tower == "text" else name

    return rename


def vit_timm(present: Collection[str]) -> Rename:
    """Names in a timm checkpoint; its norm after pooling is called `fc_norm`."""
    pooled = "fc_norm.weight" in present
    return _renamer({**_TIMM, **({"norm": "fc_norm"} if pooled else {})})


def _renamer(table: dict[str, str]) -> Rename:
    """By the whole name, else by the module before its leaf; layers keep their number."""

    def rename(name: str) -> str:
        if name in table:
            return table[name]
        at = ""
        if name.startswith("layers."):
            _, index, name = name.split(".", 2)
            at = f"{table['layers']}.{index}."
        if name in table:
            return at + table[name]
        module, _, leaf = name.rpartition(".")
        return f"{at}{table[module]}.{leaf}"

    return rename
