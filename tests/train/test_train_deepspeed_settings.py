"""What of the recipe's [deepspeed] reaches DeepSpeed."""

from llmctl.train.engine import settings_for_deepspeed


def test_further_keys_are_handed_on_beside_ours():
    further = {"comms_logger": {"enabled": True}, "zero_optimization": {"reduce_bucket_size": 1000}, "steps_per_print": 5}
    settings = settings_for_deepspeed(2, True, 4, 2, 1.0, True, further)
    assert settings["comms_logger"] == {"enabled": True}
    assert settings["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 1000, "offload_optimizer": {"device": "cpu"}}
    assert settings["steps_per_print"] == 5
    assert settings["train_micro_batch_size_per_gpu"] == 4
    assert settings_for_deepspeed(0, False, 1, 1, 1.0, False) == settings_for_deepspeed(0, False, 1, 1, 1.0, False, {})
