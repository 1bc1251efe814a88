"""Which parameter of the release is which of ours, as data.

Release names are those of original Wan files (``.pth`` T5, CLIP and VAE, safetensors transformer);
the public DreamZero checkpoints put a prefix before them. Ours are those that diffusers
(transformer, video) and transformers (text, image) write. A template matches both ways:
``{n}`` is a number, ``{p}`` is weight or bias, ``{kv}`` ``{qkv}`` ``{qkvo}`` one letter.

Nothing is transposed anywhere. Two things change shape: CLIP's joint query-key-value matrix is three
matrices here, and its class and position embeddings lose axes of length one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
        release: template of the release's name, without prefix.
        ours: templates of our names; more than one when rows of the release's tensor are split
            evenly among them, in this order.
        unit_axes: leading axes of length one that the release's tensor has and ours has not.
        extra: kept under its release name because the library's module has no place for it.
        version: of the video codec, where 2.1 and 2.2 give the same name to different tensors.
    """

    release: str
    ours: tuple[str, ...]
    unit_axes: int = 0
    extra: bool = False
    version: str = ""


def _same(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(release, (ours,)) for release, ours in pairs)


def _transformer() -> tuple[Rule, ...]:
    condition, image = "condition_embedder.", "condition_embedder.image_embedder."
    return _same(
        ("patch_embedding.{p}", "patch_embedding.{p}"),
        ("time_embedding.0.{p}", condition + "time_embedder.linear_1.{p}"),
        ("time_embedding.2.{p}", condition + "time_embedder.linear_2.{p}"),
        ("time_projection.1.{p}", condition + "time_proj.{p}"),
        ("text_embedding.0.{p}", condition + "text_embedder.linear_1.{p}"),
        ("text_embedding.2.{p}", condition + "text_embedder.linear_2.{p}"),
        ("img_emb.proj.0.{p}", image + "norm1.{p}"),
        ("img_emb.proj.1.{p}", image + "ff.net.0.proj.{p}"),
        ("img_emb.proj.3.{p}", image + "ff.net.2.{p}"),
        ("img_emb.proj.4.{p}", image + "norm2.{p}"),
        ("blocks.{n}.modulation", "blocks.{n}.scale_shift_table"),
        ("blocks.{n}.self_attn.{qkv}.{p}", "blocks.{n}.attn1.to_{qkv}.{p}"),
        ("blocks.{n}.self_attn.o.{p}", "blocks.{n}.attn1.to_out.0.{p}"),
        ("blocks.{n}.self_attn.norm_{qk}.weight", "blocks.{n}.attn1.norm_{qk}.weight"),
        ("blocks.{n}.norm3.{p}", "blocks.{n}.norm2.{p}"),
        ("blocks.{n}.cross_attn.{qkv}.{p}", "blocks.{n}.attn2.to_{qkv}.{p}"),
        ("blocks.{n}.cross_attn.o.{p}", "blocks.{n}.attn2.to_out.0.{p}"),
        ("blocks.{n}.cross_attn.norm_{qk}.weight", "blocks.{n}.attn2.norm_{qk}.weight"),
        ("blocks.{n}.cross_attn.{kv}_img.{p}", "blocks.{n}.attn2.add_{kv}_proj.{p}"),
        ("blocks.{n}.cross_attn.norm_k_img.weight", "blocks.{n}.attn2.norm_added_k.weight"),
        ("blocks.{n}.ffn.0.{p}", "blocks.{n}.ffn.net.0.proj.{p}"),
        ("blocks.{n}.ffn.2.{p}", "blocks.{n}.ffn.net.2.{p}"),
        ("head.modulation", "scale_shift_table"),
        ("head.head.{p}", "proj_out.{p}"),
        # The coders are DreamZero's own: not in Wan's files, nor in diffusers.
        ("state_encoder.layer{n}.W", "state_encoder.layer{n}.weight"),
        ("state_encoder.layer{n}.b", "state_encoder.layer{n}.bias"),
        ("action_encoder.W{n}.W", "action_encoder.W{n}.weight"),
        ("action_encoder.W{n}.b", "action_encoder.W{n}.bias"),
        ("action_decoder.layer{n}.W", "action_decoder.layer{n}.weight"),
        ("action_decoder.layer{n}.b", "action_decoder.layer{n}.bias"),
    )


def _text() -> tuple[Rule, ...]:
    attention, feed = "encoder.block.{n}.layer.0.", "encoder.block.{n}.layer.1."
    return _same(
        ("token_embedding.weight", "shared.weight"),
        ("blocks.{n}.norm1.weight", attention + "layer_norm.weight"),
        ("blocks.{n}.attn.{qkvo}.weight", attention + "SelfAttention.{qkvo}.weight"),
        (
            "blocks.{n}.pos_embedding.embedding.weight",
            attention + "SelfAttention.relative_attention_bias.weight",
        ),
        ("blocks.{n}.norm2.weight", feed + "layer_norm.weight"),
        ("blocks.{n}.ffn.gate.0.weight", feed + "DenseReluDense.wi_0.weight"),
        ("blocks.{n}.ffn.fc1.weight", feed + "DenseReluDense.wi_1.weight"),
        ("blocks.{n}.ffn.fc2.weight", feed + "DenseReluDense.wo.weight"),
        ("norm.weight", "encoder.final_layer_norm.weight"),
    )


def _image() -> tuple[Rule, ...]:
    theirs, ours = "visual.transformer.{n}.", "encoder.layers.{n}."
    return (
        Rule("visual.cls_embedding", ("embeddings.class_embedding",), unit_axes=2),
        Rule("visual.pos_embedding", ("embeddings.position_embedding.weight",), unit_axes=1),
        Rule(
            theirs + "attn.to_qkv.{p}",
            tuple(ours + f"self_attn.{letter}_proj." + "{p}" for letter in "qkv"),
        ),
        *_same(
            ("visual.patch_embedding.weight", "embeddings.patch_embedding.weight"),
            ("visual.pre_norm.{p}", "pre_layrnorm.{p}"),  # the library's spelling
            (theirs + "norm1.{p}", ours + "layer_norm1.{p}"),
            (theirs + "attn.proj.{p}", ours + "self_attn.out_proj.{p}"),
            (theirs + "norm2.{p}", ours + "layer_norm2.{p}"),
            (theirs + "mlp.0.{p}", ours + "mlp.fc1.{p}"),
            (theirs + "mlp.2.{p}", ours + "mlp.fc2.{p}"),
            ("visual.post_norm.{p}", "post_layernorm.{p}"),
        ),
        # CLIP's contrastive ends: no feature depends on them.
        Rule("visual.head", ("visual.head",), extra=True),
        Rule("log_scale", ("log_scale",), extra=True),
    )


def _video() -> tuple[Rule, ...]:
    residual = (
        (".residual.0.gamma", ".norm1.gamma"),
        (".residual.2.{p}", ".conv1.{p}"),
        (".residual.3.gamma", ".norm2.gamma"),
        (".residual.6.{p}", ".conv2.{p}"),
        (".shortcut.{p}", ".conv_shortcut.{p}"),
    )
    resample = ((".resample.1.{p}", ".resample.1.{p}"), (".time_conv.{p}", ".time_conv.{p}"))

    def block(
        release: str, ours: str, parts: tuple[tuple[str, str], ...], version: str = ""
    ) -> list[Rule]:
        return [Rule(release + r, (ours + o,), version=version) for r, o in parts]

    rules = list(
        _same(("conv1.{p}", "quant_conv.{p}"), ("conv2.{p}", "post_quant_conv.{p}")),
    )
    for side in ("encoder", "decoder"):
        middle, mid = f"{side}.middle", f"{side}.mid_block"
        rules += _same(
            (f"{side}.conv1.{{p}}", f"{side}.conv_in.{{p}}"),
            (f"{middle}.1.norm.gamma", f"{mid}.attentions.0.norm.gamma"),
            (f"{middle}.1.to_qkv.{{p}}", f"{mid}.attentions.0.to_qkv.{{p}}"),
            (f"{middle}.1.proj.{{p}}", f"{mid}.attentions.0.proj.{{p}}"),
            (f"{side}.head.0.gamma", f"{side}.norm_out.gamma"),
            (f"{side}.head.2.{{p}}", f"{side}.conv_out.{{p}}"),
        )
        rules += block(f"{middle}.0", f"{mid}.resnets.0", residual)
        rules += block(f"{middle}.2", f"{mid}.resnets.1", residual)
    # 2.1: both sides are flat lists; the library keeps the encoder's and groups the decoder's
    # into levels of three residual blocks and an upsampler.
    rules += block("encoder.downsamples.{n}", "encoder.down_blocks.{n}", residual + resample)
    for level in range(4):
        flat, up = 4 * level, f"decoder.up_blocks.{level}"
        for i in range(3):
            rules += block(f"decoder.upsamples.{flat + i}", f"{up}.resnets.{i}", residual, "2.1")
        if level < 3:
            rules += block(f"decoder.upsamples.{flat + 3}", f"{up}.upsamplers.0", resample)
    # 2.2: levels on both sides; the encoder's have two residual blocks.
    for side, count in (("down", 2), ("up", 3)):
        coder = {"down": "encoder", "up": "decoder"}[side]
        level_of, ours = (
            f"{coder}.{side}samples.{{n}}.{side}samples",
            f"{coder}.{side}_blocks.{{n}}",
        )
        for i in range(count):
            version = "2.2" if side == "up" else ""
            rules += block(f"{level_of}.{i}", f"{ours}.resnets.{i}", residual, version)
        rules += block(f"{level_of}.{count}", f"{ours}.{side}sampler", resample)
    return tuple(rules)


RULES: dict[str, tuple[Rule, ...]] = {
    "transformer": _transformer(),
    "text_encoder": _text(),
    "image_encoder": _image(),
    "vae": _video(),
}
