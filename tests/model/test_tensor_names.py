"""The table of names, read off in both directions."""

from __future__ import annotations

import pytest

from ernie2.model.tensor_names import TIED, hf_parts, paddle_to_hf, to_hf_name

LAYOUTS = ("Paddle fluid", "Paddle dygraph", "PaddleNLP")


@pytest.mark.parametrize(
    ("layout", "name", "hf", "turned"),
    [
        ("Paddle fluid", "encoder_layer_11_ffn_fc_0.w_0", "encoder.layer.11.intermediate.dense.weight", True),
        ("Paddle fluid", "encoder_layer_0_ffn_fc_1.b_0", "encoder.layer.0.output.dense.bias", False),
        ("Paddle fluid", "pre_encoder_layer_norm_scale", "embeddings.LayerNorm.weight", False),
        ("Paddle fluid", "sent_embedding", "embeddings.token_type_embeddings.weight", False),
        (
            "Paddle dygraph",
            "encoder_stack.block.3.attn.o.weight",
            "encoder.layer.3.attention.output.dense.weight",
            True,
        ),
        ("Paddle dygraph", "mlm_ln.bias", "cls.predictions.transform.LayerNorm.bias", False),
        ("PaddleNLP", "encoder.layers.7.self_attn.k_proj.weight", "encoder.layer.7.attention.self.key.weight", True),
        ("PaddleNLP", "cls.predictions.decoder.weight", "cls.predictions.decoder.weight", False),
    ],
)
def test_a_name_maps_to_hugging_face_name_and_transposition(layout, name, hf, turned):
    assert to_hf_name(layout, name) == (hf, turned)


@pytest.mark.parametrize("name", ["word_embedding_moment1_0", "learning_rate_0", "next_sent_fc.w_0", "encoder_layer_0"])
def test_an_optimisers_variable_is_none_of_the_model(name):
    assert to_hf_name("Paddle fluid", name) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_part_of_the_encoder_and_its_masked_head_has_a_name(layout):
    reached = {to_hf_name(layout, name.replace("{i}", "0"))[0] for name in paddle_to_hf(layout)}
    wanted = {part for parts in hf_parts(1, "masked").values() for part in parts}
    never = {"embeddings.task_type_embeddings.weight"} if layout == "Paddle dygraph" else set()
    assert reached - TIED.keys() == wanted - never


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_two_names_lead_to_one_tensor(layout):
    reached = [hf for hf, _ in paddle_to_hf(layout).values()]
    assert len(reached) == len(set(reached))
